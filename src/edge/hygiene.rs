//! What of a request head is ambiguous or malformed, although pingora's parser takes it: refused before anything else
//! looks at it, with the connection closed, since nobody can say where the next request begins.
//!
//! Pure: it sees the raw head (request line to blank line) and the parsed method.

use http::Method;
use http::header::{self, HeaderMap};

use crate::domain::refusal::Refusal;

/// Says what is wrong with a head. `raw` is the head as it was sent.
pub fn check(raw: &[u8], method: &Method) -> Result<(), Refusal> {
    let bad = |reason| Err(Refusal::BadRequest { reason });
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return bad("the gateway serves neither TRACE nor CONNECT");
    }
    let mut lines = raw.split(|byte| *byte == b'\n');
    let request_line = lines.next().map(|line| line.trim_ascii_end()).unwrap_or_default();
    if let Some(reason) = wrong_line(request_line) {
        return bad(reason);
    }
    let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
    for line in lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty()) {
        let Some(colon) = memchr::memchr(b':', line) else { return bad("a header line without a colon") };
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, b":"));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        match () {
            () if name.first().is_none_or(u8::is_ascii_whitespace) => return bad("a folded or nameless header line"),
            () if value.iter().any(|byte| matches!(byte, 0 | b'\r')) => return bad("a control character in a header"),
            () if name.eq_ignore_ascii_case(b"host") => hosts += 1,
            () if name.eq_ignore_ascii_case(b"content-length") => {
                lengths += 1;
                // RFC 9110, 8.6: digits and nothing else. A list of equal values is valid, and a way to smuggle.
                if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return bad("a Content-Length that is no number");
                }
            }
            () if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                codings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return bad("a Transfer-Encoding other than chunked");
                }
            }
            () => {}
        }
    }
    match (hosts, lengths, codings) {
        (_, 2.., _) | (_, _, 2..) => bad("more than one Content-Length or Transfer-Encoding"),
        (_, 1, 1) => bad("both Content-Length and Transfer-Encoding"),
        // RFC 9112, 6.1: its framing is faulty, whatever it means.
        (_, _, 1) if request_line.ends_with(b" HTTP/1.0") => bad("a Transfer-Encoding in HTTP/1.0"),
        (2.., _, _) => bad("more than one Host"),
        // RFC 9112, 3.2: every HTTP/1.1 request has one.
        (0, _, _) if request_line.ends_with(b" HTTP/1.1") => bad("no Host"),
        _ => Ok(()),
    }
}

/// The same for a head of HTTP/2. What is malformed in itself the codec has refused: this is what becomes ambiguous when it
/// is passed on in HTTP/1.1.
pub fn check_http2(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |reason| Err(Refusal::BadRequest { reason });
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return bad("the gateway serves neither TRACE nor CONNECT");
    }
    if !path.starts_with('/') {
        return bad("a request target that is no path");
    }
    let of_a_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if of_a_connection.iter().any(|name| headers.contains_key(*name)) {
        return bad("a header of a connection of HTTP/1.1");
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| value.as_bytes());
    let is_number = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => bad("more than one Content-Length"),
        (Some(value), None) if !is_number(value) => bad("a Content-Length that is no number"),
        _ => Ok(()),
    }
}

/// RFC 9112, 3: method, one space, target, one space, version.
fn wrong_line(line: &[u8]) -> Option<&'static str> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (_method, target, version) = (parts.next(), parts.next()?, parts.next());
    match version {
        Some(b"HTTP/1.1" | b"HTTP/1.0") if parts.next().is_none() => {}
        _ => return Some("a request line that is not method, target and HTTP/1.1"),
    }
    let is_plain = target.iter().all(u8::is_ascii_graphic);
    let has_form = target.starts_with(b"/") || target.starts_with(b"http://") || target.starts_with(b"https://");
    if is_plain && has_form { None } else { Some("a request target that is no path") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ambiguous_is_refused_and_what_is_odd_but_legal_is_not() {
        let rows = [
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", true),
            ("GET /v1/x HTTP/1.0\r\n\r\n", true),
            ("GET http://a/v1/x HTTP/1.1\r\nHost: a\r\nX-Odd:\r\nx_y: \tz \r\n\r\n", true),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", true),
            ("GET /v1/x HTTP/1.1\r\n\r\n", false),
            ("POST /v1/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", false),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", false),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", false),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false),
            ("GET /v1/x HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", false),
            ("GET v1/x HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET  /v1/x HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET /v1/x HTTP/1.32\r\nHost: a\r\n\r\n", false),
            ("GET /v1/\0x HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ];
        for (head, good) in rows {
            assert_eq!(check(head.as_bytes(), &Method::POST).is_ok(), good, "{head:?}");
        }
        let of_http2 = [
            (Method::POST, "/v1/x", &[("content-length", "5")][..], true),
            (Method::GET, "/v1/x", &[("te", "trailers")], true),
            (Method::POST, "/v1/x", &[("content-length", "5"), ("content-length", "5")], false),
            (Method::POST, "/v1/x", &[("content-length", "5, 5")], false),
            (Method::POST, "/v1/x", &[("content-length", "")], false),
            (Method::POST, "/v1/x", &[("transfer-encoding", "chunked")], false),
            (Method::POST, "/v1/x", &[("connection", "close")], false),
            (Method::OPTIONS, "*", &[], false),
            (Method::TRACE, "/v1/x", &[], false),
            (Method::CONNECT, "", &[], false),
        ];
        for (method, path, pairs, good) in of_http2 {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(check_http2(&method, path, &headers).is_ok(), good, "{method} {path} {pairs:?}");
        }
        let good = rows[0].0.as_bytes();
        assert!(check(good, &Method::TRACE).is_err());
        assert!(check(good, &Method::CONNECT).is_err());
    }
}
