//! One JSON array that is streamed: gives each element as soon as it is whole (Gemini without `alt=sse`).
//!
//! May use: the siblings `nesting` and `elide`. Small elements that fit in one piece are not copied.

use super::elide::{Bounds, Cut, Kept};
use super::nesting::{Bracket, Nesting};

/// An element of which more would have to be kept than this is not read (it is still relayed): as for events.
pub(super) const ELEMENT_BYTES_MAX: usize = super::sse::EVENT_BYTES_MAX;

static BOUNDS: Bounds = Bounds::of(ELEMENT_BYTES_MAX);

/// Splits the array.
#[derive(Debug)]
pub(super) struct ArraySplitter {
    nesting: Nesting,
    /// An element that began in an earlier piece.
    begun: Kept,
    /// The closing bracket was seen.
    closed: bool,
}

impl Default for ArraySplitter {
    fn default() -> Self {
        Self { nesting: Nesting::default(), begun: Kept::within(&BOUNDS), closed: false }
    }
}

impl ArraySplitter {
    /// Looks at the next piece and calls `see` with each object or array in the array that ends in it, and with
    /// where that was cut; with nothing for one that is too long.
    pub(super) fn feed(&mut self, piece: &[u8], mut see: impl FnMut(Option<&[u8]>, &[Cut])) {
        if self.closed {
            return;
        }
        let Self { nesting, begun, closed } = self;
        // Where the current element begins in this piece.
        let mut from = (!begun.is_empty()).then_some(0);
        nesting.follow(piece, |bracket, depth, at| {
            match (bracket, depth) {
                (Bracket::Open, 2) => from = Some(at),
                (Bracket::Close, 1) => {
                    let end = piece.get(from.take().unwrap_or(at)..=at).unwrap_or_default();
                    if begun.is_empty() && BOUNDS.keep_whole(end.len()) {
                        see(Some(end), &[]);
                    } else {
                        begun.push(end);
                        see((!begun.is_over()).then_some(begun.bytes()), begun.cuts());
                        begun.clear(0);
                    }
                }
                (Bracket::Close, 0) => *closed = true,
                _ => {}
            }
            !*closed
        });
        if let Some(rest) = from.and_then(|from| piece.get(from..)) {
            begun.push(rest);
        }
    }

    /// Whether the element that has begun is too long to be read.
    pub(super) fn is_over(&self) -> bool {
        self.begun.is_over()
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
            splitter.feed(piece, |element, _| {
                seen.extend(element.map(|element| String::from_utf8(element.to_vec()).unwrap()));
            });
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
        let large = format!("[{{\"a\":[1{}]}},{{\"b\":1}}]", ",1".repeat(ELEMENT_BYTES_MAX / 2));
        assert_eq!(elements(&[large.as_bytes()]), (vec!["{\"b\":1}".into()], true));
        let pieces: Vec<&[u8]> = large.as_bytes().chunks(1_000_003).collect();
        assert_eq!(elements(&pieces), (vec!["{\"b\":1}".into()], true));
    }

    #[test]
    fn an_element_with_a_long_string_is_read_without_its_rest() {
        let text = format!("[{{\"data\":\"{}\",\"usage\":7}},{{\"b\":1}}]", "A".repeat(20 * 1024 * 1024));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(65_537).collect();
        let whole = elements(&[text.as_bytes()]);
        assert_eq!(elements(&pieces), whole);
        assert!(whole.0[0].ends_with("A\",\"usage\":7}") && whole.0[0].len() < 128 * 1024);
        assert_eq!((whole.0[1].as_str(), whole.1), ("{\"b\":1}", true));
    }

    #[test]
    fn a_cut_array_is_not_closed() {
        assert_eq!(elements(&[b"[{\"a\":1},{\"b\""]), (vec!["{\"a\":1}".into()], false));
    }
}
