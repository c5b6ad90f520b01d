//! A provider whose behaviour at each request is data: bytes, pauses, gates, cuts. It keeps what it was asked.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wire::{self, Wire};

/// A script waits no longer than this at a gate.
const GATE_TIMEOUT: Duration = Duration::from_secs(20);
/// 600 calls at once need 600 threads: they are kept small.
const STACK_BYTES: usize = 256 * 1024;

/// One thing that a script does.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits until the gate was passed this often.
    Wait(Gate, u64),
    /// Sends the bytes again and again until the peer is gone.
    SendForever(Vec<u8>),
    /// Sends nothing more and keeps the connection until the peer is gone.
    Hang,
    Close,
    Reset,
}

/// What is done at one request.
#[derive(Clone, Default)]
pub struct Script(pub Vec<Step>);

/// A counter that scripts and tests wait for: tests need no sleep to be in step.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<u64>, Condvar)>);

/// A request as the provider got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

type Behaviour = Box<dyn Fn(&Seen) -> Script + Send + Sync>;

/// The running provider.
pub struct Provider {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behaviour: Mutex<Arc<Behaviour>>,
    seen: Mutex<Vec<Seen>>,
    sent: Mutex<Vec<Instant>>,
    sent_bytes: AtomicU64,
    connections: AtomicU64,
    closed: Gate,
    stopping: AtomicBool,
}

impl Gate {
    pub fn pass(&self) {
        let (count, changed) = &*self.0;
        *count.lock().unwrap() += 1;
        changed.notify_all();
    }

    /// Whether the gate was passed `times` times within the limit.
    pub fn wait(&self, times: u64) -> bool {
        self.wait_at_most(times, GATE_TIMEOUT)
    }

    pub fn wait_at_most(&self, times: u64, limit: Duration) -> bool {
        let (count, changed) = &*self.0;
        let guard = count.lock().unwrap();
        !changed.wait_timeout_while(guard, limit, |count| *count < times).unwrap().1.timed_out()
    }
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the provider gets JSON")
    }

    /// Everything that was sent, for searching.
    pub fn everything(&self) -> String {
        format!("{} {} {:?} {}", self.method, self.target, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Script {
    /// A whole answer with a length.
    pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = head(status, headers, Some(body.len()));
        bytes.extend_from_slice(body);
        Self(vec![Step::Send(bytes)])
    }

    pub fn json(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::answer(status, &[("Content-Type", "application/json")], body)
    }

    /// A chunked answer, each piece in a write of its own.
    pub fn pieces(content_type: &str, pieces: &[Vec<u8>]) -> Self {
        let mut script = Self::open(&[("Content-Type", content_type)]);
        script.0.extend(pieces.iter().map(|piece| Step::Send(wire::chunk(piece))));
        script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
    }

    /// The head of a chunked 200.
    pub fn open(headers: &[(&str, &str)]) -> Self {
        Self(vec![Step::Send(head(200, headers, None))])
    }

    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Send(bytes.into())])
    }

    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Does `step` before everything else.
    pub fn after(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        _ if status == 204 => {}
        Some(length) => text.push_str(&format!("Content-Length: {length}\r\n")),
        None => text.push_str("Transfer-Encoding: chunked\r\n"),
    }
    text.push_str("\r\n");
    text.into_bytes()
}

impl Provider {
    pub fn start(behaviour: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            seen: Mutex::default(),
            sent: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            closed: Gate::default(),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&shared);
                spawn(move || {
                    state.serve(Wire::over(stream));
                    state.closed.pass();
                });
            }
        });
        Self { address, state }
    }

    /// Always does the same.
    pub fn always(script: Script) -> Self {
        Self::start(move |_| script.clone())
    }

    /// From now on does something else.
    pub fn now_does(&self, behaviour: impl Fn(&Seen) -> Script + Send + Sync + 'static) {
        *self.state.behaviour.lock().unwrap() = Arc::new(Box::new(behaviour));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// What it was asked after the first `known` requests.
    pub fn seen_from(&self, known: usize) -> Vec<Seen> {
        self.state.seen.lock().unwrap().get(known..).unwrap_or_default().to_vec()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the provider was asked")
    }

    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// Waits until it was asked so often.
    pub fn demand_count(&self, count: usize) {
        let deadline = Instant::now() + GATE_TIMEOUT;
        while self.count() < count {
            assert!(Instant::now() < deadline, "asked {} times, not {count}", self.count());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// When each write was made.
    pub fn sent(&self) -> Vec<Instant> {
        self.state.sent.lock().unwrap().clone()
    }

    pub fn sent_bytes(&self) -> u64 {
        self.state.sent_bytes.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Is passed at the end of each connection.
    pub fn closed(&self) -> &Gate {
        &self.state.closed
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(std::net::TcpStream::connect(self.address));
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread");
}

impl State {
    fn serve(&self, mut wire: Wire) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        wire.stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        while let Some(head) = wire.head_of_request() {
            if head.header("expect").is_some() && wire.try_send(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                return;
            }
            let mut body = Vec::new();
            if !wire.rest(&mut body) {
                return;
            }
            let mut words = head.first_line.split(' ').map(str::to_owned);
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let seen = Seen { method, target, headers: head.headers, body };
            self.seen.lock().unwrap().push(seen.clone());
            let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
            for step in behaviour(&seen).0 {
                match self.play(step, wire) {
                    Some(open) => wire = open,
                    None => return,
                }
            }
        }
    }

    /// Plays one step; `None` when that ended the connection.
    fn play(&self, step: Step, mut wire: Wire) -> Option<Wire> {
        match step {
            Step::Send(bytes) => {
                self.sent.lock().unwrap().push(Instant::now());
                wire.try_send(&bytes).ok()?;
                self.sent_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            }
            Step::Pause(time) => thread::sleep(time),
            Step::Wait(gate, times) => {
                if !gate.wait(times) {
                    return None;
                }
            }
            Step::SendForever(bytes) => {
                wire.stream.set_write_timeout(Some(Duration::from_secs(120))).unwrap();
                while wire.try_send(&bytes).is_ok() {
                    self.sent_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                }
                return None;
            }
            Step::Hang => {
                wire.is_closed_by_peer();
                return None;
            }
            Step::Close => return None,
            Step::Reset => {
                wire.reset();
                return None;
            }
        }
        Some(wire)
    }
}
