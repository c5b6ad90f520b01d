//! Reads the fields of a form (`multipart/form-data`) as its bytes pass: which model is asked for, and whether for a stream.
//!
//! May use: `domain`. Files in a form are large, and the model may stand behind them: nothing of a form is kept but a field
//! that is being read, a part's head, and what may be the begin of a delimiter. All are bounded.

use memchr::memmem::{self, Finder};

use crate::domain::refusal::Refusal;

use super::prompt::BYTES_PER_TOKEN;
use super::{Call, Prompt};

/// A boundary is at most this long (RFC 2046, 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// The head of a part names it and its type.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Names of models are much shorter.
const FIELD_BYTES_MAX: usize = 256;

/// What a file in a form is worth in tokens, should the provider not say: compressed speech has about 16 kB a second, and
/// a second is 17 tokens (0.006 dollars a minute at 6 dollars a million, as OpenAI's price list estimates); an image of a
/// megabyte has about 1,000.
const BYTES_PER_FILE_TOKEN: u64 = 1000;

/// The fields that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the content of a part; `None`: of one that does not matter.
    Content(Option<Field>),
    /// Behind a delimiter.
    Head,
    /// Behind the last delimiter.
    End,
}

/// Reads one form.
#[derive(Debug)]
pub struct FormReader {
    delimiter: Finder<'static>,
    state: State,
    held: Vec<u8>,
    model: Option<String>,
    stream: bool,
}

impl FormReader {
    /// A reader for a body of this content type, if that is a form.
    pub fn new(content_type: &str) -> Option<Self> {
        let mut parameters = content_type.split(';').map(str::trim);
        if !parameters.next()?.eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameters.find_map(|parameter| value_of(parameter, "boundary"))?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return None;
        }
        let delimiter = Finder::new(&[b"\r\n--", boundary.as_bytes()].concat()).into_owned();
        // The first delimiter has no line end before it.
        Some(Self { delimiter, state: State::Content(None), held: b"\r\n".to_vec(), model: None, stream: false })
    }

    /// Looks at the next bytes. Refuses a form that two readers could understand in two ways.
    ///
    /// # Errors
    /// The model stands twice, or a head or a field is too long.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.state {
                State::Content(None) => self.skip(rest),
                State::Content(Some(field)) => self.field(field, rest)?,
                State::Head => self.head(rest)?,
                State::End => return Ok(()),
            };
        }
        Ok(())
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
            stream: self.stream,
            body_bytes: bytes,
            has_media: true,
            ..Call::new(self.model.clone().unwrap_or_default(), prompt)
        }
    }

    /// Passes over the content of a part. Gives what stands behind the delimiter that ends it.
    fn skip<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let length = self.delimiter.needle().len();
        let before = self.held.len();
        // A delimiter may have begun in the last piece.
        self.held.extend_from_slice(rest.get(..length - 1).unwrap_or(rest));
        let end = match self.delimiter.find(&self.held) {
            Some(at) => Some(at + length - before),
            None => self.delimiter.find(rest).map(|at| at + length),
        };
        if let Some(end) = end {
            self.held.clear();
            self.state = State::Head;
            return rest.get(end..).unwrap_or_default();
        }
        if let Some(tail) = rest.len().checked_sub(length - 1).and_then(|from| rest.get(from..)) {
            self.held.clear();
            self.held.extend_from_slice(tail);
        } else {
            self.held.drain(..self.held.len().saturating_sub(length - 1));
        }
        &[]
    }

    fn field<'a>(&mut self, field: Field, rest: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let length = self.delimiter.needle().len();
        let before = self.held.len();
        let taken = rest.len().min((FIELD_BYTES_MAX + length).saturating_sub(before));
        self.held.extend_from_slice(rest.get(..taken).unwrap_or_default());
        let Some(at) = self.delimiter.find(&self.held) else {
            let too_long = self.held.len() >= FIELD_BYTES_MAX + length;
            return if too_long { Err(Refusal::BadJson { reason: "a field is too long" }) } else { Ok(&[]) };
        };
        let value = self.held.get(..at).and_then(|value| std::str::from_utf8(value).ok());
        match (field, value) {
            (Field::Model, None) => return Err(Refusal::BadJson { reason: "model is not text" }),
            (Field::Model, Some(_)) if self.model.is_some() => {
                return Err(Refusal::BadJson { reason: "model stands twice" });
            }
            (Field::Model, Some(model)) => self.model = Some(model.to_owned()),
            (Field::Stream, value) => self.stream = value.is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
        self.held.clear();
        self.state = State::Head;
        Ok(rest.get(at + length - before..).unwrap_or_default())
    }

    fn head<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], Refusal> {
        const END: &[u8] = b"\r\n\r\n";
        let before = self.held.len();
        let taken = rest.len().min(HEAD_BYTES_MAX.saturating_sub(before));
        self.held.extend_from_slice(rest.get(..taken).unwrap_or_default());
        if self.held.starts_with(b"--") {
            self.state = State::End;
            return Ok(&[]);
        }
        let Some(at) = memmem::find(&self.held, END) else {
            let too_long = self.held.len() >= HEAD_BYTES_MAX;
            return if too_long { Err(Refusal::BadJson { reason: "a part's head is too long" }) } else { Ok(&[]) };
        };
        let head = self.held.get(..at).unwrap_or_default();
        if names_a_file(head) {
            return Err(Refusal::BadJson { reason: "a form that names a file by its id, which JSON may do" });
        }
        self.state = State::Content(field_of(head));
        self.held.clear();
        Ok(rest.get(at + END.len() - before..).unwrap_or_default())
    }
}

