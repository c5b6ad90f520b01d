//! Live sessions of Gemini: turns that the model begins by what it hears, tools inside one, usage at its end.

use super::*;

const LIVE: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

fn setup() -> Value {
    json!({"setup": {"model": "models/gemini-live-2.5-flash-preview"}})
}

fn put(text: &str) -> Value {
    json!({"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}], "turnComplete": true}})
}

fn audio(data: &str) -> Value {
    json!({"realtimeInput": {"audio": {"data": data, "mimeType": "audio/pcm;rate=16000"}}})
}

fn says(text: &str) -> Value {
    json!({"serverContent": {"modelTurn": {"role": "model", "parts": [{"text": text}]}}})
}

fn complete() -> Value {
    json!({"serverContent": {"turnComplete": true}, "usageMetadata": {"promptTokenCount": 11, "responseTokenCount": 5,
        "thoughtsTokenCount": 2, "totalTokenCount": 18, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 11}]}})
}

/// Google's servers send their JSON in binary frames.
fn tell(peer: &mut Peer, message: &Value) {
    peer.frame(BINARY, message.to_string().as_bytes());
}

/// Answers each question that is put whole, and each END that is heard.
fn honest_live(_: &Seen, mut peer: Peer) {
    while let Some(message) = peer.hear() {
        if message["setup"].is_object() {
            tell(&mut peer, &json!({"setupComplete": {}}));
        }
        let heard = message["realtimeInput"]["audio"]["data"].as_str().unwrap_or_default();
        let is_put = message["clientContent"]["turnComplete"] == true;
        if !is_put && !heard.contains("END") {
            continue;
        }
        if message.to_string().contains("weather") {
            tell(&mut peer, &json!({"toolCall": {"functionCalls": [{"id": "1", "name": "weather", "args": {}}]}}));
            assert!(peer.hear().unwrap()["toolResponse"].is_object());
        }
        tell(&mut peer, &says("Hello"));
        tell(&mut peer, &json!({"serverContent": {"generationComplete": true}}));
        tell(&mut peer, &complete());
    }
}

fn open_live(gateway: &Gateway, key: &str) -> Peer {
    let (mut peer, _) = websocket::open(gateway.proxy, &handshake(LIVE).google(key)).ok().unwrap();
    peer.say(&setup());
    assert!(peer.hear().unwrap()["setupComplete"].is_object());
    peer
}

fn hear_turn(peer: &mut Peer) {
    while peer.hear().expect("a turn comes to its end")["serverContent"]["turnComplete"] != true {}
}

#[test]
fn each_turn_of_a_live_session_is_one_chat_also_with_a_tool_in_it() {
    let provider = Sessions::start(honest_live);
    let gateway = Setup::at(&provider.url()).prod().start();
    let key = gateway.issue("acme", "starter");
    // As browsers have to.
    let (mut peer, _) = websocket::open(gateway.proxy, &handshake(&format!("{LIVE}?key={key}&x=1"))).ok().unwrap();
    peer.say(&setup());
    assert!(peer.hear().unwrap()["setupComplete"].is_object());
    assert_eq!(gateway.limits(&key)["held"], 0, "a setup asks nothing");
    peer.say(&put("Hi"));
    hear_turn(&mut peer);
    assert_eq!(gateway.booked(&key, 1).tokens(), (11, 7, 18));
    peer.say(&audio("AAAA"));
    peer.say(&audio("AAAAEND="));
    hear_turn(&mut peer);
    assert_eq!(gateway.booked(&key, 2).chats, 2);
    peer.say(&put("How is the weather?"));
    while !peer.hear().unwrap()["toolCall"].is_object() {}
    peer.say(&json!({"toolResponse": {"functionResponses": [{"id": "1", "name": "weather", "response": {"output": "mild"}}]}}));
    hear_turn(&mut peer);
    let usage = gateway.booked(&key, 3);
    assert_eq!((usage.chats, usage.tokens(), usage.reasoning_tokens), (3, (33, 21, 54), 6));
    assert_eq!(usage.estimated.requests, 0);
    assert_eq!(gateway.chats(&key), (3, 497));
    assert!(peer.close().is_some());
    let event = &gateway.events(&key)[0];
    assert_eq!(
        (&event["endpoint"], &event["model"]),
        (&"bidiGenerateContent".into(), &"gemini-live-2.5-flash-preview".into())
    );
    let seen = &provider.seen()[0];
    assert_eq!((seen.target.as_str(), seen.header("x-goog-api-key")), (&*format!("{LIVE}?x=1"), Some(GEMINI_KEY)));
    assert!(!seen.everything().contains(&key));
}

