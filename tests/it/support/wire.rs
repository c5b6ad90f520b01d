//! HTTP/1.1 by hand, both halves: what a test sends and gets is bytes, so that nothing is repaired on the way.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No single read of a test waits longer than this: a lost answer is a failure, not a hang.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// The first line and the headers of a message, names in lower case.
#[derive(Debug, Clone)]
pub struct Head {
    pub first_line: String,
    pub headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says. A close-delimited body is always whole.
    pub whole: bool,
}

/// What came next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    End,
    Broken,
}

/// A request that can also be sent in parts.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}

/// One connection and what was read from it too far.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    /// Bytes left of the chunk that is being read.
    Chunked(Option<usize>),
    UntilClose,
    Over,
}

fn find(headers: &[(String, String)], name: &str) -> Option<String> {
    headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
}

impl Head {
    pub fn header(&self, name: &str) -> Option<String> {
        find(&self.headers, name)
    }

    /// The status of an answer's head.
    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

impl Request {
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), headers: Vec::new(), body: None }
    }

    pub fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST", target: target.into(), headers: Vec::new(), body: Some(body.into()) }
            .header("Content-Type", "application/json")
    }

    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same request for another target.
    pub fn to(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.header("Authorization", format!("Bearer {key}"))
    }

    pub fn google(self, key: &str) -> Self {
        self.header("x-goog-api-key", key)
    }

    /// The head, with Content-Length where there is a body.
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: gateway.test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a connection of its own.
    pub fn send(&self, to: SocketAddr) -> Answer {
        let mut wire = Wire::open(to);
        wire.ask(self)
    }
}

impl Wire {
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).expect("the listener takes a connection");
        Self::over(stream)
    }

    /// Opens a connection unless nobody listens (any more).
    pub fn try_open(to: SocketAddr) -> Option<Self> {
        TcpStream::connect_timeout(&to, Duration::from_secs(10)).ok().map(Self::over)
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), framing: Framing::Over }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer takes what is sent");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn ask(&mut self, request: &Request) -> Answer {
        // A refusal may come before the body is out: what the peer says is looked for even when sending breaks.
        let sent = self.try_send(&request.bytes());
        self.answer_to(request.method).unwrap_or_else(|| panic!("no answer to {} ({sent:?})", request.target))
    }

    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    /// The next final answer; `None` when the connection was closed before its head was over.
    pub fn answer_to(&mut self, method: &str) -> Option<Answer> {
        loop {
            let head = self.head_of_answer(method)?;
            if !(100..200).contains(&head.status()) {
                let mut body = Vec::new();
                let whole = self.rest(&mut body);
                return Some(Answer { status: head.status(), headers: head.headers, body, whole });
            }
        }
    }

    /// The head of the next answer, after which [`Wire::piece`] gives its body.
    pub fn head_of_answer(&mut self, method: &str) -> Option<Head> {
        let head = self.head()?;
        let status = head.status();
        self.framing = if method == "HEAD" || status == 204 || status == 304 || (100..200).contains(&status) {
            Framing::Over
        } else {
            framing(&head).unwrap_or(Framing::UntilClose)
        };
        Some(head)
    }

    /// The head of the next request, after which [`Wire::piece`] gives its body.
    pub fn head_of_request(&mut self) -> Option<Head> {
        let head = self.head()?;
        self.framing = framing(&head).unwrap_or(Framing::Over);
        Some(head)
    }

    fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                let text = String::from_utf8_lossy(&head[..end]).into_owned();
                let mut lines = text.split("\r\n");
                let first_line = lines.next().unwrap_or_default().to_owned();
                let headers = lines
                    .filter_map(|line| line.split_once(':'))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                    .collect();
                return Some(Head { first_line, headers });
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// Reads the rest of the body; whether it was whole.
    pub fn rest(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            match self.piece() {
                Piece::Bytes(bytes) => body.extend_from_slice(&bytes),
                Piece::End => return true,
                Piece::Broken => return false,
            }
        }
    }

    /// What comes next of the body, as soon as there is anything.
    pub fn piece(&mut self) -> Piece {
        loop {
            match self.framing {
                Framing::Over => return Piece::End,
                Framing::UntilClose => {
                    if self.buffer.is_empty() && !self.read_more() {
                        self.framing = Framing::Over;
                        return Piece::End;
                    }
                    return Piece::Bytes(std::mem::take(&mut self.buffer));
                }
                Framing::Length(0) => {
                    self.framing = Framing::Over;
                    return Piece::End;
                }
                Framing::Length(left) => match self.take(left) {
                    Some(bytes) => {
                        self.framing = Framing::Length(left - bytes.len());
                        return Piece::Bytes(bytes);
                    }
                    None => return Piece::Broken,
                },
                Framing::Chunked(Some(left)) if left > 0 => match self.take(left) {
                    Some(bytes) => {
                        self.framing = Framing::Chunked(Some(left - bytes.len()));
                        return Piece::Bytes(bytes);
                    }
                    None => return Piece::Broken,
                },
                Framing::Chunked(before) => match self.chunk_size(before.is_some()) {
                    Some(0) => {
                        // Trailers are not used by any provider: the empty line must follow.
                        let ended = self.line().is_some_and(|line| line.is_empty());
                        self.framing = Framing::Over;
                        return if ended { Piece::End } else { Piece::Broken };
                    }
                    Some(size) => self.framing = Framing::Chunked(Some(size)),
                    None => return Piece::Broken,
                },
            }
        }
    }

    fn chunk_size(&mut self, after_chunk: bool) -> Option<usize> {
        if after_chunk && !self.line()?.is_empty() {
            return None;
        }
        let line = self.line()?;
        usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    fn take(&mut self, at_most: usize) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.read_more() {
            return None;
        }
        let rest = self.buffer.split_off(at_most.min(self.buffer.len()));
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn read_more(&mut self) -> bool {
        let mut bytes = [0_u8; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.buffer.extend_from_slice(&bytes[..length]);
                true
            }
            _ => false,
        }
    }

    /// Whether the peer closes the connection without another byte.
    pub fn is_closed_by_peer(&mut self) -> bool {
        self.buffer.is_empty() && !self.read_more()
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn end_of_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The connection, and what was read from it too far.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Closes with RST in place of FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn framing(head: &Head) -> Option<Framing> {
    if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Some(Framing::Chunked(None));
    }
    head.header("content-length").map(|length| Framing::Length(length.parse().expect("a length")))
}

/// `body` as chunks of `size` bytes, without the last chunk.
pub fn chunks(body: &[u8], size: usize) -> Vec<Vec<u8>> {
    body.chunks(size.max(1)).map(chunk).collect()
}

/// One chunk.
pub fn chunk(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The last chunk.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
