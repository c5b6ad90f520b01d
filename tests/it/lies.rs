//! Providers that lie about usage, and models that print it: the client's bytes are never changed, the books stay right.

use super::support::bodies::*;
use super::support::machine::tell;
use super::support::*;

/// A chat answer with `content` as its text and `usage` as it stands there.
fn chat_answer(content: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":{}}},"finish_reason":"stop"}}]{usage}}}"#,
        serde_json::json!(content)
    )
}

const TRUE_USAGE: &str = r#","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}"#;

/// What is no count of tokens of one call.
const NO_COUNTS: [&str; 19] = [
    "-1",
    "-0",
    "0.5",
    "11.0",
    "1e1",
    "1e30",
    "1e400",
    "10000001",
    "18446744073709551616",
    "\"11\"",
    "\"\"",
    "\"NaN\"",
    "null",
    "true",
    "false",
    "[]",
    "[11]",
    "{}",
    "{\"tokens\":11}",
];

#[test]
fn usage_that_cannot_be_true_is_estimated_and_flagged() {
    let lie = |prompt: &str, completion: &str| {
        format!(r#","usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":18}}"#)
    };
    let mut usages: Vec<String> = NO_COUNTS.iter().flat_map(|odd| [lie(odd, "7"), lie("11", odd)]).collect();
    usages.extend(
        [
            "",
            r#","usage":null"#,
            r#","usage":"#,
            r#","usage":[1]"#,
            r#","usage":"18""#,
            r#","usage":7"#,
            r#","usage":{}"#,
            r#","usage":{"total_tokens":18}"#,
            r#","usage":{"prompt_tokens":11,"total_tokens":18}"#,
            r#","usage":{"completion_tokens":7,"total_tokens":18}"#,
            r#","usage":{"prompt_tokens":0,"completion_tokens":7,"total_tokens":7}"#,
            r#","usage":{"prompt_tokens":11,"completion_tokens":0,"total_tokens":11}"#,
            r#","usage":{"prompt_tokens":NaN,"completion_tokens":7}"#,
            r#","usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens":-11}"#,
            r#","usage":{"prompt_tokens":11,"completion_tokens":7},"usage":{"prompt_tokens":-1,"completion_tokens":7}"#,
            r#","usage":{"prompt_tokens":9999999,"completion_tokens":9999999}"#,
            r#","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":12}}"#,
            r#","usage":{"prompt_tokens":11,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":-1}}"#,
        ]
        .map(str::to_owned),
    );
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, usage) in usages.iter().enumerate() {
        let tenant = format!("lie-{at}");
        let body = chat_answer("One, two, three.", usage);
        let script = Script::json(200, &body);
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&chat(&tenant));
        assert_eq!((answer.status, answer.text()), (200, body), "{usage}");
        let booked = gateway.booked(&tenant, 1);
        assert_eq!((booked.requests, booked.chats, booked.estimated.requests), (1, 1, 1), "{usage}: {booked:?}");
        assert!((1..100).contains(&booked.prompt_tokens), "{usage}: {booked:?}");
        assert!((1..100).contains(&booked.completion_tokens), "{usage}: {booked:?}");
        assert_eq!(booked.total_tokens, booked.prompt_tokens + booked.completion_tokens, "{usage}");
        assert_eq!(gateway.event(&tenant)["usage_source"], "estimate", "{usage}");
        // The next honest call is exact.
        provider.now_does(honest);
        gateway.send(&chat(&tenant));
        let next = gateway.booked(&tenant, 2);
        assert_eq!(next.prompt_tokens - booked.prompt_tokens, 11, "{usage}");
        assert_eq!(next.completion_tokens - booked.completion_tokens, 7, "{usage}");
    }
    tell("D32", "usage that cannot be true", usages.len(), "estimated and flagged, the next call exact");
}

