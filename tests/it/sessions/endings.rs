//! How sessions end, and what is booked then: who leaves, who breaks off, a signal, a kill.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Begins a response, says some of it, and waits for the gate before it says what it charged.
fn held(gate: &Gate) -> impl Fn(&Seen, Peer) + Send + Sync + 'static {
    let gate = gate.clone();
    move |_, mut peer| {
        peer.say(&session("session.created", &json!({"type": "server_vad"})));
        while let Some(message) = peer.hear() {
            if message["type"] != "response.create" {
                continue;
            }
            peer.say(&created("resp_1"));
            peer.say(&delta("resp_1", "Once upon a time"));
            if !gate.wait(1) {
                return;
            }
            peer.say(&done("resp_1", &usage()));
        }
    }
}

fn begun(gateway: &Gateway, key: &str) -> Peer {
    let mut peer = open(gateway, key);
    peer.say(&ask());
    peer.hear_until("response.output_text.delta");
    peer
}

#[test]
fn a_client_that_leaves_a_turn_is_charged_what_the_provider_says_at_its_end() {
    let gate = Gate::default();
    let provider = Sessions::start(held(&gate));
    let gateway = Setup::at(&provider.url()).start();
    let leaves: [(&str, fn(Peer)); 3] = [
        ("closed", |mut peer| {
            peer.frame(CLOSE, &1000_u16.to_be_bytes());
            assert_eq!(peer.closed(), Some((1000, String::new())));
            assert_eq!(peer.next(), Said::Gone, "it does not wait for the end of the turn");
        }),
        ("gone", drop),
        ("reset", Peer::reset),
    ];
    let peers = leaves.map(|(tenant, leave)| (begun(&gateway, tenant), leave));
    for (peer, leave) in peers {
        leave(peer);
    }
    gate.pass();
    for (tenant, _) in leaves {
        let event = gateway.event(tenant);
        assert_eq!(
            (&event["outcome"], &event["usage_source"]),
            (&"client_left".into(), &"provider".into()),
            "{tenant}"
        );
        assert_eq!((&event["total_tokens"], gateway.chats(tenant)), (&118.into(), (1, 499)), "{tenant}");
    }
    assert!(provider.ended().wait(3), "the provider is left after the turn");
}

#[test]
fn a_turn_that_runs_when_the_plan_is_used_up_comes_to_its_end() {
    let (gate, seen) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let (hold, saw) = (gate.clone(), Arc::clone(&seen));
    let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
        peer.hear();
        peer.say(&created("resp_1"));
        peer.say(&delta("resp_1", "Once upon a time"));
        assert!(hold.wait(1));
        peer.say(&done("resp_1", &usage()));
        while let Some(message) = peer.hear() {
            saw.lock().unwrap().push(message);
        }
    });
    let gateway = Setup::at(&provider.url()).config(&plan(1)).start();
    let mut peer = open_silent(&gateway, "acme");
    peer.say(&ask());
    peer.hear_until("response.output_text.delta");
    peer.say(&ask());
    peer.say(&json!({"type": "response.cancel"}));
    peer.frame(PING, b"still there?");
    gate.pass();
    assert_eq!(peer.hear_until("response.done").last().unwrap()["response"]["usage"], usage());
    assert_eq!(peer.closed().unwrap().0, 1008);
    assert!(provider.ended().wait(1));
    assert_eq!(*seen.lock().unwrap(), Vec::<Value>::new(), "nothing went on behind the refusal");
    assert_eq!(gateway.booked("acme", 1).total_tokens, 118);
    assert_eq!(gateway.chats("acme"), (1, 0));
}

