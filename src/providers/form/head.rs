//! What stands around the contents of a form: its `Content-Type`, and the heads of its parts.
//!
//! May use: nothing. Taken is what clients write and every reader reads in one way: quotes are the one way to write what is no
//! token, nothing that decides stands twice, nothing is folded or encoded. All else has a reason to be refused, in our words.

use memchr::memmem;

use super::Field;

/// Why a form is refused.
pub(super) type Reason = &'static str;

/// A boundary is at most this long (RFC 2046, 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// What may stand in a boundary beside letters and digits (RFC 2046, 5.1.1); a blank not first or last.
const IN_BOUNDARIES: &[u8] = b"'()+_,-./:=? ";

/// What may stand in a field's name beside letters and digits. The fields of the APIs need no more, and in names of these no
/// reader finds an escape, an encoding or another parameter.
const IN_NAMES: &[u8] = b"_-.[]";

const NO_NAME: Reason = "a head has a folded line, or one without a name";
const BAD_PARAMETER: Reason = "a head has a parameter that is not name=token or name=\"text\"";

/// What a part's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The field, if it matters.
    pub(super) field: Option<Field>,
    /// How long its content claims to be.
    pub(super) length: Option<u64>,
}

/// The boundary that a content type names; `None` if it is none of a form.
pub(super) fn boundary(content_type: &str) -> Option<Result<&[u8], Reason>> {
    let (kind, parameters) = content_type.split_at(content_type.find(';').unwrap_or(content_type.len()));
    let kind = kind.trim();
    if !starts_with(kind.as_bytes(), b"multipart/") {
        return None;
    }
    if !kind.eq_ignore_ascii_case("multipart/form-data") {
        return Some(Err("it is not multipart/form-data"));
    }
    Some(boundary_of(parameters.as_bytes()))
}

fn boundary_of(text: &[u8]) -> Result<&[u8], Reason> {
    let mut boundary = None;
    parameters(text, |name, value| {
        if !name.eq_ignore_ascii_case(b"boundary") {
            // In quotes there could stand what looks like the boundary.
            return if value.iter().all(|byte| is_token(*byte)) && !name.contains(&b'*') {
                Ok(())
            } else {
                Err(BAD_PARAMETER)
            };
        }
        let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || IN_BOUNDARIES.contains(byte);
        let is_bare = value.first() == Some(&b' ') || value.last() == Some(&b' ');
        if value.is_empty() || value.len() > BOUNDARY_BYTES_MAX || !value.iter().all(is_legal) || is_bare {
            return Err("its boundary is not 1 to 70 letters, digits or '()+_,-./:=? of RFC 2046");
        }
        if boundary.replace(value).is_some() { Err("its Content-Type has two boundaries") } else { Ok(()) }
    })?;
    boundary.ok_or("its Content-Type has no boundary")
}

/// Reads the head of a part, without the empty line that ends it.
pub(super) fn read(head: &[u8]) -> Result<Head, Reason> {
    let (mut disposition, mut length, mut kind, mut coding) = (None, None, None, None);
    for line in lines(head) {
        let colon = memchr::memchr(b':', line).ok_or(NO_NAME)?;
        let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(NO_NAME);
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("a head has a control character or a line that does not end in CRLF");
        }
        let place = match name.to_ascii_lowercase().as_slice() {
            b"content-disposition" => &mut disposition,
            b"content-length" => &mut length,
            b"content-type" => &mut kind,
            b"content-transfer-encoding" => &mut coding,
            b"content-encoding" => return Err("a part is encoded"),
            _ => continue,
        };
        if place.replace(value.trim_ascii()).is_some() {
            return Err("a head says the same twice");
        }
    }
    if coding.is_some_and(|coding| {
        ![&b"7bit"[..], b"8bit", b"binary"].iter().any(|plain| coding.eq_ignore_ascii_case(plain))
    }) {
        return Err("a part is encoded");
    }
    if kind.is_some_and(|kind| starts_with(kind, b"multipart/") || starts_with(kind, b"message/")) {
        return Err("a part has parts of its own");
    }
    let length = length.map(|digits| number(digits).ok_or("a part's length is no number")).transpose()?;
    Ok(Head { field: field(disposition.ok_or("a part has no Content-Disposition")?)?, length })
}

