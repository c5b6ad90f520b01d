//! Recorded exchanges with the real providers, replayed through the gateway: whole, byte by byte and cut at random.
//!
//! The recordings are not a part of this repository. `TOLLGATE_TAPES` names a file of them, one JSON object a line: `id`,
//! `provider` (`openai` or `google`), `method`, `path`, `request`, `status`, `content_type`, `gzip`, `body`, and `usage` as
//! the provider gave it (`input`, `output`, and of these `cached`, `cache_write`, `reasoning`, `audio_in`, `audio_out`) or
//! null. Without it the test says that it is left out.

use serde_json::Value;

use super::price_oracle::{are_equal, costs_of_recorded};
use super::support::bodies::gzip;
use super::support::machine::{Chance, figures};
use super::support::*;

/// Ways of cutting each answer at random, beside whole and byte by byte.
const RANDOM_CUTS: usize = 3;

/// What a tape and an event call the same count.
const KINDS: [(&str, &str); 7] = [
    ("input", "prompt_tokens"),
    ("output", "completion_tokens"),
    ("cached", "cached_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
    ("audio_in", "prompt_audio_tokens"),
    ("audio_out", "completion_audio_tokens"),
];

struct Tape(Value);

/// What became of a replay, for the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Booked {
    /// The provider's usage, to the token.
    Exact,
    /// An estimate, as the provider gave no usage.
    Estimate,
    /// A failed call without tokens.
    Failed,
    /// No event: not billed.
    Free,
    /// Nothing yet: the usage comes with a later answer.
    Deferred,
}

impl Tape {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn status(&self) -> u16 {
        self.0["status"].as_u64().and_then(|status| status.try_into().ok()).expect("a tape has a status")
    }

    fn request(&self, tenant: &str) -> Request {
        let method = match self.text("method") {
            "GET" => "GET",
            "POST" => "POST",
            "DELETE" => "DELETE",
            other => panic!("{}: method {other}", self.text("id")),
        };
        let request = match &self.0["request"] {
            Value::Null => Request::get(self.text("path")).method(method),
            body => Request::post(self.text("path"), body.to_string()).method(method),
        };
        let request = if self.is_gzip() { request.header("Accept-Encoding", "gzip") } else { request };
        if self.text("provider") == "google" { request.google(tenant) } else { request.bearer(tenant) }
    }

    /// What a Vertex embedding says of itself, which the recordings' own reading of usage leaves out.
    fn embedded_tokens(&self) -> Option<u64> {
        let body: Value = serde_json::from_str(self.text("body")).ok()?;
        let counts = body["predictions"].as_array()?.iter();
        counts.map(|prediction| prediction["embeddings"]["statistics"]["token_count"].as_u64()).sum()
    }

    fn is_gzip(&self) -> bool {
        self.0["gzip"].as_bool() == Some(true)
    }

    /// The answer's body as it goes over the wire.
    fn wire_body(&self) -> Vec<u8> {
        let body = self.text("body").as_bytes();
        if self.is_gzip() { gzip(body) } else { body.to_vec() }
    }

    fn script(&self, pieces: &[Vec<u8>]) -> Script {
        let reason = format!("HTTP/1.1 {} Recorded\r\n", self.status());
        let coding = if self.is_gzip() { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "{reason}Content-Type: {}\r\n{coding}Transfer-Encoding: chunked\r\n\r\n",
            self.text("content_type")
        );
        let mut script = Script::raw(head);
        for piece in pieces {
            script = script.then(Step::Send(wire::chunk(piece)));
        }
        script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
    }

    /// Demands that what was booked for the tenant's only call is what the tape says.
    fn demand_booked(&self, gateway: &Gateway, tenant: &str, what: &str) -> Booked {
        let usage = &self.0["usage"];
        let events = gateway.events(tenant);
        let [event] = events.as_slice() else {
            assert!(events.is_empty() && usage.is_null(), "{what}: {events:?}");
            return Booked::Free;
        };
        if self.status() >= 400 {
            assert!(event["outcome"] == "upstream_error" && event["total_tokens"] == 0, "{what}: {event}");
            return Booked::Failed;
        }
        if event["outcome"] == "deferred" {
            assert!(usage.is_null() && event["total_tokens"] == 0, "{what}: {event}");
            return Booked::Deferred;
        }
        assert_eq!(event["outcome"], "completed", "{what}: {event}");
        if let Some(count) = self.embedded_tokens() {
            assert!(event["usage_source"] == "provider" && event["prompt_tokens"] == count, "{what}: {event}");
            return Booked::Exact;
        }
        if usage.is_null() {
            assert_eq!(event["usage_source"], "estimate", "{what}: {event}");
            return Booked::Estimate;
        }
        assert_eq!(event["usage_source"], "provider", "{what}: {event}");
        for (of_tape, of_event) in KINDS {
            assert_eq!(
                event[of_event].as_u64(),
                Some(usage[of_tape].as_u64().unwrap_or(0)),
                "{what} {of_event}: {event}"
            );
        }
        Booked::Exact
    }
}

