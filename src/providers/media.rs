//! Media in a request: what each of them is by its first bytes, and how many tokens its provider says that it has.
//!
//! May use: nothing. Nothing is decoded but the few bytes of a header, which are reached where they stand in the base64: a
//! medium of any size takes as long as a small one.

/// More segments than this has no header of a photo: an image that begins with more is taken for one of unknown size.
const SEGMENTS_MAX: usize = 64;

/// Sides beyond this no provider takes; it keeps the products below in range.
const SIDE_MAX: u64 = 100_000;

/// An image of unknown size counts as a square of this side: what image models make, and the size that guides count with.
const USUAL_SIDE: u32 = 1024;

/// What a medium that is none of those below counts: between Gemini's 258 tokens a tile and the 1,105 of a large photo.
const TOKENS_OF_OTHER: u64 = 800;

/// Compressed speech and music, by far the most of what is sent without a header that tells the length: 128 kbit/s.
const AUDIO_BYTES_PER_SECOND: u64 = 16_000;

/// What stands before the samples of a WAV file as it is usually written.
const WAVE_HEADER_BYTES: u64 = 44;

/// Video of a phone, small enough to be sent inline: 2 Mbit/s.
const VIDEO_BYTES_PER_SECOND: u64 = 250_000;

/// A page of a document with text and a picture here and there.
const PAGE_BYTES: u64 = 50_000;

/// Gemini: "32 tokens per second" of audio, "263 tokens per second" of video, 258 for a page (ai.google.dev/gemini-api/docs/tokens).
const GEMINI_AUDIO_PER_SECOND: u64 = 32;
const GEMINI_VIDEO_PER_SECOND: u64 = 263;
const GEMINI_TILE: u64 = 258;

/// Gemini 3 and later: "1120" for an image, "560" for a page, "70" for a frame, of which there is one a second
/// (ai.google.dev/gemini-api/docs/media-resolution).
const GEMINI_3_IMAGE: u64 = 1120;
const GEMINI_3_PAGE: u64 = 560;
const GEMINI_3_VIDEO_PER_SECOND: u64 = 70;

/// OpenAI: "1 token per 100 ms" of audio of a user (developers.openai.com/api/docs/guides/realtime-costs).
const OPENAI_AUDIO_PER_SECOND: u64 = 10;

/// OpenAI: a page is read as its text and as an image of it (developers.openai.com/api/docs/guides/pdf-files).
const OPENAI_PAGE: u64 = 1_200;

/// How closely an image is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Low,
    High,
    Original,
}

impl Detail {
    /// The one of that name; `auto` is high.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"low" => Self::Low,
            b"original" => Self::Original,
            _ => Self::High,
        }
    }
}

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image { size: Option<(u32, u32)> },
    Audio { seconds: u64 },
    Video { seconds: u64 },
    Document { pages: u64 },
    Other,
}

/// One medium of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Medium {
    pub(super) kind: Kind,
    pub(super) detail: Option<Detail>,
    /// What it holds, where it is in the body.
    bytes: Option<u64>,
}

impl Medium {
    /// One that the body only names.
    pub(super) fn elsewhere(is_image: bool) -> Self {
        let kind = if is_image { Kind::Image { size: None } } else { Kind::Other };
        Self { kind, detail: None, bytes: None }
    }

    /// One that stands in the body in base64, perhaps behind a `data:` prefix, as it stands between its quotes.
    pub(super) fn inline(text: &[u8]) -> Self {
        let (named, data) = match text.strip_prefix(b"data:") {
            Some(rest) => match memchr::memchr(b',', rest.get(..rest.len().min(256)).unwrap_or_default()) {
                Some(comma) => (rest.get(..comma).unwrap_or_default(), rest.get(comma + 1..).unwrap_or_default()),
                None => (rest, &b""[..]),
            },
            None => (&b""[..], text),
        };
        let bytes = u64::try_from(data.len() / 4 * 3).unwrap_or(u64::MAX);
        let kind = Base64::new(data).kind(bytes).unwrap_or_else(|| kind_named(named, bytes));
        Self { kind, detail: None, bytes: Some(bytes) }
    }

