//! Memory of the gateway while large bodies pass: what streams is never held, what is read is held once.
//!
//! 64 MB a file in an ordinary run; 512 MB with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::machine::{figures, full, until};
use super::support::*;

/// What memory may grow by at its highest. A body of 20 MB that were held twice would exceed it.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

/// And may still have grown by when they have passed.
const GIVEN_BACK_KIB: u64 = 8 * 1024;

const MB: usize = 1_000_000;

/// A provider that counts what it gets and keeps none of it; each answer says how much it was.
fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut wire = Wire::over(stream);
                while let Some(head) = wire.head_of_request() {
                    let mut got = 0;
                    while let Piece::Bytes(bytes) = wire.piece() {
                        got += bytes.len();
                    }
                    wire.send(answer(&head, got).as_bytes());
                }
            });
        }
    });
    url
}

fn answer(head: &wire::Head, got: usize) -> String {
    let body = match head.first_line.as_str() {
        line if line.contains(":generateContent") => GEMINI_ANSWER.to_owned(),
        line if line.contains(CHAT) => CHAT_ANSWER.to_owned(),
        line if line.contains("/files") && head.header("x-goog-upload-command").as_deref() != Some("start") => {
            format!("{{\"bytes\":{got}}}")
        }
        _ => String::new(),
    };
    let address = "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=1";
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nX-Goog-Upload-URL: {address}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Sends a head and a body of so many bytes: `begin`, padding, `end`. Where the request says that it comes in chunks it does.
fn send(gateway: &Gateway, request: &Request, bytes: usize, (begin, end): (&str, &str)) -> Answer {
    let chunked = request.headers.iter().any(|(name, _)| name == "Transfer-Encoding");
    let mut request = Request { body: None, ..request.clone() };
    if !chunked {
        request = request.header("Content-Length", bytes.to_string());
    }
    let mut stream = TcpStream::connect(gateway.proxy).unwrap();
    stream.write_all(&request.head_bytes()).unwrap();
    let mut write = |bytes: &[u8]| match chunked {
        true if bytes.is_empty() => Ok(()),
        true => stream.write_all(&wire::chunk(bytes)),
        false => stream.write_all(bytes),
    };
    write(begin.as_bytes()).unwrap();
    let padding = vec![b'A'; 64 * 1024];
    let mut left = bytes - begin.len() - end.len();
    while left > 0 {
        let piece = left.min(padding.len());
        write(&padding[..piece]).unwrap();
        left -= piece;
    }
    write(end.as_bytes()).unwrap();
    if chunked {
        stream.write_all(wire::LAST_CHUNK).unwrap();
    }
    Wire::over(stream).answer().expect("an answer")
}

#[test]
fn memory_stays_flat_while_large_bodies_pass() {
    let gateway = Setup::at(&sink()).set("RUST_LOG", "warn").start();
    let file = if full() { 512 * MB } else { 64 * MB };
    let form = "--toll\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--toll\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    // Not as `Request::post` has it: JSON is another type, and a request with two types is refused.
    let upload = Request::get("/v1/files").method("POST").bearer("acme");
    let upload = upload.header("Content-Type", "multipart/form-data; boundary=toll");
    let begin = Request::post("/upload/v1beta/files", "{}").google("acme").header("X-Goog-Upload-Command", "start");
    let address = gateway.send(&begin).header("x-goog-upload-url").expect("an address");
    let target = address[address.find("/upload/").unwrap()..].to_owned();
    let piece = Request::post(target, "")
        .header("X-Goog-Upload-Command", "upload, finalize")
        .header("X-Goog-Upload-Offset", "0");
    let inline = r#"{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":""#;
    let image = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,"#;
    let image_stream = image.replacen('{', r#"{"stream":true,"#, 1);
    let (inline_end, image_end) = (r#""}}]}]}"#, r#""}}]}]}"#);
    let in_chunks = |request: Request| request.header("Transfer-Encoding", "chunked");
    let rows = [
        ("multipart upload to /v1/files", upload.clone(), file, (form, "\r\n--toll--\r\n")),
        ("resumable upload", piece, file, ("", "")),
        ("inline image to generateContent", gemini("acme"), 20 * MB, (inline, inline_end)),
        ("inline image to chat completions", chat("acme"), 20 * MB, (image, image_end)),
        ("inline image to chat completions in chunks", in_chunks(chat("acme")), 20 * MB, (image, image_end)),
        ("multipart upload in chunks", in_chunks(upload.clone()), file, (form, "\r\n--toll--\r\n")),
        ("inline image to a chat that streams", chat("acme"), 20 * MB, (image_stream.as_str(), image_end)),
    ];
    // What every worker keeps for later calls is there before anything is measured.
    for (what, request, _, ends) in rows.iter().cycle().take(4 * rows.len()) {
        let answer = send(&gateway, request, MB, *ends);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    }
    let before = settled(&gateway);
    for (what, request, bytes, ends) in rows {
        given_back(&gateway, before);
        let from = gateway.memory_kib();
        gateway.forget_memory_peak();
        let answer = send(&gateway, &request, bytes, ends);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        if bytes == file {
            assert_eq!(answer.json()["bytes"], bytes, "{what}");
        }
        let grown = gateway.memory_peak_kib().saturating_sub(from);
        let (mb, mib) = (bytes / MB, |kib: u64| kib / 1024);
        figures(&format!("memory: {what}, {mb} MB: {} MiB before, {} MiB more at most", mib(from), mib(grown)));
        assert!(grown < GROWTH_KIB_MAX, "{what}: {grown} KiB more");
    }
    given_back(&gateway, before);
}

/// The allocator gives back what was freed on occasions, about a second later.
fn given_back(gateway: &Gateway, before: u64) {
    until("memory is given back", Duration::from_secs(30), || {
        gateway.send(&Request::get("/healthz"));
        gateway.memory_kib() < before + GIVEN_BACK_KIB
    });
}

/// Resident memory when no more is given back.
fn settled(gateway: &Gateway) -> u64 {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        gateway.send(&Request::get("/healthz"));
        let now = gateway.memory_kib();
        if now < least {
            (least, since) = (now, if least - now > 256 { Instant::now() } else { since });
        }
    }
    least
}