/// How the costs of recorded calls compare with an independent calculation.
#[derive(Debug, Default)]
struct Costs {
    equal: usize,
    /// The oracle has no price, or does not read such an answer.
    unknown: usize,
    different: Vec<String>,
}

impl Costs {
    fn compare(&mut self, tape: &Tape, event: &Value) {
        let (provider, path) = (tape.text("provider"), tape.text("path"));
        match costs_of_recorded(provider, path, &tape.0["usage_raw"], event) {
            None => self.unknown += 1,
            Some((theirs, ours)) if are_equal(theirs, ours) => self.equal += 1,
            Some((theirs, ours)) => {
                let reason = if path.contains("/openai/") {
                    "the compatible endpoint has thoughts in the total alone"
                } else if provider == "google" && event["service_tier"] != "standard" {
                    "the oracle has no prices of Gemini's other tiers"
                } else {
                    panic!("{}: {ours} pico-dollars, not {theirs}: {event}", tape.text("id"));
                };
                let (id, model) = (tape.text("id"), event["model"].as_str().unwrap_or_default());
                self.different.push(format!("{id} {model}: {ours} pico-dollars, not {theirs}: {reason}"));
            }
        }
    }
}

/// Cuts at up to nine places.
fn cut_at_random(body: &[u8], chance: &mut Chance) -> Vec<Vec<u8>> {
    let end = u64::try_from(body.len()).unwrap();
    let mut at: Vec<usize> =
        (0..chance.below(10)).map(|_| usize::try_from(chance.below(end.max(1))).unwrap()).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| body[ends[0]..ends[1]].to_vec()).filter(|piece| !piece.is_empty()).collect()
}

#[test]
fn recorded_exchanges_pass_unchanged_and_are_booked_to_the_token_however_they_are_cut() {
    let Ok(path) = std::env::var("TOLLGATE_TAPES") else {
        println!("left out: TOLLGATE_TAPES names no recordings");
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("TOLLGATE_TAPES={path}: {error}"));
    let tapes: Vec<Tape> = text.lines().map(|line| Tape(serde_json::from_str(line).expect("a tape is JSON"))).collect();
    assert!(!tapes.is_empty(), "{path} has no tapes");
    let provider = Provider::start(|_| Script::json(500, "{}"));
    let mut chance = Chance::new();
    let mut counts = [0; 5];
    let mut costs = Costs::default();
    let mut replays = 0;
    for (number, tape) in tapes.iter().enumerate() {
        // Recordings are of one account, and some name what others of them made: to each gateway that is nobody's. What is
        // deferred is not asked for meanwhile: each replay has one call.
        let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", "1h").start();
        let body = tape.wire_body();
        let whole = if body.is_empty() { Vec::new() } else { vec![body.clone()] };
        let mut cuts = vec![whole, body.chunks(1).map(<[u8]>::to_vec).collect()];
        cuts.extend((0..RANDOM_CUTS).map(|_| cut_at_random(&body, &mut chance)));
        let mut seen = None;
        for (way, pieces) in cuts.into_iter().enumerate() {
            let (tenant, what) = (format!("tape-{number}-{way}"), format!("{} way {way}", tape.text("id")));
            let script = tape.script(&pieces);
            provider.now_does(move |_| script.clone());
            let asked = provider.count();
            let answer = gateway.send(&tape.request(&tenant));
            assert_eq!((answer.status, answer.whole), (tape.status(), true), "{what}: {}", answer.text());
            assert!(answer.body == body, "{what}: the bytes differ");
            assert_eq!(provider.count(), asked + 1, "{what}");
            assert_eq!(provider.last().target, tape.text("path"), "{what}");
            let booked = tape.demand_booked(&gateway, &tenant, &what);
            assert!(seen.is_none_or(|seen| seen == booked), "{what}: {booked:?}, before {seen:?}");
            if booked == Booked::Exact && way == 0 {
                costs.compare(tape, &gateway.event(&tenant));
            }
            seen = Some(booked);
            replays += 1;
        }
        counts[seen.map_or(3, |booked| booked as usize)] += 1;
    }
    let [exact, estimate, failed, free, deferred] = counts;
    figures(&format!(
        "{} recorded exchanges in {replays} replays: {exact} booked to the token, {estimate} estimated, {failed} failed, {free} not billed, {deferred} to be billed later",
        tapes.len()
    ));
    let Costs { equal, unknown, different } = &costs;
    figures(&format!(
        "costs of recorded exchanges beside genai-prices: {equal} equal, {unknown} that it cannot price, {} different{}",
        different.len(),
        different.iter().map(|one| format!("\n  {one}")).collect::<String>()
    ));
}
