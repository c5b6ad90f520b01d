//! Follows the brackets of JSON text that comes in pieces, without parsing it.
//!
//! May use: nothing. Strings and escapes are respected, so a bracket that a model prints is no bracket. Text that is not
//! JSON gives wrong brackets, never a failure.

use memchr::memchr2;

/// Which way a bracket looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    /// `{` or `[`.
    Open,
    /// `}` or `]`.
    Close,
}

/// Where in the text the bytes stood that were seen last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Looks at the next bytes. Calls `see` with each bracket, the depth after it and its index, until that says to stop.
    pub(super) fn follow(&mut self, bytes: &[u8], mut see: impl FnMut(Bracket, u32, usize) -> bool) {
        let mut at = if self.in_string { self.skip_string(bytes, 0) } else { 0 };
        while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| is_mark(*byte))) {
            at += found;
            let bracket = match bytes.get(at) {
                Some(b'{' | b'[') => {
                    self.depth = self.depth.saturating_add(1);
                    Bracket::Open
                }
                Some(b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    Bracket::Close
                }
                _ => {
                    self.in_string = true;
                    at = self.skip_string(bytes, at + 1);
                    continue;
                }
            };
            if !see(bracket, self.depth, at) {
                return;
            }
            at += 1;
        }
    }

    /// The index after the string that `at` is in, or the end.
    fn skip_string(&mut self, bytes: &[u8], mut at: usize) -> usize {
        if self.escaped && at < bytes.len() {
            self.escaped = false;
            at += 1;
        }
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            at += found;
            if bytes.get(at) == Some(&b'"') {
                self.in_string = false;
                return at + 1;
            }
            if at + 1 == bytes.len() {
                self.escaped = true;
                return at + 1;
            }
            at += 2;
        }
        bytes.len()
    }
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_count_however_the_text_is_cut() {
        let text = br#" {"a\"]":["}\\",{"b":"\u005d["}]} "#;
        let all = |pieces: &[&[u8]]| {
            let (mut nesting, mut seen, mut before) = (Nesting::default(), Vec::new(), 0);
            for piece in pieces {
                nesting.follow(piece, |bracket, depth, at| {
                    seen.push((bracket, depth, before + at));
                    true
                });
                before += piece.len();
            }
            seen
        };
        let whole = all(&[text]);
        let depths: Vec<u32> = whole.iter().map(|(_, depth, _)| *depth).collect();
        assert_eq!(depths, [1, 2, 3, 2, 1, 0]);
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(all(&[head, tail]), whole, "cut at {cut}");
        }
    }
}
