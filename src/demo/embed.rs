//! Embedding vectors of the simulated provider: always the same numbers, as JSON or as base64 of little-endian floats.
//!
//! May use: nothing of ours.

use serde_json::Value;

/// More dimensions than any model has.
const DIMENSIONS_MAX: usize = 8_192;
const DIMENSIONS_DEFAULT: usize = 16;
const PATTERN: [f32; 4] = [0.5, -0.25, 0.125, 0.0625];
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A vector of the asked length.
pub(super) fn vector(dimensions: Option<u64>) -> Vec<f32> {
    let wanted = dimensions.and_then(|count| usize::try_from(count).ok()).unwrap_or(DIMENSIONS_DEFAULT);
    PATTERN.iter().copied().cycle().take(wanted.min(DIMENSIONS_MAX)).collect()
}

/// The vector as OpenAI's `encoding_format` says: `base64` or numbers.
pub(super) fn encoded(vector: &[f32], format: Option<&str>) -> Value {
    if format == Some("base64") {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        Value::String(base64(&bytes))
    } else {
        vector.iter().map(|number| Value::from(f64::from(*number))).collect()
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
        assert_eq!(vector(Some(3)), [0.5, -0.25, 0.125]);
        assert_eq!(vector(None).len(), 16);
        assert_eq!(encoded(&vector(Some(2)), None).to_string(), "[0.5,-0.25]");
        assert_eq!(encoded(&vector(Some(1)), Some("base64")), Value::from("AAAAPw=="));
    }
}