#[test]
fn at_the_limit_a_live_session_ends_after_its_last_turn_and_no_other_begins() {
    let provider = Sessions::start(honest_live);
    let gateway = Setup::at(&provider.url()).config(&plan(2)).start();
    let mut peer = open_live(&gateway, "acme");
    for _ in 0..2 {
        peer.say(&put("Hi"));
        hear_turn(&mut peer);
    }
    peer.say(&put("Hi"));
    let (code, reason) = peer.closed().unwrap();
    assert_eq!((code, reason.starts_with("Tenant acme has used 2 of 2 chats")), (1008, true), "{reason}");
    assert_eq!(gateway.booked("acme", 2).chats, 2);
    let refused = websocket::open(gateway.proxy, &handshake(LIVE).google("acme")).err().unwrap();
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["status"], &error["code"]), (402, &"RESOURCE_EXHAUSTED".into(), &402.into()));
}

#[test]
fn what_a_live_session_may_not_is_refused_by_its_close_or_before() {
    let provider = Sessions::start(honest_live);
    let models = "allowed_models = [\"gemini-2.5-flash*\"]\n";
    let gateway = Setup::at(&provider.url()).config(&format!("{}{models}", plan(2))).start();
    let (mut peer, _) = websocket::open(gateway.proxy, &handshake(LIVE).google("acme")).ok().unwrap();
    peer.say(&setup());
    let (code, reason) = peer.closed().unwrap();
    assert_eq!((code, reason.starts_with("Model gemini-live-2.5-flash-preview is not")), (1008, true), "{reason}");
    for (request, status) in [
        (handshake(LIVE), 401),
        (handshake(LIVE).header("Authorization", "Token auth_tokens/abc"), 401),
        (handshake(&format!("{LIVE}?access_token=auth_tokens/abc")), 401),
        (handshake(&format!("{LIVE}?access_token=ya29&key=acme")), 401),
        (Request::get(LIVE).google("acme"), 426),
        (Request::post("/v1alpha/auth_tokens", "{}").google("acme"), 404),
    ] {
        let answer = gateway.send(&request);
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_u64()),
            (status, Some(u64::from(status))),
            "{request:?}"
        );
    }
    assert_eq!(gateway.usage("acme").calls(), 0);
}

#[test]
fn a_turn_whose_usage_comes_late_or_never_is_booked_once() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        peer.hear();
        peer.hear();
        tell(&mut peer, &says("Hello"));
        tell(&mut peer, &json!({"serverContent": {"turnComplete": true}}));
        let usage = complete()["usageMetadata"].clone();
        tell(&mut peer, &json!({"usageMetadata": usage}));
        tell(&mut peer, &json!({"usageMetadata": usage}));
        peer.hear();
        tell(&mut peer, &says("Once upon a time"));
        tell(&mut peer, &json!({"serverContent": {"turnComplete": true}}));
        peer.hear();
        tell(&mut peer, &says("Once upon a time"));
    });
    let gateway = Setup::at(&provider.url()).start();
    let (mut peer, _) = websocket::open(gateway.proxy, &handshake(LIVE).google("acme")).ok().unwrap();
    peer.say(&setup());
    peer.say(&put("Hi"));
    hear_turn(&mut peer);
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    peer.say(&put("Hi"));
    hear_turn(&mut peer);
    peer.say(&put("Hi"));
    assert_eq!(peer.closed(), None);
    let usage = gateway.booked("acme", 3);
    assert_eq!((usage.chats, usage.estimated.requests, usage.estimated.completion_tokens), (3, 2, 8));
    let outcomes: Vec<_> = gateway.events("acme").iter().map(|event| event["outcome"].to_string()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.contains("upstream_failed")).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.contains("completed")).count(), 2, "{outcomes:?}");
}

