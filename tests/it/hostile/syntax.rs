//! Framing and syntax of HTTP/1.1: what two parsers could read in two ways is refused, or made plain before it goes on.

use super::*;

fn with_length(value: &str) -> Vec<u8> {
    let mut bytes = head(LINE, &[HOST, AUTH, JSON, &format!("Content-Length:{value}")]);
    bytes.extend_from_slice(CHAT_REQUEST.as_bytes());
    bytes
}

fn with_coding(line: &str) -> Vec<u8> {
    [head(LINE, &[HOST, AUTH, JSON, line]), chunks_of_chat("")].concat()
}

/// The chat's body in chunks of 16 bytes, with an extension behind each size.
fn chunks_of_chat(extension: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in CHAT_REQUEST.as_bytes().chunks(16) {
        bytes.extend_from_slice(format!("{:x}{extension}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("0{extension}\r\n\r\n").as_bytes());
    bytes
}

/// The chat as one chunk, with `last` in place of the last chunk and the empty line.
fn one_chunk_and(last: &str) -> Vec<u8> {
    chunked(format!("{:x}\r\n{CHAT_REQUEST}\r\n{last}", CHAT_REQUEST.len()).as_bytes())
}

pub fn rows() -> Vec<Row> {
    let length = length();
    let mut rows = vec![
        Row::new("A1", "Content-Length and Transfer-Encoding together").refused(
            &[400],
            [
                ("length first", chat_of(&[&length, CHUNKED])),
                ("coding first", chat_of(&[CHUNKED, &length])),
                ("a length of 0", chat_of(&["Content-Length: 0", CHUNKED])),
                ("in capitals", chat_of(&[&length, "TRANSFER-ENCODING: CHUNKED"])),
                ("far apart", chat_of(&[&length, "X-A: 1", "X-B: 2", CHUNKED, "X-C: 3"])),
            ],
        ),
        Row::new("A2", "more than one Content-Length").refused(
            &[400],
            [
                ("twice the same", chat_of(&[&length, &length])),
                ("twice, in two spellings", chat_of(&[&length, &length.to_uppercase()])),
                ("two lengths", chat_of(&[&length, "Content-Length: 5"])),
                ("thrice", chat_of(&[&length, &length, &length])),
                ("a list of the same", with_length(" 5, 5")),
                ("a list without a space", with_length(" 5,5")),
                ("a list of two", with_length(" 5, 6")),
            ],
        ),
    ];
    let lengths = [
        "+5",
        "-1",
        "0x5",
        "5;",
        "5 5",
        "",
        "18446744073709551616",
        "99999999999999999999",
        "1e1",
        "five",
        "5.0",
        "5,",
        "\x0b5",
        "5\x00",
        "5\x0c",
        "'5'",
        "\u{665}",
        "5\t5",
    ];
    rows.push(
        Row::new("A3", "a Content-Length that is no number")
            .refused(&[400], lengths.map(|value| (format!("{value:?}"), with_length(&format!(" {value}"))))),
    );
    rows.push(codings());
    rows.push(chunk_forms());
    rows.push(header_forms());
    rows.push(trailers());
    rows.push(nominations());
    rows.push(large_heads());
    rows
}

fn codings() -> Row {
    let lines = [
        ("xchunked", "Transfer-Encoding: xchunked"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        ("gzip", "Transfer-Encoding: gzip"),
        ("identity", "Transfer-Encoding: identity"),
        ("chunked, identity", "Transfer-Encoding: chunked, identity"),
        ("chunked, chunked", "Transfer-Encoding: chunked, chunked"),
        ("chunked,", "Transfer-Encoding: chunked,"),
        (", chunked", "Transfer-Encoding: , chunked"),
        ("nothing", "Transfer-Encoding:"),
        ("quoted", "Transfer-Encoding: \"chunked\""),
        ("a parameter", "Transfer-Encoding: chunked;q=1"),
        ("two words", "Transfer-Encoding: chunked chunked"),
        ("a vertical tab before", "Transfer-Encoding: \x0bchunked"),
        ("a vertical tab behind", "Transfer-Encoding: chunked\x0b"),
        ("a NUL behind", "Transfer-Encoding: chunked\0"),
        ("no-break space", "Transfer-Encoding:\u{a0}chunked"),
        ("two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("two lines, one unknown", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ("a space before the colon", "Transfer-Encoding : chunked"),
        ("a space before the name", " Transfer-Encoding: chunked"),
        ("folded", "Transfer-Encoding:\r\n chunked"),
        ("behind a bare CR", "X: y\rTransfer-Encoding: chunked"),
        ("behind a bare LF", "X: y\nTransfer-Encoding: chunked"),
    ];
    let row = Row::new("A4", "a Transfer-Encoding that is not chunked alone")
        .refused(&[400, 501], lines.map(|(name, line)| (name, with_coding(line))));
    let old = [head("POST /v1/chat/completions HTTP/1.0", &[AUTH, JSON, CHUNKED]), chunks_of_chat("")].concat();
    row.form("in HTTP/1.0", old, Comes::Refused(&[400]))
        .form("in odd letters", with_coding("tRANSFER-eNCODING: \t chunKED \t"), Comes::Served(is_chat))
        .form(
            "with underscores",
            chat_of(&[&length(), "Transfer_Encoding: chunked"]),
            Comes::Served(|seen| is_chat(seen) && seen.header("transfer_encoding").is_none()),
        )
}

fn chunk_forms() -> Row {
    let bodies: Vec<(String, Vec<u8>)> = [
        "",
        "0x5",
        "+5",
        "-5",
        "5_0",
        "g",
        "fffffffffffffffff",
        "00000000000000005",
        "10000000000000005",
        " 5",
        "5 ",
        "5\t",
        "5 ;a",
        "5.",
        "5,",
        "\u{665}",
        "five",
        "5\0",
    ]
    .into_iter()
    .map(|size| (format!("a size of {size:?}"), chunked(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes())))
    .chain(
        [
            ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
            ("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n"),
            ("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
            ("a bare CR behind the data", "5\r\nhello\r0\r\n\r\n"),
            ("nothing behind the data", "5\r\nhello0\r\n\r\n"),
            ("more data than said", "5\r\nhello, world\r\n0\r\n\r\n"),
            ("less data than said", "5\r\nhell\r\n0\r\n\r\n"),
            ("a bare LF in the extension", "5;a\nhello\r\n0\r\n\r\n"),
            ("a NUL in the extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
            ("a quoted end of line", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
            ("a bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
            ("a last size with a bare LF", "5\r\nhello\r\n0\n\r\n"),
            ("a bare CR at the end", "5\r\nhello\r\n0\r\n\rX"),
            ("a size that is empty at the end", "5\r\nhello\r\n\r\n\r\n"),
        ]
        .map(|(name, body)| (name.to_owned(), chunked(body.as_bytes()))),
    )
    .collect();
    let long = "x".repeat(64 * 1024);
    let many: String = (0..1000).map(|_| format!("1;{}\r\n \r\n", "x".repeat(64))).collect();
    Row::new("A7", "chunks whose size or end is unclear")
        .refused(&[400], bodies)
        .form(
            "an extension of 64 KiB",
            chunked(format!("5;{long}\r\nhello\r\n0\r\n\r\n").as_bytes()),
            Comes::Refused(&[400]),
        )
        .form("64 KiB of extensions", chunked(many.as_bytes()), Comes::Refused(&[400]))
        .form("64 KiB of zeros", chunked("0".repeat(64 * 1024).as_bytes()), Comes::Refused(&[400]))
        .served(
            is_chat,
            [
                ("extensions are stripped", chunked(&chunks_of_chat(";a=b"))),
                (
                    "sizes are padded",
                    chunked(format!("{:016X}\r\n{CHAT_REQUEST}\r\n000\r\n\r\n", CHAT_REQUEST.len()).as_bytes()),
                ),
            ],
        )
}

fn header_forms() -> Row {
    let length = length();
    Row::new("A8", "lines that are no header, or end elsewhere").refused(
        &[400],
        [
            ("folded", chat_of(&["X-A: b\r\n c", &length])),
            ("folded by a tab", chat_of(&["X-A: b\r\n\tc", &length])),
            ("folded at the begin", head(LINE, &[" X-A: b", HOST, AUTH, &length])),
            ("a bare CR", chat_of(&["X-A: b\rX-B: c", &length])),
            ("a bare CR at the end", chat_of(&["X-A: b\r", &length])),
            ("a bare LF", chat_of(&["X-A: b\nX-B: c", &length])),
            ("bare LFs alone", b"GET /v1/models HTTP/1.1\nHost: x\nAuthorization: Bearer acme\n\n".to_vec()),
            ("bare CRs alone", b"GET /v1/models HTTP/1.1\rHost: x\rAuthorization: Bearer acme\r\r\n\r\n".to_vec()),
            ("a bare LF ends the head", format!("{LINE}\r\n{HOST}\r\n{AUTH}\r\n{length}\r\n\n").into_bytes()),
            ("a NUL", chat_of(&["X-A: b\0c", &length])),
            ("a NUL in a name", chat_of(&["X-\0A: b", &length])),
            ("a bell", chat_of(&["X-A: b\x07c", &length])),
            ("a DEL", chat_of(&["X-A: b\x7fc", &length])),
            ("a space before the colon", chat_of(&["X-A : b", &length])),
            ("a tab before the colon", chat_of(&["X-A\t: b", &length])),
            ("Content-Length and a space", chat_of(&["Content-Length : 5"])),
            ("no colon", chat_of(&["nonsense", &length])),
            ("no name", chat_of(&[": b", &length])),
            ("a name of two words", chat_of(&["X A: b", &length])),
            ("a name that is quoted", chat_of(&["\"X-A\": b", &length])),
            ("a name beyond ASCII", chat_of(&["X-\u{e9}: b", &length])),
            ("two Content-Types", chat_of(&[&length, "Content-Type: multipart/form-data; boundary=x"])),
        ],
    )
}

/// What stands behind a body says nothing of what stood before it.
fn trailers() -> Row {
    let is_kept = |seen: &Seen| is_chat(seen) && !seen.everything().contains("smuggled");
    let named = [
        "Authorization: Bearer smuggled",
        "Content-Length: 3",
        "Transfer-Encoding: smuggled",
        "Host: smuggled",
        "x-goog-api-key: smuggled",
        "Content-Type: smuggled/x",
        "x-tollgate-user-id: smuggled",
        "X-Sum: smuggled",
    ];
    let row = Row::new("A10", "trailers that name what a head says")
        .served(is_kept, named.map(|line| (line, one_chunk_and(&format!("0\r\n{line}\r\n\r\n")))));
    row.refused(
        &[400],
        [
            ("folded", one_chunk_and("0\r\nX: a\r\n b\r\n\r\n")),
            ("no colon", one_chunk_and("0\r\nnonsense\r\n\r\n")),
            ("a bare LF", one_chunk_and("0\r\nX: a\n\r\n")),
            ("a NUL", one_chunk_and("0\r\nX: \0\r\n\r\n")),
            ("64 KiB", one_chunk_and(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024)))),
        ],
    )
}

/// What `Connection` names is dropped, and what the gateway puts there itself is not.
fn nominations() -> Row {
    let length = length();
    let is_kept = |seen: &Seen| is_chat(seen) && !seen.everything().contains("hop-of");
    let chat = |lines: &[&str]| chat_of(&[&[length.as_str()], lines].concat());
    Row::new("A11", "Connection names what is not of a connection").served(
        is_kept,
        [
            ("Authorization", chat(&["Connection: Authorization"])),
            ("Authorization, in a list", chat(&["Connection: keep-alive, AUTHORIZATION , x-goog-api-key"])),
            ("a list with holes", chat(&["Connection: ,, authorization,,"])),
            ("Host", chat(&["Connection: Host"])),
            ("Content-Length", chat(&["Connection: Content-Length"])),
            ("Transfer-Encoding", chat(&["Connection: Transfer-Encoding, close"])),
            ("two lines", chat(&["Connection: close", "Connection: Authorization, x-hop", "X-Hop: hop-of-the-client"])),
            ("what is listed goes", chat(&["Connection: x-a, x-b", "X-A: hop-of-a", "x-B: hop-of-b"])),
            ("Connection itself", chat(&["Connection: connection, te", "TE: trailers"])),
            (
                "Proxy-Connection",
                chat(&["Proxy-Connection: hop-of", "Proxy-Authorization: hop-of", "Keep-Alive: hop-of"]),
            ),
            ("Trailer", chat(&["Trailer: Authorization"])),
            (
                "an account of its own",
                chat(&["OpenAI-Organization: hop-of", "OpenAI-Project: hop-of", "Cookie: hop-of"]),
            ),
            ("underscores for dashes", chat(&["x_api_key: hop-of", "openai_organization: hop-of", "api_key: hop-of"])),
            ("a method override", chat(&["X-HTTP-Method-Override: hop-of", "X_HTTP_Method_Override: hop-of"])),
        ],
    )
}

fn large_heads() -> Row {
    let long = |count: usize| "x".repeat(count);
    let many = |count: usize| (0..count).map(|at| format!("X-{at}: y")).collect::<Vec<_>>();
    let of_many = |count: usize| chat_of(&many(count).iter().map(String::as_str).collect::<Vec<_>>());
    let length = length();
    Row::new("A12", "heads without end")
        .refused(
            &[431],
            [
                ("a header of 64 KiB", chat_of(&[&format!("X: {}", long(64 * 1024))])),
                ("a header of 300 kB", chat_of(&[&format!("X: {}", long(300_000))])),
                ("a name of 70 kB", chat_of(&[&format!("X{}: y", long(70_000))])),
                ("129 headers", of_many(126)),
                ("20,000 headers", of_many(20_000)),
                ("2 MB that do not end", [LINE.as_bytes(), b"\r\nX: ", long(2 << 20).as_bytes()].concat()),
                ("300,000 lines that do not end", format!("{LINE}\r\n{}", "X: y\r\n".repeat(300_000)).into_bytes()),
            ],
        )
        .refused(
            &[414],
            [
                ("a target of 20 kB", get_with(&format!("GET /v1/models?{} HTTP/1.1", long(20_000)), &[HOST])),
                ("a target of 300 kB", get_with(&format!("GET /v1/models/{} HTTP/1.1", long(300_000)), &[HOST])),
                ("a target that does not end", format!("GET /{}", long(1 << 20)).into_bytes()),
            ],
        )
        .form("a method of 1 MB", long(1 << 20).into_bytes(), Comes::Refused(&[400, 414]))
        .form("1,000 empty lines", "\r\n".repeat(1000).into_bytes(), Comes::Refused(&[400]))
        .served(
            is_chat,
            [("128 headers", {
                let many = many(124);
                chat_of(&many.iter().chain([&length]).map(String::as_str).collect::<Vec<_>>())
            })],
        )
        .served(is_chat, [("8 KiB of head", chat_of(&[&length, &format!("X: {}", long(8 << 10))]))])
        .served(is_chat, [("48 KiB of head", chat_of(&[&length, &format!("X: {}", long(48 << 10))]))])
        .served(is_chat, [("two empty lines before it", [b"\r\n\r\n".to_vec(), chat_of(&[&length])].concat())])
}

#[test]
fn what_two_parsers_could_read_in_two_ways_never_gets_to_the_provider() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat("warm"));
    gateway.forget_memory_peak();
    let before = gateway.memory_kib();
    play(&gateway, &provider, rows());
    let grown = gateway.memory_peak_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    assert_eq!(gateway.usage("hidden").calls(), 0);
}

#[test]
fn a_request_inside_a_refused_body_is_never_served() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let inner = hidden();
    let of = |line: &str, key: &str, framing: &str, body: &[u8]| {
        [head(line, &[HOST, &format!("Authorization: Bearer {key}"), JSON, framing]), body.to_vec()].concat()
    };
    let (length, chunk) = (format!("Content-Length: {}", inner.len()), wire::chunk(&inner));
    let elsewhere = "POST /v1/unknown HTTP/1.1";
    let forms = [
        ("401, by length", of(LINE, "NOT A KEY", &length, &inner), 401),
        ("401, in a chunk", of(LINE, "NOT A KEY", CHUNKED, &[chunk.as_slice(), b"0\r\n\r\n"].concat()), 401),
        ("401, a chunk without end", of(LINE, "NOT A KEY", CHUNKED, &chunk), 401),
        ("404, by length", of(elsewhere, "acme", &length, &inner), 404),
        ("404, in a chunk", of(elsewhere, "acme", CHUNKED, &[chunk.as_slice(), b"0\r\n\r\n"].concat()), 404),
        ("400, no JSON", of(LINE, "acme", &length, &inner), 400),
        ("413, said too long", of(LINE, "acme", "Content-Length: 999999999999", &inner), 413),
        ("415, coded", of(LINE, "acme", &format!("{length}\r\nContent-Encoding: gzip"), &inner), 415),
    ];
    let count = forms.len();
    for (name, bytes, status) in forms {
        let mut wire = Wire::open(gateway.proxy);
        drop(wire.try_send(&bytes));
        let first = wire.answer().unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(first.status, status, "{name}: {}", first.text());
        if first.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            assert!(is_closed(&mut wire), "{name}");
        } else {
            let next = wire.ask(&Request::get("/billing/limits").bearer("next"));
            assert_eq!(next.json()["tenant_id"], "next", "{name}");
        }
        assert_eq!(provider.count(), 0, "{name}: {:?}", provider.seen());
    }
    tell("A5", "a request in the body of one that is refused", count, "one answer each, 0 requests at the provider");
}

#[test]
fn another_protocol_is_never_begun_by_who_only_asks_for_it() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let length = length();
    let upgrades: [(&str, &[&str]); 7] = [
        ("websocket", &["Connection: Upgrade", "Upgrade: websocket"]),
        (
            "websocket, all of it",
            &[
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ],
        ),
        ("h2c", &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]),
        ("TLS", &["Connection: Upgrade", "Upgrade: TLS/1.2"]),
        ("not nominated", &["Upgrade: websocket"]),
        ("a list", &["Connection: keep-alive, upgrade", "Upgrade: foo, websocket"]),
        ("nothing", &["Connection: Upgrade", "Upgrade:"]),
    ];
    for (name, lines) in upgrades {
        for (form, bytes) in [
            ("GET", head("GET /v1/models HTTP/1.1", &[&[HOST, AUTH], lines].concat())),
            ("POST", chat_of(&[&[length.as_str()], lines].concat())),
        ] {
            let before = provider.count();
            let mut wire = Wire::open(gateway.proxy);
            wire.send(&[bytes, hidden()].concat());
            let answer = wire.answer().unwrap_or_else(|| panic!("{name} {form}: no answer"));
            assert_eq!(answer.status, 200, "{name} {form}: {}", answer.text());
            assert!(is_closed(&mut wire), "{name} {form}");
            let heard = provider.seen_from(before);
            let [seen] = heard.as_slice() else { panic!("{name} {form}: {heard:?}") };
            assert!(is_ours(seen) && seen.header("http2-settings").is_none(), "{name} {form}: {}", seen.everything());
        }
    }
    tell(
        "A6",
        "Upgrade, with bytes sent before any answer",
        14,
        "answered as what they are, then closed; 0 canaries sent on",
    );
}

#[test]
fn what_clients_really_send_still_works() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let length = length();
    let old = |line: &str, headers: &[&str]| {
        [head(line, &[&[AUTH, JSON, length.as_str()], headers].concat()), CHAT_REQUEST.into()].concat()
    };
    let on_one_connection = |name: &str, bytes: &[u8], target: &str| {
        let mut wire = Wire::open(gateway.proxy);
        for turn in 0..3 {
            wire.send(bytes);
            let answer = wire.answer().unwrap_or_else(|| panic!("{name}, {turn}: no answer"));
            assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER), "{name}, {turn}");
            assert_eq!(
                (provider.last().target.as_str(), provider.last().body.as_slice()),
                (target, CHAT_REQUEST.as_bytes())
            );
        }
    };
    let keep = "Connection: keep-alive";
    on_one_connection("HTTP/1.0 keep-alive", &old("POST /v1/chat/completions HTTP/1.0", &[keep]), CHAT);
    on_one_connection("HTTP/1.0 with a host", &old("POST /v1/chat/completions HTTP/1.0", &[HOST, keep]), CHAT);
    on_one_connection("absolute form", &old("POST http://x/v1/chat/completions HTTP/1.1", &[HOST]), CHAT);
    for (target, host) in [("http://X:80", "x"), ("https://x", "x:443"), ("https://x:443", "X")] {
        let bytes = old(&format!("POST {target}/v1/chat/completions HTTP/1.1"), &[&format!("Host: {host}")]);
        on_one_connection(target, &bytes, CHAT);
    }
    on_one_connection("absolute form, https", &old("POST HTTPS://x/v1/chat/completions HTTP/1.1", &[HOST]), CHAT);
    let odd = [
        "X-Empty:",
        "x_y!#$%&'*+-.^`|~: \t odd \t",
        "X-Text: caf\u{e9} \"; ,",
        "host: [::1]:8080",
        "X-Twice: 1",
        "X-Twice: 2",
    ];
    on_one_connection("odd headers", &old(LINE, &odd), CHAT);
    let seen = provider.last();
    assert_eq!(seen.header("x_y!#$%&'*+-.^`|~"), Some("odd"), "{}", seen.everything());
    assert_eq!(seen.headers.iter().filter(|(name, _)| name == "x-twice").count(), 2, "{}", seen.everything());
    let query = "/v1/chat/completions?a[b]={c}|d^`&e=%zz&f=g;h:@!$'()*+,~";
    on_one_connection("an odd query", &old(&format!("POST {query} HTTP/1.1"), &[HOST]), query);
    on_one_connection("chunks", &chunked(&chunks_of_chat("")), CHAT);
    on_one_connection("a line too many", &[b"\r\n".to_vec(), old(LINE, &[HOST])].concat(), CHAT);
    on_one_connection(
        "one byte a chunk",
        &{
            let bytes: Vec<Vec<u8>> = wire::chunks(CHAT_REQUEST.as_bytes(), 1);
            chunked(&[bytes.concat(), wire::LAST_CHUNK.to_vec()].concat())
        },
        CHAT,
    );
    for (target, path) in [("http://x", "/"), ("http://x?a=b", "/?a=b")] {
        let ask = |target: &str| {
            let mut wire = Wire::open(gateway.proxy);
            wire.send(&head(&format!("GET {target} HTTP/1.1"), &[HOST, AUTH]));
            wire.answer().expect("an answer").text()
        };
        assert_eq!(ask(target), ask(path), "no path is the path /");
    }
    tell("-", "what is odd and means one thing", 12, "served, on connections that go on");
}

