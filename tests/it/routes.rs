//! The table of routes, end to end: what each billed line books, what free lines do not, and forms on their way.

use std::collections::BTreeSet;

use tollgate::providers::{self, Kind, Row};

use super::support::gateway::pico_usd_of;
use super::support::*;

#[path = "../fixtures/metered.rs"]
mod fixtures;

use fixtures::{CASES, Case, Cost, FORM};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";

fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    Request { body: Some(body.into()), ..Request::get(target).method("POST") }.header("Content-Type", content_type)
}

fn form(body: impl Into<Vec<u8>>) -> Request {
    post(TRANSCRIPTIONS, FORM, body)
}

/// A transcription's form: the file, then the model.
fn speech(file: &[u8]) -> Vec<u8> {
    let part = |head: &str| format!("--toll\r\nContent-Disposition: form-data; {head}\r\n\r\n").into_bytes();
    let model = [part("name=\"model\""), b"gpt-4o-transcribe\r\n--toll--\r\n".to_vec()].concat();
    [part("name=\"file\"; filename=\"a.wav\""), file.to_vec(), b"\r\n".to_vec(), model].concat()
}

const TRANSCRIPT: &str = r#"{"text":"Pay.","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59,"input_token_details":{"audio_tokens":14}}}"#;

impl Case {
    fn request(&self, tenant: &str) -> Request {
        let content_type = if self.request.starts_with("--") { FORM } else { "application/json" };
        let request = post(self.target, content_type, self.request);
        if self.provider == "gemini" { request.google(tenant) } else { request.bearer(tenant) }
    }

    /// The answer in three chunks.
    fn script(&self) -> Script {
        let body = self.answer.as_bytes();
        let third = body.len().div_ceil(3).max(1);
        let pieces: Vec<Vec<u8>> = body.chunks(third).map(<[u8]>::to_vec).collect();
        Script::pieces(self.answer_type, &pieces)
    }

    fn demand_booked(&self, gateway: &Gateway, tenant: &str, (name, kind): (&str, Kind)) {
        let is_later = self.cost == Cost::Later;
        let event = if is_later { gateway.events(tenant).remove(0) } else { gateway.event(tenant) };
        let kept = u64::from(kind == Kind::Chat);
        assert_eq!(event["endpoint"], name, "{event}");
        assert_eq!(event["model"], self.model, "{event}");
        assert_eq!(event["provider"], self.provider, "{event}");
        let outcome = if is_later { "deferred" } else { "completed" };
        assert_eq!((&event["outcome"], event["chats"].as_u64()), (&outcome.into(), Some(kept)), "{event}");
        let usage = gateway.usage(tenant);
        assert_eq!((usage.calls(), usage.chats), (u64::from(!is_later), kept), "{usage:?}");
        assert_eq!(event["usage_source"], if self.reported { "provider" } else { "estimate" }, "{event}");
        for kind in tollgate::domain::tokens::Tokens::KINDS {
            let wanted = self.kinds.iter().find(|(known, _)| *known == kind).map_or(0, |(_, count)| *count);
            let estimated = !self.reported && ["prompt_tokens", "completion_tokens"].contains(&kind);
            assert!(estimated || event[kind].as_u64() == Some(wanted), "{kind} is not {wanted}: {event}");
        }
        for kind in tollgate::domain::quantities::Quantities::KINDS {
            let wanted = self.kinds.iter().find(|(known, _)| *known == kind).map_or(0, |(_, count)| *count);
            assert_eq!(event[kind].as_u64(), Some(wanted), "{kind}: {event}");
        }
        assert!(self.reported || event["prompt_tokens"].as_u64() > Some(0), "{event}");
        match self.cost {
            Cost::Pico(pico) => {
                assert_eq!(
                    (&event["priced"], pico_usd_of(&event["estimated_cost_usd"])),
                    (&"priced".into(), pico),
                    "{event}"
                );
            }
            Cost::Part(pico) => {
                assert_eq!(
                    (&event["priced"], pico_usd_of(&event["estimated_cost_usd"])),
                    (&"incomplete".into(), pico),
                    "{event}"
                );
            }
            Cost::Unknown => assert!(event["priced"] == "unpriced" && event["estimated_cost_usd"].is_null(), "{event}"),
            Cost::Later => assert!(event["priced"] == "free" && event["estimated_cost_usd"] == 0, "{event}"),
            Cost::Any => assert!(pico_usd_of(&event["estimated_cost_usd"]) > 0, "{event}"),
        }
    }
}

