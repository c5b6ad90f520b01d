//! Decodes a side copy of a compressed answer for the meter, a little at a time and never beyond a bound.
//!
//! What is asked for is gzip and nothing else, however much more a client takes: its window is 32 KB a stream, that of zstd
//! and brotli as servers send them 2 to 8 MB, which a thousand paced streams would multiply. A provider that codes an answer
//! otherwise without being asked is read all the same, a few such answers at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// The meter reads at most this much decoded text of one answer: a bomb then costs an estimate, not memory.
const INFLATED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Decoded in steps of this size.
const STEP_BYTES: usize = 8 * 1024;

/// The largest window that gzip has (RFC 1951: 32 KB).
const GZIP_WINDOW_BITS: u8 = 15;

/// RFC 9659: zstd in HTTP has windows of at most 8 MiB. Those of brotli have at most 16 (RFC 7932).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Answers with windows of that size that are read at once, in the whole process: together 256 MiB at most.
const LARGE_WINDOWS_MAX: usize = 16;

static LARGE_WINDOWS: AtomicUsize = AtomicUsize::new(0);

/// A coded answer being read.
pub struct Inflate {
    decoder: Reading,
    step: Vec<u8>,
    given: u64,
    readable: bool,
}

/// What decodes, and what it holds of [`LARGE_WINDOWS_MAX`] until the answer is read.
enum Reading {
    Gzip(Decompress),
    /// Its first byte tells whether it has the frame of zlib, as RFC 9110 wants, or none, as some servers send it.
    Deflate(Option<Decompress>),
    Brotli(Box<Brotli>, LargeWindow),
    Zstd(Decoder<'static>, LargeWindow),
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// A part of [`LARGE_WINDOWS_MAX`].
struct LargeWindow;

impl LargeWindow {
    fn take() -> Option<Self> {
        let more = |taken: usize| (taken < LARGE_WINDOWS_MAX).then_some(taken + 1);
        LARGE_WINDOWS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for LargeWindow {
    fn drop(&mut self) {
        LARGE_WINDOWS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a step came to.
struct Step {
    taken: usize,
    given: usize,
    /// The decoder has come to an end that nothing may follow.
    ended: bool,
}

impl Inflate {
    /// A reader of a coding, by its name in `Content-Encoding`. `None` for one that is not read, or not now.
    pub fn of(coding: &[u8]) -> Option<Self> {
        let name = coding.trim_ascii().to_ascii_lowercase();
        let decoder = match name.as_slice() {
            b"gzip" | b"x-gzip" => Reading::Gzip(Decompress::new_gzip(GZIP_WINDOW_BITS)),
            b"deflate" => Reading::Deflate(None),
            b"br" => {
                let window = LargeWindow::take()?;
                let alloc = StandardAlloc::default;
                Reading::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), window)
            }
            b"zstd" => {
                let window = LargeWindow::take()?;
                let mut decoder = Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
                Reading::Zstd(decoder, window)
            }
            _ => return None,
        };
        Some(Self { decoder, step: vec![0; STEP_BYTES], given: 0, readable: true })
    }

    /// Gives what `compressed` decodes to, piece by piece. After an error, an end or the bound it gives nothing more: the
    /// meter then sees an answer that broke off.
    pub fn feed(&mut self, mut compressed: &[u8], mut inflated: impl FnMut(&[u8])) {
        while self.readable {
            let Some(Step { taken, given, ended }) = self.decoder.step(compressed, &mut self.step) else {
                self.readable = false;
                return;
            };
            compressed = compressed.get(taken..).unwrap_or_default();
            if let Some(out) = self.step.get(..given).filter(|out| !out.is_empty()) {
                inflated(out);
            }
            self.given = self.given.saturating_add(u64::try_from(given).unwrap_or(u64::MAX));
            let is_stuck = taken == 0 && given == 0 && !compressed.is_empty();
            self.readable = !ended && !is_stuck && self.given <= INFLATED_BYTES_MAX;
            if compressed.is_empty() && given < STEP_BYTES {
                return;
            }
        }
    }
}

impl Reading {
    /// Decodes once, from the begin of `input` to the begin of `output`. `None` when it is not what it says to be.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Option<Step> {
        match self {
            Self::Gzip(state) => {
                let step = inflated(state, input, output)?;
                if step.ended {
                    // RFC 1952, 2.2: another member may follow.
                    *state = Decompress::new_gzip(GZIP_WINDOW_BITS);
                }
                Some(Step { ended: false, ..step })
            }
            Self::Deflate(state) => {
                let Some(first) = input.first() else { return Some(Step { taken: 0, given: 0, ended: false }) };
                // RFC 1950, 2.2: method 8. Without that frame these bits are those of a stored block, which are 0.
                let state = state.get_or_insert_with(|| Decompress::new(first & 0x0f == 8));
                inflated(state, input, output)
            }
            Self::Brotli(state, _) => {
                let (mut left, mut taken, mut room, mut given, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut room, &mut given, output, &mut total, state,
                );
                let ended = match result {
                    BrotliResult::ResultSuccess => true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
                    BrotliResult::ResultFailure => return None,
                };
                Some(Step { taken, given, ended })
            }
            Self::Zstd(decoder, _) => {
                let status = decoder.run_on_buffers(input, output).ok()?;
                Some(Step { taken: status.bytes_read, given: status.bytes_written, ended: false })
            }
        }
    }
}

fn inflated(state: &mut Decompress, input: &[u8], output: &mut [u8]) -> Option<Step> {
    let (before_in, before_out) = (state.total_in(), state.total_out());
    let status = state.decompress(input, output, FlushDecompress::None).ok()?;
    let since = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
    let (taken, given) = (since(state.total_in(), before_in), since(state.total_out(), before_out));
    Some(Step { taken, given, ended: status == Status::StreamEnd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn text() -> Vec<u8> {
        (0..60_000_u32).flat_map(|n| n.to_string().into_bytes()).collect()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let settings = brotli::enc::BrotliEncoderParams { quality: 5, lgwin: 24, ..Default::default() };
        brotli::BrotliCompress(&mut &*text, &mut out, &settings).unwrap();
        out
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).unwrap()
    }

    fn read(coding: &str, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
        let (mut inflate, mut out) = (Inflate::of(coding.as_bytes()).unwrap(), Vec::new());
        for piece in pieces {
            inflate.feed(piece.as_ref(), |bytes| out.extend_from_slice(bytes));
        }
        out
    }

    type Packs = fn(&[u8]) -> Vec<u8>;
    const CODINGS: [(&str, Packs); 6] =
        [("gzip", gzip), ("X-GZip", gzip), ("deflate", zlib), ("deflate", raw), (" br", brotli), ("zstd", zstd)];

    // One test for all that decode: the few large windows are those of the process.
    #[test]
    fn what_is_coded_is_read_however_it_is_cut_and_a_few_large_windows_at_a_time() {
        let text = text();
        for (coding, packs) in CODINGS {
            let packed = packs(&text);
            for size in [1, 7, 1000, packed.len()] {
                assert!(read(coding, packed.chunks(size)) == text, "{coding} {size}");
            }
        }
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(read("gzip", members.chunks(5)), b"one two");
        assert_eq!(read("zstd", [zstd(b"one "), zstd(b"two")]), b"one two");
        // Anything may be raw deflate.
        for coding in ["gzip", "br", "zstd"] {
            assert_eq!(read(coding, ["{\"usage\":1}", "more"]), b"", "{coding}");
        }
        for (coding, packs) in CODINGS {
            let mut broken = packs(&text);
            let half = broken.len() / 2;
            broken[half..].fill(0xff);
            assert!(text.starts_with(read(coding, [broken]).get(..1_000).unwrap()), "{coding}: what came before");
        }
        let mut held: Vec<_> = (0..LARGE_WINDOWS_MAX).map(|_| Inflate::of(b"br").unwrap()).collect();
        assert!(Inflate::of(b"zstd").is_none() && Inflate::of(b"br").is_none() && Inflate::of(b"gzip").is_some());
        held.pop();
        assert_eq!(read("zstd", [zstd(b"{}")]), b"{}");
        drop(held);
        // A window of 16 MiB is no answer over HTTP.
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(24).unwrap();
        wide.write_all(&text).unwrap();
        wide.flush().unwrap();
        assert_eq!(read("zstd", [wide.finish().unwrap()]), b"");
        proptest!(|(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0..4_usize, cut in 1..40_usize)| {
            let (coding, packs) = CODINGS[at + 2];
            read(coding, noise.chunks(cut));
            let mut bent = packs(&text[..2_000]);
            for (at, byte) in noise.iter().enumerate() {
                let place = (at * 97 + usize::from(*byte)) % bent.len();
                bent[place] ^= byte;
                if at % 8 == 0 {
                    read(coding, bent.chunks(cut));
                }
            }
        });
    }

    #[test]
    fn a_bomb_is_read_to_the_bound_and_no_further() {
        let zeros = vec![0_u8; 1 << 20];
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..300 {
            bomb.write_all(&zeros).unwrap();
        }
        let packed = bomb.finish().unwrap();
        let (mut inflate, mut given) = (Inflate::of(b"gzip").unwrap(), 0);
        inflate.feed(&packed, |bytes| given += bytes.len() as u64);
        assert!((INFLATED_BYTES_MAX..INFLATED_BYTES_MAX + 2 * STEP_BYTES as u64).contains(&given), "{given}");
        inflate.feed(&packed, |_| panic!("more"));
    }

    #[test]
    fn what_has_no_reader_is_not_read() {
        for coding in ["compress", "gzip, br", "gzip,gzip", "zstandard", "exi"] {
            assert!(Inflate::of(coding.as_bytes()).is_none(), "{coding}");
        }
    }
}
