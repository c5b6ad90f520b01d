//! Realtime sessions, which are websockets: relayed byte for byte, metered turn by turn, stopped when the plan is used up.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::gateway::{GEMINI_KEY, OPENAI_KEY, pico_usd_of};
use super::support::machine::{Chance, until};
use super::support::provider::Seen;
use super::support::websocket::{self, BINARY, CLOSE, PING, PONG, Peer, Said, Sessions, TEXT, handshake};
use super::support::*;

mod endings;
mod keys;
mod live;
mod room;

const REALTIME: &str = "/v1/realtime?model=gpt-realtime";
const PATIENCE: Duration = Duration::from_secs(10);

/// What each response of the scripted provider charges.
fn usage() -> Value {
    json!({
        "total_tokens": 118, "input_tokens": 100, "output_tokens": 18,
        "input_token_details": {"text_tokens": 40, "audio_tokens": 60, "image_tokens": 0, "cached_tokens": 30,
            "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 20, "image_tokens": 0}},
        "output_token_details": {"text_tokens": 8, "audio_tokens": 10}
    })
}

/// In pico-dollars, by the price list of gpt-realtime: text 4, cached 0.4, audio 32, cached audio 0.4 dollars a million in,
/// 16 and 64 out.
const TURN_COST: u64 =
    30 * 4_000_000 + 10 * 400_000 + 40 * 32_000_000 + 20 * 400_000 + 8 * 16_000_000 + 10 * 64_000_000;

fn created(id: &str) -> Value {
    json!({"type": "response.created", "event_id": "e", "response": {"id": id, "status": "in_progress", "usage": null}})
}

fn delta(id: &str, text: &str) -> Value {
    json!({"type": "response.output_text.delta", "event_id": "e", "response_id": id, "delta": text})
}

fn done(id: &str, usage: &Value) -> Value {
    json!({"type": "response.done", "event_id": "e",
        "response": {"id": id, "object": "realtime.response", "status": "completed", "output": [], "usage": usage}})
}

fn session(kind: &str, detection: &Value) -> Value {
    json!({"type": kind, "event_id": "e", "session": {"type": "realtime", "id": "sess_1", "model": "gpt-realtime-2025-08-28",
        "audio": {"input": {"turn_detection": detection, "transcription": null}}}})
}

/// Answers each `response.create`, and each END that is heard in audio as the end of somebody's speech.
fn honest(_: &Seen, mut peer: Peer) {
    let mut responses = 0;
    peer.say(&session("session.created", &json!({"type": "server_vad"})));
    while let Some(message) = peer.hear() {
        let speeches = match message["type"].as_str() {
            Some("response.create") => 1,
            Some("input_audio_buffer.append") => message["audio"].as_str().unwrap().matches("END").count(),
            Some("session.update") => {
                let detection = &message["session"]["audio"]["input"]["turn_detection"];
                peer.say(&session("session.updated", detection));
                0
            }
            _ => 0,
        };
        for _ in 0..speeches {
            responses += 1;
            let id = format!("resp_{responses}");
            peer.say(&created(&id));
            peer.say(&delta(&id, "Hello"));
            peer.say(&done(&id, &usage()));
        }
    }
}

fn ask() -> Value {
    json!({"type": "response.create", "response": {"instructions": "Say hello."}})
}

fn append(audio: &str) -> Value {
    json!({"type": "input_audio_buffer.append", "audio": audio})
}

fn open(gateway: &Gateway, key: &str) -> Peer {
    let mut peer = open_silent(gateway, key);
    assert_eq!(peer.hear().unwrap()["type"], "session.created");
    peer
}

/// A session whose provider says nothing at its begin.
fn open_silent(gateway: &Gateway, key: &str) -> Peer {
    match websocket::open(gateway.proxy, &handshake(REALTIME).bearer(key)) {
        Ok((peer, _)) => peer,
        Err(answer) => panic!("{} {}", answer.status, answer.text()),
    }
}

fn plan(chats: u64) -> String {
    format!("[plans.starter]\nchats_per_month = {chats}\n")
}

#[test]
fn each_response_of_a_session_is_one_chat_with_its_own_usage_and_no_key_goes_upstream() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).prod().start();
    let key = gateway.issue("acme", "starter");
    let request = handshake(&format!("{REALTIME}&key={key}")).bearer(&key).header("OpenAI-Organization", "org-theirs");
    let request = request.header("x-tollgate-user-id", "ann").header("OpenAI-Beta", "realtime=v1");
    let (mut peer, head) = websocket::open(gateway.proxy, &request).ok().unwrap();
    assert_eq!(head.header("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.header("sec-websocket-extensions"), None);
    assert_eq!(head.header("x-request-id").as_deref(), Some("req_ws"));
    assert!(head.header("x-tollgate-request-id").is_some());
    peer.hear_until("session.created");
    for turn in 1..=3 {
        assert!(peer.say(&ask()));
        let heard = peer.hear_until("response.done");
        assert_eq!(heard.last().unwrap()["response"]["usage"], usage());
        // Booked before the client has it.
        let usage = gateway.booked(&key, turn);
        assert_eq!((usage.chats, usage.requests, usage.tokens()), (turn, turn, (100 * turn, 18 * turn, 118 * turn)));
        assert_eq!((usage.cached_tokens, usage.cost()), (30 * turn, TURN_COST * turn));
        assert_eq!((usage.estimated.requests, usage.unpriced_requests), (0, 0));
    }
    assert_eq!(peer.close(), Some((1000, String::new())));
    let event = &gateway.events(&key)[0];
    assert_eq!((&event["endpoint"], &event["user_id"]), (&"realtime".into(), &"ann".into()), "{event}");
    assert_eq!(
        (&event["model"], &event["requested_model"]),
        (&"gpt-realtime-2025-08-28".into(), &"gpt-realtime".into())
    );
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"completed".into(), &"provider".into()));
    assert_eq!((&event["status"], &event["request_id"]), (&101.into(), &"req_ws".into()));
    assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), TURN_COST);
    assert_eq!(gateway.chats(&key), (3, 497));
    let seen = &provider.seen()[0];
    assert_eq!(
        (seen.target.as_str(), seen.header("authorization")),
        (REALTIME, Some(&*format!("Bearer {OPENAI_KEY}")))
    );
    assert_eq!(seen.header("sec-websocket-extensions"), None);
    assert_eq!(seen.header("openai-beta"), Some("realtime=v1"));
    assert!(!seen.everything().contains(&key) && !seen.everything().contains("theirs"), "{}", seen.everything());
}