/// The field that a disposition names, if it matters.
fn field(disposition: &[u8]) -> Result<Option<Field>, Reason> {
    const KIND: &[u8] = b"form-data";
    if !starts_with(disposition, KIND) {
        return Err("a part is not form-data");
    }
    let (mut field, mut is_file, mut is_file_encoded, mut has_escapes) = (None, false, false, false);
    parameters(disposition.get(KIND.len()..).unwrap_or_default(), |name, value| {
        let is_again = match name.to_ascii_lowercase().as_slice() {
            // Whether a quote behind a backslash ends the text is a matter of taste: the name does not depend on it.
            b"name" if has_escapes => return Err("a name stands behind a backslash"),
            b"name" => field.replace(named(value)?).is_some(),
            b"filename" => std::mem::replace(&mut is_file, true),
            b"filename*" => std::mem::replace(&mut is_file_encoded, true),
            other if other.contains(&b'*') => return Err("a name is encoded"),
            _ => false,
        };
        has_escapes |= value.contains(&b'\\');
        if is_again {
            return Err("a head says the same twice");
        }
        if seems_to_name(value) { Err("a text looks like the name of a field") } else { Ok(()) }
    })?;
    let field = field.ok_or("a part has no name")?;
    if field.is_some() && (is_file || is_file_encoded) {
        return Err("model or stream is a file");
    }
    Ok(field)
}

/// The field of a name, if it matters.
fn named(name: &[u8]) -> Result<Option<Field>, Reason> {
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || IN_NAMES.contains(byte)) {
        return Err("a field's name has other characters than letters, digits and _-.[]");
    }
    if memmem::find(&name.to_ascii_lowercase(), b"file_id").is_some() {
        // As `images[0][file_id]`: whose it is nobody would ask.
        return Err("a form that names a file by its id, which JSON may do");
    }
    match name {
        b"model" => return Ok(Some(Field::Model)),
        b"stream" => return Ok(Some(Field::Stream)),
        _ => {}
    }
    // Some readers take names without regard to case, and `a[]` or `a[0]` for `a`.
    let stem = name.split(|byte| *byte == b'[').next().unwrap_or_default();
    let is_like = [&b"model"[..], b"stream"].iter().any(|known| stem.eq_ignore_ascii_case(known));
    if is_like { Err("a field is named almost like model or stream") } else { Ok(None) }
}

/// Whether a reader that knows nothing of quotes, or ends them where others do not, would find a name in this text.
fn seems_to_name(text: &[u8]) -> bool {
    text.split(|byte| *byte == b';').skip(1).any(|rest| starts_with(rest.trim_ascii_start(), b"name"))
}

/// Shows `each` the names and values of `; name=token; name="text"`, escapes as they are written.
fn parameters<'a>(
    text: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let mut rest = text.trim_ascii_start();
    while let Some(parameter) = rest.strip_prefix(b";") {
        let parameter = parameter.trim_ascii_start();
        if parameter.is_empty() {
            return Ok(());
        }
        let equals = length_of_token(parameter);
        let (name, value) = (parameter.get(..equals).unwrap_or_default(), parameter.get(equals..).unwrap_or_default());
        let value = value.strip_prefix(b"=").filter(|_| !name.is_empty()).ok_or(BAD_PARAMETER)?;
        let (value, behind) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = end_of_quoted(quoted).ok_or(BAD_PARAMETER)?;
                (quoted.get(..end).unwrap_or_default(), quoted.get(end + 1..).unwrap_or_default())
            }
            None => value
                .split_at_checked(length_of_token(value))
                .filter(|(value, _)| !value.is_empty())
                .ok_or(BAD_PARAMETER)?,
        };
        each(name, value)?;
        rest = behind.trim_ascii_start();
    }
    if rest.is_empty() { Ok(()) } else { Err(BAD_PARAMETER) }
}

/// Where the quote stands that ends a text.
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    text.iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    })
}

fn length_of_token(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_token(*byte)).unwrap_or(text.len())
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The lines of a head, which end in CRLF but for the last.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let end = memchr::memmem::find(text, b"\r\n");
        rest = end.and_then(|end| text.get(end + 2..));
        text.get(..end.unwrap_or(text.len()))
    })
}
