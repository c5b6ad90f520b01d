//! Embedding vectors of the simulated provider: always the same numbers, as JSON or as base64 of little-endian floats.
//!
//! May use: nothing of ours.

use serde_json::Value;

/// More dimensions than any model has.
const DIMENSIONS_MAX: usize = 8_192;
const DIMENSIONS_DEFAULT: usize = 16;
/// The numbers of a vector in turn: as JSON, and as the four bytes of a little-endian IEEE 754 single.
const PATTERN: [(&str, [u8; 4]); 4] = [
    ("0.5", [0, 0, 0x00, 0x3f]),
    ("-0.25", [0, 0, 0x80, 0xbe]),
    ("0.125", [0, 0, 0x00, 0x3e]),
    ("0.0625", [0, 0, 0x80, 0x3d]),
];
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A vector of the asked length, as OpenAI's `encoding_format` says: `base64` or numbers.
pub(super) fn vector(dimensions: Option<u64>, format: Option<&str>) -> Value {
    let wanted = dimensions.and_then(|count| usize::try_from(count).ok()).unwrap_or(DIMENSIONS_DEFAULT);
    let numbers = PATTERN.iter().cycle().take(wanted.min(DIMENSIONS_MAX));
    if format == Some("base64") {
        let bytes: Vec<u8> = numbers.flat_map(|(_, bytes)| *bytes).collect();
        Value::String(base64(&bytes))
    } else {
        numbers.filter_map(|(text, _)| serde_json::from_str::<Value>(text).ok()).collect()
    }
}

/// Standard base64 with padding (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let joined = group.iter().fold(0_u32, |joined, byte| joined << 8 | u32::from(*byte));
        let joined = joined << (8 * (3 - group.len()));
        for place in 0..4_usize {
            let digit = (joined >> (18 - 6 * place)) & 0x3f;
            let letter = usize::try_from(digit).ok().and_then(|digit| BASE64.get(digit)).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_vector_has_the_asked_length_in_both_forms() {
        assert_eq!(vector(Some(5), None).to_string(), "[0.5,-0.25,0.125,0.0625,0.5]");
        assert_eq!(vector(None, None).as_array().unwrap().len(), 16);
        // Python: base64.b64encode(struct.pack("<4f", 0.5, -0.25, 0.125, 0.0625))
        assert_eq!(vector(Some(4), Some("base64")), Value::from("AAAAPwAAgL4AAAA+AACAPQ=="));
    }
}