#[test]
fn at_so_many_chats_left_exactly_so_many_turns_go_on_over_all_sessions() {
    let provider = Sessions::start(honest);
    let gateway = Arc::new(Setup::at(&provider.url()).config(&plan(23)).start());
    let sessions: Vec<_> = (0..6)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || {
                let mut peer = match websocket::open(gateway.proxy, &handshake(REALTIME).bearer("acme")) {
                    Ok((peer, _)) => peer,
                    Err(answer) => {
                        assert_eq!((answer.status, &answer.json()["error"]["code"]), (402, &"quota_exceeded".into()));
                        return 0;
                    }
                };
                peer.hear_until("session.created");
                for turn in 0..6 {
                    peer.say(&ask());
                    loop {
                        match peer.next() {
                            Said::Frame(TEXT, text) if String::from_utf8_lossy(&text).contains("response.done") => {
                                break;
                            }
                            Said::Frame(CLOSE, payload) => {
                                assert_eq!(payload[..2], 1008_u16.to_be_bytes());
                                let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
                                assert!(reason.starts_with("Tenant acme has used"), "{reason}");
                                return turn;
                            }
                            Said::Frame(..) => {}
                            Said::Gone => panic!("a session ends with a close frame"),
                        }
                    }
                }
                assert_eq!(peer.close(), Some((1000, String::new())));
                6
            })
        })
        .collect();
    let turns: u64 = sessions.into_iter().map(|session| session.join().unwrap()).sum();
    assert_eq!(turns, 23);
    assert_eq!(gateway.chats("acme"), (23, 0));
    let usage = gateway.booked("acme", 23);
    assert_eq!((usage.chats, usage.total_tokens), (23, 23 * 118));
    let refused = websocket::open(gateway.proxy, &handshake(REALTIME).bearer("acme")).err().unwrap();
    assert_eq!((refused.status, &refused.json()["error"]["quota"]["used"]), (402, &23.into()));
    assert_eq!(refused.header("x-should-retry").as_deref(), Some("false"));
}

