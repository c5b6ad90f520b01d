//! Websockets by hand, both halves: frames are bytes that a test makes and sees.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::provider::{Gate, Seen};
use super::wire::{Answer, Head, READ_TIMEOUT, Request, Wire};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The mask of all clients here: with it no byte of a payload stays what it was.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One end of a websocket.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_client: bool,
}

/// What came of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A frame: its first byte and its payload.
    Frame(u8, Vec<u8>),
    /// The connection is over.
    Gone,
}

/// A request for a websocket.
pub fn handshake(target: &str) -> Request {
    Request::get(target)
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
}

/// Opens a websocket, or gives the answer that is none, and the head that it was agreed on with.
pub fn open(to: SocketAddr, request: &Request) -> Result<(Peer, Head), Answer> {
    let mut wire = Wire::open(to);
    wire.send(&request.bytes());
    let head = wire.head_of_answer("GET").expect("an answer to a handshake");
    if head.status() != 101 {
        let mut body = Vec::new();
        let whole = wire.rest(&mut body);
        return Err(Answer { status: head.status(), headers: head.headers, body, whole });
    }
    Ok((Peer::over(wire, true), head))
}

/// One frame; `first` is its first byte.
pub fn frame(is_client: bool, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = if is_client { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..=125 => bytes.push(masked | u8::try_from(short).unwrap()),
        middle @ ..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if is_client {
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

impl Peer {
    fn over(wire: Wire, is_client: bool) -> Self {
        let (stream, buffer) = wire.into_parts();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        Self { stream, buffer, is_client }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer takes what is sent");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        let bytes = frame(self.is_client, first, payload);
        self.send(&bytes);
    }

    /// Sends a JSON message, if anybody is there; whether that seemed so.
    pub fn say(&mut self, message: &Value) -> bool {
        let bytes = frame(self.is_client, TEXT, message.to_string().as_bytes());
        self.try_send(&bytes)
    }

    /// The next frame.
    pub fn next(&mut self) -> Said {
        loop {
            if let Some((said, end)) = self.parsed() {
                self.buffer.drain(..end);
                return said;
            }
            if !self.read_more() {
                return Said::Gone;
            }
        }
    }

    /// The next bytes, as they came, `count` of them.
    pub fn raw(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.read_more(), "{} of {count} bytes came", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// The next message as JSON; `None` when the connection is over or closed, which is answered.
    pub fn hear(&mut self) -> Option<Value> {
        loop {
            match self.next() {
                Said::Frame(TEXT | BINARY, payload) => {
                    return Some(serde_json::from_slice(&payload).expect("a JSON message"));
                }
                Said::Frame(CLOSE, payload) => {
                    let answer = frame(self.is_client, CLOSE, &payload);
                    self.try_send(&answer);
                    return None;
                }
                Said::Gone => return None,
                Said::Frame(..) => {}
            }
        }
    }

    /// Messages up to the one of this type.
    pub fn hear_until(&mut self, kind: &str) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            let message = self.hear().unwrap_or_else(|| panic!("no {kind}, but {heard:?}"));
            let is_it = message["type"] == kind;
            heard.push(message);
            if is_it {
                return heard;
            }
        }
    }

    /// Reads on to the close frame: its code and reason. `None` when the connection ends without one.
    pub fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match self.next() {
                Said::Frame(CLOSE, payload) => {
                    let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    return Some((code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap()));
                }
                Said::Frame(..) => {}
                Said::Gone => return None,
            }
        }
    }

    /// Closes as the protocol has it: one close frame each.
    pub fn close(mut self) -> Option<(u16, String)> {
        self.frame(CLOSE, &1000_u16.to_be_bytes());
        self.closed()
    }

    /// Closes with RST in place of FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn parsed(&self) -> Option<(Said, usize)> {
        let bytes = &self.buffer;
        let short = usize::from(bytes.get(1)? & 0x7f);
        let digits = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let extended = bytes.get(2..2 + digits)?;
        let length =
            if digits == 0 { short } else { extended.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)) };
        let is_masked = bytes[1] & 0x80 != 0;
        assert_ne!(is_masked, self.is_client, "clients mask and servers do not");
        let begin = 2 + digits + if is_masked { 4 } else { 0 };
        let mut payload = bytes.get(begin..begin + length)?.to_vec();
        if is_masked {
            let mask = &bytes[begin - 4..begin];
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        }
        Some((Said::Frame(bytes[0], payload), begin + length))
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
}

type Behaviour = Box<dyn Fn(&Seen, Peer) + Send + Sync>;

/// A provider of sessions. What it does in one is code of the test.
pub struct Sessions {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behaviour: Mutex<Arc<Behaviour>>,
    seen: Mutex<Vec<Seen>>,
    ended: Gate,
    stopping: AtomicBool,
}

impl Sessions {
    pub fn start(behaviour: impl Fn(&Seen, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            seen: Mutex::default(),
            ended: Gate::default(),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&shared);
                thread::spawn(move || state.serve(Wire::over(stream)));
            }
        });
        Self { address, state }
    }

    pub fn now_does(&self, behaviour: impl Fn(&Seen, Peer) + Send + Sync + 'static) {
        *self.state.behaviour.lock().unwrap() = Arc::new(Box::new(behaviour));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Is passed at the end of each session.
    pub fn ended(&self) -> &Gate {
        &self.state.ended
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}

impl State {
    fn serve(&self, mut wire: Wire) {
        let Some(head) = wire.head_of_request() else { return };
        let mut words = head.first_line.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let seen = Seen { method, target, headers: head.headers, body: Vec::new() };
        self.seen.lock().unwrap().push(seen.clone());
        if seen.target.contains("no-such-model") {
            let body = "{\"error\":{\"message\":\"no such model\"}}";
            let length = body.len();
            wire.send(format!("HTTP/1.1 404 No\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
            return;
        }
        let protocol = seen.header("sec-websocket-protocol").map(|offered| {
            format!("Sec-WebSocket-Protocol: {}\r\n", offered.split(',').next().unwrap_or_default().trim())
        });
        // The answer to the key that every handshake here has (RFC 6455, 1.3).
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Request-Id: req_ws\r\n{}\r\n",
            protocol.unwrap_or_default()
        );
        wire.send(answer.as_bytes());
        let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
        behaviour(&seen, Peer::over(wire, false));
        self.ended.pass();
    }
}
