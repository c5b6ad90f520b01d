//! Server-sent events (WHATWG HTML, 9.2.6) from bytes that come in pieces: gives the data of each event and where it ends.
//!
//! May use: nothing. Lines end with LF, CR or CRLF; a byte order mark at the start, comments and the fields `event`, `id`
//! and `retry` are passed over; several `data` lines are one text. Events that fit in one piece are not copied.

use std::ops::Range;

use memchr::memchr2;

/// An event with more bytes of data than this is not read (it is still relayed). The largest that can hold usage are those
/// with whole images: the last of a stream of images, and `response.completed`, which repeats the whole answer.
pub(super) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A buffer that grew beyond this for one large event is given back after it.
const KEPT_BYTES_MAX: usize = 16 * 1024;

const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];

/// The end of one event.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Its data; `None` when it had none or too much.
    pub(super) data: Option<&'a [u8]>,
    /// Index after its last byte, in the piece that it ends in.
    pub(super) end: usize,
}

/// Reads events.
#[derive(Debug, Default)]
pub(super) struct SseScanner {
    /// A line that began in an earlier piece.
    line: Vec<u8>,
    /// Data of an event that began in an earlier piece or has several lines.
    data: Vec<u8>,
    /// How many lines of data the event has.
    data_lines: usize,
    /// The event is too large to read.
    too_large: bool,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line was seen.
    begun: bool,
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
            self.keep(piece.get(range).unwrap_or_default());
        }
        self.keep_line(piece.get(at..).unwrap_or_default());
    }

    /// Data of an event that has begun but not ended, as if it ended here. Only sensible after the last piece.
    pub(super) fn finish(&mut self) -> Option<&[u8]> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty()
            && let Line::Data(value) = self.classify(&line)
        {
            self.add(line.get(value..).unwrap_or_default());
        }
        self.pending()
    }

    /// Data of the event that has begun, from its whole lines.
    pub(super) fn pending(&self) -> Option<&[u8]> {
        (self.data_lines > 0 && !self.too_large).then_some(self.data.as_slice())
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
        if self.line.is_empty() {
            self.too_large |= here.len() > EVENT_BYTES_MAX;
            match self.classify(here) {
                Line::Other => None,
                Line::Data(value) if self.data_lines == 0 => {
                    self.data_lines = 1;
                    *within = Some(line.start + value..line.end);
                    None
                }
                Line::Data(value) => {
                    if let Some(range) = within.take() {
                        self.keep(piece.get(range).unwrap_or_default());
                    }
                    self.add(here.get(value..).unwrap_or_default());
                    None
                }
                Line::Blank => {
                    let whole = within.take().and_then(|range| piece.get(range));
                    let has_data = self.data_lines > 0 && !self.too_large;
                    Some(Event { data: has_data.then(|| whole.unwrap_or(&self.data)), end })
                }
            }
        } else {
            self.keep_line(here);
            let begun = std::mem::take(&mut self.line);
            if let Line::Data(value) = self.classify(&begun) {
                self.add(begun.get(value..).unwrap_or_default());
            }
            self.line = begun;
            self.line.clear();
            None
        }
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
            self.keep(b"\n");
        }
        self.data_lines += 1;
        self.keep(value);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.too_large |= self.data.len() + bytes.len() > EVENT_BYTES_MAX;
        if self.too_large {
            self.data = Vec::new();
        } else {
            self.data.extend_from_slice(bytes);
        }
    }

    /// Keeps the begin of a line. One that is too long goes on as a comment: all that counts is that it is not blank.
    fn keep_line(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() <= EVENT_BYTES_MAX {
            self.line.extend_from_slice(bytes);
        } else {
            self.too_large = true;
            self.line.clear();
            self.line.push(b':');
        }
    }

    fn end_event(&mut self) {
        self.data.clear();
        self.data_lines = 0;
        self.too_large = false;
        for buffer in [&mut self.data, &mut self.line] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
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
        (seen, scanner.finish().map(text))
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
        let most = "x".repeat(EVENT_BYTES_MAX - "data: ".len());
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
}
