//! Heads and chunks of requests, as what refuses the ambiguous ones reads them.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::control::Control;
use crate::hygiene::chunks::Chunks;
use crate::hygiene::{Framing, Head, Limits, Whole, check_http2};

fn looked(pieces: &[&[u8]]) -> Option<Option<Whole>> {
    let (mut head, mut raw) = (Head::new(Limits::default()), Vec::new());
    for piece in pieces {
        raw.extend_from_slice(piece);
        match head.look(&raw) {
            Err(_) => return None,
            Ok(None) => {}
            whole => return whole.ok(),
        }
    }
    Some(None)
}

/// A head is taken or refused alike however it comes. One that is taken reads the same to another parser, has one length, one
/// host, and nothing in it that ends a line.
pub fn head(data: &[u8]) {
    let (raw, pieces) = Control(data).cut();
    let seen = looked(&[raw]);
    assert_eq!(looked(&pieces), seen);
    assert_eq!(looked(&raw.chunks(1).collect::<Vec<_>>()), seen);
    let Some(Some(whole)) = seen else { return };
    let head = &raw[whole.begins..whole.ends];
    assert!(raw[..whole.begins].iter().all(|byte| matches!(byte, b'\r' | b'\n')));
    assert!(head.ends_with(b"\r\n\r\n"));
    for (at, byte) in head.iter().enumerate() {
        assert_eq!(*byte == b'\n', at > 0 && head[at - 1] == b'\r', "a bare CR or LF");
        assert!(matches!(byte, b'\t' | b'\r' | b'\n') || !byte.is_ascii_control());
    }
    let mut room = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut room);
    assert_eq!(
        request.parse(head).unwrap(),
        httparse::Status::Complete(head.len()),
        "another parser ends it elsewhere"
    );
    let target = request.path.unwrap();
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!["CONNECT", "TRACE"].contains(&request.method.unwrap()));
    let all = |name: &str| -> Vec<&[u8]> {
        request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
            .collect()
    };
    let (lengths, codings, hosts) = (all("content-length"), all("transfer-encoding"), all("host"));
    assert!(lengths.len() + codings.len() <= 1 && hosts.len() <= 1);
    assert!(hosts.len() == 1 || request.version == Some(0));
    match whole.body {
        Framing::Chunked => {
            assert_eq!(request.version, Some(1));
            assert!(codings[0].trim_ascii().eq_ignore_ascii_case(b"chunked"));
        }
        Framing::Length(length) => {
            let said = lengths.first().map_or("0", |value| std::str::from_utf8(value).unwrap().trim());
            assert!(said.bytes().all(|byte| byte.is_ascii_digit()) && said.parse::<u64>().unwrap() == length);
            assert!(codings.is_empty());
        }
    }
    assert_eq!(whole.upgrades, !all("upgrade").is_empty());
    // Over HTTP/2 the same request is no less wrong.
    let mut headers = HeaderMap::new();
    for header in request.headers.iter() {
        headers.append(header.name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(header.value).unwrap());
    }
    let method: Method = request.method.unwrap().parse().unwrap();
    if check_http2(&method, target, &headers, Limits::default()).is_ok() {
        assert!(target.starts_with('/') && codings.is_empty());
    }
}

/// Where a chunked body ends by a reader that takes no shortcut.
fn end_of(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(&body[at..]).ok()? else {
            return None;
        };
        at += line;
        if size == 0 {
            let mut room = [httparse::EMPTY_HEADER; 4096];
            let httparse::Status::Complete((trailers, _)) = httparse::parse_headers(&body[at..], &mut room).ok()?
            else {
                return None;
            };
            return Some(at + trailers);
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        if body.get(at..at.checked_add(2)?) != Some(b"\r\n") {
            return None;
        }
        at += 2;
    }
}

/// A chunked body that is taken ends where another parser ends it, however it comes.
pub fn chunks(data: &[u8]) {
    let (body, pieces) = Control(data).cut();
    let followed = |pieces: &[&[u8]]| {
        let (mut chunks, mut end) = (Chunks::default(), 0);
        for piece in pieces {
            end += chunks.follow(piece).ok()?;
        }
        Some((end, chunks.is_over()))
    };
    let whole = followed(&[body]);
    assert_eq!(followed(&pieces), whole);
    assert_eq!(followed(&body.chunks(1).collect::<Vec<_>>()), whole);
    match whole {
        Some((end, true)) => assert_eq!(end_of(body), Some(end)),
        Some((end, false)) => assert_eq!(end, body.len()),
        None => {}
    }
}