#[test]
fn speech_that_a_provider_answers_by_itself_is_admitted_before_it_is_heard() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).config(&plan(3)).start();
    let mut peer = open(&gateway, "acme");
    for turn in 1..=3 {
        peer.say(&append("AAAA"));
        peer.say(&append("AAAAEND="));
        peer.hear_until("response.done");
        assert_eq!(gateway.booked("acme", turn).chats, turn);
    }
    peer.say(&append("AAAA"));
    assert_eq!(peer.closed().unwrap().0, 1008);
    assert_eq!(gateway.chats("acme"), (3, 0));
    // Nothing of what was refused has gone on: what is heard at last is that the session is over.
    assert!(provider.ended().wait(1));

    // Silence is admitted, and given back when nobody answers it.
    let mut peer = open(&gateway, "globex");
    peer.say(&append("AAAA"));
    until("the turn is held", PATIENCE, || gateway.limits("globex")["held"] == 1);
    assert!(peer.close().is_some());
    assert_eq!(gateway.chats("globex"), (0, 3));
    let event = gateway.event("globex");
    assert_eq!(
        (&event["chats"], &event["total_tokens"], &event["outcome"]),
        (&0.into(), &0.into(), &"client_left".into())
    );

    // Where the provider says that it does not answer by itself, audio begins nothing.
    let mut peer = open(&gateway, "initech");
    peer.say(&json!({"type": "session.update", "session": {"audio": {"input": {"turn_detection": null}}}}));
    peer.hear_until("session.updated");
    peer.say(&append("AAAA"));
    peer.say(&json!({"type": "input_audio_buffer.commit"}));
    peer.say(&ask());
    peer.hear_until("response.done");
    assert_eq!(gateway.chats("initech"), (1, 2));
    assert!(peer.close().is_some());
    assert_eq!(gateway.booked("initech", 1).requests, 1);
}

#[test]
fn what_a_provider_begins_unasked_is_a_chat_and_ends_the_session_when_none_is_left() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).config(&plan(2)).start();
    let mut peer = open(&gateway, "acme");
    // Three ends of speech in one message: the first was admitted with it.
    peer.say(&append("ENDAENDAENDA"));
    let mut whole = 0;
    let closed = loop {
        match peer.next() {
            Said::Frame(TEXT, text) if String::from_utf8_lossy(&text).contains("response.done") => whole += 1,
            Said::Frame(CLOSE, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            Said::Frame(..) => {}
            Said::Gone => panic!("a close frame"),
        }
    };
    assert_eq!((whole, closed), (2, 1008));
    assert_eq!(gateway.chats("acme"), (2, 0));
    let usage = gateway.booked("acme", 3);
    assert_eq!((usage.chats, usage.estimated.requests), (2, 1), "the third is in the ledger, and no chat");
}

#[test]
fn several_responses_at_once_and_what_was_refused_are_told_apart() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        for _ in 0..3 {
            peer.hear();
        }
        peer.say(
            &json!({"type": "error", "event_id": "e", "error": {"type": "invalid_request_error", "event_id": "third"}}),
        );
        peer.say(&created("a"));
        peer.say(&created("b"));
        peer.say(&delta("b", "Hi"));
        let used = |input: u64, output: u64| json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
        peer.say(&done("b", &used(20, 2)));
        peer.say(&done("a", &used(10, 1)));
        peer.hear();
        peer.say(&created("c"));
        peer.say(&json!({"type": "response.done", "response": {"id": "c", "status": "failed", "usage": null}}));
        peer.hear();
        peer.say(&created("d"));
        let nothing = json!({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0});
        peer.say(&json!({"type": "response.done", "response": {"id": "d", "status": "cancelled", "usage": nothing}}));
        while peer.hear().is_some() {}
    });
    let gateway = Setup::at(&provider.url()).start();
    let mut peer = open_silent(&gateway, "acme");
    for id in ["first", "second", "third"] {
        peer.say(&json!({"type": "response.create", "event_id": id, "response": {"conversation": "none"}}));
    }
    peer.hear_until("response.done");
    peer.hear_until("response.done");
    assert_eq!(gateway.booked("acme", 2).tokens(), (30, 3, 33));
    assert_eq!(gateway.limits("acme")["held"], 1, "what was refused waits for the next");
    peer.say(&ask());
    peer.hear_until("response.done");
    peer.say(&ask());
    peer.hear_until("response.done");
    assert!(peer.close().is_some());
    let usage = gateway.booked("acme", 4);
    assert_eq!((usage.chats, usage.requests, usage.failed_requests, usage.total_tokens), (3, 3, 1, 33));
    assert_eq!(usage.estimated.requests, 0, "what failed or was cancelled before its first word used nothing");
    assert_eq!(gateway.chats("acme"), (3, 497));
}