    /// Says what it is, if its bytes did not: a MIME type or the name of a format.
    pub(super) fn is_a(&mut self, name: &[u8]) {
        if self.kind == Kind::Other {
            self.kind = kind_named(name, self.bytes.unwrap_or(0));
        }
    }

    /// How many tokens it has for a model.
    pub(super) fn tokens(&self, model: &str) -> u64 {
        if super::estimate::is_of_google(model) { self.tokens_of_gemini(model) } else { self.tokens_of_openai(model) }
    }

    fn tokens_of_gemini(&self, model: &str) -> u64 {
        // 1.x and 2.x count by tiles; the ones after count by what the medium is.
        let by_tiles = ["gemini-1", "gemini-2", "gemma"].iter().any(|older| model.starts_with(older));
        match self.kind {
            Kind::Image { .. } if !by_tiles => GEMINI_3_IMAGE,
            Kind::Image { size } => gemini_tiles(size.unwrap_or((USUAL_SIDE, USUAL_SIDE))).saturating_mul(GEMINI_TILE),
            Kind::Audio { seconds } => seconds.saturating_mul(GEMINI_AUDIO_PER_SECOND),
            Kind::Video { seconds } if by_tiles => seconds.saturating_mul(GEMINI_VIDEO_PER_SECOND),
            Kind::Video { seconds } => seconds.saturating_mul(GEMINI_3_VIDEO_PER_SECOND + GEMINI_AUDIO_PER_SECOND),
            Kind::Document { pages } => pages.saturating_mul(if by_tiles { GEMINI_TILE } else { GEMINI_3_PAGE }),
            Kind::Other => self.tokens_of_other(),
        }
    }

    fn tokens_of_openai(&self, model: &str) -> u64 {
        match self.kind {
            Kind::Image { size } => {
                let size = size.unwrap_or((USUAL_SIDE, USUAL_SIDE));
                openai_image(model, size, self.detail.unwrap_or(Detail::High))
            }
            Kind::Audio { seconds } => seconds.saturating_mul(OPENAI_AUDIO_PER_SECOND),
            Kind::Document { pages } => pages.saturating_mul(OPENAI_PAGE),
            Kind::Video { .. } | Kind::Other => self.tokens_of_other(),
        }
    }

    fn tokens_of_other(&self) -> u64 {
        // A file of text has no more tokens than its bytes say.
        self.bytes.map_or(TOKENS_OF_OTHER, |bytes| (bytes / 4).clamp(1, TOKENS_OF_OTHER))
    }
}

/// What its MIME type or the name of its format says.
fn kind_named(name: &[u8], bytes: u64) -> Kind {
    match name {
        _ if name.starts_with(b"image/") => Kind::Image { size: None },
        b"wav" | b"mp3" | b"flac" | b"opus" | b"pcm16" => {
            Kind::Audio { seconds: bytes.div_ceil(AUDIO_BYTES_PER_SECOND) }
        }
        _ if name.starts_with(b"audio/") => Kind::Audio { seconds: bytes.div_ceil(AUDIO_BYTES_PER_SECOND) },
        _ if name.starts_with(b"video/") => Kind::Video { seconds: bytes.div_ceil(VIDEO_BYTES_PER_SECOND) },
        _ if name.starts_with(b"application/pdf") => Kind::Document { pages: bytes.div_ceil(PAGE_BYTES).max(1) },
        _ => Kind::Other,
    }
}

/// "Images with both dimensions <= 384 pixels are counted as 258 tokens"; larger ones are cut into tiles whose side is the
/// smaller one divided by 1.5, from 256 to 768 pixels (ai.google.dev/gemini-api/docs/image-understanding).
fn gemini_tiles((width, height): (u32, u32)) -> u64 {
    let (width, height) = (u64::from(width).min(SIDE_MAX), u64::from(height).min(SIDE_MAX));
    if width <= 384 && height <= 384 {
        return 1;
    }
    let side = (width.min(height) * 2 / 3).clamp(256, 768);
    width.div_ceil(side) * height.div_ceil(side)
}

