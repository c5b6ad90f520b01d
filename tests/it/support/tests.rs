//! The test bench itself: what it sends and gets without a gateway in between.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::bodies::*;
use super::fault_proxy::{Fault, FaultProxy};
use super::gateway::{pico_usd, pico_usd_of};
use super::machine::until;
use super::redis::{Data, RedisCluster, RedisServer, Reply};
use super::*;

#[test]
fn the_client_gets_what_the_provider_sends() {
    let provider = Provider::start(honest);
    let mut wire = Wire::open(provider.address);
    assert_eq!(wire.ask(&chat("acme")).text(), CHAT_ANSWER);
    let stream = wire.ask(&chat_with("acme", CHAT_USAGE_REQUEST));
    assert_eq!((stream.body, stream.whole), (whole(&chat_events(3)), true));
    assert_eq!(provider.last().body, CHAT_USAGE_REQUEST.as_bytes());
    assert_eq!((provider.count(), provider.connections()), (2, 1));
}

#[test]
fn a_broken_answer_is_seen_as_broken() {
    let open = Script::open(&[]).then(Step::Send(wire::chunk(b"half")));
    let short = Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    for ending in [Step::Close, Step::Reset] {
        for script in [open.clone(), short.clone()] {
            let provider = Provider::always(script.then(ending.clone()));
            let answer = chat("acme").send(provider.address);
            assert_eq!((answer.whole, provider.closed().wait(1)), (false, true));
        }
    }
    let provider = Provider::always(Script::default().then(Step::Reset));
    let mut wire = Wire::open(provider.address);
    wire.send(&chat("acme").bytes());
    assert!(wire.answer().is_none());
}

#[test]
fn amounts_are_read_to_the_last_digit() {
    for (text, pico) in [("0", 0), ("1", 1_000_000_000_000), ("0.00000585", 5_850_000), ("0.000000000001", 1)] {
        assert_eq!(pico_usd(text), pico, "{text}");
        assert_eq!(pico_usd_of(&serde_json::from_str(text).unwrap()), pico, "{text}");
    }
}

#[test]
fn redis_starts_keeps_or_loses_its_data_and_stands_still() {
    let mut server = RedisServer::start();
    server.done(&["SET", "kept", "1"]);
    server.done(&["SAVE"]);
    server.done(&["SET", "lost", "1"]);
    server.restart(Data::Kept);
    assert_eq!(server.ask(&["MGET", "kept", "lost"]), Reply::List(vec![Reply::Text("1".into()), Reply::Nil]));
    server.restart(Data::Lost);
    assert_eq!(server.ask(&["DBSIZE"]), Reply::Number(0));
    server.stop();
    server.cont();
    assert_eq!(server.ask(&["NONSENSE"]).error().split(',').next(), Some("ERR unknown command 'NONSENSE'"));
}

#[test]
fn a_cluster_of_redis_is_whole_and_knows_who_has_a_key() {
    let cluster = RedisCluster::with_replicas(true);
    for key in ["a", "b", "c", "{acme}:x"] {
        cluster.owner(key).done(&["SET", key, "1"]);
    }
    assert!(cluster.replicas.iter().all(|server| server.info("role") == "slave"));
}

#[test]
fn the_proxy_passes_hangs_delays_and_cuts() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.address());
    let ask = |wait: Duration| {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(wait)).unwrap();
        stream.write_all(b"INCR n\r\n").unwrap();
        let mut answer = [0_u8; 4];
        stream.read_exact(&mut answer).ok().map(|()| answer)
    };
    let (short, long) = (Duration::from_millis(60), Duration::from_secs(10));
    assert_eq!(ask(long), Some(*b":1\r\n"));
    proxy.set(Fault::HangAnswers);
    assert_eq!(ask(short), None);
    until("it was done", long, || server.text(&["GET", "n"]) == "2");
    proxy.set(Fault::Hang);
    assert_eq!(ask(short), None);
    assert_eq!(server.text(&["GET", "n"]), "2");
    proxy.set(Fault::None);
    until("what was kept arrives", long, || server.text(&["GET", "n"]) == "3");
    proxy.set(Fault::Delay(short, short));
    let began = Instant::now();
    assert_eq!(ask(long), Some(*b":4\r\n"));
    assert!(began.elapsed() >= short * 2);
    proxy.set(Fault::Cut);
    assert_eq!(ask(long), None);
}
