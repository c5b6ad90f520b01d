//! What sessions may hold of memory, connections and places, and for how long.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::{Domain, Socket, Type};

use super::*;

const MIB: usize = 1 << 20;
const LONG: usize = 12 * MIB;

fn long_append() -> Vec<u8> {
    websocket::frame(true, TEXT, append(&"A".repeat(LONG)).to_string().as_bytes())
}

#[test]
fn a_session_keeps_no_room_of_a_long_message() {
    let (heard, small) = (Gate::default(), websocket::frame(true, TEXT, br#"{"type":"input_audio_buffer.clear"}"#));
    let long = long_append();
    let (tell, length) = (heard.clone(), long.len() + small.len());
    let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
        peer.raw(length);
        tell.pass();
        peer.closed();
    });
    let gateway = Setup::at(&provider.url()).start();
    let mut passed = 0;
    let mut speak = |peer: &mut Peer| {
        peer.send(&long);
        peer.send(&small);
        passed += 1;
        assert!(heard.wait(passed));
    };
    // What a worker keeps for later messages is there before anything is measured.
    for _ in 0..3 {
        let mut peer = open_silent(&gateway, "acme");
        speak(&mut peer);
    }
    let kib_max = gateway.memory_kib() + 24 * 1024;
    let sessions: Vec<_> = (0..8)
        .map(|_| {
            let mut peer = open_silent(&gateway, "acme");
            speak(&mut peer);
            peer
        })
        .collect();
    // The allocator gives back what was freed on occasions.
    until("the room of long messages is given back", Duration::from_secs(20), || {
        gateway.send(&Request::get("/healthz"));
        gateway.memory_kib() < kib_max
    });
    assert!(sessions.into_iter().all(|mut peer| peer.try_send(&small)));
}

fn with_budget(provider: &Sessions, bytes: &str) -> Gateway {
    Setup::at(&provider.url()).set("TOLLGATE_BODY_LIMIT", "1MiB").set("TOLLGATE_BUFFER_TOTAL", bytes).start()
}

#[test]
fn what_a_client_does_not_take_counts_in_the_budget_until_it_has_it() {
    let long = json!({"type": "response.done", "event_id": "e",
        "response": {"id": "resp_1", "object": "realtime.response", "status": "completed", "output": [], "usage": usage()},
        "padding": "A".repeat(LONG)});
    let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
        if peer.hear().is_some() {
            peer.say(&created("resp_1"));
            peer.say(&long);
            peer.try_send(&websocket::frame(false, CLOSE, &1000_u16.to_be_bytes()));
            peer.closed();
        }
    });
    let gateway = with_budget(&provider, "16MiB");
    let code_of = |peer: &mut Peer| peer.closed().map(|closed| closed.0);
    let mut deaf = open_silent(&gateway, "deaf");
    deaf.say(&ask());
    // It is booked before it goes on.
    assert_eq!(gateway.booked("deaf", 1).chats, 1);
    let mut other = open_silent(&gateway, "acme");
    other.say(&ask());
    assert_eq!(code_of(&mut other), Some(1013), "there is no room for another one");
    // What is taken makes room.
    assert_eq!(code_of(&mut deaf), Some(1000));
    drop(deaf);
    until("there is room again", PATIENCE, || {
        let mut other = open_silent(&gateway, "globex");
        other.say(&ask());
        code_of(&mut other) == Some(1000)
    });
}

#[test]
fn a_copy_that_is_unmasked_counts_in_the_budget_and_is_given_back() {
    let (heard, long) = (Gate::default(), long_append());
    let (tell, length) = (heard.clone(), long.len());
    let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
        peer.raw(length);
        tell.pass();
        peer.closed();
    });
    let gateway = with_budget(&provider, "26MiB");
    // They stay, and have nothing more to say.
    let sessions: Vec<_> = (1..4)
        .map(|number| {
            let mut peer = open_silent(&gateway, "acme");
            peer.send(&long);
            assert!(heard.wait(number), "the message of session {number} goes on");
            peer
        })
        .collect();
    drop(sessions);
    provider.now_does(|_: &Seen, mut peer: Peer| drop(peer.closed()));
    let gateway = with_budget(&provider, "16MiB");
    let mut peer = open_silent(&gateway, "acme");
    peer.send(&long);
    assert_eq!(peer.closed().map(|closed| closed.0), Some(1013), "it is there twice");
}

/// What a provider saw of sessions: handshakes, those whose first frame came, those that ended without one.
#[derive(Clone, Default)]
struct Counts {
    begun: Arc<AtomicU64>,
    heard: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
}

/// A provider that answers with as many bytes as the end of the path says, and agrees on each session.
fn answers_and_sessions(seen: &Counts) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            thread::spawn(move || serve(stream, &seen));
        }
    });
    url
}

fn serve(stream: TcpStream, seen: &Counts) {
    let mut wire = Wire::over(stream);
    while let Some(head) = wire.head_of_request() {
        if head.header("upgrade").is_none() {
            let path = head.first_line.split(' ').nth(1).unwrap();
            let bytes: usize = path.rsplit('-').next().unwrap().parse().unwrap();
            let body = "x".repeat(bytes);
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{body}").as_bytes());
            continue;
        }
        seen.begun.fetch_add(1, Ordering::SeqCst);
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let (mut stream, buffer) = wire.into_parts();
        let is_heard = !buffer.is_empty() || stream.read(&mut [0]).is_ok_and(|count| count > 0);
        let count = if is_heard { &seen.heard } else { &seen.cut };
        count.fetch_add(1, Ordering::SeqCst);
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        return;
    }
}

/// A client that reads nothing: neither an answer of so many bytes, nor that to the handshake behind it. What comes behind
/// that is passed on once it is answered.
fn reads_nothing(gateway: &Gateway, bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&gateway.proxy.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let ask = Request::get(format!("/v1/models/m-{bytes}")).bearer("acme").bytes();
    let all = [ask, handshake(REALTIME).bearer("acme").bytes(), websocket::frame(true, PING, b"")].concat();
    stream.write_all(&all).unwrap();
    stream
}

#[test]
fn a_client_that_does_not_take_the_answer_to_its_handshake_is_cut_in_time() {
    let seen = Counts::default();
    let gateway = Setup::at(&answers_and_sessions(&seen)).set("TOLLGATE_WRITE_TIMEOUT", "1s").start();
    let load = |count: &AtomicU64| usize::try_from(count.load(Ordering::SeqCst)).unwrap();
    let cut = || {
        let text = Request::get("/metrics").send(gateway.admin).text();
        let name = "tollgate_limits_reached_total{limit=\"answer_pace\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<usize>().unwrap()
    };
    let mut begun = 0;
    let mut all_are_served_or_cut = |sizes: &mut dyn Iterator<Item = usize>| {
        let clients: Vec<_> = sizes.map(|bytes| reads_nothing(&gateway, bytes)).collect();
        begun += clients.len();
        until("each is served or cut", Duration::from_secs(15), || load(&seen.heard) + cut() == begun);
    };
    // How much the kernel keeps is found first. Then there is one whose first answer it has and whose second it has not: soon,
    // since it does not always keep the same.
    let (least, coarse, fine) = (16 * 1024, 4 * 1024, 200);
    all_are_served_or_cut(&mut (0..50).map(|number| least + number * coarse));
    let kept = least + load(&seen.begun) * coarse;
    for _ in 0..10 {
        all_are_served_or_cut(&mut (kept - 2 * coarse..kept + coarse).step_by(fine));
        if load(&seen.cut) > 0 {
            return;
        }
    }
    panic!("{} handshakes, none of them cut", load(&seen.begun));
}