/// The field whose head it is, if it matters.
fn field_of(head: &[u8]) -> Option<Field> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    match disposition.split(';').find_map(|parameter| value_of(parameter.trim(), "name"))? {
        "model" => Some(Field::Model),
        "stream" => Some(Field::Stream),
        _ => None,
    }
}

/// Whether a field names a file that the provider keeps, as `images[0][file_id]`: whose it is nobody would ask. What a file
/// that comes with the form is called says nothing.
fn names_a_file(head: &[u8]) -> bool {
    let is_named = |parameter: &[u8]| memmem::find(&parameter.to_ascii_lowercase(), b"file_id").is_some();
    let of_file = |parameter: &[u8]| parameter.trim_ascii_start().to_ascii_lowercase().starts_with(b"filename");
    head.split(|byte| *byte == b';').any(|parameter| !of_file(parameter) && is_named(parameter))
}

/// The value of a parameter `name=value` or `name="value"`.
fn value_of<'a>(parameter: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = parameter.split_once('=')?;
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    found.trim().eq_ignore_ascii_case(name).then_some(quoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"--b-1\"";

    fn form(parts: &[(&str, &str)]) -> String {
        let mut form = String::new();
        for (head, content) in parts {
            form.push_str(&format!("----b-1\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"));
        }
        form + "----b-1--\r\n"
    }

    fn read(pieces: &[&[u8]]) -> Result<(Option<String>, bool, bool), Refusal> {
        let mut reader = FormReader::new(TYPE).unwrap();
        for piece in pieces {
            reader.feed(piece)?;
        }
        Ok((reader.model.clone(), reader.stream, reader.state == State::End))
    }

    #[test]
    fn fields_are_read_at_every_cut_and_files_are_passed_over() {
        let file = "\r\n--\r\n----b-\r\n----b-\r\nname=\"model\"\r\n\r\n--b-1 no\r\r\n-----b-1";
        let long = "x".repeat(300);
        let body = form(&[
            (r#"name="file"; filename="a;b.wav""#, file),
            (r#"name="prompt""#, &long),
            (r#"name="model""#, "gpt-4o-transcribe"),
            ("name=stream", "true"),
        ]);
        let expected = Ok((Some("gpt-4o-transcribe".to_owned()), true, true));
        for cut in 0..=body.len() {
            let (head, tail) = body.as_bytes().split_at(cut);
            assert_eq!(read(&[head, tail]), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn a_form_without_a_model_has_none_and_one_with_two_is_refused() {
        let body = form(&[(r#"name="file""#, "model"), (r#"filename="model"; name="x""#, "y")]);
        assert_eq!(read(&[body.as_bytes()]), Ok((None, false, true)));
        let model = (r#"name="model""#, "whisper-1");
        let twice = form(&[model, ("Name=model", "whisper-1")]);
        assert_eq!(read(&[twice.as_bytes()]), Err(Refusal::BadJson { reason: "model stands twice" }));
        let long = form(&[("name=model", &"x".repeat(FIELD_BYTES_MAX + 1))]);
        assert_eq!(read(&[long.as_bytes()]), Err(Refusal::BadJson { reason: "a field is too long" }));
        let most = form(&[("name=model", &"x".repeat(FIELD_BYTES_MAX))]);
        assert!(read(&[most.as_bytes()]).is_ok());
        let head = form(&[(&format!("name=\"{}\"", "x".repeat(HEAD_BYTES_MAX)), "")]);
        assert_eq!(read(&[head.as_bytes()]), Err(Refusal::BadJson { reason: "a part's head is too long" }));
    }

    #[test]
    fn a_field_names_no_file_by_its_id() {
        for (head, is_refused) in [
            (r#"name="images[0][file_id]""#, true),
            ("name=file_ids[]", true),
            (r#"filename="a.png"; name="mask[FILE_ID]""#, true),
            (r#"name="image"; filename="file_id.png""#, false),
            (r#"name="image[]"; FileName*=utf-8''file_id.png"#, false),
            (r#"name="file""#, false),
        ] {
            let body = form(&[(r#"name="prompt""#, "file_id"), (head, "file-1")]);
            for size in [1, 40, body.len()] {
                let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
                assert_eq!(read(&pieces).is_err(), is_refused, "{head} in pieces of {size}");
            }
        }
    }

    #[test]
    fn only_a_form_with_a_boundary_is_one() {
        for other in [
            "",
            "application/json",
            "multipart/mixed; boundary=b",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            &format!("multipart/form-data; boundary={}", "b".repeat(71)),
        ] {
            assert!(FormReader::new(other).is_none(), "{other}");
        }
        assert!(FormReader::new("Multipart/Form-Data; charset=utf-8; Boundary=b").is_some());
    }

    #[test]
    fn a_form_without_usage_is_estimated_by_its_length() {
        let reader = FormReader::new(TYPE).unwrap();
        assert_eq!(reader.call(960_000).prompt, Prompt::TextBytes(4 * 960));
        assert_eq!(reader.call(u64::MAX).prompt, Prompt::TextBytes(u64::MAX.div_ceil(1000) * 4));
    }
}