/// How OpenAI counts the images of a model (developers.openai.com/api/docs/guides/images-vision).
enum Rule {
    /// A base, and so much for each tile of 512 pixels of the image, scaled to fit 2048 × 2048 and then to a smaller side of
    /// at most 768.
    Tiles { base: u64, tile: u64 },
    /// Patches of 32 pixels up to so many, at a rate in hundredths.
    Patches { most: u64, hundredths: u64 },
}

/// The rules by the beginning of a model's name, the longer ones first; [`TILES`] for every other.
const RULES: &[(&str, Rule)] = &[
    ("gpt-4o-mini", Rule::Tiles { base: 2833, tile: 5667 }),
    ("gpt-4.1-mini", Rule::Patches { most: 1536, hundredths: 162 }),
    ("gpt-4.1-nano", Rule::Patches { most: 1536, hundredths: 246 }),
    ("o4-mini", Rule::Patches { most: 1536, hundredths: 172 }),
    ("codex-mini", Rule::Patches { most: 1536, hundredths: 172 }),
    ("o1", Rule::Tiles { base: 75, tile: 150 }),
    ("o3", Rule::Tiles { base: 75, tile: 150 }),
    ("computer-use", Rule::Tiles { base: 65, tile: 129 }),
    ("gpt-5-mini", Rule::Patches { most: 1536, hundredths: 162 }),
    ("gpt-5-nano", Rule::Patches { most: 1536, hundredths: 246 }),
    ("gpt-5.1-codex-mini", Rule::Patches { most: 1536, hundredths: 162 }),
    ("gpt-5.1", Rule::Tiles { base: 70, tile: 140 }),
    ("gpt-5.2", Rule::Patches { most: 1536, hundredths: 120 }),
    ("gpt-5.3", Rule::Patches { most: 1536, hundredths: 120 }),
    ("gpt-5.4-mini", Rule::Patches { most: 1536, hundredths: 162 }),
    ("gpt-5.4-nano", Rule::Patches { most: 1536, hundredths: 246 }),
    ("gpt-5.", Rule::Patches { most: 2500, hundredths: 120 }),
    ("gpt-5", Rule::Tiles { base: 70, tile: 140 }),
    ("gpt-6", Rule::Patches { most: 2500, hundredths: 120 }),
];

const TILES: Rule = Rule::Tiles { base: 85, tile: 170 };

/// "original" looks at an image as it is, up to so many patches.
const PATCHES_OF_ORIGINAL: u64 = 10_000;

/// "low" looks at an image of 512 × 512.
const PATCHES_OF_LOW: u64 = 256;

fn openai_image(model: &str, (width, height): (u32, u32), detail: Detail) -> u64 {
    let (width, height) = (u64::from(width).clamp(1, SIDE_MAX), u64::from(height).clamp(1, SIDE_MAX));
    let rule = RULES.iter().find(|(name, _)| model.starts_with(name)).map_or(&TILES, |(_, rule)| rule);
    match (rule, detail) {
        (Rule::Tiles { base, .. }, Detail::Low) => *base,
        (Rule::Tiles { base, tile }, Detail::High | Detail::Original) => {
            let (width, height) = shrunk(width, height, width.max(height), 2048);
            let (width, height) = shrunk(width, height, width.min(height), 768);
            base + width.div_ceil(512) * height.div_ceil(512) * tile
        }
        (Rule::Patches { most, hundredths }, detail) => {
            let most = match detail {
                Detail::Low => PATCHES_OF_LOW,
                Detail::High => *most,
                Detail::Original => PATCHES_OF_ORIGINAL,
            };
            let patches = (width.div_ceil(32) * height.div_ceil(32)).min(most);
            (patches * hundredths).div_ceil(100)
        }
    }
}

/// The sides with `side` made `most`, if it is longer, and the other by the same measure.
fn shrunk(width: u64, height: u64, side: u64, most: u64) -> (u64, u64) {
    if side <= most { (width, height) } else { ((width * most).div_ceil(side), (height * most).div_ceil(side)) }
}

/// Bytes in base64, read one by one where they stand, in either alphabet.
#[derive(Clone, Copy)]
struct Base64<'a>(&'a [u8]);

