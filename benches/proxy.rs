//! What the gateway adds to a call: the real binary between a client and a mock provider on loopback, beside the same
//! client and the mock alone.
//!
//! `cargo bench --bench proxy`; about 40 seconds. Client, mock and gateway share the machine, so the added time is what a
//! busy host sees, and the CPU time of the gateway (utime + stime of its process) is the number to compare. Closed loop:
//! each connection sends its next request when the last answer is whole. At the end the ledger must have every request.
//! Machine and commit belong beside every number that is kept.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Blocks of a measurement; direct and proxied ones take turns, so that a slow moment hits both.
const BLOCKS: u32 = 4;
/// The length of a block.
const BLOCK: Duration = Duration::from_millis(1_000);
/// Requests before anything is counted.
const WARM_UP: usize = 300;
/// Connections of the two measurements of each shape: one for latency, many for throughput and CPU time.
const CONNECTIONS: [usize; 2] = [1, 16];
/// Events of a stream.
const EVENTS: usize = 50;
/// A step of the bench that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// A head beyond this is not HTTP.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// One tick of /proc/PID/stat in microseconds: USER_HZ is 100 on every Linux.
const TICK_US: u64 = 10_000;
/// The credential of the bench, which names a tenant in dev.
const TENANT: &str = "bench";

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy)]
enum Shape {
    Json,
    Stream,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON answer",
            Self::Stream => "stream of 50 events",
        }
    }

    fn request(self) -> Vec<u8> {
        let stream = match self {
            Self::Json => "false",
            Self::Stream => r#"true,"stream_options":{"include_usage":true}"#,
        };
        let prompt = "word ".repeat(200);
        let body = format!(
            r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{prompt}"}}],"stream":{stream}}}"#
        );
        request("POST", "/v1/chat/completions", &body)
    }
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TENANT}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn main() -> Outcome {
    let mock = mock()?;
    let gateway = Gateway::start(mock)?;
    let get = |path: &str| one_off(gateway.address, &request("GET", path, ""));
    get("/billing/limits")?;
    let plan = request("POST", "/billing/plan", &format!(r#"{{"tenant_id":"{TENANT}","plan":"pro"}}"#));
    one_off(gateway.address, &plan)?;

    println!(
        "{:<20} {:>11} {:<9} {:>11} {:>9} {:>9} {:>16}",
        "shape", "connections", "target", "requests/s", "p50 us", "p99 us", "gateway CPU us"
    );
    let mut sent = 0;
    for shape in [Shape::Json, Shape::Stream] {
        let asked = shape.request();
        let (direct, proxied) = (one_off(mock, &asked)?, one_off(gateway.address, &asked)?);
        if direct != proxied {
            return Err("the answer through the gateway is not the provider's".into());
        }
        sent += 1;
        for connections in CONNECTIONS {
            sent += compare(shape, connections, mock, &gateway)?;
        }
    }
    let booked = gateway.booked(sent)?;
    println!("The ledger has {booked} of {sent} requests.");
    if booked == sent { Ok(()) } else { Err("the ledger is not complete".into()) }
}

/// Latencies in nanoseconds, and the CPU time that the gateway took meanwhile.
#[derive(Default)]
struct Measured {
    latencies_ns: Vec<u64>,
    elapsed: Duration,
    cpu_us: u64,
}

impl Measured {
    fn percentile_ns(&self, percent: usize) -> u64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        self.latencies_ns.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn count(&self) -> u64 {
        self.latencies_ns.len().try_into().unwrap_or(u64::MAX)
    }
}

/// Measures both ways and prints three lines. Gives back how many requests went through the gateway.
fn compare(shape: Shape, connections: usize, mock: SocketAddr, gateway: &Gateway) -> Outcome<u64> {
    let asked = shape.request();
    let mut through = 0;
    for address in [mock, gateway.address] {
        let mut connection = Connection::open(address)?;
        for _ in 0..WARM_UP {
            connection.exchange(&asked)?;
        }
        through = WARM_UP.try_into()?;
    }
    let (mut direct, mut proxied) = (Measured::default(), Measured::default());
    for _ in 0..BLOCKS {
        block(mock, &asked, connections, &mut direct)?;
        let before = gateway.cpu_us()?;
        block(gateway.address, &asked, connections, &mut proxied)?;
        proxied.cpu_us += gateway.cpu_us()?.saturating_sub(before);
    }
    for measured in [&mut direct, &mut proxied] {
        measured.latencies_ns.sort_unstable();
    }
    print(shape, connections, "direct", &direct, None);
    let cpu_tenths = proxied.cpu_us * 10 / proxied.count().max(1);
    print(shape, connections, "tollgate", &proxied, Some(cpu_tenths));
    let added = |percent| {
        let added = i128::from(proxied.percentile_ns(percent)) - i128::from(direct.percentile_ns(percent));
        format!(
            "{}{}",
            if added < 0 { "-" } else { "+" },
            tenths(u64::try_from(added.unsigned_abs()).unwrap_or(u64::MAX) / 100)
        )
    };
    println!("{:<20} {connections:>11} {:<9} {:>11} {:>9} {:>9}", shape.name(), "added", "", added(50), added(99));
    Ok(through + proxied.count())
}

fn print(shape: Shape, connections: usize, target: &str, measured: &Measured, cpu_tenths_us: Option<u64>) {
    let per_second = u128::from(measured.count()) * 1_000 / measured.elapsed.as_millis().max(1);
    let us = |percent| tenths(measured.percentile_ns(percent) / 100);
    let cpu = cpu_tenths_us.map(tenths).unwrap_or_default();
    let name = shape.name();
    println!("{name:<20} {connections:>11} {target:<9} {per_second:>11} {:>9} {:>9} {cpu:>16}", us(50), us(99));
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// One block of closed-loop requests over that many connections.
fn block(address: SocketAddr, asked: &[u8], connections: usize, into: &mut Measured) -> Outcome {
    let start = Instant::now();
    let end = start + BLOCK;
    let gathered = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let one = || -> Outcome {
            let mut connection = Connection::open(address)?;
            let mut latencies = Vec::with_capacity(64 * 1024);
            while Instant::now() < end {
                let begun = Instant::now();
                connection.exchange(asked)?;
                latencies.push(u64::try_from(begun.elapsed().as_nanos())?);
            }
            gathered.lock().map_err(|_| "a connection failed")?.extend(latencies);
            Ok(())
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a connection panicked")?)
    })?;
    into.elapsed += start.elapsed();
    into.latencies_ns.extend(gathered.into_inner().map_err(|_| "a connection failed")?);
    Ok(())
}

/// One connection of a client, or of the mock: blocking HTTP/1.1, just enough for this bench.
struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Outcome<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    fn over(stream: TcpStream) -> Outcome<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, stream) })
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// Sends a request and reads the whole answer, which must be a success.
    fn exchange(&mut self, request: &[u8]) -> Outcome<Vec<u8>> {
        self.write(request)?;
        let Some(head) = self.head()? else { return Err("the connection was closed".into()) };
        let body = self.body(&head)?;
        match head.first().and_then(|line| line.split(' ').nth(1)) {
            Some("200") => Ok(body),
            _ => Err(format!("{head:?}: {}", String::from_utf8_lossy(&body)).into()),
        }
    }

    /// The lines of a head in lower case; `None` when the peer closed before it.
    fn head(&mut self) -> Outcome<Option<Vec<String>>> {
        let mut lines = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            length += self.reader.read_line(&mut line)?;
            let text = line.trim_end();
            match (text.is_empty(), line.is_empty() && lines.is_empty()) {
                (true, true) => return Ok(None),
                (true, false) => return Ok(Some(lines)),
                (false, _) if length > HEAD_BYTES_MAX => return Err("a head without an end".into()),
                (false, _) => lines.push(text.to_ascii_lowercase()),
            }
        }
    }

    fn body(&mut self, head: &[String]) -> Outcome<Vec<u8>> {
        let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = Vec::new();
        if let Some(length) = value("content-length:") {
            body.resize(length.parse()?, 0);
            self.reader.read_exact(&mut body)?;
            return Ok(body);
        }
        if value("transfer-encoding:") != Some("chunked") {
            return Err("a body without a length".into());
        }
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16)?;
            let begin = body.len();
            body.resize(begin + size + 2, 0);
            self.reader.read_exact(body.get_mut(begin..).ok_or("a chunk")?)?;
            body.truncate(begin + size);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn one_off(address: SocketAddr, request: &[u8]) -> Outcome<Vec<u8>> {
    Connection::open(address)?.exchange(request)
}

