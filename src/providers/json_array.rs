//! One JSON array that is streamed: gives each element as soon as it is whole (Gemini without `alt=sse`).
//!
//! May use: the sibling `nesting`. Elements that fit in one piece are not copied.

use super::nesting::{Bracket, Nesting};

/// An element with more bytes than this is not read (it is still relayed): as for events.
pub(super) const ELEMENT_BYTES_MAX: usize = super::sse::EVENT_BYTES_MAX;

/// Splits the array.
#[derive(Debug, Default)]
pub(super) struct ArraySplitter {
    nesting: Nesting,
    /// An element that began in an earlier piece.
    begun: Vec<u8>,
    /// The element that began is too large to read.
    too_large: bool,
    /// The closing bracket was seen.
    closed: bool,
}

impl ArraySplitter {
    /// Looks at the next piece and calls `see` with each object or array in the array that ends in it.
    pub(super) fn feed(&mut self, piece: &[u8], mut see: impl FnMut(&[u8])) {
        if self.closed {
            return;
        }
        let Self { nesting, begun, too_large, closed } = self;
        // Where the current element begins in this piece.
        let mut from = (!begun.is_empty() || *too_large).then_some(0);
        nesting.follow(piece, |bracket, depth, at| {
            match (bracket, depth) {
                (Bracket::Open, 2) => from = Some(at),
                (Bracket::Close, 1) => {
                    let end = piece.get(from.take().unwrap_or(at)..=at).unwrap_or_default();
                    *too_large |= begun.len() + end.len() > ELEMENT_BYTES_MAX;
                    if *too_large {
                        *too_large = false;
                    } else if begun.is_empty() {
                        see(end);
                    } else {
                        begun.extend_from_slice(end);
                        see(begun);
                    }
                    *begun = Vec::new();
                }
                (Bracket::Close, 0) => *closed = true,
                _ => {}
            }
            !*closed
        });
        if let Some(rest) = from.and_then(|from| piece.get(from..)) {
            *too_large |= begun.len() + rest.len() > ELEMENT_BYTES_MAX;
            if *too_large {
                *begun = Vec::new();
            } else {
                begun.extend_from_slice(rest);
            }
        }
    }

    /// Whether the array is whole.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut splitter, mut seen) = (ArraySplitter::default(), Vec::new());
        for piece in pieces {
            splitter.feed(piece, |element| seen.push(String::from_utf8(element.to_vec()).unwrap()));
        }
        (seen, splitter.is_closed())
    }

    #[test]
    fn elements_are_the_same_at_every_cut() {
        let array = b"[{\"a\":\"]}\\\"\"}\n,\r\n{\"b\":[{}]} , {}]\n";
        let whole = elements(&[array]);
        assert_eq!(whole, (vec!["{\"a\":\"]}\\\"\"}".into(), "{\"b\":[{}]}".into(), "{}".into()], true));
        for cut in 0..=array.len() {
            let (head, tail) = array.split_at(cut);
            assert_eq!(elements(&[head, tail]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = array.chunks(1).collect();
        assert_eq!(elements(&bytes), whole);
    }

    #[test]
    fn an_element_over_the_bound_is_passed_over_and_the_next_is_read() {
        let large = format!("[{{\"a\":\"{}\"}},{{\"b\":1}}]", "x".repeat(ELEMENT_BYTES_MAX));
        assert_eq!(elements(&[large.as_bytes()]), (vec!["{\"b\":1}".into()], true));
        let pieces: Vec<&[u8]> = large.as_bytes().chunks(1_000_003).collect();
        assert_eq!(elements(&pieces), (vec!["{\"b\":1}".into()], true));
    }

    #[test]
    fn a_cut_array_is_not_closed() {
        assert_eq!(elements(&[b"[{\"a\":1},{\"b\""]), (vec!["{\"a\":1}".into()], false));
    }
}