#[test]
fn a_live_session_of_openai_is_one_chat_whose_seconds_are_not_summed() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        let start = peer.hear().unwrap();
        peer.say(&json!({"type": "session.started", "session": start["session"]}));
        while let Some(message) = peer.hear() {
            match message["type"].as_str().unwrap() {
                "session.input_audio.append" => {
                    for seconds in [1.5, 3.0] {
                        peer.say(&json!({"type": "session.usage.updated", "usage": {"seconds": seconds}}));
                    }
                    let usage = json!({"input_tokens": 11, "output_tokens": 7, "total_tokens": 18});
                    let response =
                        json!({"id": "r", "model": "gpt-4o-2024-08-06", "status": "completed", "usage": usage});
                    let event = json!({"type": "response.completed", "response": response});
                    peer.say(&json!({"type": "response.event", "delegation_id": "d", "event": event}));
                }
                "session.close" => {
                    peer.say(
                        &json!({"type": "session.closed", "reason": "close_requested", "usage": {"seconds": 4.0}}),
                    );
                }
                _ => {}
            }
        }
    });
    let gateway = Setup::at(&provider.url()).config(&plan(1)).start();
    let live = handshake("/v1/live/sessions").bearer("acme");
    let (mut peer, _) = websocket::open(gateway.proxy, &live).ok().unwrap();
    peer.say(&json!({"type": "session.start", "session": {"model": "gpt-live-1"}}));
    peer.hear_until("session.started");
    assert_eq!(gateway.limits("acme")["held"], 1);
    peer.say(&json!({"type": "session.input_audio.append", "audio": "AAAA"}));
    peer.hear_until("response.event");
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    peer.say(&json!({"type": "session.close"}));
    peer.hear_until("session.closed");
    assert!(peer.close().is_some());
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.chats, usage.tokens(), usage.unpriced_requests), (1, (11, 7, 18), 0));
    let events = gateway.events("acme");
    let of = |endpoint: &str| events.iter().find(|event| event["endpoint"] == endpoint).unwrap();
    assert_eq!((&of("live")["model"], &of("live")["priced"]), (&"gpt-live-1".into(), &"priced".into()));
    assert_eq!(of("live.responses")["model"], "gpt-4o-2024-08-06");
    assert_eq!(websocket::open(gateway.proxy, &live).err().unwrap().status, 402);

    // One that is left is left at once: it would only listen on. It is charged for as long as it lasted.
    let live = handshake("/v1/live/sessions").bearer("globex");
    let (mut peer, _) = websocket::open(gateway.proxy, &live).ok().unwrap();
    peer.say(&json!({"type": "session.start", "session": {"model": "gpt-live-1"}}));
    peer.hear_until("session.started");
    let ended = Instant::now();
    drop(peer);
    assert!(provider.ended().wait(2) && ended.elapsed() < PATIENCE);
    let event = gateway.event("globex");
    assert_eq!(
        (&event["chats"], &event["outcome"], &event["priced"], &event["usage_source"]),
        (&1.into(), &"client_left".into(), &"priced".into(), &"estimate".into())
    );
    let cost = pico_usd_of(&event["estimated_cost_usd"]);
    assert!(cost > 0 && cost < PICO_USD_A_SECOND * 60, "{event}");
}

/// A second of gpt-live-1, at 3 dollars an hour, rounded up.
const PICO_USD_A_SECOND: u64 = 3_000_000_000_000 / 3_600 + 1;

/// Begins a session, and tells `seconds` of use for each message of audio that says so.
fn timed(_: &Seen, mut peer: Peer) {
    let start = peer.hear().unwrap();
    peer.say(&json!({"type": "session.started", "session": start["session"]}));
    while let Some(message) = peer.hear() {
        if let Some(seconds) = message["audio"].as_str().and_then(|audio| audio.parse::<u64>().ok()) {
            peer.say(&json!({"type": "session.usage.updated", "usage": {"seconds": seconds}}));
        }
    }
}

fn begin_timed(gateway: &Gateway, key: &str) -> Peer {
    let (mut peer, _) = websocket::open(gateway.proxy, &handshake("/v1/live/sessions").bearer(key)).ok().unwrap();
    peer.say(&json!({"type": "session.start", "session": {"model": "gpt-live-1"}}));
    peer.hear_until("session.started");
    peer
}

/// Lets the provider say that the session has lasted so long.
fn lasts(peer: &mut Peer, seconds: u64) {
    peer.say(&json!({"type": "session.input_audio.append", "audio": seconds.to_string()}));
    peer.hear_until("session.usage.updated");
}

#[test]
fn who_hangs_up_in_a_live_session_pays_for_at_least_what_was_told_of_it() {
    let provider = Sessions::start(timed);
    let gateway = Setup::at(&provider.url()).start();
    let mut peer = begin_timed(&gateway, "acme");
    lasts(&mut peer, 600);
    drop(peer);
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"estimate".into()), "{event}");
    assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), 500_000_000_000, "{event}");
}