#[test]
fn every_billed_line_is_forwarded_and_booked_by_what_its_answer_says() {
    let provider = Provider::start(|_| Script::json(500, "{}"));
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", "1h").start();
    for (at, case) in CASES.iter().enumerate() {
        let tenant = format!("case-{at}");
        let row =
            providers::table().into_iter().find(|row| (row.provider.as_str(), row.path) == (case.provider, case.line));
        let Row { name, kind, .. } = row.unwrap_or_else(|| panic!("{} is no line", case.line));
        provider.now_does(|_| case.script());
        let request = case.request(&tenant);
        // A thread is its maker's, and all cases have the same one: where nobody is known to have made it, it goes on.
        let another;
        let gateway = if case.target.starts_with("/v1/threads/thread_") {
            another = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", "1h").start();
            &another
        } else {
            &gateway
        };
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.whole), (200, true), "{tenant} {} {}", case.line, case.what);
        let seen = provider.last();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", case.target));
        let edited = ["chat.completions", "completions"].contains(&name) && case.answer_type.starts_with("text/event");
        assert!(edited || seen.body == case.request.as_bytes(), "{tenant} {}", seen.everything());
        assert!(edited || answer.body == case.answer.as_bytes(), "{tenant} {}", answer.text());
        case.demand_booked(gateway, &tenant, (name, kind));
        assert_ne!(kind, Kind::Unbilled, "{name}");
    }
}

/// Paths that a line stands for: with each alternative once.
fn paths(path: &str) -> Vec<String> {
    let places: Vec<String> = match path.strip_prefix("{model}") {
        Some(verb) => providers::places_of_models().map(|place| format!("{place}{verb}")).collect(),
        None => vec![path.to_owned()],
    };
    let mut found = BTreeSet::new();
    for place in places {
        let path = place.replace("**", "x1");
        let (mut filled, mut rest) = (String::new(), path.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            let (names, after) = after.split_once('}').unwrap();
            filled += &format!("{before}{}", if names.contains(',') { names.split(',').next().unwrap() } else { "x1" });
            rest = after;
        }
        found.insert(filled + rest);
    }
    found.into_iter().collect()
}

