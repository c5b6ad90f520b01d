//! Memory of the gateway while large bodies pass: what streams is never held, what is read is held once.
//!
//! 64 MB a file in an ordinary run; 512 MB with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

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

/// Sends a head and a body of so many bytes: `begin`, padding, `end`.
fn send(gateway: &Gateway, request: &Request, bytes: usize, (begin, end): (&str, &str)) -> Answer {
    let request = Request { body: None, ..request.clone() }.header("Content-Length", bytes.to_string());
    let mut stream = TcpStream::connect(gateway.proxy).unwrap();
    stream.write_all(&request.head_bytes()).unwrap();
    stream.write_all(begin.as_bytes()).unwrap();
    let padding = vec![b'A'; 64 * 1024];
    let mut left = bytes - begin.len() - end.len();
    while left > 0 {
        let piece = left.min(padding.len());
        stream.write_all(&padding[..piece]).unwrap();
        left -= piece;
    }
    stream.write_all(end.as_bytes()).unwrap();
    Wire::over(stream).answer().expect("an answer")
}

#[test]
fn memory_stays_flat_while_large_bodies_pass() {
    let gateway = Setup::at(&sink()).set("RUST_LOG", "warn").start();
    let file = if full() { 512 * MB } else { 64 * MB };
    let form = "--toll\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--toll\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let upload =
        Request::post("/v1/files", "").bearer("acme").header("Content-Type", "multipart/form-data; boundary=toll");
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
    let rows = [
        ("multipart upload to /v1/files", upload, file, (form, "\r\n--toll--\r\n")),
        ("resumable upload", piece, file, ("", "")),
        ("inline image to generateContent", gemini("acme"), 20 * MB, (inline, inline_end)),
        ("inline image to chat completions", chat("acme"), 20 * MB, (image, image_end)),
        ("inline image to a chat that streams", chat("acme"), 20 * MB, (image_stream.as_str(), image_end)),
    ];
    // What every worker keeps for later calls is there before anything is measured.
    for (what, request, _, ends) in rows.iter().cycle().take(4 * rows.len()) {
        assert_eq!(send(&gateway, request, MB, *ends).status, 200, "{what}");
    }
    let before = gateway.memory_kib();
    for (what, request, bytes, ends) in rows {
        gateway.forget_memory_peak();
        let answer = send(&gateway, &request, bytes, ends);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        if bytes == file {
            assert_eq!(answer.json()["bytes"], bytes, "{what}");
        }
        let grown = gateway.memory_peak_kib().saturating_sub(before);
        let (mb, mib) = (bytes / MB, |kib: u64| kib / 1024);
        figures(&format!("memory: {what}, {mb} MB: {} MiB before all, {} MiB more at most", mib(before), mib(grown)));
        assert!(grown < GROWTH_KIB_MAX, "{what}: {grown} KiB more");
    }
    // The allocator gives back what was freed, on its next occasions.
    until("the bodies' memory is given back", Duration::from_secs(20), || {
        gateway.send(&Request::get("/healthz"));
        gateway.memory_kib() < before + GIVEN_BACK_KIB
    });
}
