//! The load balancer that is shipped, in front of two real gateways: nginx with the very file of `deploy/compose`, but for
//! addresses and paths.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::support::bodies::*;
use super::support::machine::{figures, until};
use super::support::websocket::{self, Sessions};
use super::support::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A running nginx. Dropping it ends it.
struct Balancer {
    address: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Balancer {
    /// `None` where nginx is not installed.
    fn start(gateways: [&Gateway; 2]) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = directory.path().display();
        let rows = [
            ("/tmp/", format!("{path}/")),
            ("/dev/stdout", format!("{path}/access.log")),
            ("gateway-1:8080", gateways[0].proxy.to_string()),
            ("gateway-2:8080", gateways[1].proxy.to_string()),
            ("listen 8080 ", format!("listen {address} ")),
        ];
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose/nginx.conf");
        let mut config = std::fs::read_to_string(shipped).unwrap();
        for (from, to) in rows {
            assert!(config.contains(from), "{from} is in {shipped}");
            config = config.replace(from, &to);
        }
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let errors = std::fs::File::create(directory.path().join("stderr")).unwrap();
        let started = Command::new("nginx")
            .args(["-e", "stderr", "-g", "daemon off; user root;", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn();
        let Ok(child) = started else {
            figures("load balancer: left out, nginx is not installed");
            return None;
        };
        let mut balancer = Self { address, child, directory };
        until("nginx listens", PATIENCE, || {
            assert_eq!(balancer.child.try_wait().unwrap(), None, "{}", balancer.said());
            Wire::try_open(address).is_some()
        });
        Some(balancer)
    }

    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.file(name)).unwrap_or_default();
        read("access.log") + &read("stderr")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Told to end, the first process ends its workers; killed, it would leave them.
        drop(Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status());
        drop(self.child.wait());
    }
}

/// How many calls of `tenant` each gateway has booked; both have ledgers of their own here.
fn booked(gateways: [&Gateway; 2], tenant: &str) -> [u64; 2] {
    gateways.map(|gateway| gateway.usage(tenant).calls())
}

#[test]
fn streams_pass_event_by_event_and_both_gateways_have_work() {
    let (provider, gate) = (Provider::start(honest), Gate::default());
    let (one, two) = (Setup::new(&provider).start(), Setup::new(&provider).start());
    let Some(balancer) = Balancer::start([&one, &two]) else { return };
    assert_eq!(Request::get("/healthz").send(balancer.address).status, 200);
    assert_eq!(Request::get("/readyz").send(balancer.address).status, 200);
    let waits = gate.clone();
    provider.now_does(move |_| {
        let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
        for (at, event) in chat_events(10).iter().enumerate() {
            if at == 3 {
                script = script.then(Step::Wait(waits.clone(), 1));
            }
            script = script.then(Step::Send(wire::chunk(event)));
        }
        script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
    });
    let mut streams: Vec<Wire> = (0..6)
        .map(|_| {
            let mut wire = Wire::open(balancer.address);
            wire.send(&chat_with("acme", CHAT_USAGE_REQUEST).bytes());
            wire
        })
        .collect();
    for wire in &mut streams {
        assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
        let mut body = Vec::new();
        while !String::from_utf8_lossy(&body).contains("word2 ") {
            match wire.piece() {
                Piece::Bytes(bytes) => body.extend(bytes),
                end => panic!("{end:?}"),
            }
        }
    }
    gate.pass();
    for wire in &mut streams {
        let mut body = Vec::new();
        assert!(wire.rest(&mut body), "the stream ends whole");
        assert!(String::from_utf8_lossy(&body).ends_with("data: [DONE]\n\n"));
    }
    until("every stream is booked", PATIENCE, || booked([&one, &two], "acme") == [3, 3]);
}

#[test]
fn a_realtime_session_passes() {
    let provider = Sessions::start(|_, mut peer| {
        peer.say(&serde_json::json!({"type": "session.created"}));
        while peer.hear().is_some_and(|message| peer.say(&message)) {}
    });
    let (one, two) = (Setup::at(&provider.url()).start(), Setup::at(&provider.url()).start());
    let Some(balancer) = Balancer::start([&one, &two]) else { return };
    let request = websocket::handshake("/v1/realtime?model=gpt-realtime").bearer("acme");
    let opened = websocket::open(balancer.address, &request);
    let (mut peer, _) = opened.unwrap_or_else(|answer| panic!("{} {}", answer.status, answer.text()));
    peer.hear_until("session.created");
    assert_eq!(peer.close().map(|(code, _)| code), Some(1000));
}