/// Begins a transcript of each commit, and waits for the gate before it says what it charged.
fn writes(gate: &Gate, model: &'static str) -> impl Fn(&Seen, Peer) + Send + Sync + 'static {
    let gate = gate.clone();
    move |_, mut peer| {
        peer.say(&transcribing("session.created", model));
        while let Some(message) = peer.hear() {
            if message["type"] != "input_audio_buffer.commit" {
                continue;
            }
            peer.say(&json!({"type": "input_audio_buffer.committed", "item_id": "item_1"}));
            peer.say(&json!({"type": "conversation.item.input_audio_transcription.delta", "item_id": "item_1",
                "content_index": 0, "delta": "Once upon a time"}));
            if !gate.wait(1) {
                return;
            }
            peer.say(&transcript("item_1", &json!({"type": "duration", "seconds": 7_200})));
        }
    }
}

/// A tenth of a second is committed, and some of its transcript is there.
fn writing(gateway: &Gateway, key: &str) -> Peer {
    let mut peer = open(gateway, key);
    peer.say(&append(&"A".repeat(6_400)));
    peer.say(&json!({"type": "input_audio_buffer.commit"}));
    peer.hear_until("conversation.item.input_audio_transcription.delta");
    peer
}

#[test]
fn a_client_that_leaves_behind_the_words_of_a_transcript_is_charged_for_it() {
    let gate = Gate::default();
    let provider = Sessions::start(writes(&gate, "whisper-1"));
    let gateway = Setup::at(&provider.url()).start();
    drop(writing(&gateway, "acme"));
    gate.pass();
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"provider".into()), "{event}");
    assert_eq!((&event["model"], &event["chats"]), (&"whisper-1".into(), &0.into()), "{event}");
    assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), 720_000_000_000);
    assert!(provider.ended().wait(1), "the provider is left after the transcript");
}

#[test]
fn a_transcript_that_is_not_told_in_time_is_estimated_by_what_was_heard() {
    for (model, cost) in [("whisper-1", 100 * 100_000), ("gpt-4o-transcribe", 2_500_000 + 4 * 10_000_000)] {
        for drain in ["200ms", "0s"] {
            let provider = Sessions::start(writes(&Gate::default(), model));
            let gateway = Setup::at(&provider.url()).set("TOLLGATE_DRAIN_TIMEOUT", drain).start();
            drop(writing(&gateway, "acme"));
            let event = gateway.event("acme");
            assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"estimate".into()));
            assert_eq!((&event["model"], &event["chats"]), (&model.into(), &0.into()), "{event}");
            assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), cost, "{event}");
        }
    }
}

#[test]
fn who_does_not_read_holds_up_the_other_side_and_no_memory() {
    // More than sockets keep, less than would have to be kept here if nothing were held up.
    let (most, kept_kib) = (48 << 20, 16 << 10);
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).start();
    let mut before = 0;
    // What the first round takes is not given back, and not taken again.
    for round in 0..2 {
        let (stuck, sent) = (Gate::default(), Arc::new(AtomicU64::new(0)));
        let (gone, counted) = (stuck.clone(), Arc::clone(&sent));
        provider.now_does(move |_: &Seen, mut peer: Peer| {
            counted.store(peer.flood(), Ordering::SeqCst);
            gone.pass();
        });
        let deaf = open_silent(&gateway, "acme");
        assert!(stuck.wait(1));
        let to_client = (sent.load(Ordering::SeqCst), gateway.memory_kib());
        drop(deaf);
        let stuck = Gate::default();
        let wait = stuck.clone();
        provider.now_does(move |_: &Seen, _deaf: Peer| assert!(wait.wait(1)));
        let to_provider = (open_silent(&gateway, "acme").flood(), gateway.memory_kib());
        stuck.pass();
        for (sent, kib) in [to_client, to_provider] {
            assert!(sent < most, "{sent} bytes were taken");
            assert!(round == 0 || kib < before + kept_kib, "{before} KiB, then {kib}");
        }
        before = to_client.1.max(to_provider.1);
    }
}

#[test]
fn a_turn_that_does_not_end_in_time_is_estimated_by_what_was_said() {
    let provider = Sessions::start(held(&Gate::default()));
    let gateway = Setup::at(&provider.url()).set("TOLLGATE_DRAIN_TIMEOUT", "200ms").start();
    drop(begun(&gateway, "acme"));
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"estimate".into()));
    let counted = (event["prompt_tokens"].as_u64().unwrap(), event["completion_tokens"].as_u64().unwrap());
    assert_eq!((counted, &event["chats"]), ((3, 4), &1.into()), "'Say hello.' and 'Once upon a time'");
}