#[test]
fn transcripts_of_what_was_heard_are_billed_by_their_own_model_and_are_no_chats() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        // One that is refused does not come.
        let Some(update) = peer.hear() else { return };
        peer.say(&json!({"type": "session.updated", "session": update["session"]}));
        peer.hear();
        let usage = json!({"type": "tokens", "input_tokens": 50, "output_tokens": 6, "total_tokens": 56,
            "input_token_details": {"audio_tokens": 50, "text_tokens": 0}});
        for usage in [usage, json!({"type": "duration", "seconds": 2.5})] {
            peer.say(&json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "i",
                "content_index": 0, "transcript": "Hello there", "usage": usage}));
        }
        while peer.hear().is_some() {}
    });
    let models = "allowed_models = [\"gpt-realtime*\", \"gpt-4o-transcribe\"]\n";
    let gateway = Setup::at(&provider.url()).config(&format!("{}{models}", plan(5))).start();
    let update = |model: &str| {
        json!({"type": "session.update", "session": {"type": "transcription",
            "audio": {"input": {"transcription": {"model": model}}}}})
    };
    let mut peer = open_silent(&gateway, "acme");
    peer.say(&update("gpt-4o-transcribe"));
    peer.hear_until("session.updated");
    peer.say(&append("AAAAEND="));
    for _ in 0..2 {
        peer.hear_until("conversation.item.input_audio_transcription.completed");
    }
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.chats, usage.tokens(), usage.unpriced_requests), (0, (50, 6, 56), 1));
    let events = gateway.events("acme");
    assert_eq!(events.iter().filter(|event| event["endpoint"] == "realtime.transcription").count(), 2, "{events:?}");
    assert!(events.iter().all(|event| event["model"] == "gpt-4o-transcribe"), "{events:?}");
    assert!(peer.close().is_some());
    assert_eq!(gateway.chats("acme"), (0, 5));

    let mut peer = open_silent(&gateway, "globex");
    peer.say(&update("whisper-1"));
    let (code, reason) = peer.closed().unwrap();
    assert_eq!((code, reason.starts_with("Model whisper-1 is not one")), (1008, true), "{reason}");
    let refused = websocket::open(gateway.proxy, &handshake("/v1/realtime?model=gpt-5").bearer("acme")).err().unwrap();
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &"model_not_allowed".into()));
}

/// A session of gpt-realtime that names its model, waits to be asked, and writes down what it hears.
fn transcribing(kind: &str, model: &str) -> Value {
    let mut session = session(kind, &Value::Null);
    session["session"]["audio"]["input"]["transcription"] = json!({"model": model});
    session
}

fn transcript(item: &str, usage: &Value) -> Value {
    json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": item, "content_index": 0,
        "transcript": "Hello there", "usage": usage})
}

#[test]
fn a_transcript_costs_what_its_model_does_in_a_session_that_names_another() {
    for (model, usage, cost) in [
        ("whisper-1", json!({"type": "duration", "seconds": 7_200}), 720_000_000_000_u64),
        (
            "gpt-4o-transcribe",
            json!({"type": "tokens", "input_tokens": 1_000, "output_tokens": 10, "total_tokens": 1_010,
                "input_token_details": {"audio_tokens": 1_000, "text_tokens": 0}}),
            1_000 * 6_000_000 + 10 * 10_000_000,
        ),
    ] {
        let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
            peer.say(&transcribing("session.created", model));
            while let Some(message) = peer.hear() {
                if message["type"] == "input_audio_buffer.commit" {
                    peer.say(&transcript("item_1", &usage));
                }
            }
        });
        let gateway = Setup::at(&provider.url()).start();
        let mut peer = open(&gateway, "acme");
        peer.say(&append("AAAA"));
        peer.say(&json!({"type": "input_audio_buffer.commit"}));
        peer.hear_until("conversation.item.input_audio_transcription.completed");
        let usage = gateway.booked("acme", 1);
        assert_eq!((usage.chats, usage.cost(), usage.unpriced_requests), (0, cost, 0), "{model}");
        let event = gateway.event("acme");
        assert_eq!((&event["model"], &event["requested_model"]), (&model.into(), &model.into()), "{event}");
        assert!(peer.close().is_some());
    }
}

