//! Request lines: hosts, methods, versions, and paths that somebody reads as other paths.

use super::*;

const GET: &str = "GET /v1/models HTTP/1.1";

pub fn rows() -> Vec<Row> {
    vec![hosts(), lines(), methods(), paths(), billed(), queries()]
}

fn hosts() -> Row {
    Row::new("A9", "no host, two, or what is none").refused(
        &[400],
        [
            ("none", get_with(GET, &[])),
            ("an empty one", get_with(GET, &["Host:"])),
            ("two", get_with(GET, &[HOST, "Host: y"])),
            ("the same twice", get_with(GET, &[HOST, HOST])),
            ("two in HTTP/1.0", get_with("GET /v1/models HTTP/1.0", &[HOST, "Host: y"])),
            ("a list", get_with(GET, &["Host: x, y"])),
            ("two words", get_with(GET, &["Host: x y"])),
            ("a path", get_with(GET, &["Host: x/y"])),
            ("a user", get_with(GET, &["Host: u@x"])),
            ("a query", get_with(GET, &["Host: x?y"])),
            ("a URL", get_with(GET, &["Host: http://x"])),
            ("a port of letters", get_with(GET, &["Host: x:http"])),
            ("a port beyond ports", get_with(GET, &["Host: x:123456"])),
            ("two ports", get_with(GET, &["Host: x:1:2"])),
            ("half an address", get_with(GET, &["Host: [::1"])),
            ("beyond ASCII", get_with(GET, &["Host: x\u{e9}"])),
            ("percent-encoded", get_with(GET, &["Host: %78"])),
            ("other than the target's", get_with("GET http://y/v1/models HTTP/1.1", &[HOST])),
        ],
    )
}