#[test]
fn free_lines_are_forwarded_and_book_nothing_whatever_is_answered() {
    // What looks like usage, as a stored answer has it.
    let stored = r#"{"object":"response","model":"gpt-4o","usage":{"input_tokens":11,"output_tokens":7,"total_tokens":18},"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":7}}"#;
    let provider = Provider::always(Script::json(200, stored));
    let gateway = Setup::new(&provider).start();
    let mut forwarded = 0;
    for row in providers::table().into_iter().filter(|row| row.kind == Kind::Unbilled) {
        for (path, method) in
            paths(row.path).iter().flat_map(|path| row.methods.split(", ").map(move |method| (path, method)))
        {
            let request = match method {
                "POST" => post(path, "application/json", r#"{"model":"gpt-4o","input":"Hi"}"#),
                "PATCH" => post(path, "application/json", r#"{"ttl":"300s"}"#).method("PATCH"),
                "GET" => Request::get(path.as_str()),
                "HEAD" => Request::get(path.as_str()).method("HEAD"),
                "DELETE" => Request::get(path.as_str()).method("DELETE"),
                other => panic!("{other}"),
            };
            let request = if row.provider == "gemini" { request.google("acme") } else { request.bearer("acme") };
            let answer = Wire::open(gateway.proxy).ask(&request);
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
            assert_eq!((provider.last().method.as_str(), provider.last().target.as_str()), (method, path.as_str()));
            forwarded += 1;
        }
    }
    assert_eq!(provider.count(), forwarded);
    // One that is booked, after all of them.
    provider.now_does(|_| Script::json(200, bodies::CHAT_ANSWER));
    gateway.send(&chat("acme"));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    assert_eq!(gateway.events("acme").len(), 1);
}

#[test]
fn what_has_no_line_is_refused_in_the_callers_words_and_names_the_table() {
    let provider = Provider::always(Script::json(200, "{}"));
    let gateway = Setup::new(&provider).start();
    for (method, target) in [
        ("POST", "/v1/batches/b/x"),
        ("POST", "/v1/images/variations"),
        ("POST", "/v1/threads/t/x"),
        ("GET", "/v1/organization/usage/completions"),
        ("GET", "/v1/unheard-of"),
        ("DELETE", "/v1/models/ft:gpt-4o:acme::x1"),
        ("POST", "/v1beta/openai/responses"),
    ] {
        let answer = gateway.send(&Request::get(target).method(method).bearer("acme"));
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (404, &"unknown_route".into()), "{method} {target}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains("table of routes")), "{error}");
    }
    for (method, target) in [
        ("POST", "/v1beta/files/f:batchGenerateContent"),
        ("POST", "/v1beta1/interactions"),
        ("GET", "/v1beta/unheard-of"),
        ("PATCH", "/v1beta/files/f1"),
    ] {
        let answer = gateway.send(&Request::get(target).method(method).google("acme"));
        let error = &answer.json()["error"];
        let unknown = (404, &"NOT_FOUND".into());
        assert_eq!((answer.status, &error["status"]), unknown, "{method} {target}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains("table of routes")), "{error}");
    }
    assert_eq!(provider.count(), 0);
}

#[test]
fn a_form_streams_and_its_model_is_found_behind_a_large_file() {
    let provider = Provider::always(Script::json(200, TRANSCRIPT));
    let gateway = Setup::new(&provider).set("TOLLGATE_BODY_LIMIT", "1MiB").set("TOLLGATE_UPLOAD_LIMIT", "4MiB").start();
    let file: Vec<u8> = (0..2 << 20).map(|at: u32| if at.is_multiple_of(7) { b'\r' } else { b'-' }).collect();
    let body = speech(&file);
    let answer = gateway.send(&form(body.clone()).bearer("large"));
    assert_eq!((answer.status, answer.text().as_str()), (200, TRANSCRIPT));
    assert!(provider.last().body == body, "the form arrives as it was sent");
    let event = gateway.event("large");
    assert_eq!(
        (&event["model"], &event["requested_model"]),
        (&"gpt-4o-transcribe".into(), &"gpt-4o-transcribe".into())
    );
    assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), 14 * 6_000_000 + 45 * 10_000_000, "{event}");

    // In chunks, a small one gets a length and a large one goes on as it comes.
    let chunked = |tenant: &str, body: &[u8], size: usize| {
        let mut wire = Wire::open(gateway.proxy);
        let head = format!(
            "POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant}\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        wire.send(head.as_bytes());
        let all = [&wire::chunks(body, size)[..], &[wire::LAST_CHUNK.to_vec()]].concat();
        // A refusal may come before all of it is out.
        all.iter().try_for_each(|chunk| wire.try_send(chunk)).ok();
        wire.answer().expect("an answer").status
    };
    for (tenant, body, size) in [("small", speech(b"RIFF"), 40), ("chunks", body, 60_000)] {
        assert_eq!(chunked(tenant, &body, size), 200);
        let seen = provider.last();
        assert!(seen.body == body, "{tenant}");
        let length = (tenant == "small").then(|| body.len().to_string());
        assert_eq!(seen.header("content-length"), length.as_deref(), "{tenant}");
        assert_eq!(gateway.event(tenant)["model"], "gpt-4o-transcribe");
    }
    let before = provider.count();
    assert_eq!(chunked("long", &speech(&vec![b'x'; (4 << 20) + 1]), 60_000), 413);
    let event = gateway.event("long");
    assert_eq!((&event["outcome"], &event["total_tokens"]), (&"no_answer".into(), &0.into()), "{event}");
    assert_eq!(provider.count(), before, "what was too long never looked complete");
    assert_eq!(gateway.send(&form(vec![b'x'; (4 << 20) + 1]).bearer("acme")).status, 413);
}

#[test]
fn a_form_that_names_two_models_or_breaks_off_is_not_billed() {
    let provider = Provider::always(Script::json(200, TRANSCRIPT));
    let gateway = Setup::new(&provider).start();
    let model = "--toll\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";
    let twice = [model.as_bytes(), &speech(b"RIFF")].concat();
    let answer = gateway.send(&form(twice).bearer("early"));
    // It may be met before or after the call was admitted; neither books a token.
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &"invalid_form".into()));
    let none = "--toll\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nRIFF\r\n--toll--\r\n";
    assert_eq!(gateway.send(&form(none).bearer("early")).status, 400);
    assert_eq!(gateway.usage("early").calls(), 0);
    let far = [model.as_bytes(), &speech(&vec![b'x'; 1 << 20])].concat();
    assert_eq!(gateway.send(&form(far).bearer("late")).status, 400);
    let event = gateway.event("late");
    assert_eq!((&event["outcome"], &event["total_tokens"]), (&"no_answer".into(), &0.into()), "{event}");

    let mut wire = Wire::open(gateway.proxy);
    let whole = form(speech(&vec![b'x'; 1 << 20])).bearer("left").bytes();
    wire.send(&whole[..whole.len() / 2]);
    wire.reset();
    let event = gateway.event("left");
    assert_eq!((&event["outcome"], &event["total_tokens"]), (&"no_answer".into(), &0.into()), "{event}");
    assert!(provider.seen().iter().all(|seen| seen.body.len() < 1 << 20));
}

