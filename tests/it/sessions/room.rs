//! What sessions may hold, and for how long.

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