fn lines() -> Row {
    Row::new("A9", "targets and lines that are none")
        .refused(
            &[400],
            [
                "GET v1/models HTTP/1.1",
                "GET !x HTTP/1.1",
                "GET * HTTP/1.1",
                "GET ?x HTTP/1.1",
                "GET x:443 HTTP/1.1",
                "GET http:/v1/models HTTP/1.1",
                "GET http:///v1/models HTTP/1.1",
                "GET http://u@x/v1/models HTTP/1.1",
                "GET ftp://x/v1/models HTTP/1.1",
                "GET file:///etc/passwd HTTP/1.1",
                "GET /v1/mod\0els HTTP/1.1",
                "GET /v1/mod\rels HTTP/1.1",
                "GET /v1/mod\x7fels HTTP/1.1",
                "GET /v1/mod\x0bels HTTP/1.1",
                "GET /v1/mod els HTTP/1.1",
                "GET /v1/mod\u{e9}ls HTTP/1.1",
                "GET /v1/models#x HTTP/1.1",
                "GET /v1/<models> HTTP/1.1",
                "GET /v1/\"models\" HTTP/1.1",
                "GET  /v1/models HTTP/1.1",
                "GET /v1/models  HTTP/1.1",
                "GET /v1/models HTTP/1.1 ",
                "GET /v1/models HTTP/1.1\t",
                "GET\t/v1/models HTTP/1.1",
                " GET /v1/models HTTP/1.1",
                "G(T /v1/models HTTP/1.1",
                "/v1/models HTTP/1.1",
                "HTTP/1.1 200 OK",
                "GET /v1/models http/1.1",
                "GET /v1/models HTTP/1",
                "GET /v1/models HTTP/1.1.1",
                "GET /v1/models HTTQ/1.1",
                "GET /v1/models HTTP/1,1",
            ]
            .map(|line| (format!("{line:?}"), get_with(line, &[HOST]))),
        )
        .form("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Comes::Refused(&[400]))
}

fn methods() -> Row {
    Row::new("A9", "methods and versions that are not served")
        .refused(
            &[405],
            [
                "TRACE /v1/models HTTP/1.1",
                "TRACE / HTTP/1.0",
                "CONNECT elsewhere.test:443 HTTP/1.1",
                "CONNECT /v1/models HTTP/1.1",
            ]
            .map(|line| (line, get_with(line, &[HOST]))),
        )
        .refused(
            &[505],
            [
                "GET /v1/models HTTP/1.32",
                "GET /v1/models HTTP/1.2",
                "GET /v1/models HTTP/0.9",
                "GET /v1/models HTTP/2.0",
                "GET /v1/models HTTP/3.0",
                "GET /v1/models HTTP/01.1",
                "PRI * HTTP/2.0",
                "GET /v1/models",
            ]
            .map(|line| (line, get_with(line, &[HOST]))),
        )
        .form("OPTIONS", get_with("OPTIONS /v1/models HTTP/1.1", &[HOST]), Comes::Denied(&[404, 405]))
        .form("a method of nobody", get_with("BREW /v1/models HTTP/1.1", &[HOST]), Comes::Denied(&[404, 405]))
        .form("in small letters", get_with("get /v1/models HTTP/1.1", &[HOST]), Comes::Denied(&[404, 405]))
}

fn paths() -> Row {
    Row::new("-", "paths that somebody reads as other paths").refused(
        &[400],
        [
            "/v1/../v1/models",
            "/v1/./models",
            "/v1/models/..",
            "/v1/.../models",
            "/../../etc/passwd",
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/v1/models//x",
            "/v1/%2e%2e/v1/models",
            "/v1/%2E./models",
            "/v1/.%2e/models",
            "/v1/models/..%2f..%2fchat%2fcompletions",
            "/v1/models%2fx",
            "/v1/models/x%2F..%2Fy",
            "/v1/models/%5c..%5cx",
            "/v1\\models",
            "/v1/models\\..\\x",
            "/v1/models/..;/x",
            "/v1/;/models",
            "/v1/..;a=b/models",
            "/v1/models/%252e%252e/x",
            "/v1/models/%25252e",
            "/v1/models/x%2525",
            "/v1/models/%00",
            "/v1/models/x%00y",
            "/v1/models/x%0d%0aX-Injected:%20y",
            "/v1/models/x%0a",
            "/v1/models/x%7f",
            "/v1/models/%23x",
            "/v1/models/x%3fkey=y",
            "/v1/models/x%zz",
            "/v1/models/x%2",
            "/v1/models/x%",
            "/v1/models/%c0%ae%c0%ae/x",
            "/v1/models/%e0%80%ae",
            "/v1/models/x%ff",
            "/v1/models/%u002e",
            "/openai/../v1/models",
            "/openai//v1/models",
            "/openai/%2e%2e/v1/models",
            "/gemini/v1beta/models/..%2fx",
            "/gemini/v1beta/../../openai/v1/models",
            "/v1beta/models/..%2f..%2fx",
            "/v1beta/files/%2e%2e",
            "/download/v1beta/files/../x:download",
            "/ws/../v1/models",
            "///ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            "http://x/v1/../models",
        ]
        .map(|target| (target, get_with(&format!("GET {target} HTTP/1.1"), &[HOST]))),
    )
}

fn billed() -> Row {
    let post = |target: &str| {
        let length = length();
        let line = format!("POST {target} HTTP/1.1");
        let bytes = [head(&line, &[HOST, AUTH, JSON, &length]), CHAT_REQUEST.into()].concat();
        (format!("POST {target}"), bytes)
    };
    let billed = Row::new("-", "a billed path that is spelled as another").refused(
        &[400],
        [
            "/v1/chat%2fcompletions",
            "/v1/chat%2Fcompletions",
            "/v1/chat/./completions",
            "/v1/chat//completions",
            "/v1/chat/completions/",
            "/v1/files/../chat/completions",
            "/v1/files/%2e%2e/chat/completions",
            "/v1/files/x/..;/..;/chat/completions",
            "/v1beta/models/x/../y:generateContent",
            "/v1beta/models/x%2fy:generateContent",
            "/v1beta/models/x%252fy:generateContent",
            "/v1beta/cachedContents/../models/x:generateContent",
            "/v1beta/models/x:generateContent%2f",
            "/v1beta/models/x:generateContent%3f",
            "/v1beta/models/x@canary.test%2f:generateContent",
        ]
        .map(post),
    );
    let unknown = [
        "/v1/%63hat/completions",
        "/v1/chat/completion%73",
        "/V1/chat/completions",
        "/v1/Chat/Completions",
        "/v1/chat/completions;a=b",
        "/v1/chat;a=b/completions",
        "/v1/chat/completions.json",
        "/v1/chat/completions%20",
        "/v1/chat/completions%09",
        "/@canary.test/v1/chat/completions",
        "/v1beta/models/x@canary.test/:generateContent",
        "/v1beta/models/x:GenerateContent",
        "/v1beta/models/x:generateContent;a=b",
        "/v1beta/models/x:generateContent:y",
        "/openai/openai/v1/chat/completions",
        "/gemini/openai/v1/chat/completions",
    ];
    unknown.into_iter().map(post).fold(billed, |row, (name, bytes)| row.form(name, bytes, Comes::Denied(&[400, 404])))
}

/// What a query asks for beside the call itself.
fn queries() -> Row {
    let post = |query: &str| {
        let line = format!("POST {GEMINI}?{query} HTTP/1.1");
        let length = format!("Content-Length: {}", GEMINI_REQUEST.len());
        let bytes = [head(&line, &[HOST, "x-goog-api-key: acme", JSON, &length]), GEMINI_REQUEST.into()].concat();
        (query.to_owned(), bytes)
    };
    let row = Row::new("-", "a query that would change the call or its account").served(
        |seen| {
            seen.target == format!("{GEMINI}?x=y") && seen.method == "POST" && seen.body == GEMINI_REQUEST.as_bytes()
        },
        [
            "x=y&$httpMethod=GET",
            "$httpMethod=DELETE&x=y",
            "x=y&%24httpMethod=PATCH",
            "x=y&$httpHeaders=X-Goog-FieldMask:candidates",
            "x=y&%24http%48eaders=Authorization:Bearer%20other",
            "x=y&access_token=other",
            "x=y&$access_token=other",
            "oauth_token=other&x=y",
            "x=y&bearer_token=other",
            "x=y&userProject=other",
            "x=y&$userProject=other",
            "x=y&key=acme",
            "x=y&k%65y=acme",
            "x=y&$key=acme",
        ]
        .map(post),
    );
    row.served(
        |seen| seen.target.ends_with("?x=%0d%0aX-Injected:%20y") && seen.header("x-injected").is_none(),
        ["x=%0d%0aX-Injected:%20y"].map(post),
    )
}

#[test]
fn no_path_is_one_thing_here_and_another_at_the_provider() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    play(&gateway, &provider, rows());
    assert_eq!(gateway.usage("hidden").calls(), 0);
}

