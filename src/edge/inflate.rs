//! Inflates a side copy of a gzip answer for the meter, a little at a time and never beyond a bound.

use flate2::{Decompress, FlushDecompress, Status};

/// The meter reads at most this much inflated text of one answer: a bomb then costs an estimate, not memory.
const INFLATED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Inflated in steps of this size.
const STEP_BYTES: usize = 8 * 1024;

/// A gzip stream (RFC 1952) being read.
pub struct Inflate {
    state: Decompress,
    step: Vec<u8>,
    readable: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self { state: Decompress::new_gzip(GZIP_WINDOW_BITS), step: Vec::with_capacity(STEP_BYTES), readable: true }
    }
}

/// The largest window that gzip has (RFC 1951: 32 KB).
const GZIP_WINDOW_BITS: u8 = 15;

impl Inflate {
    /// Gives what `compressed` inflates to, piece by piece. After an error, a second member or the bound it gives
    /// nothing more: the meter then sees an answer that broke off.
    pub fn feed(&mut self, mut compressed: &[u8], mut inflated: impl FnMut(&[u8])) {
        while self.readable {
            let before = self.state.total_in();
            self.step.clear();
            let status = self.state.decompress_vec(compressed, &mut self.step, FlushDecompress::None);
            let taken = usize::try_from(self.state.total_in() - before).unwrap_or(0);
            compressed = compressed.get(taken..).unwrap_or_default();
            if !self.step.is_empty() {
                inflated(&self.step);
            }
            self.readable =
                matches!(status, Ok(Status::Ok | Status::BufError)) && self.state.total_out() <= INFLATED_BYTES_MAX;
            if self.step.len() < STEP_BYTES && compressed.is_empty() || matches!(status, Ok(Status::BufError)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_cut_inflates_to_the_same() {
        let text: Vec<u8> = (0..60_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let packed = gzip(&text);
        for size in [1, 7, 1000, packed.len()] {
            let (mut inflate, mut out) = (Inflate::default(), Vec::new());
            for piece in packed.chunks(size) {
                inflate.feed(piece, |bytes| out.extend_from_slice(bytes));
            }
            assert!(out == text, "{size}");
        }
    }

    #[test]
    fn what_is_no_gzip_gives_nothing() {
        let (mut inflate, mut out) = (Inflate::default(), Vec::new());
        inflate.feed(b"{\"usage\":1}", |bytes| out.extend_from_slice(bytes));
        inflate.feed(b"more", |bytes| out.extend_from_slice(bytes));
        assert!(out.is_empty());
    }
}
