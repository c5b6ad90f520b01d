//! Clients that mean harm: slow ones, idle ones, many at once. Each is cut within its limit, and nobody else waits for it.

mod bombs;
mod frames;
mod http2;
mod limits;
mod slowhttptest;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::support::bodies::*;
use super::support::machine::{figures, tell, until};
use super::support::*;

/// What an ordinary call may take while others do their worst.
const ORDINARY_MAX: Duration = Duration::from_secs(1);

/// A timer that is late, a machine that is busy.
const SLACK: Duration = Duration::from_secs(3);

/// The count of a limit in the metrics.
fn reached(gateway: &Gateway, limit: &str) -> u64 {
    let text = Request::get("/metrics").send(gateway.admin).text();
    let name = format!("tollgate_limits_reached_total{{limit=\"{limit}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{limit}: {text}"));
    value.parse().unwrap()
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Somebody who makes one call after another, each on a connection of its own. A call takes what the clock says: who waits does
/// not ask for what.
struct Ordinary {
    stop: Arc<AtomicBool>,
    calls: JoinHandle<Vec<Duration>>,
}

impl Ordinary {
    fn start(gateway: &Gateway, key: &str) -> Self {
        let (stop, key) = (Arc::new(AtomicBool::new(false)), key.to_owned());
        let to = gateway.proxy;
        let stopped = stop.clone();
        let calls = thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::SeqCst) || took.is_empty() {
                let began = Instant::now();
                let answer = chat(&key).send(to);
                assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER));
                took.push(began.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            took
        });
        Self { stop, calls }
    }

    /// How many calls it made, and how long the slowest took.
    fn stop(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let took = self.calls.join().expect("each call is served");
        (took.len(), took.into_iter().max().unwrap())
    }
}

/// Sends `bytes` one by one, each after a pause. Gives when the gateway ended that.
async fn drip(to: SocketAddr, begin: Vec<u8>, pause: Duration) -> Duration {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    let began = Instant::now();
    tcp.write_all(&begin).await.unwrap();
    let (mut read, mut write) = tcp.split();
    let send = async {
        while write.write_all(b"a").await.is_ok() {
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let end = async { while read.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = send => {}
        () = end => {}
    }
    began.elapsed()
}

/// Says nothing until it is cut.
async fn idle(to: SocketAddr) -> Duration {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    let began = Instant::now();
    while tcp.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    began.elapsed()
}

/// Asks for a stream and takes a byte of it at a time. Ends when told to.
async fn read_slowly(to: SocketAddr, request: Vec<u8>, stop: Arc<AtomicBool>) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    // As little as the kernel gives: what is on its way is not in memory of the gateway.
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut tcp = TcpStream::from_std(socket.into()).unwrap();
    tcp.write_all(&request).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        if timeout(Duration::from_millis(500), tcp.read(&mut [0])).await.is_ok_and(|read| read.is_err()) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Calls again and again, refused or not. Gives how many were served, and how many refused.
async fn flood(to: SocketAddr, request: Vec<u8>, stop: Arc<AtomicBool>) -> (u64, u64) {
    let (mut served, mut refused) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut tcp) = TcpStream::connect(to).await else { continue };
        let mut answer = Vec::new();
        let asked = async {
            tcp.write_all(&request).await?;
            tcp.read_to_end(&mut answer).await
        };
        if !matches!(timeout(Duration::from_secs(20), asked).await, Ok(Ok(_))) {
            continue;
        }
        match answer.get(9..12) {
            Some(b"200") => served += 1,
            Some(b"429") => {
                refused += 1;
                // A thousand a second of all of them: what is measured is the gateway, not how much one machine can send itself.
                sleep(Duration::from_millis(50)).await;
            }
            _ => panic!("{}", String::from_utf8_lossy(&answer)),
        }
    }
    (served, refused)
}

/// What comes together in the test below, in numbers.
const DRIPPING: usize = 200;
const IDLING: usize = 500;
const READING: usize = 50;
const FLOODING: usize = 60;

/// The limits that it is held to.
const HEAD_TIME: Duration = Duration::from_secs(3);
const IDLE_TIME: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);

fn besieged(provider: &Provider) -> Gateway {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    Setup::new(provider)
        .config("[plans.starter]\nchats_per_month = -1")
        .set("TOLLGATE_HEADER_TIMEOUT", &seconds(HEAD_TIME))
        .set("TOLLGATE_KEEPALIVE_TIMEOUT", &seconds(IDLE_TIME))
        .set("TOLLGATE_BODY_TIMEOUT", &seconds(PATIENCE))
        .set("TOLLGATE_WRITE_TIMEOUT", &seconds(PATIENCE))
        .set("TOLLGATE_DRAIN_TIMEOUT", "1s")
        .set("TOLLGATE_REQUESTS_PER_TENANT", "20")
        .set("RUST_LOG", "warn")
        .start()
}

/// When the last of them was cut.
fn last_end(runtime: &Runtime, clients: Vec<Cut>) -> Duration {
    let ends = clients.into_iter().map(|client| {
        runtime.block_on(async { timeout(Duration::from_secs(30), client).await.expect("it is cut").unwrap() })
    });
    ends.max().unwrap()
}

