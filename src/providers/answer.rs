//! Reads an answer of any form, and takes out the one usage event that the client did not ask for.
//!
//! May use: the sibling readers. The form is told by the content type and, where that says too little, by the first
//! byte: an array, a document or events. What a message means is the provider's part, behind [`Wire`].

use bytes::Bytes;

use super::elide::Cut;
use super::json_array::ArraySplitter;
use super::json_doc::DocumentBuffer;
use super::prompt::BYTES_PER_TOKEN;
use super::sse::SseScanner;
use super::told::Told;
use super::{AnswerReader, Reading};
use crate::domain::quantities::Quantities;

/// An event that is longer is not held back and so not taken out: a usage event has about 500 bytes.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1024;

/// What one message of an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Message {
    /// It has a usage object and nothing else for the client.
    pub(super) usage_only: bool,
    /// No message follows it.
    pub(super) last: bool,
}

/// What the messages of one API mean.
pub(super) trait Wire: Send {
    /// Reads one message: the data of an event, an element of an array or a document. `whole`: the answer is one document.
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message;

    /// Whether an answer may have used no token at all.
    fn nothing_is_possible(&self) -> bool;

    /// Whether text in an answer was generated, so that there is none without output tokens.
    fn text_is_output(&self) -> bool;

    /// What an answer is that is neither JSON nor events by its content type.
    fn unread(&self) -> Unread {
        Unread::ByFirstByte
    }

    /// What the request itself says that is charged.
    fn asked_for(&self) -> Quantities {
        Quantities::default()
    }
}

/// What an answer is that is neither JSON nor events by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// One of these all the same: its first byte tells.
    ByFirstByte,
    /// Text for the client. It has no usage, whatever it looks like.
    Text,
    /// A medium, worth one token for so many bytes.
    Media {
        /// How many.
        bytes_per_token: u64,
    },
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Answer<W> {
    wire: W,
    form: Form,
    told: Told,
    complete: bool,
    finished: bool,
    take_out: Option<TakeOut>,
}

#[derive(Debug)]
enum Form {
    /// Blanks alone so far, which count if these are events: a line that begins with one is no data.
    Unknown(SseScanner),
    Sse(SseScanner),
    Array(ArraySplitter),
    Document(DocumentBuffer),
    /// Counted, not read.
    Unread,
}

/// What is held back of the event that has begun, as it may be the one to take out.
#[derive(Debug, Default)]
struct TakeOut {
    held: Vec<u8>,
    /// The event that has begun is too long to be it: it goes through as it comes.
    let_go: bool,
    /// The last piece ended in a CR that ended an event: an LF right after it shares that event's fate.
    cr_of: Option<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    TakenOut,
}

impl<W: Wire> Answer<W> {
    pub(super) fn new(wire: W, content_type: Option<&str>, take_out: bool) -> Self {
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        let form = match wire.unread() {
            _ if essence.eq_ignore_ascii_case("text/event-stream") => Form::Sse(SseScanner::default()),
            Unread::Text | Unread::Media { .. } if !essence.eq_ignore_ascii_case("application/json") => Form::Unread,
            _ => Form::Unknown(SseScanner::default()),
        };
        // What does not call itself events may have a length, which then has to stay true.
        let take_out = (take_out && matches!(form, Form::Sse(_))).then(TakeOut::default);
        Self { wire, form, told: Told::default(), complete: false, finished: false, take_out }
    }

    fn settle_form(&mut self, piece: &[u8]) {
        if let Form::Unknown(blanks) = &mut self.form {
            // 0xEF begins a byte order mark, which only events may have in front.
            let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
            self.form = match first {
                None => return blanks.feed(piece, |_| {}),
                Some(b'{') => Form::Document(DocumentBuffer::default()),
                Some(b'[') => Form::Array(ArraySplitter::default()),
                Some(_) => Form::Sse(std::mem::take(blanks)),
            };
        }
    }

    /// Looks at the next piece; calls `ended` with the end of each event and whether the client is to get it.
    fn read(&mut self, piece: &[u8], mut ended: impl FnMut(usize, Fate)) {
        self.settle_form(piece);
        let Self { wire, form, told, complete, .. } = self;
        let mut read = |message: Option<&[u8]>, cuts: &[Cut], whole: bool| {
            // A call is settled at its terminal event: what follows must not count, whichever packet it came in.
            if *complete {
                return Fate::Passed;
            }
            let Some(message) = message else {
                told.unread = true;
                return Fate::Passed;
            };
            told.output.cut_at(cuts);
            let Message { usage_only, last } = wire.read(message, whole, told);
            *complete |= last;
            if usage_only { Fate::TakenOut } else { Fate::Passed }
        };
        match form {
            Form::Unknown(_) => {}
            Form::Unread => {
                told.unread_bytes = told.unread_bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            }
            Form::Sse(scanner) => scanner.feed(piece, |event| {
                let has_any = event.data.is_some() || event.is_over;
                ended(event.end, if has_any { read(event.data, event.cuts, false) } else { Fate::Passed });
            }),
            Form::Array(splitter) => {
                splitter.feed(piece, |element, cuts| {
                    read(element, cuts, false);
                });
                *complete |= splitter.is_closed();
            }
            Form::Document(buffer) => {
                buffer.feed(piece, |document, cuts| {
                    read(Some(document), cuts, true);
                });
                told.unread |= buffer.is_over();
                *complete |= buffer.is_closed();
            }
        }
    }