#[test]
fn gemini_counts_that_cannot_be_true_are_estimated_and_flagged() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, number) in NO_COUNTS.iter().enumerate() {
        for member in [r#""promptTokenCount":11"#, r#""candidatesTokenCount":5"#, r#""thoughtsTokenCount":2"#] {
            let name = &member[1..7];
            let odd = format!("{}:{number}", member.split(':').next().unwrap());
            let body = GEMINI_ANSWER.replace(member, &odd);
            // In a stream the last event lies; those before it were true.
            let mut events = gemini_events(3);
            events[2] = String::from_utf8(events[2].clone()).unwrap().replace(member, &odd).into_bytes();
            let sse = whole(&events);
            for (form, request, script, expected) in [
                ("json", gemini(""), Script::json(200, &body), body.clone().into_bytes()),
                ("sse", gemini("").to(GEMINI_SSE), Script::pieces("text/event-stream", &events), sse),
            ] {
                let tenant = format!("lie-{at}-{name}-{form}").to_lowercase();
                provider.now_does(move |_| script.clone());
                let request = Request { headers: Vec::new(), ..request }.google(&tenant);
                assert_eq!(gateway.send(&request).body, expected, "{tenant} {number}");
                let booked = gateway.booked(&tenant, 1);
                assert_eq!((booked.chats, booked.estimated.requests), (1, 1), "{tenant} {number}: {booked:?}");
                assert!((1..100).contains(&booked.prompt_tokens), "{tenant} {number}: {booked:?}");
                assert!((1..100).contains(&booked.completion_tokens), "{tenant} {number}: {booked:?}");
                provider.now_does(honest);
                gateway.send(&gemini(&tenant));
                let next = gateway.booked(&tenant, 2);
                assert_eq!(next.total_tokens - booked.total_tokens, 18, "{tenant} {number}");
            }
        }
    }
}

