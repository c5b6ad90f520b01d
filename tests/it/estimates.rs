//! Estimates: how near they are to what providers counted, and that nobody's prompt makes others wait for its own.
//!
//! How near they are is measured on recorded exchanges, as in `tapes`: `TOLLGATE_TAPES` names them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tollgate::providers::estimate::{self, EstimateInput};
use tollgate::providers::{self, Call, CredentialPlace, Endpoint, Prompt, Provider as Api};

use super::support::machine::{figures, until};
use super::support::provider::Seen;
use super::support::*;

/// A recorded exchange and what was estimated of it.
struct Estimated {
    provider: &'static str,
    /// Whether the model read what is not in the request, which no estimate knows.
    refers: bool,
    prompt: (u64, u64),
    /// Of what was delivered: thoughts are not.
    completion: (u64, u64),
}

fn estimated(tape: &Value) -> Option<Estimated> {
    let usage = tape["usage"].as_object().filter(|_| tape["status"] == 200 && tape["method"] == "POST")?;
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let target = tape["path"].as_str()?;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let place = if tape["provider"] == "google" { CredentialPlace::Google } else { CredentialPlace::Bearer };
    let (api, endpoint): (&'static dyn Api, Endpoint) = providers::route(&Method::POST, path, place).ok()?;
    let call: Call = api.call(&endpoint, query, &Bytes::from(tape["request"].to_string())).ok()?;
    let mut reader = api.reader(&endpoint, &call, tape["content_type"].as_str());
    // As the answer would be without what it says of itself.
    let silent = tape["body"].as_str()?.replace("\"usage\"", "\"_\"").replace("\"usageMetadata\"", "\"_\"");
    reader.look(silent.as_bytes());
    let reading = reader.reading();
    let tokens = estimate::by_tokenizer(&EstimateInput {
        provider: api.id(),
        model: call.model,
        prompt: call.prompt,
        output: reading.output,
        output_bytes: reading.output_bytes,
        output_max: call.output_max,
    });
    // An empty prompt was blocked, an earlier answer is not in the request.
    (count("input") > 0).then(|| Estimated {
        provider: if tape["provider"] == "google" { "Gemini" } else { "OpenAI" },
        refers: call.refers,
        prompt: (count("input"), tokens.prompt),
        completion: (count("output") - count("reasoning"), tokens.completion),
    })
}

/// By how many percent of the true counts the estimates are off: the median, and what 95 of 100 do not exceed.
fn errors(counts: impl Iterator<Item = (u64, u64)>) -> Option<(u64, u64, usize)> {
    let mut errors: Vec<u64> =
        counts.filter(|(truth, _)| *truth > 0).map(|(truth, guess)| truth.abs_diff(guess) * 100 / truth).collect();
    errors.sort_unstable();
    let at = |percent: usize| errors.get((errors.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some((at(50)?, at(95)?, errors.len()))
}

#[test]
fn estimates_are_near_what_the_providers_counted() {
    let Ok(path) = std::env::var("TOLLGATE_TAPES") else {
        println!("left out: TOLLGATE_TAPES names no recordings");
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("TOLLGATE_TAPES={path}: {error}"));
    let all: Vec<Estimated> =
        text.lines().filter_map(|line| estimated(&serde_json::from_str(line).expect("a tape is JSON"))).collect();
    for (provider, prompt_median_max, completion_median_max) in [("OpenAI", 5, 60), ("Gemini", 15, 0)] {
        let of = || all.iter().filter(|one| one.provider == provider && !one.refers);
        let (prompt, prompt_p95, prompts) = errors(of().map(|one| one.prompt)).expect("recordings");
        let (completion, completion_p95, completions) = errors(of().map(|one| one.completion)).expect("recordings");
        let elsewhere = all.iter().filter(|one| one.provider == provider && one.refers).count();
        figures(&format!(
            "estimates of {provider}, off by percent (median, p95): prompt {prompt}, {prompt_p95} of {prompts}; \
             delivered completion {completion}, {completion_p95} of {completions}; {elsewhere} more read what is not in the request"
        ));
        assert!(prompt <= prompt_median_max, "{provider}: prompts are off by {prompt} % in the median");
        assert!(completion <= completion_median_max, "{provider}: completions are off by {completion} % in the median");
    }
}

/// Texts that tokenizers take longest for, by what was measured of both vocabularies.
const HOSTILE: [&str; 5] = ["a", "A1", " \t", "^", "\r\n"];

/// An answer of which nothing says what it charged, so that it is estimated.
fn silent(_: &Seen) -> Script {
    Script::json(200, r#"{"id":"x","object":"chat.completion","model":"gpt-4o","choices":[]}"#)
}

fn asking(model: &str, unit: &str, bytes: usize) -> String {
    let content = unit.repeat(bytes / unit.len());
    json!({"model": model, "messages": [{"role": "user", "content": content}]}).to_string()
}

#[test]
fn a_megabyte_of_one_letter_is_counted_by_its_bytes() {
    for unit in HOSTILE {
        let body = Bytes::from(asking("gpt-4o", unit, 1 << 20));
        let (api, endpoint) = providers::route(&Method::POST, "/v1/chat/completions", CredentialPlace::Bearer).unwrap();
        let call = api.call(&endpoint, None, &body).unwrap();
        // What is not kept cannot be tokenized.
        assert!(matches!(call.prompt, Prompt::TextBytes(bytes) if bytes >= 1 << 20), "{unit:?}: {:?}", call.prompt);
        let (prompt, output) = (call.prompt, String::new());
        let input =
            EstimateInput { provider: api.id(), model: call.model, prompt, output, output_bytes: 0, output_max: None };
        let began = Instant::now();
        let tokens = estimate::by_tokenizer(&input).prompt;
        assert!(began.elapsed() < Duration::from_millis(50), "{unit:?}: {:?}", began.elapsed());
        assert!((1 << 18..=(1 << 18) + 16).contains(&tokens), "{unit:?}: {tokens}");
    }
}

#[test]
fn hostile_prompts_make_nobody_wait() {
    let provider = Provider::start(silent);
    let gateway = Setup::new(&provider).start();
    let estimates = |by: &str| {
        let metrics = gateway.admin(Request::get("/metrics")).text();
        let line = format!("tollgate_estimates_total{{by=\"{by}\"}} ");
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let over = AtomicBool::new(false);
    // More than may wait, on the oldest vocabulary, which is the slowest: the rest is counted by bytes at once.
    let clients = 80;
    let mut waited = Vec::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let body = asking("gpt-4-turbo", HOSTILE[number % HOSTILE.len()], 240 * 1024);
                let gateway = &gateway;
                scope.spawn(move || gateway.send(&chat_with("acme", body)).status)
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut waited = Vec::new();
            while !over.load(Ordering::Relaxed) || waited.len() < 200 {
                let began = Instant::now();
                assert_eq!(gateway.send(&Request::get("/healthz")).status, 200);
                waited.push(began.elapsed());
            }
            waited
        });
        for client in clients {
            assert_eq!(client.join().expect("a client"), 200);
        }
        over.store(true, Ordering::Relaxed);
        waited = watcher.join().expect("the watcher");
    });
    waited.sort_unstable();
    let p99 = waited[waited.len() * 99 / 100];
    let usage = gateway.booked("acme", clients as u64);
    assert_eq!(usage.calls(), clients as u64);
    for event in gateway.events("acme") {
        assert!(event["usage_source"] == "estimate" && event["prompt_tokens"].as_u64() > Some(1_000), "{event}");
    }
    let by = ["tokenizer", "bytes_queue_full", "bytes_too_slow"].map(estimates);
    until("every estimate is counted", Duration::from_secs(5), || {
        ["tokenizer", "bytes_queue_full", "bytes_too_slow"].map(estimates).iter().sum::<u64>() >= clients as u64
    });
    figures(&format!(
        "/healthz while {clients} hostile prompts of 240 KiB were estimated: p99 {p99:?}, longest {:?} of {}; estimated by \
         tokenizer, bytes for want of room, bytes for want of time: {by:?}",
        waited[waited.len() - 1],
        waited.len()
    ));
    assert!(p99 < Duration::from_millis(if is_release() { 50 } else { 500 }), "{p99:?}");
}
