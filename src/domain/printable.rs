//! Text of others on a line of ours: what a client or a provider wrote is shown in a log or a table, and is no more than text
//! there.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether `c` does more than stand on a line: it ends one (line feeds, U+2028), commands a terminal (ESC, and the C1
/// controls, which are escapes of their own), turns around what follows (the bidirectional controls) or is not seen.
pub fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{2028}' | '\u{2029}'
            // Direction: marks, embeddings, overrides, isolates.
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Without width, and the byte order mark.
            | '\u{200b}' | '\u{2060}' | '\u{feff}'
            // Tags: a second alphabet that no terminal shows.
            | '\u{e0000}'..='\u{e007f}')
}

/// `text` on one line, with everything tricky written out as Rust writes it: `\n`, `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_tricky) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_tricky(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

/// A line of JSON with everything tricky written out as JSON writes it: `\u2028`. It is that JSON still, as such characters
/// stand in strings only; what its writer has escaped is not seen here. `None` where there is nothing to write out.
pub fn printable_json(line: &str) -> Option<String> {
    if !line.contains(is_tricky) {
        return None;
    }
    let mut written = String::with_capacity(line.len() + 8);
    for c in line.chars() {
        if is_tricky(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                write!(written, "\\u{unit:04x}").ok()?;
            }
        } else {
            written.push(c);
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_lines_commands_terminals_or_is_unseen_is_written_out() {
        for (text, shown) in [
            ("gpt-4o", "gpt-4o"),
            ("Zo\u{eb} \u{4f60}\u{597d} \u{1f600}", "Zo\u{eb} \u{4f60}\u{597d} \u{1f600}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m\u{7f}\u{0}", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{2028}b\u{2029}c\u{85}d", "a\\u{2028}b\\u{2029}c\\u{85}d"),
            ("\u{202e}gpj.exe\u{2066}\u{feff}", "\\u{202e}gpj.exe\\u{2066}\\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "a\u{2028}\u{9b}31m\u{7f}\u{202e}\u{e0041}\u{eb}\n\u{1b}";
        let line = serde_json::to_string(text).unwrap();
        let shown = printable_json(&line).unwrap();
        assert!(!shown.contains(is_tricky), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        assert_eq!(printable_json(&shown), None);
    }
}