/// Nobody got away without being booked.
fn demand_left(event: &serde_json::Value) {
    assert_eq!(event["outcome"], "client_left", "{event}");
    assert!(event["completion_tokens"].as_u64().unwrap() > 0, "{event}");
}

type Cut = tokio::task::JoinHandle<Duration>;

#[test]
fn slow_idle_and_flooding_clients_together_are_cut_and_nobody_waits() {
    let provider = Provider::start(|seen| match seen.header("x-kind") {
        Some("endless") => Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::SendForever(wire::chunk(&chat_event(&"one ".repeat(4_000))))),
        Some("flood") => honest(seen).after(Step::Pause(Duration::from_millis(300))),
        _ => honest(seen),
    });
    let gateway = besieged(&provider);
    use_up(&gateway, "warm", 20);
    // Tenants are made by their first request here, one after the other.
    use_up(&gateway, "flood", 1);
    (0..READING).for_each(|number| drop(gateway.limits(&format!("reader-{number}"))));
    (0..5).for_each(|number| drop(gateway.limits(&format!("dripper-{number}"))));
    let before = gateway.memory_kib();
    gateway.forget_memory_peak();
    let ordinary = Ordinary::start(&gateway, "acme");
    let (runtime, to, stop) = (runtime(), gateway.proxy, Arc::new(AtomicBool::new(false)));
    let half = || 0..DRIPPING / 2;
    let drips = |begin: &dyn Fn(usize) -> Vec<u8>| -> Vec<Cut> {
        half().map(|number| runtime.spawn(drip(to, begin(number), Duration::from_millis(200)))).collect()
    };
    let heads = drips(&|_| b"POST /v1/chat/completions HTTP/1.1\r\nX-A: ".to_vec());
    // Of one tenant there are no more than it may have at once, so that each is cut for its pace.
    let dripper = |number: usize| Request { body: None, ..chat(&format!("dripper-{}", number % 5)) };
    let bodies = drips(&|number| dripper(number).header("Content-Length", "100000").head_bytes());
    let idles: Vec<_> = (0..IDLING).map(|_| runtime.spawn(idle(to))).collect();
    // Each is a tenant, so that what they are held by is their own slowness.
    let reader = |number| chat_with(&format!("reader-{number}"), CHAT_USAGE_REQUEST).header("x-kind", "endless");
    let readers = (0..READING).map(|number| runtime.spawn(read_slowly(to, reader(number).bytes(), stop.clone())));
    let readers: Vec<_> = readers.collect();
    let request = chat("flood").header("x-kind", "flood").header("Connection", "close").bytes();
    let floods: Vec<_> = (0..FLOODING).map(|_| runtime.spawn(flood(to, request.clone(), stop.clone()))).collect();

    let ends = [heads, bodies, idles].map(|clients| last_end(&runtime, clients));
    let all = u64::try_from(READING).unwrap();
    until("slow readers are cut", Duration::from_secs(20), || reached(&gateway, "answer_pace") >= all);
    stop.store(true, Ordering::SeqCst);
    let (mut served, mut refused) = (0, 0);
    for (more, less) in floods.into_iter().map(|client| runtime.block_on(client).unwrap()) {
        (served, refused) = (served + more, refused + less);
    }
    readers.into_iter().for_each(|reader| runtime.block_on(reader).unwrap());
    let (calls, slowest) = ordinary.stop();
    let grown = gateway.memory_peak_kib().saturating_sub(before);
    let [heads, bodies, idles] = ends;
    figures(&format!(
        "floods: {DRIPPING} drip, {IDLING} idle, {READING} slow readers, a tenant with {FLOODING} connections: \
         {calls} ordinary calls, slowest {} ms; cut after {} ms (heads), {} ms (bodies), {} ms (idle); {served} of the \
         flood served, {refused} refused; {} MiB before, {} MiB more at most",
        slowest.as_millis(),
        heads.as_millis(),
        bodies.as_millis(),
        idles.as_millis(),
        before / 1024,
        grown / 1024
    ));
    assert!(slowest < ORDINARY_MAX, "{slowest:?}");
    assert!(grown < 128 * 1024, "{grown} KiB more");
    assert!(heads < HEAD_TIME + SLACK && bodies < 2 * PATIENCE + SLACK && idles < IDLE_TIME + SLACK, "{ends:?}");
    assert!(served > 0 && refused > 0, "{served} {refused}");
    let limits = ["head_time", "body_pace", "idle", "requests_per_tenant"];
    for (limit, least) in limits.into_iter().zip([DRIPPING / 2, DRIPPING / 2, IDLING, 1]) {
        assert!(reached(&gateway, limit) >= u64::try_from(least).unwrap(), "{limit}");
    }
    (0..READING).for_each(|number| demand_left(&gateway.event(&format!("reader-{number}"))));
    demand_exactly(&gateway, "flood", served + 1);
    tell_rows();
}

fn demand_exactly(gateway: &Gateway, tenant: &str, calls: u64) {
    assert_eq!(gateway.booked(tenant, calls).tokens(), (11 * calls, 7 * calls, 18 * calls));
    assert_eq!(gateway.chats(tenant).0, calls);
}

fn tell_rows() {
    tell("A14", "heads and bodies that drip", DRIPPING, "all cut within their limits, ordinary calls within 1 s");
    tell("A15", "connections that say nothing", IDLING, "all cut within their limit");
}
