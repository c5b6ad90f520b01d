//! Server-sent events (WHATWG HTML, 9.2.6) from bytes that come in pieces: gives the data of each event and where it ends.
//!
//! May use: the sibling `elide`. Lines end with LF, CR or CRLF; a byte order mark at the start, comments and the fields `event`, `id`
//! and `retry` are passed over; several `data` lines are one text. Small events that fit in one piece are not copied; of the others the rest of long strings
//! is not kept.

use std::ops::Range;

use memchr::memchr2;

use super::elide::{Bounds, Cut, Kept};

/// An event of whose data more would have to be kept than this is not read (it is still relayed). The largest are those with
/// whole images, which are long strings: the last of a stream of images, and `response.completed`, which repeats the whole
/// answer.
pub(super) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

static BOUNDS: Bounds = Bounds::of(EVENT_BYTES_MAX);

/// A buffer that grew beyond this for one large event is given back after it.
const KEPT_BYTES_MAX: usize = 16 * 1024;

const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];

/// What of a line tells what it is: a byte order mark and `data: `.
const LINE_BEGIN_BYTES: usize = 9;

/// The end of one event.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Its data; `None` when it had none or too much.
    pub(super) data: Option<&'a [u8]>,
    /// Where that was cut.
    pub(super) cuts: &'a [Cut],
    /// It had too much.
    pub(super) is_over: bool,
    /// Index after its last byte, in the piece that it ends in.
    pub(super) end: usize,
}

/// Reads events.
#[derive(Debug)]
pub(super) struct SseScanner {
    /// Of a line that began in an earlier piece, what is too short to tell what it is.
    line: Vec<u8>,
    /// What a line is that began in an earlier piece, once that is known. What is data of it is in `data`.
    begun_line: Option<Begun>,
    /// Data of an event that began in an earlier piece or has several lines.
    data: Kept,
    /// How many lines of data the event has.
    data_lines: usize,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line was seen.
    begun: bool,
}

/// What a line is that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Data,
    Other,
}

impl Default for SseScanner {
    fn default() -> Self {
        let data = Kept::within(&BOUNDS);
        Self { line: Vec::new(), begun_line: None, data, data_lines: 0, after_cr: false, begun: false }
    }
}

/// What a line means, with the place of its value in the line.
enum Line {
    Blank,
    Data(usize),
    Other,
}

impl SseScanner {
    /// Looks at the next piece and calls `see` at the end of each event.
    pub(super) fn feed(&mut self, piece: &[u8], mut see: impl FnMut(Event<'_>)) {
        let mut at = 0;
        if self.after_cr && !piece.is_empty() {
            self.after_cr = false;
            at = usize::from(piece.first() == Some(&b'\n'));
        }
        // The data of the current event, while it is one line of this piece.
        let mut within: Option<Range<usize>> = None;
        while let Some(length) = piece.get(at..).and_then(|rest| memchr2(b'\n', b'\r', rest)) {
            let line = at..at + length;
            at = self.after_line_end(piece, line.end);
            if let Some(event) = self.end_line(piece, line, &mut within, at) {
                see(event);
                self.end_event();
            }
        }
        if let Some(range) = within {
            self.data.push(piece.get(range).unwrap_or_default());
        }
        self.keep_line(piece.get(at..).unwrap_or_default());
    }

    /// Data of an event that has begun but not ended, as if it ended here. Only sensible after the last piece.
    pub(super) fn finish(&mut self) -> Event<'_> {
        self.end_begun_line();
        self.event(0)
    }

    /// Data of the event that has begun, if its lines are whole.
    pub(super) fn pending(&self) -> Option<&[u8]> {
        self.event(0).data.filter(|_| self.begun_line != Some(Begun::Data))
    }