/// A provider that answers at once: a thread for each connection, whole answers or one write an event.
fn mock() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (document, events) = (Arc::new(document()), Arc::new(events()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (document, events) = (document.clone(), events.clone());
            // A connection that fails ends itself; the other side then reports it.
            thread::spawn(move || serve(stream, &document, &events).is_ok());
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream, document: &[u8], events: &[Vec<u8>]) -> Outcome {
    let mut connection = Connection::over(stream)?;
    connection.reader.get_ref().set_read_timeout(None)?;
    while let Some(head) = connection.head()? {
        let body = connection.body(&head)?;
        let streamed = body.windows(13).any(|window| window == b"\"stream\":true");
        if streamed {
            events.iter().try_for_each(|event| connection.write(event))?;
        } else {
            connection.write(document)?;
        }
    }
    Ok(())
}

const USAGE: &str = r#""usage":{"prompt_tokens":210,"completion_tokens":50,"total_tokens":260,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}"#;

fn document() -> Vec<u8> {
    let text = "word ".repeat(50);
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{USAGE},"service_tier":"default"}}"#
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The head, every event and the end, each as it is written to the socket.
fn events() -> Vec<Vec<u8>> {
    let chunk = |text: String| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let start = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini-2024-07-18","choices":["#;
    let mut writes = vec![
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec(),
    ];
    let event = format!(
        "{start}{{\"index\":0,\"delta\":{{\"content\":\" word\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n"
    );
    writes.extend((0..EVENTS).map(|_| chunk(event.clone())));
    writes.push(chunk(format!("{start}],{USAGE}}}\n\n")));
    writes.push([chunk("data: [DONE]\n\n".to_owned()), b"0\r\n\r\n".to_vec()].concat());
    writes
}

