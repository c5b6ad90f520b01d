//! Counts tokens with Gemini's vocabulary, as Google's own SDK does.
//!
//! May use: nothing. The vocabulary is `config/gemini_vocabulary.zst`: see `config/gemini_vocabulary.py`. Text is merged from
//! its characters by byte pair encoding as SentencePiece does it: of all neighbours that are a piece together, those whose
//! piece comes first become one, until there are none. A character that is no piece counts as its bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::LazyLock;

static FILE: &[u8] = include_bytes!("../../config/gemini_vocabulary.zst");

/// What the file holds, uncompressed: it bounds what is taken for it.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Slots of the table, twice the pieces there are: a look takes one or two steps.
const SLOTS: usize = 1 << 19;

/// The mark of a piece that is never merged or taken apart, and the bits of the length.
const WHOLE: u8 = 0x80;

/// What stands for a space in pieces.
const SPACE: char = '\u{2581}';

/// Read once. `None` when the file is none, which a test would find.
static GEMINI: LazyLock<Option<Vocabulary>> = LazyLock::new(|| Vocabulary::read(FILE));

/// A vocabulary: pieces one behind the other, each behind a byte of its length, and a table of where each begins.
pub(super) struct Vocabulary {
    pieces: Box<[u8]>,
    /// Where a piece begins, or `EMPTY`. Pieces that are merged first begin first.
    slots: Box<[u32]>,
    /// The pieces that are never taken apart, by their first byte, the longest first.
    wholes: Box<[Vec<Box<str>>]>,
}

const EMPTY: u32 = u32::MAX;

/// A part of a text while it is merged: a character, a piece, or a character that is no piece.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    /// 0 when it was merged into the one before.
    length: usize,
    before: Option<usize>,
    after: Option<usize>,
    is_whole: bool,
}