#[test]
fn live_sessions_at_once_do_not_pass_a_cost_limit_together() {
    let provider = Sessions::start(timed);
    let gateway = Setup::at(&provider.url()).config("[plans.starter]\ncost_usd_per_month = 1\n").start();
    let mut peers: Vec<Peer> = (0..4).map(|_| begin_timed(&gateway, "acme")).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        // Half a dollar each.
        lasts(peer, 600);
        if number > 0 {
            let (code, reason) = peer.closed().expect("it is told why");
            assert_eq!((code, reason.starts_with("Tenant acme")), (1008, true), "{reason}");
        }
    }
    drop(peers);
    assert_eq!(gateway.booked("acme", 4).chats, 4);
    let cut = gateway.events("acme").iter().filter(|event| event["outcome"] == "budget_cut").count();
    assert_eq!(cut, 3);
}

#[test]
fn a_silent_live_session_ends_where_its_cost_limit_does() {
    let provider = Sessions::start(timed);
    // A session is admitted by a cent, and a quarter of a minute more is a cent and a quarter.
    let gateway = Setup::at(&provider.url()).config("[plans.starter]\ncost_usd_per_month = 0.03\n").start();
    let mut peer = begin_timed(&gateway, "acme");
    let began = Instant::now();
    let (code, reason) = peer.closed().expect("it is told why");
    assert_eq!((code, reason.starts_with("Tenant acme")), (1008, true), "{reason}");
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_secs(13) && lasted < Duration::from_secs(18), "{lasted:?}");
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"budget_cut".into(), &"estimate".into()), "{event}");
    let cost = pico_usd_of(&event["estimated_cost_usd"]);
    assert!(cost > PICO_USD_A_SECOND * 13 && cost < PICO_USD_A_SECOND * 18, "{event}");
    assert_eq!(gateway.limits("acme")["held"], 0);
}

#[test]
fn a_delegated_response_whose_session_is_left_is_estimated_by_what_it_said() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        let start = peer.hear().unwrap();
        peer.say(&json!({"type": "session.started", "session": start["session"]}));
        let response = json!({"id": "r", "model": "gpt-4o-2024-08-06", "status": "in_progress", "usage": null});
        for event in [
            json!({"type": "response.created", "response": response}),
            json!({"type": "response.output_text.delta", "item_id": "i", "delta": "Once upon a time"}),
        ] {
            peer.say(&json!({"type": "response.event", "delegation_id": "d", "event": event}));
        }
        while peer.hear().is_some() {}
    });
    let gateway = Setup::at(&provider.url()).start();
    let mut peer = begin_timed(&gateway, "acme");
    for _ in 0..2 {
        peer.hear_until("response.event");
    }
    drop(peer);
    assert_eq!(gateway.booked("acme", 2).chats, 1);
    let events = gateway.events("acme");
    let event = events.iter().find(|event| event["endpoint"] == "live.responses").unwrap();
    assert_eq!(
        (&event["model"], &event["usage_source"], &event["completion_tokens"]),
        (&"gpt-4o-2024-08-06".into(), &"estimate".into(), &4.into()),
        "{event}"
    );
}

#[test]
fn a_message_that_names_what_is_not_its_tenants_ends_the_session_and_goes_nowhere() {
    let provider = Sessions::start(honest_live);
    let gateway = Setup::at(&provider.url()).prod().unset("TOLLGATE_UNKNOWN_OBJECTS").start();
    let key = gateway.issue("acme", "starter");
    let with_file = |uri: &str| {
        let parts = json!([{"text": "Hi"}, {"fileData": {"fileUri": uri, "mimeType": "text/plain"}}]);
        json!({"clientContent": {"turns": [{"role": "user", "parts": parts}], "turnComplete": true}})
    };
    for name in ["files/of-another", "https://generativelanguage.googleapis.com/v1beta/files/of-another"] {
        let mut peer = open_live(&gateway, &key);
        peer.say(&with_file(name));
        let (code, reason) = peer.closed().expect("it is told why");
        assert_eq!((code, reason.contains("files/of-another")), (1008, true), "{reason}");
    }
    assert_eq!(gateway.usage(&key).calls(), 0, "nothing was asked");
    let mut peer = open_live(&gateway, &key);
    peer.say(&with_file("https://example.com/files/public"));
    hear_turn(&mut peer);
}