#[test]
fn transcripts_in_an_open_session_do_not_pass_a_cost_limit() {
    let commit = json!({"type": "input_audio_buffer.commit"});
    for hold in ["estimate", "worst_case"] {
        let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
            peer.say(&transcribing("session.created", "whisper-1"));
            for number in 0.. {
                let Some(message) = peer.hear() else { return };
                if message["type"] == "input_audio_buffer.commit" {
                    let item = format!("item_{number}");
                    peer.say(&json!({"type": "input_audio_buffer.committed", "item_id": item}));
                    peer.say(&transcript(&item, &json!({"type": "duration", "seconds": 7_200})));
                }
            }
        });
        let limit = format!("[plans.starter]\ncost_usd_per_month = 1\nhold = \"{hold}\"\n");
        let gateway = Setup::at(&provider.url()).config(&limit).start();
        let mut peer = open(&gateway, "acme");
        for _ in 0..2 {
            peer.say(&append(&"A".repeat(6_400)));
            peer.say(&commit);
            // What is paid for is heard, also where it is the last.
            peer.hear_until("conversation.item.input_audio_transcription.completed");
        }
        let (code, reason) = peer.closed().unwrap();
        assert_eq!((code, reason.starts_with("Tenant acme has used")), (1008, true), "{reason}");
        assert_eq!(gateway.booked("acme", 2).cost(), 1_440_000_000_000, "{hold}");
    }
}

#[test]
fn what_is_no_session_is_refused_in_words_that_say_why() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).prod().start();
    let key = gateway.issue("acme", "starter");
    let plain = gateway.send(&Request::get(REALTIME).bearer(&key));
    assert_eq!((plain.status, &plain.json()["error"]["code"]), (426, &"upgrade_required".into()));
    assert_eq!(plain.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(plain.header("sec-websocket-version").as_deref(), Some("13"));
    let old = handshake(REALTIME).bearer(&key).header("Sec-WebSocket-Version", "8");
    let old = Request { headers: old.headers.into_iter().filter(|(_, value)| value != "13").collect(), ..old };
    assert_eq!(gateway.send(&old).status, 426);
    assert_eq!(gateway.send(&Request::post(REALTIME, "{}").bearer(&key)).status, 405);
    for elsewhere in ["client_secrets", "sessions", "calls", "transcription_sessions", "calls/rtc_1/accept"] {
        let answer = gateway.send(&Request::post(format!("/v1/realtime/{elsewhere}"), "{}").bearer(&key));
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &"not_metered".into()), "{elsewhere}");
    }
    for (request, status) in [
        (handshake(REALTIME), 401),
        (handshake(REALTIME).bearer("sk-other"), 401),
        (
            handshake(REALTIME)
                .bearer(&key)
                .header("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.other"),
            401,
        ),
        (handshake(REALTIME).header("Authorization", format!("Token {key}")), 401),
        (handshake(&format!("{REALTIME}&call_id=rtc_1")).bearer(&key), 400),
        (handshake(&format!("{REALTIME}&model=gpt-realtime-2")).bearer(&key), 400),
        (handshake("/v1/embeddings").bearer(&key), 405),
    ] {
        let answer =
            websocket::open(gateway.proxy, &request).err().unwrap_or_else(|| panic!("a session by {request:?}"));
        assert_eq!(answer.status, status, "{} {:?}: {}", request.target, request.headers, answer.text());
    }
    assert_eq!(provider.seen().len(), 0);
    // A route that is no session does not become one, whatever the provider says.
    let switched = websocket::open(gateway.proxy, &handshake("/v1/models").bearer(&key)).err().unwrap();
    assert_eq!((switched.status, provider.seen()[0].header("upgrade")), (502, None));
    // What the provider itself refuses comes as it is.
    let answer =
        websocket::open(gateway.proxy, &handshake("/v1/realtime?model=no-such-model").bearer(&key)).err().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (404, "{\"error\":{\"message\":\"no such model\"}}"));
    // A browser's key stands among its protocols.
    let browser = handshake(REALTIME)
        .header("Sec-WebSocket-Protocol", format!("realtime, openai-insecure-api-key.{key}, openai-beta.realtime-v1"));
    let (mut peer, head) = websocket::open(gateway.proxy, &browser).ok().unwrap();
    assert_eq!(head.header("sec-websocket-protocol").as_deref(), Some("realtime"));
    peer.hear_until("session.created");
    let seen = provider.seen().pop().unwrap();
    assert_eq!(seen.header("sec-websocket-protocol"), Some("realtime, openai-beta.realtime-v1"));
    assert!(!seen.everything().contains(&key) && !seen.everything().contains(GEMINI_KEY));
    assert!(peer.close().is_some());
    assert_eq!(gateway.usage(&key).calls(), 0);
}

