//! Calls that go well: the client's bytes, the provider's bytes, and what is booked.

use std::io::Write;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::machine::tell;
use super::support::*;

/// An event may reach the client this much after the provider sent it.
const EVENT_LAG_MAX: Duration = Duration::from_millis(250);

#[test]
fn a_call_of_each_dialect_is_passed_on_unchanged_and_booked_exactly() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let rows: [(&str, Request, &str, Vec<u8>, u64, u64); 6] = [
        ("chat", chat("chat"), "openai", CHAT_ANSWER.into(), CHAT_PICO_USD, 0),
        ("stream", chat_with("stream", CHAT_USAGE_REQUEST), "openai", whole(&chat_events(3)), CHAT_PICO_USD, 0),
        ("gemini", gemini("gemini"), "gemini", GEMINI_ANSWER.into(), GEMINI_PICO_USD, 2),
        ("sse", gemini("sse").to(GEMINI_SSE), "gemini", whole(&gemini_events(3)), GEMINI_PICO_USD, 2),
        ("array", gemini("array").to(GEMINI_ARRAY), "gemini", gemini_array(3), GEMINI_PICO_USD, 2),
        ("v1", gemini("v1").to(GEMINI.replace("v1beta", "v1")), "gemini", GEMINI_ANSWER.into(), GEMINI_PICO_USD, 2),
    ];
    for (tenant, request, name, body, cost, reasoning) in rows {
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.whole), (200, true), "{tenant}: {}", answer.text());
        assert_eq!(answer.text(), String::from_utf8_lossy(&body), "{tenant}");
        assert!(answer.header("x-tollgate-request-id").is_some_and(|id| id.len() == 36), "{tenant}");
        let seen = provider.last();
        assert_eq!(seen.target, request.target, "{tenant}");
        assert_eq!(seen.body, request.body.unwrap(), "{tenant}");

        let usage = gateway.booked(tenant, 1);
        assert_eq!((usage.tokens(), usage.cost()), ((11, 7, 18), cost), "{tenant}");
        assert_eq!((usage.requests, usage.chats, usage.reasoning_tokens), (1, 1, reasoning), "{tenant}");
        assert_eq!((usage.estimated.requests, usage.unpriced_requests), (0, 0), "{tenant}");
        assert_eq!(usage.providers[name]["requests"], 1, "{tenant}");
        let event = gateway.event(tenant);
        assert_eq!(event["id"], answer.header("x-tollgate-request-id").unwrap().as_str(), "{tenant}");
        assert_eq!((&event["outcome"], &event["usage_source"]), (&"completed".into(), &"provider".into()), "{tenant}");
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
    }
}

#[test]
fn limits_stand_in_the_headers_of_every_answer() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (call, left) in [(1, 499), (2, 498)] {
        let answer = gateway.send(&chat("acme"));
        let policy = answer.header("ratelimit-policy").expect("RateLimit-Policy");
        assert!(policy.starts_with("\"chats\";q=500;w="), "{policy}");
        let window: u64 = policy.rsplit('=').next().unwrap().parse().unwrap();
        assert!([28, 29, 30, 31].contains(&(window / 86_400)) && window.is_multiple_of(86_400), "{policy}");
        let limit = answer.header("ratelimit").expect("RateLimit");
        let reset = limit.strip_prefix(&format!("\"chats\";r={left};t=")).unwrap_or_else(|| panic!("{call}: {limit}"));
        assert!(reset.parse::<u64>().unwrap() <= window, "{limit}");
    }
    // No chat, and no success, but the same tenant.
    let embeddings = Request::post("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"hi"}"#);
    for (request, status) in [
        (embeddings.bearer("acme"), 200),
        (Request::get("/v1/models").bearer("acme"), 200),
        (chat_with("acme", "no JSON"), 400),
    ] {
        let answer = gateway.send(&request);
        let limit = answer.header("ratelimit").unwrap_or_default();
        assert_eq!((answer.status, limit.starts_with("\"chats\";r=498;t=")), (status, true), "{limit}");
    }
}