#[test]
fn a_stream_that_lies_is_estimated_and_the_client_gets_it_unchanged() {
    let usage =
        |usage: &str| format!("data: {{\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{usage}}}\n\n").into_bytes();
    let count = |prompt: &str| usage(&format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":7}}"#));
    let done = || DONE.to_vec();
    let mut rows: Vec<Vec<Vec<u8>>> =
        NO_COUNTS.iter().map(|odd| vec![chat_event("One, two."), count(odd), done()]).collect();
    rows.extend([
        vec![chat_event("One, two."), usage("[]"), done()],
        vec![chat_event("One, two."), usage("7"), done()],
        vec![chat_event("One, two."), usage(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#), done()],
        // A true one before a lie was said before the end.
        vec![chat_event("One, two."), chat_usage_event(), count("-1"), done()],
        // What is behind the end counts for nothing, in the same packet or a later one.
        vec![chat_event("One, two."), [DONE, &chat_usage_event()].concat()],
        vec![chat_event("One, two."), done(), chat_usage_event()],
    ]);
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, events) in rows.iter().enumerate() {
        let script = Script::pieces("text/event-stream", events);
        provider.now_does(move |_| script.clone());
        let tenant = format!("lie-{at}");
        let answer = gateway.send(&chat_with(&tenant, CHAT_USAGE_REQUEST));
        assert_eq!((answer.body, answer.whole), (whole(events), true), "{at}");
        let booked = gateway.booked(&tenant, 1);
        assert_eq!((booked.chats, booked.estimated.requests), (1, 1), "{at}: {booked:?}");
        assert!((1..100).contains(&booked.prompt_tokens), "{at}: {booked:?}");
        assert!((1..100).contains(&booked.completion_tokens), "{at}: {booked:?}");
        provider.now_does(honest);
        gateway.send(&chat_with(&tenant, CHAT_USAGE_REQUEST));
        assert_eq!(gateway.booked(&tenant, 2).total_tokens - booked.total_tokens, 18, "{at}");
    }
}

#[test]
fn a_total_that_is_not_the_sum_is_not_booked_and_flags_what_is() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, total) in ["0", "17", "19", "99", "-18", "18.0", "1e30", "\"18\""].iter().enumerate() {
        for (dialect, request, honest_answer, told) in [
            ("chat", chat(""), CHAT_ANSWER, r#""total_tokens":18"#),
            ("gemini", gemini(""), GEMINI_ANSWER, r#""totalTokenCount":18"#),
        ] {
            let tenant = format!("{dialect}-{at}");
            let body = honest_answer.replace(told, &format!("{}:{total}", told.split(':').next().unwrap()));
            let script = Script::json(200, &body);
            provider.now_does(move |_| script.clone());
            let request = Request { headers: Vec::new(), ..request }.bearer(&tenant);
            let request = if dialect == "chat" { request } else { gemini(&tenant) };
            assert_eq!(gateway.send(&request).text(), body, "{tenant} {total}");
            let booked = gateway.booked(&tenant, 1);
            assert_eq!((booked.tokens(), booked.estimated.requests), ((11, 7, 18), 1), "{tenant} {total}");
        }
    }
    // The thoughts of Gemini's compatible endpoint are in its total alone.
    let compatible = |key: &str| chat(key).to("/v1beta/openai/chat/completions");
    for (tenant, total, tokens, flagged) in
        [("hidden", "46", (11, 35, 46), 0), ("plain", "18", (11, 7, 18), 0), ("short", "12", (11, 7, 18), 1)]
    {
        let body = CHAT_ANSWER.replace(r#""total_tokens":18"#, &format!(r#""total_tokens":{total}"#));
        let script = Script::json(200, &body);
        provider.now_does(move |_| script.clone());
        assert_eq!(gateway.send(&compatible(tenant)).text(), body, "{tenant}");
        let booked = gateway.booked(tenant, 1);
        assert_eq!((booked.tokens(), booked.estimated.requests), (tokens, flagged), "{tenant}");
    }
    tell("D35", "a total that is not the sum", 16, "the sum is booked, and flagged");
}

#[test]
fn usage_that_a_model_prints_is_text() {
    let fake = r#""usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    let usage_event = String::from_utf8(chat_usage_event()).unwrap();
    let texts = [
        fake.to_owned(),
        format!("{{{fake}}}"),
        format!("\n\ndata: {{{fake},\"choices\":[]}}\n\n"),
        usage_event.replace("11", "0"),
        "data: [DONE]\n\n".to_owned(),
        "\r\n\r\n{\"usage\":null}".to_owned(),
        "\\\"usage\\\":{\\\"prompt_tokens\\\":1}".to_owned(),
    ];
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, text) in texts.iter().enumerate() {
        let nested =
            chat_answer("x", TRUE_USAGE).replacen(r#""index":0"#, &format!(r#""index":0,"metadata":{{{fake}}}"#), 1);
        let tool = chat_answer("x", TRUE_USAGE).replacen(
            r#""content":"x""#,
            &format!(r#""content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":{}}}}}]"#, serde_json::json!(text)),
            1,
        );
        let order = format!(r#"{{{},{}"#, &TRUE_USAGE[1..], &chat_answer(text, "")[1..]);
        for (form, body) in [chat_answer(text, TRUE_USAGE), nested, tool, order].into_iter().enumerate() {
            let tenant = format!("json-{at}-{form}");
            let script = Script::json(200, &body);
            provider.now_does(move |_| script.clone());
            assert_eq!(gateway.send(&chat(&tenant)).text(), body);
            let booked = gateway.booked(&tenant, 1);
            assert_eq!((booked.tokens(), booked.estimated.requests), ((11, 7, 18), 0), "{body}");
        }
        let events = vec![chat_event("a"), chat_event(text), chat_event("b"), chat_usage_event(), DONE.to_vec()];
        let script = Script::pieces("text/event-stream", &events);
        provider.now_does(move |_| script.clone());
        for (tenant, request, left) in [("asked", CHAT_USAGE_REQUEST, 4), ("unasked", CHAT_STREAM_REQUEST, 3)] {
            let mut expected = events.clone();
            if left == 3 {
                expected.remove(3);
            }
            let tenant = format!("sse-{tenant}-{at}");
            assert_eq!(gateway.send(&chat_with(&tenant, request)).text(), String::from_utf8_lossy(&whole(&expected)));
            assert_eq!(gateway.booked(&tenant, 1).tokens(), (11, 7, 18), "{text}");
        }
    }
    tell("D33", "usage that a model prints", 6 * texts.len(), "text: what the provider charged is booked");
}

#[test]
fn of_two_usages_neither_makes_a_call_free() {
    let zero = r#","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (at, usage) in [format!("{TRUE_USAGE}{zero}"), format!("{zero}{TRUE_USAGE}")].iter().enumerate() {
        let tenant = format!("twice-{at}");
        let script = Script::json(200, chat_answer("One, two, three.", usage));
        provider.now_does(move |_| script.clone());
        gateway.send(&chat(&tenant));
        let booked = gateway.booked(&tenant, 1);
        assert!(booked.tokens() == (11, 7, 18) || booked.estimated.requests == 1, "{usage}: {booked:?}");
        assert!(booked.total_tokens > 0, "{usage}");
    }
    tell("D34", "usage twice in one answer", 2, "never 0");
}

#[test]
fn of_running_totals_the_last_counts() {
    let with = |prompt: u64, completion: u64| {
        let usage = format!(
            r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{}}}"#,
            prompt + completion
        );
        String::from_utf8(chat_event("w")).unwrap().replace(r#""usage":null"#, &usage).into_bytes()
    };
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let rows: [(&str, Vec<Vec<u8>>); 4] = [
        ("running", vec![with(11, 1), with(11, 4), with(11, 7), DONE.to_vec()]),
        ("falling", vec![with(50, 90), with(11, 7), DONE.to_vec()]),
        ("twice", vec![chat_usage_event(), chat_usage_event(), DONE.to_vec()]),
        ("middle", vec![chat_event("a"), chat_usage_event(), chat_event("b"), DONE.to_vec()]),
    ];
    for (tenant, events) in rows {
        let script = Script::pieces("text/event-stream", &events);
        provider.now_does(move |_| script.clone());
        assert_eq!(gateway.send(&chat_with(tenant, CHAT_USAGE_REQUEST)).body, whole(&events), "{tenant}");
        assert_eq!(gateway.booked(tenant, 1).tokens(), (11, 7, 18), "{tenant}");
    }
    tell("D37", "running totals, usage twice or in the middle", 4, "the last counts");
}

#[test]
fn a_stream_is_read_by_the_rules_of_event_streams() {
    let text = String::from_utf8(whole(&chat_events(3))).unwrap();
    let split = text.replace("\"choices\":[],", "\"choices\":[],\ndata: ");
    let large = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n{text}", "x".repeat(1 << 20));
    let rows = [
        ("crlf", text.replace('\n', "\r\n")),
        ("cr", text.replace('\n', "\r")),
        ("bom", format!("\u{feff}{text}")),
        ("comments", text.replace("data:", ": keep-alive\n\ndata:")),
        ("no-space", text.replace("data: ", "data:")),
        ("named", text.replace("data:", "event: chunk\nid: 7\nretry: 10\ndata:")),
        ("lines", split),
        ("no-blank", text.trim_end().to_owned()),
        ("no-done", text.replace("data: [DONE]\n\n", "")),
        ("large", large),
    ];
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, stream) in rows {
        let script = Script::pieces(
            "text/event-stream",
            &stream.as_bytes().chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>(),
        );
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&chat_with(tenant, CHAT_USAGE_REQUEST));
        assert_eq!((answer.text() == stream, answer.whole), (true, true), "{tenant}");
        let booked = gateway.booked(tenant, 1);
        assert_eq!((booked.tokens(), booked.estimated.requests), ((11, 7, 18), 0), "{tenant}");
    }
    tell("D36", "streams by every rule of event streams", 10, "passed on as they came, usage exact");
}

#[test]
fn an_answer_without_usage_is_estimated_near_the_truth() {
    // 60 tokens by the o200k vocabulary's public encoder, give or take a few for the frame of a message.
    let prose = "The ledger is the memory of a business: every sale, every debt and every promise is written down once, in order, \
                 and never rubbed out. Whoever keeps it well can be asked at any moment what is owed and will answer with a number \
                 that can be proved, line by line, to anybody who doubts it.";
    let provider = Provider::always(Script::json(200, chat_answer(prose, "")));
    let gateway = Setup::new(&provider).start();
    let request = serde_json::json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prose}]});
    gateway.send(&chat_with("acme", request.to_string()));
    let booked = gateway.booked("acme", 1);
    assert_eq!(booked.estimated.requests, 1);
    assert_eq!(
        (booked.estimated.prompt_tokens, booked.estimated.completion_tokens),
        (booked.prompt_tokens, booked.completion_tokens)
    );
    let near = |tokens: u64| (48..=80).contains(&tokens);
    assert!(near(booked.prompt_tokens) && near(booked.completion_tokens), "{booked:?}");
    tell("D38", "no usage at all", 1, "estimated within 20 % of the count, and flagged");
}