    /// The event by what is kept of it.
    fn event(&self, end: usize) -> Event<'_> {
        let is_over = self.data.is_over();
        let has_data = self.data_lines > 0 && !is_over;
        Event { data: has_data.then_some(self.data.bytes()), cuts: self.data.cuts(), is_over, end }
    }

    /// The index after the line end at `at`; remembers a CR whose LF may still come.
    fn after_line_end(&mut self, piece: &[u8], at: usize) -> usize {
        if piece.get(at) != Some(&b'\r') {
            return at + 1;
        }
        match piece.get(at + 1) {
            Some(b'\n') => at + 2,
            Some(_) => at + 1,
            None => {
                self.after_cr = true;
                at + 1
            }
        }
    }

    /// Takes one whole line. Gives the event when the line ends one.
    fn end_line<'a>(
        &'a mut self,
        piece: &'a [u8],
        line: Range<usize>,
        within: &mut Option<Range<usize>>,
        end: usize,
    ) -> Option<Event<'a>> {
        let here = piece.get(line.clone()).unwrap_or_default();
        if self.line.is_empty() && self.begun_line.is_none() {
            match self.classify(here) {
                Line::Other => None,
                Line::Data(value) if self.data_lines == 0 => {
                    self.data_lines = 1;
                    *within = Some(line.start + value..line.end);
                    None
                }
                Line::Data(value) => {
                    if let Some(range) = within.take() {
                        self.data.push(piece.get(range).unwrap_or_default());
                    }
                    self.add(here.get(value..).unwrap_or_default());
                    None
                }
                Line::Blank => {
                    if let Some(whole) = within.take().and_then(|range| piece.get(range)) {
                        if BOUNDS.keep_whole(whole.len()) {
                            return Some(Event { data: Some(whole), cuts: &[], is_over: false, end });
                        }
                        self.data.push(whole);
                    }
                    Some(self.event(end))
                }
            }
        } else {
            self.keep_line(here);
            self.end_begun_line();
            None
        }
    }

    /// The line is whole that began in an earlier piece.
    fn end_begun_line(&mut self) {
        if self.begun_line.take().is_some() || self.line.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.line);
        if let Line::Data(value) = self.classify(&line) {
            self.add(line.get(value..).unwrap_or_default());
        }
        self.line = line;
        self.line.clear();
    }

    fn classify(&mut self, line: &[u8]) -> Line {
        let mark = if self.begun { 0 } else { line.strip_prefix(BYTE_ORDER_MARK).map_or(0, |_| BYTE_ORDER_MARK.len()) };
        self.begun = true;
        let Some(line) = line.get(mark..).filter(|line| !line.is_empty()) else { return Line::Blank };
        match line.strip_prefix(b"data") {
            Some([b':', b' ', ..]) => Line::Data(mark + 6),
            Some([b':', ..]) => Line::Data(mark + 5),
            Some([]) => Line::Data(mark + 4),
            _ => Line::Other,
        }
    }

    /// One more line of data.
    fn add(&mut self, value: &[u8]) {
        if self.data_lines > 0 {
            self.data.push(b"\n");
        }
        self.data_lines += 1;
        self.data.push(value);
    }

    /// Keeps what there is of a line that goes on in the next piece: data alone, once it is known what it is.
    fn keep_line(&mut self, bytes: &[u8]) {
        match self.begun_line {
            Some(Begun::Data) => self.data.push(bytes),
            Some(Begun::Other) => {}
            None => {
                let wanted = LINE_BEGIN_BYTES - self.line.len();
                self.line.extend_from_slice(bytes.get(..wanted).unwrap_or(bytes));
                if self.line.len() < LINE_BEGIN_BYTES {
                    return;
                }
                let begin = std::mem::take(&mut self.line);
                self.begun_line = Some(match self.classify(&begin) {
                    Line::Data(value) => {
                        self.add(begin.get(value..).unwrap_or_default());
                        self.data.push(bytes.get(wanted..).unwrap_or_default());
                        Begun::Data
                    }
                    Line::Blank | Line::Other => Begun::Other,
                });
                self.line = begin;
                self.line.clear();
            }
        }
    }

    fn end_event(&mut self) {
        self.data.clear(KEPT_BYTES_MAX);
        self.data_lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event (`-` for none), and of the one that was begun.
    fn events(pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let (mut scanner, mut seen) = (SseScanner::default(), Vec::new());
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        for piece in pieces {
            scanner.feed(piece, |event| {
                assert!(event.end > 0 && event.end <= piece.len());
                if let Some(data) = event.data {
                    seen.push(text(data));
                }
            });
        }
        (seen, scanner.finish().data.map(text))
    }

    #[test]
    fn events_are_those_of_the_standard_at_every_cut() {
        let check = |stream: &str, expected: &[&str], begun: Option<&str>| {
            for ending in ["\n", "\r\n", "\r"] {
                let stream = stream.replace('\n', ending);
                for cut in 0..=stream.len() {
                    let (head, tail) = stream.as_bytes().split_at(cut);
                    let (seen, rest) = events(&[head, tail]);
                    assert_eq!(
                        (seen, rest.as_deref()),
                        (expected.iter().map(|e| (*e).to_owned()).collect(), begun),
                        "{stream:?} at {cut}"
                    );
                }
            }
        };
        check("data: a\n\ndata:b\n\ndata:  c\n\n", &["a", "b", " c"], None);
        check("\u{feff}data: a\n\n", &["a"], None);
        check("\u{feff}\ndata: a\n\n\u{feff}data: b\n\n", &["a"], None);
        check("data: a\ndata: b\ndata\ndata:\n\n", &["a\nb\n\n"], None);
        check(": c\nevent: x\nid: 1\nretry: 5\ndata: a\nevent: y\n\n", &["a"], None);
        check("\n\n\nevent: x\n\ndatas: no\nData: no\n data: no\n\ndata: a\n\n\n", &["a"], None);
        check("data: a\n\ndata: b", &["a"], Some("b"));
        check("data: a\n\ndata: b\ndata: c\n", &["a"], Some("b\nc"));
        check("data: a\n\n: comment", &["a"], None);
    }

    #[test]
    fn an_event_over_the_bound_is_passed_over_and_the_next_is_read() {
        let most = "x".repeat(EVENT_BYTES_MAX);
        for (value, is_read) in
            [(most.clone(), true), (most.clone() + "x", false), (format!("{most}\ndata: yyyyyyyy"), false)]
        {
            let stream = format!("data: {value}\n\ndata: next\n\n");
            for size in [stream.len(), 1_000_003] {
                let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
                let (seen, rest) = events(&pieces);
                assert_eq!(
                    (seen.len(), seen.last().map(String::as_str), rest),
                    (1 + usize::from(is_read), Some("next"), None)
                );
            }
        }
        let line = format!("{}\n\ndata: next\n\n", "d".repeat(3 * EVENT_BYTES_MAX));
        let pieces: Vec<&[u8]> = line.as_bytes().chunks(100_003).collect();
        assert_eq!(events(&pieces).0, ["next"]);
    }

    #[test]
    fn an_event_with_a_long_string_is_read_without_its_rest() {
        let stream = format!(
            "data: {{\"b64_json\":\"{}\",\ndata: \"usage\":7}}\n\ndata: next\n\n",
            "A".repeat(20 * 1024 * 1024)
        );
        let whole = events(&[stream.as_bytes()]);
        for size in [65_537, 1_000_003] {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            assert_eq!(events(&pieces), whole, "{size}");
        }
        assert!(whole.0[0].ends_with("A\",\n\"usage\":7}") && whole.0[0].len() < 128 * 1024);
        assert_eq!((whole.0.len(), whole.0[1].as_str()), (2, "next"));
    }
}