#[test]
fn an_answer_that_would_not_say_what_it_charges_is_not_asked_for() {
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider).start();
    let generate = |query: &str| gemini("acme").to(format!("{}{query}", bodies::GEMINI));
    for query in [
        "?fields=candidates",
        "?%24fields=candidates",
        "?prettyPrint=false&f%69elds=x",
        "?alt=proto",
        "?$alt=json%3B",
        "?callback=f",
    ] {
        let answer = gateway.send(&generate(query));
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["details"][0]["reason"]), (400, &"HIDES_USAGE".into()), "{query}");
    }
    let compatible = chat("acme").to("/v1beta/openai/chat/completions?fields=choices");
    assert_eq!(gateway.send(&compatible).json()["error"]["code"], "hides_usage");
    assert_eq!(provider.count(), 0);
    for query in ["?alt=json", "?prettyPrint=false&alt=json"] {
        assert_eq!(gateway.send(&generate(query)).status, 200, "{query}");
    }
    gateway.send(&gemini("mask").header("X-Goog-FieldMask", "candidates"));
    assert_eq!(provider.last().header("x-goog-fieldmask"), None);
    assert_eq!(gateway.booked("mask", 1).tokens(), (11, 7, 18));
}

/// The cases whose answers come as events, with these events.
fn streams() -> impl Iterator<Item = (usize, &'static Case, Vec<Vec<u8>>)> {
    let streams = CASES.iter().enumerate().filter(|(_, case)| case.answer_type.starts_with("text/event-stream"));
    // What is billed later has no usage of its own.
    streams.filter(|(_, case)| case.reported && case.cost != Cost::Later).map(|(at, case)| {
        let end = if case.answer.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
        (at, case, case.answer.split_inclusive(end).map(|event| event.as_bytes().to_vec()).collect())
    })
}

#[test]
fn an_error_of_any_billed_line_costs_nothing_whatever_it_says() {
    let provider = Provider::start(|_| Script::json(500, "{}"));
    let gateway = Setup::new(&provider).start();
    for (at, case) in CASES.iter().enumerate() {
        let status = [400, 404, 429, 500, 503][at % 5];
        let answer = case.answer;
        provider.now_does(move |_| Script::json(status, answer));
        let tenant = format!("case-{at}");
        assert_eq!(gateway.send(&case.request(&tenant)).status, status, "{tenant}");
        let event = gateway.event(&tenant);
        let nothing = (&"upstream_error".into(), &0.into(), &0.into(), &"free".into());
        let booked = (&event["outcome"], &event["total_tokens"], &event["chats"], &event["priced"]);
        assert_eq!(booked, nothing, "{} {}: {event}", case.line, case.what);
    }
}

#[test]
fn every_stream_is_read_on_to_its_usage_when_the_client_left() {
    let provider = Provider::start(|_| Script::json(500, "{}"));
    let gateway = Setup::new(&provider).start();
    for (at, case, events) in streams() {
        let (tenant, left) = (format!("case-{at}"), Gate::default());
        let mut script = Script::open(&[("Content-Type", case.answer_type)]);
        script = script.then(Step::Send(wire::chunk(b": begin\n\n"))).then(Step::Wait(left.clone(), 1));
        for event in &events {
            script = script.then(Step::Send(wire::chunk(event)));
        }
        let script = script.then(Step::Send(wire::LAST_CHUNK.to_vec()));
        provider.now_does(move |_| script.clone());
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&case.request(&tenant).bytes());
        assert_eq!(wire.head_of_answer("POST").expect("a head").status(), 200, "{tenant}");
        wire.reset();
        left.pass();
        let event = gateway.event(&tenant);
        let total: u64 = case
            .kinds
            .iter()
            .filter(|(kind, _)| ["prompt_tokens", "completion_tokens"].contains(kind))
            .map(|(_, count)| count)
            .sum();
        let booked = (&event["usage_source"], event["total_tokens"].as_u64());
        assert_eq!(booked, (&"provider".into(), Some(total)), "{} {}: {event}", case.line, case.what);
        assert!(["client_left", "completed"].iter().any(|outcome| event["outcome"] == *outcome), "{event}");
    }
}

#[test]
fn every_stream_that_broke_off_before_its_usage_is_estimated_or_has_what_was_said_last() {
    let provider = Provider::start(|_| Script::json(500, "{}"));
    let gateway = Setup::new(&provider).start();
    for (at, case, events) in streams().filter(|(_, _, events)| events.len() > 1) {
        let tenant = format!("case-{at}");
        let script = Script::open(&[("Content-Type", case.answer_type)]);
        let script = script.then(Step::Send(wire::chunk(&events[0]))).then(Step::Close);
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&case.request(&tenant));
        assert!(!answer.whole, "{tenant}: the client sees the break");
        let event = gateway.event(&tenant);
        let says_so_far = String::from_utf8_lossy(&events[0]).contains("\"total");
        let source = if says_so_far { "provider" } else { "estimate" };
        let booked = (&event["outcome"], &event["usage_source"]);
        assert_eq!(booked, (&"upstream_failed".into(), &source.into()), "{} {}: {event}", case.line, case.what);
        assert!(event["prompt_tokens"].as_u64() > Some(0), "{event}");
    }
}
