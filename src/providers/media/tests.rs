//! Media are recognised by their headers and counted by the examples of their providers.

use super::*;

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let group = |three: &[u8]| {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        [letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), letter(bits)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), &[0; 8]].concat()
}

fn inline(bytes: &[u8]) -> Medium {
    Medium::inline(base64(bytes).as_bytes())
}

#[test]
fn the_size_of_an_image_is_read_from_its_header() {
    let size = |bytes: &[u8]| match inline(bytes).kind {
        Kind::Image { size } => size,
        other => panic!("{other:?}"),
    };
    assert_eq!(size(&png(1024, 768)), Some((1024, 768)));
    assert_eq!(size(b"GIF89a\x20\x03\x58\x02\0\0\0"), Some((800, 600)));
    let segment = |length: u16| [&[0xff, 0xe1][..], &length.to_be_bytes(), &vec![7; usize::from(length) - 2]].concat();
    let frame = b"\xff\xc2\0\x11\x08\x02\x58\x03\x20\x03".to_vec();
    let jpeg = |before: &[u8]| [b"\xff\xd8".as_slice(), before, &frame].concat();
    assert_eq!(size(&jpeg(&segment(2))), Some((800, 600)));
    assert_eq!(size(&jpeg(&[segment(60_000), segment(60_000)].concat())), Some((800, 600)));
    assert_eq!(size(&jpeg(&segment(2).repeat(SEGMENTS_MAX))), None);
    assert_eq!(size(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x1f\x03\0\x57\x02\0"), Some((800, 600)));
    assert_eq!(size(b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x20\x03\x58\x02\0\0"), Some((800, 600)));
    let lossless = (799u32 | 599 << 14).to_le_bytes();
    assert_eq!(size(&[b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".as_slice(), &lossless, &[0]].concat()), Some((800, 600)));
    assert_eq!(size(b"\x89PNG\r\n\x1a\n"), None);
}

#[test]
fn a_medium_is_what_its_bytes_say_and_else_what_its_name_says() {
    let named = |text: &str| Medium::inline(text.as_bytes()).kind;
    assert_eq!(named(&format!("data:image/jpeg;base64,{}", base64(&png(7, 9)))), Kind::Image { size: Some((7, 9)) });
    assert_eq!(named("data:image/avif;base64,AAAA"), Kind::Image { size: None });
    assert_eq!(named("data:"), Kind::Other);
    assert_eq!(named("data:text/plain;base64,SGVsbG8="), Kind::Other);
    let wave = [b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".as_slice(), &[0; 4], &32_000u32.to_le_bytes()].concat();
    let of_ten_seconds = [wave.as_slice(), &vec![0; 320_000 - wave.len()]].concat();
    assert_eq!(inline(&of_ten_seconds).kind, Kind::Audio { seconds: 10 });
    assert_eq!(inline(&[b"ID3\x04".as_slice(), &[0; 160_000]].concat()).kind, Kind::Audio { seconds: 11 });
    assert_eq!(inline(&[b"%PDF-1.3".as_slice(), &[0; 120_000]].concat()).kind, Kind::Document { pages: 3 });
    let mut unknown = inline(&[0; 30_000]);
    assert_eq!(unknown.kind, Kind::Other);
    unknown.is_a(b"audio/pcm");
    assert_eq!(unknown.kind, Kind::Audio { seconds: 2 });
}

#[test]
fn images_count_as_the_providers_examples_do() {
    let count = |model: &str, size, detail| Medium { kind: Kind::Image { size }, detail, bytes: None }.tokens(model);
    let square = Some((1024, 1024));
    for (model, size, detail, tokens) in [
        // "A 1024 x 1024 square image in detail: high mode costs 765 tokens."
        ("gpt-4o", square, None, 765),
        // "A 2048 x 4096 image in detail: high mode costs 1105 tokens."
        ("gpt-4o", Some((2048, 4096)), Some(Detail::High), 1105),
        // "A 4096 x 8192 image in detail: low mode costs 85 tokens."
        ("gpt-4o", Some((4096, 8192)), Some(Detail::Low), 85),
        ("gpt-4o", None, None, 765),
        ("gpt-4o-mini", square, None, 2833 + 4 * 5667),
        ("gpt-5", square, None, 70 + 4 * 140),
        ("o3-2025-04-16", square, None, 75 + 4 * 150),
        // "1024 x 1024 has 1024 patches."
        ("gpt-4.1-mini", square, None, 1659),
        // "1800 x 2400 is scaled down to no more than 1536 patches."
        ("gpt-4.1-nano", Some((1800, 2400)), None, 3779),
        ("o4-mini", Some((32, 32)), None, 2),
        ("gpt-5.4", Some((8000, 8000)), None, 3000),
        ("gpt-5.4", Some((8000, 8000)), Some(Detail::Original), 12_000),
        ("gpt-4o", Some((u32::MAX, 1)), None, 85 + 4 * 170),
        ("gpt-4o", Some((0, 0)), None, 85 + 170),
        ("gemini-2.5-flash", Some((384, 384)), None, 258),
        ("gemini-2.5-flash", Some((385, 384)), None, 4 * 258),
        // "A crop unit of 960 x 540 is 360, so 6 tiles: 1548 tokens."
        ("gemini-2.5-flash", Some((960, 540)), None, 1548),
        ("gemini-3-pro-preview", Some((960, 540)), None, 1120),
        ("gemini-2.0-flash", Some((u32::MAX, u32::MAX)), None, 131 * 131 * 258),
    ] {
        assert_eq!(count(model, size, detail), tokens, "{model} {size:?} {detail:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_medium_fail_and_each_byte_is_read_as_it_was_written(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), head in 0usize..8
    ) {
        let heads: [&[u8]; 8] = [b"", b"\xff\xd8\xff", b"RIFF0000WEBPVP8L", b"RIFF0000WAVEfmt ", b"GIF8", b"\x89PNG", b"0000ftyp", b"%PDF"];
        let bytes = [heads[head], &bytes].concat();
        let text = base64(&bytes);
        for (at, byte) in bytes.iter().enumerate() {
            proptest::prop_assert_eq!(Base64::new(text.as_bytes()).byte(at), Some(*byte));
        }
        for model in ["gpt-4o", "gpt-5.4", "gemini-2.5-pro", "gemini-3-flash", ""] {
            inline(&bytes).tokens(model);
            Medium::inline(&bytes).tokens(model);
        }
    }
}