#[test]
fn a_provider_s_answer_headers_pass_and_its_request_id_wins() {
    let provider = Provider::always(Script::answer(
        200,
        &[("Content-Type", "application/json"), ("x-request-id", "req_upstream"), ("openai-processing-ms", "12")],
        CHAT_ANSWER,
    ));
    let gateway = Setup::new(&provider).start();
    let answer = gateway.send(&chat("acme"));
    assert_eq!(answer.header("x-request-id").as_deref(), Some("req_upstream"));
    assert_eq!(answer.header("openai-processing-ms").as_deref(), Some("12"));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(gateway.event("acme")["request_id"], "req_upstream");
}

#[test]
fn usage_is_asked_for_a_client_that_did_not_and_taken_out_again() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let message = r#""messages":[{"role":"user","content":"say \"stream\":true and {\"stream_options\":null}"}]"#;
    let rows = [
        ("absent", format!(r#"{{"model":"gpt-4o-mini","stream":true,{message}}}"#)),
        ("last", format!(r#"{{"model":"gpt-4o-mini",{message},"stream":true}}"#)),
        ("null", format!(r#"{{"stream_options":null,"model":"gpt-4o-mini",{message},"stream":true}}"#)),
        ("empty", format!(r#"{{"stream":true,"stream_options":{{}},"model":"gpt-4o-mini",{message}}}"#)),
        (
            "false",
            format!(r#"{{{message},"stream_options":{{"include_usage":false}},"model":"gpt-4o-mini","stream":true}}"#),
        ),
        (
            "other",
            format!(
                r#"{{"model":"gpt-4o-mini", "stream" : true , {message},"stream_options" : {{ "include_obfuscation" : false }} }}"#
            ),
        ),
        ("spaces", format!("\n{{\n \"model\" : \"gpt-4o-mini\",\n {message},\n \"stream\":\ttrue\n}}\n")),
    ];
    for (tenant, body) in rows {
        let answer = gateway.send(&chat_with(tenant, body.as_str()));
        let mut expected = chat_events(3);
        expected.remove(3);
        assert_eq!(answer.text(), String::from_utf8_lossy(&whole(&expected)), "{tenant}");
        assert!(answer.whole, "{tenant}");
        let seen = provider.last();
        assert!(asks_usage(&seen), "{tenant}: {}", seen.everything());
        // Nothing else changed.
        let mut asked = seen.json();
        let mut wanted: serde_json::Value = serde_json::from_str(&body).unwrap();
        for body in [&mut asked, &mut wanted] {
            if let Some(options) = body["stream_options"].as_object_mut() {
                options.remove("include_usage");
            }
            if body["stream_options"].as_object().is_none_or(|options| options.is_empty()) {
                body.as_object_mut().unwrap().remove("stream_options");
            }
        }
        assert_eq!(asked, wanted, "{tenant}");
        assert_eq!(gateway.booked(tenant, 1).tokens(), (11, 7, 18), "{tenant}");
    }
}

#[test]
fn a_client_that_asked_for_usage_gets_every_event_untouched() {
    let after =
        b"data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":null,\"moderation\":{\"flagged\":false}}\n\n".to_vec();
    let mut events = chat_events(3);
    events.insert(4, after.clone());
    let sent = whole(&events);
    let provider = Provider::always(Script::pieces("text/event-stream", &events));
    let gateway = Setup::new(&provider).start();
    let answer = gateway.send(&chat_with("asked", CHAT_USAGE_REQUEST));
    assert_eq!(answer.text(), String::from_utf8_lossy(&sent));
    assert_eq!(provider.last().body, CHAT_USAGE_REQUEST.as_bytes());
    assert_eq!(gateway.booked("asked", 1).tokens(), (11, 7, 18));

    // For one that did not, exactly the usage event goes: another event without choices stays.
    events.remove(3);
    let answer = gateway.send(&chat_with("not-asked", CHAT_STREAM_REQUEST));
    assert_eq!(answer.text(), String::from_utf8_lossy(&whole(&events)));
    assert_eq!(gateway.booked("not-asked", 1).tokens(), (11, 7, 18));
}

#[test]
fn gzip_answers_are_passed_on_as_they_are_and_metered() {
    let rows: [(&str, Request, &str, Vec<u8>); 4] = [
        ("chat", chat("chat"), "application/json", CHAT_ANSWER.into()),
        ("stream", chat_with("stream", CHAT_USAGE_REQUEST), "text/event-stream", whole(&chat_events(30))),
        ("sse", gemini("sse").to(GEMINI_SSE), "text/event-stream", whole(&gemini_events(30))),
        ("array", gemini("array").to(GEMINI_ARRAY), "application/json", gemini_array(30)),
    ];
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, request, content_type, body) in rows {
        let zipped = gzip(&body);
        let mut script = Script::open(&[("Content-Type", content_type), ("Content-Encoding", "gzip")]);
        script.0.extend(wire::chunks(&zipped, 37).into_iter().map(Step::Send));
        let script = script.then(Step::Send(wire::LAST_CHUNK.to_vec()));
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&request.header("Accept-Encoding", "gzip"));
        assert_eq!(answer.header("content-encoding").as_deref(), Some("gzip"), "{tenant}");
        assert_eq!(answer.body, zipped, "{tenant}");
        let usage = gateway.booked(tenant, 1);
        assert_eq!((usage.tokens(), usage.estimated.requests), ((11, 7, 18), 0), "{tenant}");
    }
}

#[test]
fn gzip_is_asked_for_where_the_client_takes_it_and_nothing_else() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (takes, asked) in [
        ("br, zstd, gzip;q=0.5, deflate", "gzip"),
        ("gzip, deflate", "gzip"),
        ("br, zstd", "identity"),
        ("gzip;q=0, *", "identity"),
    ] {
        gateway.send(&chat("acme").header("Accept-Encoding", takes));
        assert_eq!(provider.last().header("accept-encoding"), Some(asked), "{takes}");
    }
    // What nobody reads here may be coded as the client likes.
    gateway.send(&Request::get("/v1/models").bearer("acme").header("Accept-Encoding", "br, zstd"));
    assert_eq!(provider.last().header("accept-encoding"), Some("br, zstd"));
}

#[test]
fn a_coding_that_nobody_asked_for_is_passed_on_as_it_is_and_metered() {
    let coded = |coding: &str, body: &[u8]| match coding {
        "zlib" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "raw" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::BrotliCompress(&mut &*body, &mut out, &brotli::enc::BrotliEncoderParams::default()).unwrap();
            out
        }
        _ => zstd::encode_all(body, 3).unwrap(),
    };
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (name, coding) in [("zlib", "deflate"), ("raw", "deflate"), ("br", "br"), ("zstd", "zstd"), ("none", "exi")] {
        let rows = [
            (chat_with(&format!("{name}-stream"), CHAT_USAGE_REQUEST), "text/event-stream", whole(&chat_events(30))),
            (gemini(&format!("{name}-array")).to(GEMINI_ARRAY), "application/json", gemini_array(30)),
        ];
        for ((request, content_type, body), tenant) in rows.into_iter().zip(["stream", "array"]) {
            let zipped = coded(name, &body);
            let mut script = Script::open(&[("Content-Type", content_type), ("Content-Encoding", coding)]);
            script.0.extend(wire::chunks(&zipped, 37).into_iter().map(Step::Send));
            let script = script.then(Step::Send(wire::LAST_CHUNK.to_vec()));
            provider.now_does(move |_| script.clone());
            let answer = gateway.send(&request);
            assert_eq!(answer.header("content-encoding").as_deref(), Some(coding), "{name} {tenant}");
            assert!(answer.body == zipped, "{name} {tenant}");
            let usage = gateway.booked(&format!("{name}-{tenant}"), 1);
            // What cannot be read is estimated, and says so.
            let estimated = u64::from(name == "none");
            assert_eq!(usage.estimated.requests, estimated, "{name} {tenant}");
            assert!(estimated == 1 || usage.tokens() == (11, 7, 18), "{name} {tenant}: {:?}", usage.tokens());
        }
    }
}

#[test]
fn any_cut_of_an_answer_gives_the_same_bytes_and_the_same_usage() {
    let unasked: Vec<u8> = whole(&[&chat_events(3)[..3], &chat_events(3)[4..]].concat());
    let rows: [(&str, Request, &str, Vec<u8>, Vec<u8>); 6] = [
        ("chat", chat("a"), "application/json", CHAT_ANSWER.into(), CHAT_ANSWER.into()),
        (
            "asked",
            chat_with("a", CHAT_USAGE_REQUEST),
            "text/event-stream",
            whole(&chat_events(3)),
            whole(&chat_events(3)),
        ),
        ("unasked", chat_with("a", CHAT_STREAM_REQUEST), "text/event-stream", whole(&chat_events(3)), unasked),
        ("gemini", gemini("a"), "application/json", GEMINI_ANSWER.into(), GEMINI_ANSWER.into()),
        ("sse", gemini("a").to(GEMINI_SSE), "text/event-stream", whole(&gemini_events(3)), whole(&gemini_events(3))),
        ("array", gemini("a").to(GEMINI_ARRAY), "application/json", gemini_array(3), gemini_array(3)),
    ];
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut random = 0x5e1f_0c9a_u64;
    for (at, (name, request, content_type, sent, expected)) in rows.into_iter().enumerate() {
        for round in 0..6 {
            let pieces =
                if round == 0 { sent.chunks(1).map(<[u8]>::to_vec).collect() } else { cut(&sent, &mut random) };
            let script = Script::pieces(content_type, &pieces);
            provider.now_does(move |_| script.clone());
            let tenant = format!("cut-{at}-{round}");
            let mut request = request.clone();
            for (_, value) in request.headers.iter_mut().skip(1) {
                *value = value.replace("Bearer a", &format!("Bearer {tenant}"));
                if value == "a" {
                    value.clone_from(&tenant);
                }
            }
            let answer = gateway.send(&request);
            assert_eq!(answer.text(), String::from_utf8_lossy(&expected), "{name}, round {round}");
            assert_eq!(gateway.booked(&tenant, 1).tokens(), (11, 7, 18), "{name}, round {round}");
        }
    }
}

/// Pieces of 1 to 90 bytes, by a linear congruential generator (Knuth, MMIX), the same in every run.
fn cut(bytes: &[u8], random: &mut u64) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = 1 + usize::try_from((*random >> 33) % 90).unwrap();
        let (piece, after) = rest.split_at(rest.len().min(length));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

#[test]
fn every_event_is_passed_on_before_the_next_one_is_sent() {
    let rows: [(&str, Request, Vec<Vec<u8>>, Option<usize>); 3] = [
        ("asked", chat_with("asked", CHAT_USAGE_REQUEST), chat_events(20), None),
        ("unasked", chat_with("unasked", CHAT_STREAM_REQUEST), chat_events(20), Some(20)),
        ("sse", gemini("sse").to(GEMINI_SSE), gemini_events(20), None),
    ];
    for (name, request, events, taken_out) in rows {
        // The provider sends an event only when the client has the one before: a gateway that holds one back stops it.
        let got = Gate::default();
        let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
        let mut passed = 0;
        for (at, event) in events.iter().enumerate() {
            script = script.then(Step::Wait(got.clone(), passed)).then(Step::Send(wire::chunk(event)));
            passed += u64::from(Some(at) != taken_out);
        }
        let provider = Provider::always(script.then(Step::Send(wire::LAST_CHUNK.to_vec())));
        let gateway = Setup::new(&provider).start();
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200, "{name}");
        let mut lags = Vec::new();
        for (at, event) in events.iter().enumerate().filter(|(at, _)| Some(*at) != taken_out) {
            let mut bytes = Vec::new();
            while bytes.len() < event.len() {
                match wire.piece() {
                    Piece::Bytes(more) => bytes.extend(more),
                    end => panic!("{name}: {end:?} in event {at}"),
                }
            }
            // The head was the first write.
            lags.push(Instant::now() - provider.sent()[at + 1]);
            assert_eq!(&bytes, event, "{name}: event {at}");
            got.pass();
        }
        assert_eq!(wire.piece(), Piece::End, "{name}");
        // One outlier is the machine's.
        lags.sort();
        assert!(lags[lags.len() - 2] <= EVENT_LAG_MAX, "{name}: {lags:?}");
        assert_eq!(gateway.booked(name, 1).tokens(), (11, 7, 18), "{name}");
    }
    tell("D48", "events of a stream", 60, "each passed on before the next is sent, within 250 ms");
}

#[test]
fn prefixes_are_stripped_and_v1_goes_where_the_key_says() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let rows: [(&str, Request, &str, &str); 6] = [
        ("a", chat("a").to("/openai/v1/chat/completions"), "/v1/chat/completions", "openai"),
        ("b", gemini("b").to(format!("/gemini{GEMINI}")), GEMINI, "gemini"),
        (
            "c",
            gemini("c").to("/v1/models/gemini-2.5-flash:generateContent"),
            "/v1/models/gemini-2.5-flash:generateContent",
            "gemini",
        ),
        (
            "d",
            Request::post("/v1/models/gemini-2.5-flash:generateContent", GEMINI_REQUEST).bearer("d"),
            "/v1/models/gemini-2.5-flash:generateContent",
            "gemini",
        ),
        ("e", Request::post(format!("{GEMINI_SSE}&key=e"), GEMINI_REQUEST), GEMINI_SSE, "gemini"),
        ("f", Request::post(CHAT, CHAT_REQUEST).header("api-key", "f"), CHAT, "openai"),
    ];
    for (tenant, request, target, name) in rows {
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 200, "{tenant}: {}", answer.text());
        assert_eq!(provider.last().target, target, "{tenant}");
        assert_eq!(gateway.booked(tenant, 1).providers[name]["requests"], 1, "{tenant}");
    }
    // A list of models: which one is meant shows in the kind of key.
    gateway.send(&Request::get("/v1/models").bearer("g"));
    assert_eq!(provider.last().header("authorization"), Some(format!("Bearer {}", gateway::OPENAI_KEY).as_str()));
    gateway.send(&Request::get("/v1/models").google("g"));
    assert_eq!(provider.last().header("x-goog-api-key"), Some(gateway::GEMINI_KEY));
    assert_eq!(gateway.usage("g").calls(), 0, "lists are free");
}

#[test]
fn embeddings_and_token_counts_are_no_chats() {
    let embedding =
        r#"{"object":"list","data":[],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let provider = Provider::start(move |seen| match seen.target.as_str() {
        "/v1/embeddings" => Script::json(200, embedding),
        _ => Script::json(200, r#"{"totalTokens":31}"#),
    });
    let gateway = Setup::new(&provider).start();
    let request = r#"{"model":"text-embedding-3-small","input":"hello"}"#;
    assert_eq!(gateway.send(&Request::post("/v1/embeddings", request).bearer("e")).text(), embedding);
    let usage = gateway.booked("e", 1);
    assert_eq!((usage.requests, usage.chats, usage.tokens()), (1, 0, (8, 0, 8)));
    // 0.02 dollars a million tokens (OpenAI's price list).
    assert_eq!(usage.cost(), 8 * 20_000);
    assert_eq!(gateway.chats("e"), (0, 500));

    let count = "/v1beta/models/gemini-2.5-flash:countTokens";
    assert_eq!(gateway.send(&gemini("n").to(count)).text(), r#"{"totalTokens":31}"#);
    // A call after it that is booked shows that the count was not.
    provider.now_does(honest);
    gateway.send(&chat("n"));
    assert_eq!(gateway.booked("n", 1).tokens(), (11, 7, 18));
}

#[test]
fn an_unknown_model_is_unpriced_and_never_free() {
    let provider = Provider::always(Script::json(200, CHAT_ANSWER.replace("gpt-4o-mini", "model-of-tomorrow")));
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat_with("acme", CHAT_REQUEST.replace("gpt-4o-mini", "model-of-tomorrow")));
    let usage = gateway.booked("acme", 1);
    assert_eq!((usage.tokens(), usage.cost(), usage.unpriced_requests), ((11, 7, 18), 0, 1));
    let event = gateway.event("acme");
    assert_eq!((&event["priced"], &event["estimated_cost_usd"]), (&"unpriced".into(), &serde_json::Value::Null));
    tell("B22", "a model without a price", 1, "served, its tokens booked, its cost null");
}

#[test]
fn users_and_knowledge_bases_are_booked_and_not_forwarded() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat("acme").header("x-tollgate-user-id", "user 7").header("X-Tollgate-KB-Id", "kb-1"));
    assert!(!provider.last().everything().contains("x-tollgate"), "{}", provider.last().everything());
    let event = gateway.event("acme");
    assert_eq!((&event["user_id"], &event["kb_id"]), (&"user 7".into(), &"kb-1".into()));
    for bad in ["", "x".repeat(129).as_str(), "tab\there"] {
        let answer = gateway.send(&chat("acme").header("x-tollgate-user-id", bad));
        assert_eq!(answer.status, 400, "{bad:?}");
    }
    assert_eq!(provider.count(), 1);
}