#[test]
fn no_request_chooses_where_it_goes() {
    let (provider, canary) = (Provider::start(honest), Provider::start(honest));
    let gateway = Setup::new(&provider).start();
    let url = canary.url();
    let body = CHAT_REQUEST.replacen('{', &format!(r#"{{"base_url":"{url}","api_base":"{url}","#), 1);
    for request in [
        chat("acme").to(format!("{url}{CHAT}")),
        chat("acme").to(format!("/{url}{CHAT}")),
        chat("acme").to(format!("//{}{CHAT}", canary.address)),
        chat("acme").to(format!("@{}{CHAT}", canary.address)),
        chat("acme").header("X-Base-Url", &url).header("X-Forwarded-Host", canary.address.to_string()),
        chat_with("acme", body),
        gemini("acme").to(format!("/v1beta/models/x@{}/:generateContent", canary.address)),
        gemini("acme").to("/v1beta/models/..%2f..%2fx:generateContent"),
    ] {
        gateway.send(&request);
    }
    // The Host header is the client's word for the gateway, not for the provider.
    let mut wire = Wire::open(gateway.proxy);
    let elsewhere =
        String::from_utf8(chat("acme").bytes()).unwrap().replace("gateway.test", &canary.address.to_string());
    wire.send(elsewhere.as_bytes());
    assert_eq!(wire.answer().expect("an answer").status, 200);
    assert_eq!(canary.connections(), 0, "{:?}", canary.seen());
    assert!(provider.count() >= 2, "the harmless ones are served");
    for seen in provider.seen() {
        assert!(seen.target.starts_with("/v1"), "{}", seen.target);
        assert_eq!(seen.header("host"), Some(provider.address.to_string().as_str()));
    }
    tell("B21", "a request that names another place to go to", 9, "0 connections to that place");
}