#[test]
fn requests_that_come_in_bits_or_all_at_once_are_told_apart() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let of_length = [head(LINE, &[HOST, AUTH, JSON, &length()]), CHAT_REQUEST.into()].concat();
    let of_chunks = chunked(&chunks_of_chat(""));

    // Each byte in a packet of its own.
    let mut wire = Wire::open(gateway.proxy);
    for bytes in [&of_length, &chunked(&chunks_of_chat(";a"))] {
        for byte in bytes {
            wire.send(&[*byte]);
        }
        assert_eq!(wire.answer().expect("an answer").text(), CHAT_ANSWER);
    }

    // Nine requests at once, of lengths and of chunks in turn, and each answer in its place.
    let mut wire = Wire::open(gateway.proxy);
    let before = provider.count();
    let get = Request::get("/v1/models").bearer("acme").bytes();
    let pair = [of_length, get, of_chunks].concat();
    wire.send(&[pair.as_slice(), &pair, &pair].concat());
    for turn in 0..9 {
        let answer = wire.answer().unwrap_or_else(|| panic!("{turn}: no answer"));
        let expected = if turn % 3 == 1 { r#"{"object":"list","data":[]}"# } else { CHAT_ANSWER };
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{turn}");
    }
    assert_eq!(provider.count() - before, 9);

    // A body over many reads, in chunks that end anywhere, with the next request right behind.
    let body = CHAT_REQUEST.replace("Count", &"x".repeat(300_000));
    let mut large = head(LINE, &[HOST, AUTH, JSON, CHUNKED]);
    for chunk in wire::chunks(body.as_bytes(), 7_919) {
        large.extend_from_slice(&chunk);
    }
    large.extend_from_slice(wire::LAST_CHUNK);
    wire.send(&[large, Request::get("/v1/models").bearer("acme").bytes()].concat());
    assert_eq!(wire.answer().expect("an answer").text(), CHAT_ANSWER);
    assert_eq!(provider.seen_from(before + 9)[0].body, body.as_bytes());
    assert_eq!(wire.answer().expect("the next answer").text(), r#"{"object":"list","data":[]}"#);
    tell("-", "requests in bits, at once, and over many reads", 4, "each answered, in its place");
}