impl<'a> Base64<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    fn byte(self, at: usize) -> Option<u8> {
        let group = at / 3 * 4 + at % 3;
        let (high, low) = (six_bits(*self.0.get(group)?)?, six_bits(*self.0.get(group + 1)?)?);
        u8::try_from(((high << 6 | low) >> (4 - 2 * (at % 3))) & 0xff).ok()
    }

    fn bytes<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(at.checked_add(index)?)?;
        }
        Some(bytes)
    }

    fn big(self, at: usize) -> Option<u32> {
        self.bytes(at).map(u16::from_be_bytes).map(u32::from)
    }

    fn little(self, at: usize) -> Option<u32> {
        self.bytes(at).map(u16::from_le_bytes).map(u32::from)
    }

    /// What these bytes are, of which there are so many.
    fn kind(self, bytes: u64) -> Option<Kind> {
        let audio = Kind::Audio { seconds: bytes.div_ceil(AUDIO_BYTES_PER_SECOND) };
        let video = Kind::Video { seconds: bytes.div_ceil(VIDEO_BYTES_PER_SECOND) };
        Some(match self.bytes::<4>(0)? {
            [0x89, b'P', b'N', b'G'] => Kind::Image { size: self.png() },
            [b'G', b'I', b'F', b'8'] => Kind::Image { size: self.little(6).zip(self.little(8)) },
            [0xff, 0xd8, 0xff, _] => Kind::Image { size: self.jpeg() },
            [b'R', b'I', b'F', b'F'] => match &self.bytes::<4>(8)? {
                b"WEBP" => Kind::Image { size: self.webp() },
                b"WAVE" => self.wave(bytes),
                _ => return None,
            },
            [b'%', b'P', b'D', b'F'] => Kind::Document { pages: bytes.div_ceil(PAGE_BYTES).max(1) },
            [b'I', b'D', b'3', _] | [0xff, 0xe0..=0xff, _, _] => audio,
            [b'O', b'g', b'g', b'S'] | [b'f', b'L', b'a', b'C'] => audio,
            [0x1a, 0x45, 0xdf, 0xa3] => video,
            _ if self.bytes::<4>(4)? == *b"ftyp" => match &self.bytes::<3>(8)? {
                b"M4A" => audio,
                b"hei" | b"avi" | b"mif" => Kind::Image { size: None },
                _ => video,
            },
            _ => return None,
        })
    }

    fn png(self) -> Option<(u32, u32)> {
        let side = |at| self.bytes(at).map(u32::from_be_bytes);
        side(16).zip(side(20))
    }

    fn webp(self) -> Option<(u32, u32)> {
        let of_three =
            |at| self.bytes::<3>(at).map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]) + 1);
        match &self.bytes::<4>(12)? {
            b"VP8X" => of_three(24).zip(of_three(27)),
            b"VP8L" => {
                let bits = u32::from_le_bytes(self.bytes(21)?);
                Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
            }
            b"VP8 " => Some((self.little(26)? & 0x3fff, self.little(28)? & 0x3fff)),
            _ => None,
        }
    }

    /// The size stands in the first segment of a frame; those before it are stepped over.
    fn jpeg(self) -> Option<(u32, u32)> {
        let mut at = 2;
        for _ in 0..SEGMENTS_MAX {
            let [mark, kind] = self.bytes(at)?;
            if mark != 0xff {
                return None;
            }
            if matches!(kind, 0xc0..=0xcf) && !matches!(kind, 0xc4 | 0xc8 | 0xcc) {
                return self.big(at + 7).zip(self.big(at + 5));
            }
            at += 2 + usize::try_from(self.big(at + 2)?).ok()?;
        }
        None
    }

    /// By how many bytes a second of it has, if that is said where it is usually said.
    fn wave(self, bytes: u64) -> Kind {
        let is_usual = self.bytes(12) == Some(*b"fmt ");
        let bytes = bytes.saturating_sub(WAVE_HEADER_BYTES);
        let rate = self.bytes(28).filter(|_| is_usual).map(u32::from_le_bytes).filter(|rate| *rate > 0);
        Kind::Audio { seconds: bytes.div_ceil(rate.map_or(AUDIO_BYTES_PER_SECOND, u64::from)) }
    }
}

fn six_bits(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests;