impl Vocabulary {
    /// Gemini's.
    pub(super) fn gemini() -> Option<&'static Self> {
        GEMINI.as_ref()
    }

    fn read(file: &[u8]) -> Option<Self> {
        let pieces = zstd::bulk::decompress(file, BYTES_MAX).ok()?.into_boxed_slice();
        let wholes = vec![Vec::new(); 1 << u8::BITS].into_boxed_slice();
        let mut read = Self { pieces, slots: vec![EMPTY; SLOTS].into_boxed_slice(), wholes };
        let mut at = 0;
        while let Some(&head) = read.pieces.get(at) {
            let length = usize::from(head & !WHOLE);
            let piece = read.pieces.get(at + 1..at + 1 + length)?;
            if let (true, Some(&first)) = (head & WHOLE != 0, piece.first()) {
                let whole: Box<str> = std::str::from_utf8(piece).ok()?.into();
                read.wholes.get_mut(usize::from(first))?.push(whole);
            }
            let slot = read.slot(piece);
            *read.slots.get_mut(slot)? = u32::try_from(at).ok()?;
            at += 1 + length;
        }
        for wholes in &mut read.wholes {
            wholes.sort_by_key(|whole| Reverse(whole.len()));
        }
        Some(read)
    }

    /// The slot where the piece stands, or the empty one where it would.
    fn slot(&self, piece: &[u8]) -> usize {
        // FNV-1a: the pieces are fixed, so nobody chooses them to collide, and a look ends at the first empty slot.
        let hash = piece.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        let mut slot = usize::try_from(hash ^ (hash >> 15)).unwrap_or(0) % SLOTS;
        while let Some(start) = self.slots.get(slot).copied().filter(|start| *start != EMPTY) {
            if self.piece_at(start) == Some(piece) {
                break;
            }
            slot = (slot + 1) % SLOTS;
        }
        slot
    }

    fn piece_at(&self, start: u32) -> Option<&[u8]> {
        let start = usize::try_from(start).ok()?;
        let length = usize::from(self.pieces.get(start)? & !WHOLE);
        self.pieces.get(start + 1..start + 1 + length)
    }

    /// The place of a piece among all: the smaller, the earlier it is merged.
    fn rank(&self, piece: &[u8]) -> Option<u32> {
        self.slots.get(self.slot(piece)).copied().filter(|start| *start != EMPTY)
    }

    /// How many tokens a text has. Takes the time of its length times the logarithm of that, whatever stands in it.
    pub(super) fn count(&self, text: &str) -> u64 {
        let text = text.replace(' ', SPACE.encode_utf8(&mut [0; 4]));
        let mut parts = self.split(&text);
        let mut pairs = BinaryHeap::new();
        for left in 0..parts.len() {
            self.offer(&text, &parts, left, &mut pairs);
        }
        while let Some(Reverse((_, left, length))) = pairs.pop() {
            if let Some((before, after)) = merge(&mut parts, left, length) {
                self.offer(&text, &parts, left, &mut pairs);
                if let Some(before) = before {
                    self.offer(&text, &parts, before, &mut pairs);
                }
                if let Some(part) = after.and_then(|after| parts.get_mut(after)) {
                    part.before = Some(left);
                }
            }
        }
        let tokens = |part: &Part| {
            let bytes = text.as_bytes().get(part.start..part.start + part.length).unwrap_or_default();
            if self.rank(bytes).is_some() { 1 } else { part.length }
        };
        let counted = parts.iter().filter(|part| part.length > 0).map(tokens).fold(0, usize::saturating_add);
        u64::try_from(counted).unwrap_or(u64::MAX)
    }

    /// The characters of a text, and the pieces in it that are never taken apart.
    fn split(&self, text: &str) -> Vec<Part> {
        let mut parts = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let wholes = rest.bytes().next().and_then(|byte| self.wholes.get(usize::from(byte)));
            let whole = wholes.and_then(|wholes| wholes.iter().find(|whole| rest.starts_with(&***whole)));
            let length = whole.map_or(first.len_utf8(), |whole| whole.len());
            let (at, start) = (parts.len(), text.len() - rest.len());
            let after = (rest.len() > length).then_some(at + 1);
            parts.push(Part { start, length, before: at.checked_sub(1), after, is_whole: whole.is_some() });
            rest = rest.get(length..).unwrap_or_default();
        }
        parts
    }

    /// Remembers the pair that begins with this part, if it is a piece.
    fn offer(&self, text: &str, parts: &[Part], left: usize, pairs: &mut BinaryHeap<Reverse<(u32, usize, usize)>>) {
        let Some(first) = parts.get(left) else { return };
        let Some(second) = first.after.and_then(|after| parts.get(after)) else { return };
        if first.is_whole || second.is_whole {
            return;
        }
        let length = first.length + second.length;
        let pair = text.as_bytes().get(first.start..first.start + length).unwrap_or_default();
        if let Some(rank) = self.rank(pair) {
            pairs.push(Reverse((rank, left, length)));
        }
    }
}

/// Makes one part of the one at `left` and the next, if they still are what was offered. Gives the parts beside it.
fn merge(parts: &mut [Part], left: usize, length: usize) -> Option<(Option<usize>, Option<usize>)> {
    let first = *parts.get(left)?;
    let right = first.after?;
    let second = *parts.get(right)?;
    if first.length == 0 || first.length + second.length != length {
        return None;
    }
    parts.get_mut(right)?.length = 0;
    let merged = parts.get_mut(left)?;
    (merged.length, merged.after) = (length, second.after);
    Some((first.before, second.after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_as_the_sdk_of_the_provider_counts_it() {
        let gemini = Vocabulary::gemini().unwrap();
        for (text, tokens) in [
            ("", 0),
            ("a", 1),
            ("Hello, world!  I'm 42", 11),
            ("What is your name?", 5),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("fn main() {\n\n    println!(\"{}\", 1);\n}", 13),
            ("<start_of_turn>user", 2),
            ("héllo wörld", 6),
            ("你好,世界", 3),
            ("👩‍👩‍👧", 5),
            ("\u{1234}", 1),
            ("\u{10ffff}\u{e000}", 5),
            ("\t\t\n\n\n   x", 4),
        ] {
            assert_eq!(gemini.count(text), tokens, "{text:?}");
        }
    }
}