#[test]
fn a_key_that_is_revoked_begins_no_further_turn() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).prod().start();
    let first = gateway.issue("acme", "starter");
    let second = gateway.issue_key("acme", json!({"name": "second"}));
    let mut peer = open(&gateway, second["key"].as_str().unwrap());
    peer.say(&ask());
    peer.hear_until("response.done");
    let target = format!("/admin/tenants/acme/keys/{}", second["id"].as_str().unwrap());
    assert_eq!(gateway.admin(Request::get(target).method("DELETE")).status, 200);
    peer.say(&ask());
    let (code, reason) = peer.closed().unwrap();
    assert_eq!((code, reason.starts_with("Incorrect API key")), (1008, true), "{reason}");
    assert_eq!(gateway.booked(&first, 1).chats, 1);

    // Nor does a session only go on: its key is looked up every few seconds.
    let third = gateway.issue_key("acme", json!({"name": "third"}));
    let mut peer = open(&gateway, third["key"].as_str().unwrap());
    let target = format!("/admin/tenants/acme/keys/{}", third["id"].as_str().unwrap());
    assert_eq!(gateway.admin(Request::get(target).method("DELETE")).status, 200);
    let revoked = Instant::now();
    while revoked.elapsed() < Duration::from_millis(4_900) {
        peer.say(&json!({"type": "input_audio_buffer.clear"}));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(peer.closed().unwrap().0, 1008);
    assert_eq!(gateway.usage(&first).calls(), 1);
}

#[test]
fn every_byte_of_a_session_is_passed_on_as_it_came() {
    let mut chance = Chance::new();
    for round in 0..20 {
        let both = [frames(&mut chance, true), frames(&mut chance, false)];
        let (from_client, from_provider) = (Arc::new(both[0].clone()), Arc::new(both[1].clone()));
        let (to_client, wanted) = (Arc::clone(&from_provider), Arc::clone(&from_client));
        let provider = Sessions::start(move |_: &Seen, mut peer: Peer| {
            send_in_pieces(&mut peer, &to_client);
            let got = peer.raw(wanted.len());
            assert!(got == **wanted, "the provider got other bytes");
            peer.frame(CLOSE, b"\x03\xe8same");
            peer.closed();
        });
        let gateway = Setup::at(&provider.url()).start();
        let mut peer = open_silent(&gateway, "acme");
        send_in_pieces(&mut peer, &from_client);
        let got = peer.raw(from_provider.len());
        assert!(got == **from_provider, "the client got other bytes in round {round} of seed {}", chance.seed);
        assert_eq!(peer.closed(), Some((1000, "same".into())), "round {round} of seed {}", chance.seed);
    }
}

/// Frames of one side: messages that begin nothing, whole and in parts, pings and pongs between and within them.
fn frames(chance: &mut Chance, is_client: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |first: u8, payload: &[u8]| bytes.extend(websocket::frame(is_client, first, payload));
    for _ in 0..chance.below(30) {
        let scale = chance.below(18);
        let filler = "x".repeat(usize::try_from(chance.below(1 << scale)).unwrap());
        let message = json!({"type": "response.cancel", "padding": filler}).to_string();
        let kind = if chance.below(2) == 0 { TEXT } else { BINARY };
        match chance.below(4) {
            0 => add(PING, filler.as_bytes().get(..100).unwrap_or_default()),
            1 => add(PONG, b"unasked"),
            2 => add(kind, message.as_bytes()),
            _ => {
                let cut = usize::try_from(chance.below(message.len() as u64)).unwrap();
                add(kind & 0x7f, &message.as_bytes()[..cut]);
                if chance.below(2) == 0 {
                    add(PING, b"within");
                    add(0, b"");
                }
                add(0x80, &message.as_bytes()[cut..]);
            }
        }
    }
    bytes
}

