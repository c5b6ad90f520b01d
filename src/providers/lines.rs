//! Lines of a file that comes in pieces, such as the results of a batch.
//!
//! May use: nothing of ours.

use super::json_doc::DOCUMENT_BYTES_MAX;

/// Cuts pieces into lines. One that is longer than a document may be is no line: what it says is not known.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Looks at the next piece; calls `see` with each line that ends in it, `None` for one that is too long.
    pub fn feed(&mut self, mut piece: &[u8], mut see: impl FnMut(Option<&[u8]>)) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            if self.begun.is_empty() && !self.too_long {
                see(Some(line));
            } else {
                self.keep(line);
                self.end(&mut see);
            }
            piece = rest.get(1..).unwrap_or_default();
        }
        self.keep(piece);
    }

    /// The file is over: its last line may have no end.
    pub fn finish(&mut self, mut see: impl FnMut(Option<&[u8]>)) {
        self.end(&mut see);
    }

    fn keep(&mut self, more: &[u8]) {
        self.too_long |= self.begun.len() + more.len() > DOCUMENT_BYTES_MAX;
        if self.too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(more);
        }
    }

    fn end(&mut self, see: &mut impl FnMut(Option<&[u8]>)) {
        if std::mem::take(&mut self.too_long) {
            see(None);
        } else {
            see(Some(&std::mem::take(&mut self.begun)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_at_every_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\nlast";
        let seen = |pieces: &[&[u8]]| {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            let mut see = |line: Option<&[u8]>| seen.push(line.map(<[u8]>::to_vec));
            pieces.iter().for_each(|piece| lines.feed(piece, &mut see));
            lines.finish(&mut see);
            seen
        };
        let whole = seen(&[text]);
        let expected: [&[u8]; 4] = [b"{\"a\":1}", b"", b"{\"b\":2}\r", b"last"];
        assert_eq!(whole, expected.map(|line| Some(line.to_vec())));
        for cut in 0..text.len() {
            assert_eq!(seen(&[&text[..cut], &text[cut..]]), whole, "{cut}");
        }
        let long = vec![b'x'; DOCUMENT_BYTES_MAX];
        assert_eq!(seen(&[&long, b"x", b"\nnext\n"]), [None, Some(b"next".to_vec()), Some(Vec::new())]);
    }
}
