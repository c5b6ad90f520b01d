//! Patterns of model names: `*` stands for anything (nothing too), `#` for one digit, every other character for itself.
//!
//! That is enough for dated snapshots (`gpt-6-sol-####-##-##`) and families (`gemini-2.5-pro*`), cannot be slow, and
//! needs no regular expressions. May use: nothing.

/// Longer than any model name of any provider, fine-tunes included.
pub const PATTERN_BYTES_MAX: usize = 128;

/// `*a*b*` is more than any published family needs; it bounds the work of a mismatch.
const STARS_MAX: usize = 3;

/// A pattern of model names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern that `text` writes; `None` for a text that is empty, too long, not printable ASCII, holds upper case
    /// (names are compared in lower case) or too many stars.
    pub fn parse(text: &str) -> Option<Self> {
        let right_length = (1..=PATTERN_BYTES_MAX).contains(&text.len());
        let right_bytes = text.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        let right_stars = text.bytes().filter(|b| *b == b'*').count() <= STARS_MAX;
        (right_length && right_bytes && right_stars).then(|| Self(text.into()))
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a plain name, which only that name fits.
    pub fn is_name(&self) -> bool {
        !self.0.bytes().any(|b| b == b'*' || b == b'#')
    }

    /// The shortest name that fits.
    pub fn shortest(&self) -> String {
        self.0.chars().filter(|c| *c != '*').map(|c| if c == '#' { '0' } else { c }).collect()
    }

    /// Whether `name` fits. A star that took too little takes one byte more, and only the last star is ever retried:
    /// at most pattern times name steps.
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (pattern.get(p), name.get(n)) {
                (None, None) => return true,
                (Some(b'*'), _) => {
                    p += 1;
                    retry = Some((p, n));
                }
                (Some(want), Some(byte)) if want == byte || (*want == b'#' && byte.is_ascii_digit()) => {
                    p += 1;
                    n += 1;
                }
                _ => match retry {
                    Some((after_star, taken)) if taken < name.len() => {
                        p = after_star;
                        n = taken + 1;
                        retry = Some((after_star, n));
                    }
                    _ => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything_and_a_hash_one_digit() {
        for (pattern, name, fits) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o", true),
            ("gpt-4o*", "gpt-4", false),
            ("*-tts", "a-tts-tts", true),
            ("*-tts", "a-tts-x", false),
            ("*1.5-flash*", "models-1.5-flash-8b", true),
            ("*1.5-flash*", "1.5-flas", false),
            ("gpt-6-sol-####-##-##", "gpt-6-sol-2026-09-29", true),
            ("gpt-6-sol-####-##-##", "gpt-6-sol-2026-09-2", false),
            ("gpt-6-sol-####-##-##", "gpt-6-sol-2026-09-299", false),
            ("gpt-6-sol-####-##-##", "gpt-6-sol-2026-o9-29", false),
            ("flash-#*", "flash-0", true),
            ("flash-#*", "flash-lite", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("*", "", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        for bad in ["", "gpt 4", "GPT-4", "gpt-ü", "a*b*c*d*e", &long] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
        assert!(Pattern::parse(&"a".repeat(PATTERN_BYTES_MAX)).is_some());
    }
}
