//! One JSON document that comes in pieces: gives it once it is whole.
//!
//! May use: the siblings `nesting` and `elide`. `usage` stands near the end of an answer, and a top-level member is one only
//! if all before it parses, so the document is kept until it is whole, within a bound and without the rest of its long
//! strings. A small one that comes in one piece is not copied.

use super::elide::{Bounds, Cut, Kept};
use super::nesting::{Bracket, Nesting};

/// A document of which more would have to be kept than this is not read (it is still relayed).
pub(super) const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

static BOUNDS: Bounds = Bounds::of(DOCUMENT_BYTES_MAX);

/// Keeps the document.
#[derive(Debug)]
pub(super) struct DocumentBuffer {
    nesting: Nesting,
    begun: Kept,
    closed: bool,
}

impl Default for DocumentBuffer {
    fn default() -> Self {
        Self { nesting: Nesting::default(), begun: Kept::within(&BOUNDS), closed: false }
    }
}

impl DocumentBuffer {
    /// Looks at the next piece and calls `see` with the document when it ends in it, and with where it was cut.
    pub(super) fn feed(&mut self, piece: &[u8], see: impl FnOnce(&[u8], &[Cut])) {
        if self.closed {
            return;
        }
        let mut end = piece.len();
        let closed = &mut self.closed;
        self.nesting.follow(piece, |bracket, depth, at| {
            if bracket == Bracket::Close && depth == 0 {
                *closed = true;
                end = at + 1;
            }
            !*closed
        });
        let piece = piece.get(..end).unwrap_or_default();
        if self.closed && self.begun.is_empty() && BOUNDS.keep_whole(piece.len()) {
            return see(piece, &[]);
        }
        self.begun.push(piece);
        if self.closed && !self.begun.is_over() {
            see(self.begun.bytes(), self.begun.cuts());
            self.begun.clear(0);
        }
    }

    /// Whether the document is whole.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it is too long to be read.
    pub(super) fn is_over(&self) -> bool {
        self.begun.is_over()
    }

    /// What there is of a document that is not whole, and where it was cut.
    pub(super) fn begun(&self) -> (&[u8], &[Cut]) {
        (self.begun.bytes(), self.begun.cuts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document, if it was whole, and whether it was too long.
    fn document(pieces: &[&[u8]]) -> (Option<Vec<u8>>, bool) {
        let (mut buffer, mut seen) = (DocumentBuffer::default(), None);
        pieces.iter().for_each(|piece| buffer.feed(piece, |document, _| seen = Some(document.to_vec())));
        assert!(buffer.is_closed());
        (seen, buffer.is_over())
    }

    #[test]
    fn a_document_over_the_bound_is_not_kept() {
        let mut buffer = DocumentBuffer::default();
        buffer.feed(b"{\"a\":[1", |_, _| panic!("not whole"));
        let piece = b",1".repeat(512 * 1024);
        for _ in 0..33 {
            buffer.feed(&piece, |_, _| panic!("not whole"));
        }
        assert!(buffer.begun().0.is_empty());
        buffer.feed(b"]}", |_, _| panic!("too large"));
        assert!(buffer.is_closed() && buffer.is_over());
    }

    #[test]
    fn what_stands_beside_images_is_read_however_long_they_are() {
        let image = "A".repeat(4 * 1024 * 1024);
        let data: Vec<String> = (0..10).map(|_| format!("{{\"b64_json\":\"{image}\"}}")).collect();
        let text = format!("{{\"data\":[{}],\"usage\":{{\"output_tokens\":62100}}}}", data.join(","));
        let (whole, over) = document(&[text.as_bytes()]);
        let whole = whole.unwrap();
        assert!(!over && whole.len() < 1024 * 1024);
        let read: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!((read["data"].as_array().unwrap().len(), &read["usage"]["output_tokens"]), (10, &62_100.into()));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(65_537).collect();
        assert_eq!(document(&pieces), (Some(whole), false));
    }
}