fn send_in_pieces(peer: &mut Peer, bytes: &[u8]) {
    for piece in bytes.chunks(3_001) {
        peer.send(piece);
    }
}

#[test]
fn a_message_that_is_too_long_or_no_frame_ends_its_session_with_a_code() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).set("TOLLGATE_SESSION_MESSAGE_LIMIT", "10KiB").start();
    let rows: [(&str, Vec<u8>, u16); 4] = [
        ("too long", websocket::frame(true, TEXT, &[b' '; 11_000]), 1009),
        (
            "too long in parts",
            [websocket::frame(true, 1, &[b' '; 9_000]), websocket::frame(true, 0, &[b' '; 2_000])].concat(),
            1009,
        ),
        ("compressed", websocket::frame(true, 0xc1, b"x"), 1002),
        ("not masked", websocket::frame(false, TEXT, b"{}"), 1002),
    ];
    for (what, bytes, code) in rows {
        let mut peer = open(&gateway, "acme");
        peer.send(&bytes);
        assert_eq!(peer.closed().map(|closed| closed.0), Some(code), "{what}");
    }
    let mut peer = open(&gateway, "acme");
    let message = json!({"type": "response.cancel", "padding": "x".repeat(10_000)}).to_string();
    peer.say(&serde_json::from_str(&message).unwrap());
    peer.say(&ask());
    peer.hear_until("response.done");
    assert!(peer.close().is_some());
    provider.now_does(|_, mut peer| {
        peer.frame(TEXT, &[b' '; 11_000]);
        peer.closed();
    });
    assert_eq!(open_silent(&gateway, "acme").closed().map(|closed| closed.0), Some(1009));
}

#[test]
fn twenty_sessions_speak_at_once() {
    let provider = Sessions::start(honest);
    let gateway = Arc::new(Setup::at(&provider.url()).start());
    let (sessions, turns) = (20, 10);
    let began = Instant::now();
    let speakers: Vec<_> = (0..sessions)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || {
                let mut peer = open(&gateway, "acme");
                let audio = "A".repeat(16 * 1024);
                for _ in 0..turns {
                    for _ in 0..5 {
                        peer.say(&append(&audio));
                    }
                    peer.say(&append("END="));
                    peer.hear_until("response.done");
                }
                assert!(peer.close().is_some());
            })
        })
        .collect();
    speakers.into_iter().for_each(|speaker| speaker.join().unwrap());
    machine::figures(&format!(
        "sessions: {sessions} at once, {turns} turns each, in {} ms",
        began.elapsed().as_millis()
    ));
    let usage = gateway.booked("acme", sessions * turns);
    assert_eq!((usage.chats, usage.total_tokens), (sessions * turns, sessions * turns * 118));
    assert_eq!(gateway.chats("acme"), (200, 300));
}

#[test]
fn a_session_with_a_provider_over_tls_is_one_over_http_1_whatever_else_is_spoken() {
    let provider = Sessions::start(honest);
    // A gateway stands for the provider: it speaks TLS, and HTTP/2 with whoever offers it.
    let tls = |setup: Setup| setup.set("TOLLGATE_TLS_CERT", front::CERTIFICATE).set("TOLLGATE_TLS_KEY", front::KEY);
    let behind = tls(Setup::at(&provider.url())).start();
    for http2 in ["false", "true"] {
        let gateway = Setup::at(&format!("https://localhost:{}", behind.proxy.port()))
            .set("SSL_CERT_FILE", front::CERTIFICATE)
            .set("OPENAI_API_KEY", "chained")
            .set("TOLLGATE_UPSTREAM_HTTP2", http2)
            .start();
        let mut peer = open(&gateway, "acme");
        for _ in 0..3 {
            peer.say(&append(&"A".repeat(40_000)));
            peer.say(&append("END="));
            peer.hear_until("response.done");
        }
        assert_eq!(peer.close(), Some((1000, String::new())), "{http2}");
        assert_eq!(gateway.booked("acme", 3).total_tokens, 3 * 118, "{http2}");
    }
}