#[test]
fn a_provider_that_breaks_off_is_seen_to_and_its_turn_is_estimated() {
    let gateway_of = |provider: &Sessions| Setup::at(&provider.url()).start();
    for (what, ending) in [("FIN", false), ("RST", true)] {
        let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
            peer.hear();
            peer.say(&created("resp_1"));
            peer.say(&delta("resp_1", "Once upon a time"));
            if ending {
                // All of it is to arrive before the connection breaks.
                peer.hear();
                peer.reset();
            }
        });
        let gateway = gateway_of(&provider);
        let mut peer = open_silent(&gateway, "acme");
        peer.say(&ask());
        peer.hear_until("response.output_text.delta");
        peer.say(&json!({"type": "response.cancel"}));
        assert_eq!(peer.closed(), None, "{what}: no close frame is made up");
        let event = gateway.event("acme");
        assert_eq!(
            (&event["outcome"], &event["usage_source"]),
            (&"upstream_failed".into(), &"estimate".into()),
            "{what}"
        );
        assert_eq!((&event["chats"], &event["completion_tokens"]), (&1.into(), &4.into()), "{what}");
    }
}

#[test]
fn a_provider_that_closes_is_answered_by_the_client_itself() {
    let gate = Gate::default();
    let answered = gate.clone();
    let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
        peer.frame(CLOSE, b"\x03\xe9expired");
        if peer.closed() == Some((1001, "mine".into())) {
            answered.pass();
        }
    });
    let gateway = Setup::at(&provider.url()).start();
    let mut peer = open_silent(&gateway, "acme");
    assert_eq!(peer.closed(), Some((1001, "expired".into())));
    peer.frame(CLOSE, b"\x03\xe9mine");
    assert!(gate.wait(1));
    assert_eq!(peer.next(), Said::Gone);
    assert_eq!(gateway.usage("acme").calls(), 0);
}

#[test]
fn a_silent_session_lives_on_pings_and_ends_without_them() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).set("TOLLGATE_IDLE_TIMEOUT", "1s").start();
    let mut peer = open(&gateway, "acme");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2_500) {
        peer.frame(PING, b"there?");
        thread::sleep(Duration::from_millis(100));
    }
    peer.say(&ask());
    peer.hear_until("response.done");
    let silent = Instant::now();
    assert_eq!(peer.closed(), None);
    assert!(silent.elapsed() >= Duration::from_millis(900), "{:?}", silent.elapsed());
    assert_eq!(gateway.booked("acme", 1).chats, 1);
}

#[test]
fn a_session_goes_on_while_the_gateway_drains_and_is_told_when_it_is_cut() {
    let provider = Sessions::start(honest);
    let mut gateway = Setup::at(&provider.url()).set("TOLLGATE_SHUTDOWN_DRAIN_LIMIT", "3s").start();
    let mut peer = open(&gateway, "acme");
    let mut silent = open(&gateway, "globex");
    silent.say(&append("AAAA"));
    until("the turn is held", PATIENCE, || gateway.limits("globex")["held"] == 1);
    let began = Instant::now();
    gateway.signal("TERM");
    until("the gateway drains", PATIENCE, || gateway.log().contains("Draining"));
    for _ in 0..2 {
        peer.say(&ask());
        peer.hear_until("response.done");
    }
    assert_eq!(peer.closed().unwrap().0, 1001);
    assert_eq!(silent.closed().unwrap().0, 1001);
    assert!(gateway.ended().success());
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
    let gateway = Setup::at(&provider.url()).on_ledger_of(&gateway).start();
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.chats, usage.total_tokens, usage.estimated.requests), (2, 236, 0));
    let event = gateway.event("globex");
    assert_eq!(
        (&event["chats"], &event["total_tokens"], &event["outcome"]),
        (&0.into(), &0.into(), &"interrupted".into())
    );
}

#[test]
fn what_a_kill_cuts_is_booked_at_the_next_start() {
    let provider = Sessions::start(honest);
    let mut gateway = Setup::at(&provider.url()).config(&plan(10)).start();
    let mut peer = open(&gateway, "acme");
    peer.say(&ask());
    peer.hear_until("response.done");
    provider.now_does(held(&Gate::default()));
    let cut = begun(&gateway, "acme");
    gateway.kill();
    drop((peer, cut));
    let gateway = Setup::at(&provider.url()).on_ledger_of(&gateway).config(&plan(10)).start();
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.chats, usage.total_tokens - usage.estimated.prompt_tokens), (2, 118));
    assert_eq!((usage.estimated.requests, usage.estimated.completion_tokens), (1, 0));
    assert_eq!(gateway.chats("acme"), (2, 8));
}
