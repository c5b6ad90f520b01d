//! The framing of a chunked request body, byte by byte below pingora's parser.
//!
//! Pure. That parser reads an empty size line as 0, a size line up to 8 KiB, and looks for the end of trailers alone. What
//! passes here has one meaning: sizes are hexadecimal digits and nothing else, lines end in CRLF, extensions and trailers
//! are short. Nothing is taken out: extensions and trailers end at that parser, which hands on neither, and a body gets its
//! framing to the provider anew. Data is passed over, not looked at: a chunk costs as much as its line has bytes.

/// Digits of a size: as many as 64 bits have, so that a size that is padded with zeros fits.
const DIGITS_MAX: u32 = 16;

/// Extensions of all chunks of a body. Nobody is known to send any; without a bound they would be a body of no length.
const EXTENSION_BYTES_MAX: u32 = 4 * 1024;

/// Trailers of a body. SDKs that sign uploads send one checksum.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// What no two parsers need to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Where a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { digits: u32, size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Over,
}

/// Follows a body as it comes.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    extension_bytes: u32,
    trailer_bytes: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: BEGIN, extension_bytes: 0, trailer_bytes: 0 }
    }
}

const BEGIN: At = At::Size { digits: 0, size: 0 };

impl Chunks {
    /// Follows the next bytes; gives how many of them belong to the body, which are all unless it ends there.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() && self.at != At::Over {
            rest = match self.at {
                At::Data { left } => {
                    let here = u64::try_from(rest.len()).map_err(|_| Malformed)?.min(left);
                    self.at = if here == left { At::DataCr } else { At::Data { left: left - here } };
                    rest.get(usize::try_from(here).map_err(|_| Malformed)?..).unwrap_or_default()
                }
                _ => {
                    let (byte, rest) = rest.split_first().ok_or(Malformed)?;
                    self.at = self.after(*byte)?;
                    rest
                }
            };
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether all of the body has come.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    fn after(&mut self, byte: u8) -> Result<At, Malformed> {
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        match (self.at, byte) {
            (At::Size { digits: 1.., size }, b'\r') | (At::Extension { size }, b'\r') => Ok(At::SizeLf { size }),
            (At::Size { digits: 1.., size }, b';') => Ok(At::Extension { size }),
            (At::Size { digits, size }, digit) if digits < DIGITS_MAX => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                Ok(At::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) })
            }
            // A quoted string is where parsers disagree whether a line ends in it.
            (At::Extension { size }, _) if is_text && byte != b'"' => {
                self.extension_bytes += 1;
                within(self.extension_bytes, EXTENSION_BYTES_MAX).map(|()| At::Extension { size })
            }
            (At::SizeLf { size: 0 }, b'\n') | (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::SizeLf { size }, b'\n') => Ok(At::Data { left: size }),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(BEGIN),
            (At::Trailer, b'\r') => Ok(At::LastLf),
            (At::LastLf, b'\n') => Ok(At::Over),
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::Trailer | At::TrailerName, _) if super::is_token_byte(byte) => self.trailer(At::TrailerName),
            (At::TrailerValue, _) if is_text => self.trailer(At::TrailerValue),
            _ => Err(Malformed),
        }
    }

    fn trailer(&mut self, at: At) -> Result<At, Malformed> {
        self.trailer_bytes += 1;
        within(self.trailer_bytes, TRAILER_BYTES_MAX).map(|()| at)
    }
}

fn within(count: u32, max: u32) -> Result<(), Malformed> {
    if count <= max { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_chunks_ends_where_every_parser_ends_it_at_every_cut() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "00000005\r\nhello\r\n5;a=b; c\r\nworld\r\n0;last\r\n\r\n",
            "9\r\n\r\n\r\n0\r\n\r\n\r\n0\r\nX-Sum: 1\r\nAuthorization: Bearer x\r\n\r\n",
            "A\r\n0123456789\r\n000\r\nx:\r\n\r\n",
        ] {
            let sent = format!("{body}GET / HTTP/1.1\r\n");
            for cut in 0..=sent.len() {
                let (first, second) = sent.as_bytes().split_at(cut);
                let mut chunks = Chunks::default();
                let taken = chunks.follow(first).unwrap();
                assert!(taken == first.len() || chunks.is_over(), "{body:?} at {cut}");
                let all = taken + chunks.follow(second).unwrap();
                assert_eq!((all, chunks.is_over()), (body.len(), true), "{body:?} at {cut}");
            }
        }
    }

    #[test]
    fn what_two_parsers_could_end_elsewhere_is_refused_at_every_cut() {
        let long = "x".repeat(EXTENSION_BYTES_MAX as usize + 1);
        let trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX as usize));
        let extension = format!("5;{long}\r\nhello\r\n0\r\n\r\n");
        for body in [
            "\r\nhello\r\n0\r\n\r\n",
            "\n",
            "0x5\r\n",
            "+5\r\n",
            "-5\r\n",
            "5_0\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "5 ;a\r\n",
            "5h\r\n",
            "g\r\n",
            "5\n",
            "5\rhello",
            ";a\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
            "00000000000000005\r\n",
            "5;a\nhello",
            "5;a\0\r\n",
            "5;a=\"b\"\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\rx",
            "5\r\nhelloworld\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\n X: folded\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nX: 1\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            &extension,
            &trailer,
        ] {
            let body = body.as_bytes();
            // A long one is long in one place.
            for cut in (0..=body.len()).step_by(body.len() / 64 + 1) {
                let (first, second) = body.split_at(cut);
                let mut chunks = Chunks::default();
                let followed = chunks.follow(first).and_then(|_| chunks.follow(second));
                assert_eq!(followed, Err(Malformed), "{:?} at {cut}", body.escape_ascii().to_string());
            }
        }
        assert!(Chunks::default().follow(b"ffffffffffffffff\r\n").is_ok(), "the largest is nobody's limit");
    }
}
