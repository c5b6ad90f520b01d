//! Paths of a provider's API that may go upstream.
//!
//! May use: nothing. A path is joined to the provider's origin as it stands, so whatever a server may read as another
//! path (empty and dot segments, backslashes, encoded slashes and dots) is refused here, once for all routes.

use std::borrow::Cow;

/// No path of a provider comes near this.
const PATH_BYTES_MAX: usize = 2048;

/// Whether `path` means the same to everybody: ASCII segments, none of them empty or of dots, no parameters of segments, and
/// no percent-encoding that hides a separator, a dot, a control character or another percent sign.
pub fn is_plain(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX
        && path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|segment| is_plain_segment(segment.as_bytes())))
        // What is encoded is UTF-8: nobody's decoder finds a dot in too long a form of one.
        && decoded(path).is_some_and(|path| path.split('/').all(is_plain_text) && !path.contains(FOLDS_TO_ASCII))
}

/// What stands for a letter of ASCII once small and capital letters are the same: the long s and the Kelvin sign (Unicode's
/// `CaseFolding.txt`).
const FOLDS_TO_ASCII: [char; 2] = ['\u{17f}', '\u{212a}'];

/// Whether a segment begins and ends with what no server leaves out: space at either end or dots at the last may be cut off.
fn is_plain_text(segment: &str) -> bool {
    segment.trim() == segment && !segment.ends_with('.')
}

fn is_plain_segment(mut segment: &[u8]) -> bool {
    if segment.is_empty() {
        return false;
    }
    loop {
        segment = match segment {
            [] => return true,
            [b'%', high, low, rest @ ..] if hex(*high, *low).is_some_and(may_be_encoded) => rest,
            [byte, rest @ ..] if is_plain_byte(*byte) => rest,
            _ => return false,
        };
    }
}

/// Names may hold UTF-8 and a few reserved characters in percent-encoding; what separates or controls may not hide in it.
fn may_be_encoded(byte: u8) -> bool {
    (is_plain_byte(byte) && byte != b'.') || byte >= 0x80 || b" \"<>[]|".contains(&byte)
}

/// RFC 3986 `pchar` without the percent sign, and without the semicolon: what is behind one, some servers leave out.
fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// The percent-decoded segment; `None` when it is not text.
pub(super) fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, rest @ ..] => {
                bytes.push(hex(*high, *low)?);
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The path with letters, digits, `-`, `_` and `~` as themselves that are in percent-encoding: another spelling of the same
/// path for every server (RFC 3986, 6.2.2.2).
pub(super) fn with_plain_letters(path: &str) -> Cow<'_, str> {
    let Some((before, rest)) = path.split_once('%') else { return Cow::Borrowed(path) };
    let mut out = before.to_owned();
    for piece in rest.split('%') {
        let letter = match piece.as_bytes() {
            [high, low, ..] => hex(*high, *low).filter(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(byte)),
            _ => None,
        };
        match letter {
            Some(letter) => {
                out.push(char::from(letter));
                out.push_str(piece.get(2..).unwrap_or_default());
            }
            None => {
                out.push('%');
                out.push_str(piece);
            }
        }
    }
    Cow::Owned(out)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4) | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_themselves_and_nothing_else_is_decoded() {
        for (path, plain) in [
            ("/v1/threads/runs", "/v1/threads/runs"),
            ("/v1/threads/%72un%73", "/v1/threads/runs"),
            ("/%761/a%2Db%5fc%7E", "/v1/a-b_c~"),
            ("/v1/%C3%A9%2f%3a%2e%25%72", "/v1/%C3%A9%2f%3a%2e%25r"),
            ("/v1/%7", "/v1/%7"),
            ("/v1/%é%", "/v1/%é%"),
        ] {
            assert_eq!(with_plain_letters(path), plain, "{path}");
        }
    }

    #[test]
    fn only_paths_that_mean_one_thing_are_plain() {
        for plain in [
            "/v1/models/ft:gpt-4o:org::id",
            "/v1/files/file-1/content",
            "/v1/m@1",
            "/v1/caf%C3%A9",
            "/v1/a.b",
            "/v1/a%20b",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for odd in [
            "",
            "v1",
            "/",
            "/v1//models",
            "/v1/models/",
            "/v1/../x",
            "/v1/./x",
            "/v1/.../x",
            "/v1/%2e%2e/x",
            "/v1/%2E/x",
            "/v1/a%2fb",
            "/v1/a%2Fb",
            "/v1/a%5cb",
            "/v1/a\\b",
            "/v1/a%00b",
            "/v1/a%0ab",
            "/v1/a%zz",
            "/v1/a%2",
            "/v1/a%",
            "/v1/a%252e",
            "/v1/%c0%ae%c0%ae",
            "/v1/%e0%80%ae",
            "/v1/a%ff",
            "/v1/a b",
            "/v1/é",
            "/v1/a?b",
            "/v1/a#b",
            "/v1/a%3fb",
            "/v1/a%23b",
            "/v1/..;/x",
            "/v1/;a/x",
            "/v1/a;b",
            "/v1/a;",
            "/v1/a%3b",
            "/v1/a.",
            "/v1/a./x",
            "/v1/a%20",
            "/v1/%20a",
            "/v1/a%C2%A0/x",
            "/v1/run%C5%BF",
            "/v1/to%E2%84%AAens",
            "/v1/a\nb",
        ] {
            assert!(!is_plain(odd), "{odd}");
        }
        assert!(!is_plain(&format!("/v1/{}", "a".repeat(PATH_BYTES_MAX))));
    }
}
