//! What is refused and as what, and what odd clients send that is not.

use super::*;

const HEAD_BYTES: usize = 64 * 1024;
const HEADERS: usize = 128;

/// The status of a refusal; 0 where there is none and the head is whole.
fn status(raw: &[u8]) -> u16 {
    let mut statuses: Vec<u16> = [raw.len(), 1, 7]
        .into_iter()
        .map(|step| {
            let mut head = Head::default();
            for end in (0..raw.len()).step_by(step).chain([raw.len()]) {
                match head.look(&raw[..end]) {
                    Ok(None) => {}
                    Ok(Some(whole)) => {
                        assert_eq!(whole.ends, raw.len());
                        return 0;
                    }
                    Err(refusal) => return refusal.status(),
                }
            }
            panic!("not over: {:?}", raw.escape_ascii().to_string());
        })
        .collect();
    statuses.dedup();
    assert_eq!(statuses.len(), 1, "{:?} depends on how it comes: {statuses:?}", raw.escape_ascii().to_string());
    statuses[0]
}

#[test]
fn what_is_odd_but_means_one_thing_is_let_in() {
    for (head, begins, body) in [
        ("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 0, Framing::Length(5)),
        ("POST /v1/x HTTP/1.1\r\nHost: a\r\ncontent-length:\t007 \r\n\r\n", 0, Framing::Length(7)),
        ("\r\nGET /v1/x HTTP/1.0\r\n\r\n", 2, Framing::Length(0)),
        ("\r\n\r\nGET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 4, Framing::Length(0)),
        ("GET http://a/v1/x HTTP/1.1\r\nHost: a\r\nX-Odd:\r\nx_y: \tz \r\n\r\n", 0, Framing::Length(0)),
        ("GET HTTPS://a.b-c_d:8080?x HTTP/1.1\r\nHost: a.b-c_d:8080\r\n\r\n", 0, Framing::Length(0)),
        ("GET https://a:443/ HTTP/1.1\r\nHost: A\r\n\r\n", 0, Framing::Length(0)),
        ("GET http://A HTTP/1.1\r\nHost: a:80\r\n\r\n", 0, Framing::Length(0)),
        ("GET http://[::1]:/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", 0, Framing::Length(0)),
        ("GET http://a/ HTTP/1.0\r\n\r\n", 0, Framing::Length(0)),
        ("POST /v1/x HTTP/1.1\r\nhOST: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n", 0, Framing::Chunked),
        (
            "get /v1/x?a[b]={c}|d^`:@!$&'()*+,; HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: \"x\"; é\r\n\r\n",
            0,
            Framing::Length(0),
        ),
    ] {
        // `GET ` is before it.
        let origin = head.split_once("://").map(|(scheme, rest)| {
            let host = rest.split(['/', '?', ' ']).next().unwrap();
            (4, scheme.len() + 3 + host.len())
        });
        let whole = Whole { begins, ends: head.len(), body, upgrades: false, origin };
        assert_eq!(Head::default().look(head.as_bytes()), Ok(Some(whole)), "{head:?}");
        assert_eq!(status(head.as_bytes()), 0);
    }
    let upgrades = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\nbehind";
    let whole = Head::default().look(upgrades.as_bytes()).unwrap().unwrap();
    assert_eq!((whole.upgrades, upgrades.get(whole.ends..)), (true, Some("behind")));
}

#[test]
fn a_request_line_that_is_none_is_refused() {
    for (line, expected) in [
        ("TRACE /v1/x HTTP/1.1", 405),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("GET /v1/x HTTP/1.32", 505),
        ("GET /v1/x HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET /v1/x HTTP/01.1", 505),
        ("GET /v1/x", 505),
        ("GET /v1/x HTTP/1.", 400),
        ("GET /v1/x HTTP/1.1.1", 400),
        ("GET /v1/x http/1.1", 400),
        ("GET /v1/x HTTP/1.1 ", 400),
        ("GET /v1/x HTTP/1.1 x", 400),
        ("GET  /v1/x HTTP/1.1", 400),
        ("GET\t/v1/x HTTP/1.1", 400),
        (" GET /v1/x HTTP/1.1", 400),
        ("GET /v1/x\tHTTP/1.1", 505),
        ("G@T /v1/x HTTP/1.1", 400),
        ("GETGETGETGETGETGETGETGETGETGETGETG / HTTP/1.1", 400),
        ("GET v1/x HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET ftp://a/x HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("GET http://u@a/x HTTP/1.1", 400),
        ("GET http://a:x/ HTTP/1.1", 400),
        ("GET /v1/\0x HTTP/1.1", 400),
        ("GET /v1/\rx HTTP/1.1", 400),
        ("GET /v1/\x7fx HTTP/1.1", 400),
        ("GET /v1/é HTTP/1.1", 400),
        ("GET /v1/x#y HTTP/1.1", 400),
        ("GET /v1\\x HTTP/1.1", 400),
        ("GET /v1/<x> HTTP/1.1", 400),
        ("GET /v1/\"x\" HTTP/1.1", 400),
        ("\u{16}\u{3}\u{1}", 400),
    ] {
        assert_eq!(status(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), expected, "{line:?}");
    }
    assert_eq!(status(b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(
        Head::default().look(b"\x16\x03\x01\x02").unwrap_err().status(),
        400,
        "not one line of TLS is waited for"
    );
}

#[test]
fn a_header_that_two_parsers_read_differently_is_refused() {
    for (headers, expected) in [
        ("", 400),
        ("Host: a\r\nHost: a", 400),
        ("Host:", 400),
        ("Host: a b", 400),
        ("Host: a/b", 400),
        ("Host: u@a", 400),
        ("Host: a:123456", 400),
        ("Host: a:b", 400),
        ("Host: [::1", 400),
        ("Host: [::1]x", 400),
        ("Host: a,b", 400),
        ("Host: :80", 400),
        ("Host: a\r\nContent-Length: 5\r\nContent-Length: 5", 400),
        ("Host: a\r\nContent-Length: 5, 5", 400),
        ("Host: a\r\nContent-Length:", 400),
        ("Host: a\r\nContent-Length: 18446744073709551616", 400),
        ("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked", 501),
        ("Host: a\r\nTransfer-Encoding: xchunked", 501),
        ("Host: a\r\nTransfer-Encoding: \"chunked\"", 400),
        ("Host: a\r\nTransfer-Encoding: chunked;a=b", 400),
        ("Host: a\r\nTransfer-Encoding:", 400),
        ("Host: a\r\nTransfer-Encoding: \x0bchunked", 400),
        ("Host: a\r\nContent-Type: a/b\r\nContent-Type: a/c", 400),
        ("Host: a\r\nX: 1\r\n folded", 400),
        ("Host: a\r\nX : 1", 400),
        ("Host: a\r\n: 1", 400),
        ("Host: a\r\nX", 400),
        ("Host: a\r\nX: a\rb", 400),
        ("Host: a\r\nX: a\0b", 400),
        ("Host: a\r\nX: a\x7fb", 400),
        ("Host: a\nX: b", 400),
        ("Host: a\r\nX\u{e9}: b", 400),
    ] {
        assert_eq!(status(format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes()), expected, "{headers:?}");
    }
    assert_eq!(status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
}

#[test]
fn a_target_of_another_host_than_the_header_names_is_refused() {
    for (target, host) in
        [("http://b/", "a"), ("https://a:80/", "a"), ("http://a:443", "a"), ("http://a:8080?x", "a:80")]
    {
        assert_eq!(status(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()), 400, "{target} {host}");
    }
}

#[test]
fn a_head_has_its_limits_to_the_byte() {
    let head = |target: usize, headers: usize, bytes: usize| {
        let mut text = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "x".repeat(target - 1));
        text.push_str(&"X: y\r\n".repeat(headers - 1));
        let rest = bytes.saturating_sub(text.len() + 2);
        if rest > 0 {
            text.push_str(&format!("Y:{}\r\n", "z".repeat(rest - 4)));
        }
        text.push_str("\r\n");
        text.into_bytes()
    };
    assert_eq!(status(&head(TARGET_BYTES_MAX, 1, 0)), 0);
    assert_eq!(status(&head(TARGET_BYTES_MAX + 1, 1, 0)), 414);
    assert_eq!(status(&head(1, HEADERS, 0)), 0);
    assert_eq!(status(&head(1, HEADERS + 1, 0)), 431);
    assert_eq!(status(&head(1, 1, HEAD_BYTES)), 0);
    assert_eq!(status(&head(1, 1, HEAD_BYTES + 1)), 431);
    let endless = |text: &str| Head::default().look(text.as_bytes()).map_err(|refusal| refusal.status());
    assert_eq!(endless(&format!("GET /{}", "x".repeat(TARGET_BYTES_MAX + METHOD_BYTES_MAX))), Err(414));
    assert_eq!(endless(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES))), Err(431));
    assert_eq!(endless(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8192))), Ok(None));
}

#[test]
fn http_2_is_held_to_what_it_becomes() {
    type Row = (Method, &'static str, &'static [(&'static str, &'static str)], u16);
    let rows: [Row; 13] = [
        (Method::POST, "/v1/x", &[("content-length", "5")][..], 0),
        (Method::GET, "/v1/x", &[("te", "trailers")], 0),
        (Method::POST, "/v1/x", &[("content-length", "5"), ("content-length", "5")], 400),
        (Method::POST, "/v1/x", &[("content-length", "5, 5")], 400),
        (Method::POST, "/v1/x", &[("content-length", "")], 400),
        (Method::POST, "/v1/x", &[("content-type", "a"), ("content-type", "b")], 400),
        (Method::POST, "/v1/x", &[("transfer-encoding", "chunked")], 400),
        (Method::POST, "/v1/x", &[("connection", "close")], 400),
        (Method::OPTIONS, "*", &[], 400),
        (Method::GET, "/v1\\x", &[], 400),
        (Method::TRACE, "/v1/x", &[], 405),
        (Method::CONNECT, "", &[], 405),
        (Method::GET, "/v1/x", &[("x", "y"); HEADERS + 1], 431),
    ];
    for (method, target, pairs, expected) in rows {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let status =
            check_http2(&method, target, &headers, Limits::default()).map_or_else(|refusal| refusal.status(), |()| 0);
        assert_eq!(status, expected, "{method} {target} {pairs:?}");
    }
}

#[test]
fn what_a_connection_may_name_takes_no_header_away_that_was_judged() {
    for (named, expected) in [
        ("keep-alive, te", 0),
        ("Upgrade, HTTP2-Settings", 0),
        (",, close ,", 0),
        ("x-hop, Content-Length, Authorization", 0),
        ("content-type", 400),
        ("close,\tCONTENT-TYPE ", 400),
        ("Content-Encoding", 400),
        ("x-a, X-Goog-Upload-Command", 400),
    ] {
        let head = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\nConnection: {named}\r\n\r\n");
        assert_eq!(status(head.as_bytes()), expected, "{named}");
    }
}
