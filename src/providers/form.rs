//! Reads the fields of a form (`multipart/form-data`) as its bytes pass: which model is asked for, and whether for a stream.
//!
//! May use: `domain`. Files in a form are large, and the model may stand behind them: nothing of a form is kept but a field
//! that is being read, a part's head, and what may be the begin of a delimiter. All are bounded.
//!
//! A form goes on as it came, and whoever reads it there may be more patient than this reader: with line ends, with what stands
//! before, between and behind the parts, with names. So what another could read in another way is refused.

mod head;

use memchr::memmem::{self, Finder};

use crate::domain::refusal::Refusal;

use super::prompt::BYTES_PER_TOKEN;
use super::{Call, Prompt};

use head::{Head, Reason};

/// The head of a part names it and its type.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Names of models are much shorter.
const FIELD_BYTES_MAX: usize = 256;

/// What a file in a form is worth in tokens, should the provider not say: compressed speech has about 16 kB a second, and
/// a second is 17 tokens (0.006 dollars a minute at 6 dollars a million, as OpenAI's price list estimates); an image of a
/// megabyte has about 1,000.
const BYTES_PER_FILE_TOKEN: u64 = 1000;

const LINE_END: &[u8] = b"\r\n";

/// Where a boundary may not stand.
const INSIDE: Reason = "its boundary stands inside of a part";

/// The fields that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Begin,
    /// In the content of a part.
    Content(Head),
    /// Behind a boundary: another part, or the end.
    Boundary,
    /// Behind a delimiter.
    Head,
    /// Behind the last delimiter.
    End,
}

/// Reads one form.
#[derive(Debug)]
pub struct FormReader {
    /// `--` and the boundary; or why there is none.
    boundary: Result<Finder<'static>, Reason>,
    state: State,
    /// The last bytes, or all of a head or of a field that matters.
    held: Vec<u8>,
    /// How many bytes of this content passed.
    passed: u64,
    model: Option<String>,
    stream: Option<bool>,
}

impl FormReader {
    /// A reader for a body of this content type, if that is a form's. One whose boundary cannot be read in one way is refused with
    /// its first bytes.
    pub fn new(content_type: &str) -> Option<Self> {
        let boundary = head::boundary(content_type)?;
        let boundary = boundary.map(|boundary| Finder::new(&[b"--", boundary].concat()).into_owned());
        // The first delimiter has no line end before it.
        let (held, passed) = (LINE_END.to_vec(), count(LINE_END));
        Some(Self { boundary, state: State::Begin, held, passed, model: None, stream: None })
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// Two readers could understand it in two ways, or a head or a field is too long.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let mut rest = piece;
        while !rest.is_empty() {
            let read = match self.state {
                State::Begin | State::Content(Head { field: None, .. }) => self.skip(rest),
                State::Content(Head { field: Some(field), .. }) => self.field(field, rest),
                State::Boundary => self.boundary(rest),
                State::Head => self.head(rest),
                State::End if rest.iter().all(|byte| LINE_END.contains(byte)) => Ok(rest.len()),
                State::End => Err("something stands behind its end"),
            };
            let read = read.map_err(|reason| Refusal::BadForm { reason })?;
            rest = rest.get(read..).unwrap_or_default();
        }
        Ok(())
    }

    /// To be asked when all bytes were fed.
    ///
    /// # Errors
    /// The form is not over: some readers would take what they have.
    pub fn finish(&self) -> Result<(), Refusal> {
        match &self.boundary {
            Err(reason) => Err(Refusal::BadForm { reason }),
            Ok(_) if self.state != State::End => Err(Refusal::BadForm { reason: "its end is missing" }),
            Ok(_) => Ok(()),
        }
    }

    /// Whether nothing that matters is still to be awaited.
    pub fn is_known(&self) -> bool {
        self.model.is_some() || self.state == State::End
    }

    /// The model, if it was met.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// What is known of a request that is a form of so many bytes.
    pub fn call(&self, bytes: u64) -> Call {
        let prompt = Prompt::TextBytes(bytes.div_ceil(BYTES_PER_FILE_TOKEN).saturating_mul(BYTES_PER_TOKEN));
        Call {
            stream: self.stream == Some(true),
            body_bytes: bytes,
            has_media: true,
            ..Call::new(self.model.clone().unwrap_or_default(), prompt)
        }
    }