    /// Reads what was begun and will not be ended.
    fn finish(&mut self) -> Fate {
        if std::mem::replace(&mut self.finished, true) {
            return Fate::Passed;
        }
        let Self { wire, form, told, complete, .. } = self;
        let mut read = |message: &[u8], cuts: &[Cut], whole: bool| {
            told.output.cut_at(cuts);
            wire.read(message, whole, told)
        };
        let Message { usage_only, last } = match form {
            _ if *complete => Message::default(),
            // What begins behind it takes nothing back: the answer counted as whole by then.
            Form::Sse(scanner) if scanner.pending() == Some(DONE) => Message { usage_only: false, last: true },
            Form::Sse(scanner) => {
                let event = scanner.finish();
                let message = event.data.map(|data| read(data, event.cuts, false)).unwrap_or_default();
                told.unread |= event.is_over;
                message
            }
            Form::Array(splitter) => {
                told.unread |= splitter.is_over();
                Message::default()
            }
            Form::Document(buffer) if !buffer.is_closed() => {
                let (begun, cuts) = buffer.begun();
                read(begun, cuts, true)
            }
            _ => Message::default(),
        };
        *complete |= last;
        if usage_only { Fate::TakenOut } else { Fate::Passed }
    }
}

impl<W: Wire> AnswerReader for Answer<W> {
    fn look(&mut self, decoded: &[u8]) {
        self.read(decoded, |_, _| {});
    }

    fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if chunk.is_empty() {
            return;
        }
        self.settle_form(&chunk);
        match self.take_out.take() {
            Some(mut take_out) if matches!(self.form, Form::Sse(_)) => {
                let mut sieve = Sieve::new(&mut take_out, &chunk, out);
                self.read(&chunk, |end, fate| sieve.event(end, fate));
                sieve.rest();
                self.take_out = Some(take_out);
            }
            take_out => {
                self.take_out = take_out;
                self.read(&chunk, |_, _| {});
                out.push(chunk);
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<Bytes>) {
        let fate = self.finish();
        if let Some(TakeOut { held, .. }) = self.take_out.take()
            && !held.is_empty()
            && fate == Fate::Passed
        {
            out.push(Bytes::from(held));
        }
    }

    fn is_complete(&self) -> bool {
        // The mark counts as soon as its line is whole: clients hang up right after it.
        self.complete || matches!(&self.form, Form::Sse(scanner) if scanner.pending() == Some(DONE))
    }

    fn delivered_tokens(&self) -> u64 {
        self.told.delivered_tokens()
    }

    fn reading(&mut self) -> Reading {
        self.finish();
        let unread_bytes = std::mem::take(&mut self.told.unread_bytes);
        let worth = match self.wire.unread() {
            Unread::ByFirstByte => 0,
            Unread::Text => unread_bytes,
            Unread::Media { bytes_per_token } => (unread_bytes / bytes_per_token).saturating_mul(BYTES_PER_TOKEN),
        };
        self.told.output.bytes = self.told.output.bytes.saturating_add(worth);
        self.told.charged(self.wire.asked_for());
        self.told.reading(self.wire.nothing_is_possible(), self.wire.text_is_output())
    }
}

/// The data of the event that ends an OpenAI stream.
pub(super) const DONE: &[u8] = b"[DONE]";

/// Sorts one chunk into what goes on and what is taken out.
struct Sieve<'a> {
    take_out: &'a mut TakeOut,
    chunk: &'a Bytes,
    out: &'a mut Vec<Bytes>,
    /// Begin of the bytes that go on in one piece.
    run: usize,
    /// End of the last event.
    at: usize,
}

impl<'a> Sieve<'a> {
    fn new(take_out: &'a mut TakeOut, chunk: &'a Bytes, out: &'a mut Vec<Bytes>) -> Self {
        let at = match take_out.cr_of.take() {
            Some(fate) if chunk.first() == Some(&b'\n') => {
                if fate == Fate::Passed {
                    out.push(chunk.slice(..1));
                }
                1
            }
            _ => 0,
        };
        Self { take_out, chunk, out, run: at, at }
    }

    fn event(&mut self, end: usize, fate: Fate) {
        let length = self.take_out.held.len() + (end - self.at);
        let let_go = std::mem::take(&mut self.take_out.let_go) || length > HELD_BYTES_MAX;
        let fate = if let_go { Fate::Passed } else { fate };
        match fate {
            Fate::TakenOut => {
                self.push(self.at);
                self.take_out.held.clear();
                self.run = end;
            }
            Fate::Passed => self.push_held(),
        }
        self.at = end;
        if end == self.chunk.len() && self.chunk.last() == Some(&b'\r') {
            self.take_out.cr_of = Some(fate);
        }
    }

    /// After the last event of the chunk.
    fn rest(&mut self) {
        let rest = self.chunk.len() - self.at;
        if self.take_out.let_go || self.take_out.held.len() + rest > HELD_BYTES_MAX {
            self.push_held();
            self.take_out.let_go = rest > 0 || self.take_out.let_go;
            self.push(self.chunk.len());
        } else {
            self.push(self.at);
            self.take_out.held.extend_from_slice(self.chunk.get(self.at..).unwrap_or_default());
        }
    }

    /// What is held is of the first event in the chunk, so it stands before all that is not pushed.
    fn push_held(&mut self) {
        if !self.take_out.held.is_empty() {
            self.out.push(Bytes::from(std::mem::take(&mut self.take_out.held)));
        }
    }

    fn push(&mut self, end: usize) {
        if self.run < end {
            self.out.push(self.chunk.slice(self.run..end));
        }
        self.run = end;
    }
}