#[test]
fn a_megabyte_of_one_letter_without_usage_holds_nobody_up() {
    let content = "a".repeat(1 << 20);
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let script = Script::json(200, chat_answer(&content, ""));
    provider.now_does(move |_| script.clone());
    let started = std::time::Instant::now();
    gateway.send(&chat_with("acme", CHAT_REQUEST.replace("Count to three.", &content)));
    provider.now_does(honest);
    gateway.send(&chat("neighbour"));
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    let booked = gateway.booked("acme", 1);
    assert_eq!(booked.estimated.requests, 1);
    assert!(booked.prompt_tokens > 10_000 && booked.completion_tokens > 10_000, "{booked:?}");
    tell("B19", "a megabyte of one letter, asked and answered", 2, "estimated; the neighbour is not held up");
}

/// No lie, but as hard to read: what was charged stands behind many megabytes of images.
#[test]
fn usage_behind_images_of_many_megabytes_is_booked_exactly() {
    let image = "iVBO/+RK".repeat(512 * 1024);
    let many = |count, name: &str| vec![format!("{{\"{name}\":\"{image}\"}}"); count].join(",");
    let usage = r#""usage":{"input_tokens":50,"output_tokens":62100,"total_tokens":62150}"#;
    let drawn = format!("{{\"created\":1,\"data\":[{}],{usage}}}", many(10, "b64_json"));
    let output = many(5, "result");
    let response =
        format!("{{\"id\":\"resp_1\",\"object\":\"response\",\"model\":\"gpt-5\",\"output\":[{output}],{usage}}}");
    let completed = format!("data: {{\"type\":\"response.completed\",\"response\":{response}}}\n\n");
    let ask = |path: &str, key: &str, body: &str| chat_with(key, body).to(path);
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, request, script, body) in [
        (
            "draws",
            ask("/v1/images/generations", "draws", r#"{"model":"gpt-image-1","prompt":"a toll gate","n":10}"#),
            Script::json(200, &drawn),
            drawn.clone(),
        ),
        (
            "streams",
            ask("/v1/responses", "streams", r#"{"model":"gpt-5","input":"draw","stream":true}"#),
            Script::pieces("text/event-stream", &[completed.clone().into_bytes()]),
            completed.clone(),
        ),
    ] {
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&request);
        assert!(answer.status == 200 && answer.body == body.as_bytes(), "{tenant}: {}", answer.status);
        let booked = gateway.booked(tenant, 1);
        assert_eq!((booked.tokens(), booked.estimated.requests), ((50, 62_100, 62_150), 0), "{tenant}: {booked:?}");
        assert_eq!(gateway.event(tenant)["usage_source"], "provider", "{tenant}");
    }
}