/// The gateway's process. It ends with this value.
struct Gateway {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Gateway {
    fn start(provider: SocketAddr) -> Outcome<Self> {
        let data = tempfile::tempdir()?;
        let (proxy, admin) = (free_address()?, free_address()?);
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("serve")
            .current_dir(data.path())
            .env_clear()
            .env("TOLLGATE_ENV", "dev")
            .env("TOLLGATE_LISTEN", proxy.to_string())
            .env("TOLLGATE_ADMIN_LISTEN", admin.to_string())
            .env("TOLLGATE_DATA_DIR", data.path())
            .env("TOLLGATE_OPENAI_URL", format!("http://{provider}"))
            .env("OPENAI_API_KEY", "sk-bench")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let gateway = Self { child, address: proxy, _data: data };
        let ready = request("GET", "/readyz", "");
        let start = Instant::now();
        while let Err(error) = one_off(proxy, &ready) {
            if start.elapsed() > PATIENCE {
                return Err(format!("the gateway is not ready: {error}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(gateway)
    }

    /// User and system time so far.
    fn cpu_us(&self) -> Outcome<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name in brackets: the state is field 3, utime 14 and stime 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
        Ok(ticks * TICK_US)
    }

    /// How many requests the ledger has, once it has `sent` or a while has passed.
    fn booked(&self, sent: u64) -> Outcome<u64> {
        let start = Instant::now();
        loop {
            let usage = one_off(self.address, &request("GET", "/billing/usage?range=month", ""))?;
            let usage: serde_json::Value = serde_json::from_slice(&usage)?;
            let booked = usage.get("requests").and_then(serde_json::Value::as_u64).ok_or("no requests in the usage")?;
            if booked >= sent || start.elapsed() > PATIENCE {
                return Ok(booked);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// An address that was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