    /// Passes over the content of a part, up to behind the boundary that ends it. Like all of these, it says how many bytes it has
    /// read.
    fn skip(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let boundary = self.boundary.as_ref().map_err(|reason| *reason)?;
        let (length, before) = (boundary.needle().len(), self.held.len());
        // A boundary may have begun in the last piece.
        self.held.extend_from_slice(rest.get(..length - 1).unwrap_or(rest));
        let found = match boundary.find(&self.held) {
            Some(at) => Some((at + length - before, self.held.get(..at))),
            None => boundary.find(rest).map(|at| {
                let line_end = at.checked_sub(LINE_END.len()).and_then(|from| rest.get(from..at));
                (at + length, line_end.or_else(|| self.held.get(..before + at)))
            }),
        };
        if let Some((end, content)) = found {
            let has_line_end = content.is_some_and(|content| content.ends_with(LINE_END));
            let passed = self.passed.saturating_add(count(rest.get(..end).unwrap_or_default()));
            self.end_content(passed, has_line_end)?;
            return Ok(end);
        }
        self.passed = self.passed.saturating_add(count(rest));
        if self.state == State::Begin && self.passed > count(LINE_END) * 2 + count(boundary.needle()) {
            return Err("it does not begin with its boundary");
        }
        // As much as may be a line end and the begin of a boundary.
        let kept = LINE_END.len() + length - 1;
        self.held.truncate(before);
        self.held.extend_from_slice(rest.get(rest.len().saturating_sub(kept)..).unwrap_or_default());
        self.held.drain(..self.held.len().saturating_sub(kept));
        Ok(rest.len())
    }

    /// Reads the content of a part that matters.
    fn field(&mut self, field: Field, rest: &[u8]) -> Result<usize, Reason> {
        let boundary = self.boundary.as_ref().map_err(|reason| *reason)?;
        let (length, before) = (boundary.needle().len(), self.held.len());
        let max = FIELD_BYTES_MAX + LINE_END.len() + length;
        let taken = rest.get(..max.saturating_sub(before)).unwrap_or(rest);
        self.held.extend_from_slice(taken);
        let Some(at) = boundary.find(&self.held) else {
            return if self.held.len() >= max { Err("a field is too long") } else { Ok(taken.len()) };
        };
        let content = self.held.get(..at).unwrap_or_default();
        let value = content.strip_suffix(LINE_END).ok_or(INSIDE)?;
        let is_again = match field {
            Field::Model => {
                // No reader trims, decodes or cuts off any of these.
                let is_name = value.iter().all(u8::is_ascii_graphic);
                let name = std::str::from_utf8(value).ok().filter(|_| is_name).ok_or("model is no name")?;
                self.model.replace(name.to_owned()).is_some()
            }
            Field::Stream => self.stream.replace(value.eq_ignore_ascii_case(b"true")).is_some(),
        };
        if is_again {
            return Err(if field == Field::Model { "model stands twice" } else { "stream stands twice" });
        }
        let passed = count(self.held.get(..at + length).unwrap_or_default());
        self.end_content(passed, true)?;
        Ok(at + length - before)
    }

    /// A content and the boundary behind it have so many bytes.
    fn end_content(&mut self, passed: u64, has_line_end: bool) -> Result<(), Reason> {
        if !has_line_end {
            return Err(INSIDE);
        }
        let boundary = self.boundary.as_ref().map_err(|reason| *reason)?;
        let length = passed.saturating_sub(count(boundary.needle())).saturating_sub(count(LINE_END));
        match self.state {
            // An empty line before it hurts nobody.
            State::Begin if length > count(LINE_END) => return Err("it does not begin with its boundary"),
            State::Content(Head { length: Some(claimed), .. }) if claimed != length => {
                return Err("a part is not as long as it says");
            }
            _ => {}
        }
        self.held.clear();
        self.state = State::Boundary;
        Ok(())
    }

    fn boundary(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let taken = rest.get(..LINE_END.len() - self.held.len()).unwrap_or(rest);
        self.held.extend_from_slice(taken);
        self.state = match self.held.as_slice() {
            LINE_END => State::Head,
            b"--" => State::End,
            [_] => return Ok(taken.len()),
            _ => return Err("a boundary goes on"),
        };
        self.held.clear();
        Ok(taken.len())
    }

    fn head(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        const END: &[u8] = b"\r\n\r\n";
        let boundary = self.boundary.as_ref().map_err(|reason| *reason)?;
        let before = self.held.len();
        let taken = rest.get(..HEAD_BYTES_MAX.saturating_sub(before)).unwrap_or(rest);
        self.held.extend_from_slice(taken);
        let Some(at) = memmem::find(&self.held, END) else {
            return if self.held.len() >= HEAD_BYTES_MAX { Err("a part's head is too long") } else { Ok(taken.len()) };
        };
        let head = self.held.get(..at).unwrap_or_default();
        if boundary.find(head).is_some() {
            return Err(INSIDE);
        }
        self.state = State::Content(head::read(head)?);
        self.held.clear();
        self.passed = 0;
        Ok(at + END.len() - before)
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
