//! One JSON document that comes in pieces: gives it once it is whole.
//!
//! May use: the sibling `nesting`. `usage` stands near the end of an answer, and a top-level member is one only if all
//! before it parses, so the document is kept until it is whole, within a bound. One that comes in one piece is not copied.

use super::nesting::{Bracket, Nesting};

/// A document with more bytes than this is not read (it is still relayed): four times the largest answers with images.
pub(super) const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Keeps the document.
#[derive(Debug, Default)]
pub(super) struct DocumentBuffer {
    nesting: Nesting,
    begun: Vec<u8>,
    too_large: bool,
    closed: bool,
}

impl DocumentBuffer {
    /// Looks at the next piece and calls `see` with the document when it ends in it.
    pub(super) fn feed(&mut self, piece: &[u8], see: impl FnOnce(&[u8])) {
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
        self.too_large |= self.begun.len() + piece.len() > DOCUMENT_BYTES_MAX;
        if self.too_large {
            self.begun = Vec::new();
        } else if self.closed && self.begun.is_empty() {
            see(piece);
        } else {
            self.begun.extend_from_slice(piece);
            if self.closed {
                see(&self.begun);
                self.begun = Vec::new();
            }
        }
    }

    /// Whether the document is whole.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What there is of a document that is not whole.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_over_the_bound_is_not_kept() {
        let mut buffer = DocumentBuffer::default();
        buffer.feed(b"{\"a\":\"", |_| panic!("not whole"));
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..33 {
            buffer.feed(&piece, |_| panic!("not whole"));
        }
        assert!(buffer.begun().is_empty());
        buffer.feed(b"\"}", |_| panic!("too large"));
        assert!(buffer.is_closed());
    }
}