#[test]
fn what_a_client_sends_and_gets_is_unchanged_and_no_key_is_logged() {
    let provider = Provider::start(honest);
    let (one, two) = (Setup::new(&provider).start(), Setup::new(&provider).start());
    let Some(balancer) = Balancer::start([&one, &two]) else { return };
    let secret = "a-tenant-whose-name-is-a-secret";
    let requests = [
        Request::get("/v1/models/ft:gpt-4o%3Aacme?x=%20&y").bearer(secret),
        chat(secret).header("x_under_score", "stays").header("x-long", "x".repeat(20_000)),
        chat_with(secret, CHAT_REQUEST.replace("Count", &"Count ".repeat(500_000))),
        Request::post(format!("{GEMINI}?key={secret}"), GEMINI_REQUEST),
    ];
    for request in requests {
        let direct = request.send(one.proxy);
        let expected = provider.last();
        let answer = request.send(balancer.address);
        let seen = provider.last();
        assert_eq!((answer.status, &answer.body), (200, &direct.body), "{}", request.target);
        assert_eq!((&seen.target, &seen.body), (&expected.target, &expected.body));
        let names = |headers: &[(String, String)]| {
            let mut names: Vec<String> = headers.iter().map(|(name, _)| name.clone()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&seen.headers), names(&expected.headers), "{}", request.target);
    }
    // Nobody is left to ask: nginx answers itself, and that is an error it may log.
    drop((one, two));
    let answer = Request::post(format!("{GEMINI}?key={secret}"), GEMINI_REQUEST).send(balancer.address);
    assert_eq!(answer.status, 502);
    until("the calls are logged", PATIENCE, || balancer.said().matches(" 200 ").count() >= 4);
    assert!(!balancer.said().contains(secret), "{}", balancer.said());
}

#[test]
fn a_gateway_that_is_gone_or_ends_is_not_noticed_and_no_call_is_sent_twice() {
    const CALLS: usize = 40;
    let (provider, gate) = (Provider::start(honest), Gate::default());
    let mut gateways = [Setup::new(&provider).start(), Setup::new(&provider).start()];
    let Some(balancer) = Balancer::start([&gateways[0], &gateways[1]]) else { return };
    // One dies while the provider has a call of it and says nothing yet.
    let waits = gate.clone();
    provider.now_does(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
    let mut wire = Wire::open(balancer.address);
    wire.send(&chat("acme").bytes());
    provider.demand_count(1);
    let [one, two] = &mut gateways;
    let is_busy = |gateway: &Gateway| gateway.ready()["recorder"]["in_flight"] == 1;
    let (dies, stays) = if is_busy(one) { (one, two) } else { (two, one) };
    dies.kill();
    assert_eq!(wire.answer().expect("an answer").status, 502);
    assert_eq!(provider.count(), 1, "a call that may have reached the provider is not sent again");
    gate.pass();
    provider.now_does(honest);
    let calls = |name: &str| {
        let mut wire = Wire::open(balancer.address);
        for call in 0..CALLS {
            assert_eq!(wire.ask(&chat(name)).status, 200, "call {call}");
        }
    };
    calls("after-a-death");
    stays.booked("after-a-death", CALLS as u64);
    assert_eq!(provider.count(), 1 + CALLS);
}

#[test]
fn a_gateway_that_is_told_to_end_finishes_its_stream_and_gets_no_new_call() {
    let (provider, gate) = (Provider::start(honest), Gate::default());
    let mut gateways = [Setup::new(&provider).start(), Setup::new(&provider).start()];
    let Some(balancer) = Balancer::start([&gateways[0], &gateways[1]]) else { return };
    let waits = gate.clone();
    provider.now_does(move |seen| {
        if seen.json()["stream"] == true {
            Script::open(&[("Content-Type", "text/event-stream")])
                .then(Step::Send(wire::chunk(&chat_event("word "))))
                .then(Step::Wait(waits.clone(), 1))
                .then(Step::Send(wire::chunk(&chat_usage_event())))
                .then(Step::Send(wire::chunk(DONE)))
                .then(Step::Send(wire::LAST_CHUNK.to_vec()))
        } else {
            honest(seen)
        }
    });
    let mut stream = Wire::open(balancer.address);
    stream.send(&chat_with("stream", CHAT_USAGE_REQUEST).bytes());
    assert_eq!(stream.head_of_answer("POST").unwrap().status(), 200);
    let [one, two] = &mut gateways;
    let is_busy = |gateway: &Gateway| gateway.ready()["recorder"]["in_flight"] == 1;
    let (ends, stays) = if is_busy(one) { (one, two) } else { (two, one) };
    ends.signal("TERM");
    until("it takes no connections", PATIENCE, || Wire::try_open(ends.proxy).is_none());
    let mut wire = Wire::open(balancer.address);
    for call in 0..20 {
        assert_eq!(wire.ask(&chat("other")).status, 200, "call {call}");
    }
    gate.pass();
    let mut body = Vec::new();
    assert!(stream.rest(&mut body), "the stream ends whole");
    assert!(ends.ended().success());
    stays.booked("other", 20);
}
