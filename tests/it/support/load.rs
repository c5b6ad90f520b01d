//! Many clients at once whose every call carries a mark, a provider that charges each mark its own tokens, and what must
//! be true of the ledger whatever happened to the gateway between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::audit::Booked;
use super::bodies::*;
use super::machine::{Chance, until};
use super::provider::{Gate, Provider, Script, Seen, Step};
use super::wire::{Piece, Request, Wire, chunk};
use super::{Gateway, wire};

const MARK: &str = "mark-";

/// A tenant and its key.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub name: String,
    pub key: String,
}

/// How a call ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// 200, and the whole of the body.
    Whole,
    Refused(u16),
    /// The connection broke before the end.
    Broken,
    /// The client left in the middle of the stream.
    Left,
}

/// A call as its client knows it.
#[derive(Debug, Clone)]
pub struct Made {
    pub number: u64,
    pub tenant: String,
    pub end: End,
}

/// What the provider charges for a call: prompt and completion tokens.
pub fn charge(number: u64) -> (u64, u64) {
    (100 + number % 89, 10 + number % 13)
}

/// A call's number by the mark in a text.
pub fn number_of(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(MARK)?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The number of a call that the provider got.
pub fn number_of_seen(seen: &Seen) -> u64 {
    number_of(&String::from_utf8_lossy(&seen.body)).expect("a call of the load")
}

/// Call number `number`: both dialects, plain and streams, by turns.
pub fn call(number: u64, key: &str) -> Request {
    let prompt = format!("{MARK}{number} Count to three.");
    let chat = |stream: &str| {
        let body = format!(r#"{{"model":"gpt-4o-mini",{stream}"messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
        Request::post(CHAT, body).bearer(key)
    };
    let gemini = |target: &str| {
        let body = format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{prompt}"}}]}}]}}"#);
        Request::post(target, body).google(key)
    };
    let request = match number % 6 {
        0 => chat(""),
        1 => chat(r#""stream":true,"#),
        2 => chat(r#""stream":true,"stream_options":{"include_usage":true},"#),
        3 => gemini(GEMINI),
        4 => gemini(GEMINI_SSE),
        _ => gemini(GEMINI_ARRAY),
    };
    request.header("x-tollgate-user-id", format!("{MARK}{number}"))
}

/// A provider of both dialects that charges by the mark. Streams take their time, a few milliseconds an event.
pub fn charging(seen: &Seen) -> Script {
    let number = number_of_seen(seen);
    let (prompt, completion) = charge(number);
    let total = prompt + completion;
    let charged = |text: &str| {
        text.replace(
            r#""prompt_tokens":11,"completion_tokens":7,"total_tokens":18"#,
            &format!(r#""prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}"#),
        )
        .replace(
            r#""promptTokenCount":11,"candidatesTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":18"#,
            &format!(r#""promptTokenCount":{prompt},"candidatesTokenCount":{completion},"totalTokenCount":{total}"#),
        )
    };
    let pause = Duration::from_millis(number % 5 * 3);
    let stream = |content_type: &str, pieces: Vec<Vec<u8>>| {
        let mut script = Script::open(&[("Content-Type", content_type)]);
        for piece in pieces {
            let text = charged(&String::from_utf8(piece).unwrap());
            script = script.then(Step::Send(chunk(text.as_bytes()))).then(Step::Pause(pause));
        }
        script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
    };
    let target = seen.target.as_str();
    if target.contains("alt=sse") {
        stream("text/event-stream", gemini_events(5))
    } else if target.contains(":streamGenerateContent") {
        stream("application/json", vec![gemini_array(3)])
    } else if target.contains(":generateContent") {
        Script::json(200, charged(GEMINI_ANSWER)).after(Step::Pause(pause))
    } else if seen.json()["stream"] == true {
        stream("text/event-stream", chat_events(5))
    } else {
        Script::json(200, charged(CHAT_ANSWER)).after(Step::Pause(pause))
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Made>>>,
}

/// How the clients of a load go about it.
#[derive(Clone)]
pub struct Plan {
    pub to: SocketAddr,
    pub tenants: Arc<Vec<Tenant>>,
    /// Numbers the calls: one counter for as long as the ledger is the same.
    pub numbers: Arc<AtomicU64>,
    pub clients: u64,
    /// Time from one call of a client to its next; zero for as fast as it can.
    pub every: Duration,
    /// Of so many streams one is left in the middle; 0 for none.
    pub leaves_one_in: u64,
    /// Whether a client ends at its first 503.
    pub until_refused: bool,
}

impl Load {
    pub fn start(plan: &Plan, chance: &mut Chance) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..plan.clients)
            .map(|_| {
                let (plan, stop, salt) = (plan.clone(), Arc::clone(&stop), chance.next());
                let client = move || plan.client(&stop, salt);
                thread::Builder::new().stack_size(256 * 1024).spawn(client).expect("a thread")
            })
            .collect();
        Self { stop, clients }
    }

    /// Waits until every client has ended by itself, and gives all that were made.
    pub fn join(self) -> Vec<Made> {
        self.clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect()
    }

    /// Lets every call end, and gives all that were made.
    pub fn stop(self) -> Vec<Made> {
        self.stop.store(true, Ordering::SeqCst);
        self.join()
    }
}

impl Plan {
    /// Eight clients that call as fast as they can, all to the end.
    pub fn new(to: SocketAddr, tenants: &Arc<Vec<Tenant>>, numbers: &Arc<AtomicU64>) -> Self {
        let (tenants, numbers) = (Arc::clone(tenants), Arc::clone(numbers));
        Self { to, tenants, numbers, clients: 8, every: Duration::ZERO, leaves_one_in: 0, until_refused: false }
    }

    /// Calls until it is told to stop, or nobody listens any more.
    fn client(&self, stop: &AtomicBool, salt: u64) -> Vec<Made> {
        let mut made = Vec::new();
        let mut kept = None;
        let mut next = Instant::now();
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += self.every;
            let Some(mut wire) = kept.take().or_else(|| Wire::try_open(self.to)) else { break };
            let number = self.numbers.fetch_add(1, Ordering::SeqCst);
            let tenant = &self.tenants[usize::try_from((number ^ salt) % self.tenants.len() as u64).unwrap()];
            let leaves = self.leaves_one_in > 0
                && [1, 2, 4].contains(&(number % 6))
                && number.is_multiple_of(self.leaves_one_in);
            let end = make(&mut wire, &call(number, &tenant.key), leaves);
            made.push(Made { number, tenant: tenant.name.clone(), end });
            if matches!(end, End::Whole | End::Refused(402)) {
                kept = Some(wire);
            }
            if self.until_refused && end == End::Refused(503) {
                break;
            }
        }
        made
    }
}

/// Makes one call; of one that is left, the first piece is read.
pub fn make(wire: &mut Wire, request: &Request, leaves: bool) -> End {
    if wire.try_send(&request.bytes()).is_err() {
        return End::Broken;
    }
    if leaves {
        return match wire.head_of_answer("POST") {
            Some(head) if head.status() != 200 => {
                wire.rest(&mut Vec::new());
                End::Refused(head.status())
            }
            Some(_) if matches!(wire.piece(), Piece::Bytes(_)) => End::Left,
            _ => End::Broken,
        };
    }
    match wire.answer_to("POST") {
        Some(answer) if answer.status != 200 => {
            let is_told = answer.status != 503 || answer.header("retry-after").is_some();
            assert!(is_told, "503 without Retry-After: {answer:?}");
            End::Refused(answer.status)
        }
        Some(answer) if answer.whole => End::Whole,
        _ => End::Broken,
    }
}

/// The totals of a check, for the line of figures.
#[derive(Debug, Default, Clone, Copy)]
pub struct Account {
    pub calls: usize,
    pub whole: usize,
    pub refused: usize,
    /// Calls without a whole answer: in flight at a kill, or left.
    pub cut: usize,
    pub seen: usize,
    pub booked: usize,
    /// Booked as interrupted, with an estimate.
    pub interrupted: usize,
}

/// Demands of every call: one whose client has the whole answer is booked once, exactly; one that left for the provider
/// is booked once; one that was cut before is booked once or not at all; one that was refused is not; and nothing else is
/// booked. `may_refuse` are the statuses that refusals may have.
pub fn account(made: &[Made], seen: &[Seen], booked: &[Booked], may_refuse: &[u16]) -> Account {
    let mut asked = BTreeSet::new();
    for seen in seen {
        let number = number_of_seen(seen);
        assert!(asked.insert(number), "call {number} went to the provider twice");
    }
    let mut events: BTreeMap<u64, &Booked> = BTreeMap::new();
    for event in booked {
        let number = event.user_id.as_deref().and_then(number_of).expect("each call has a mark");
        let before = events.insert(number, event);
        assert!(before.is_none(), "call {number} is booked twice: {before:?} and {event:?}");
    }
    let mut account = Account { calls: made.len(), seen: asked.len(), booked: booked.len(), ..Account::default() };
    let mut unknown: BTreeSet<u64> = events.keys().copied().collect();
    for Made { number, tenant, end } in made {
        unknown.remove(number);
        let event = events.get(number);
        if let Some(event) = event {
            assert_eq!(&event.tenant_id, tenant, "call {number}: {event:?}");
            demand_right(*number, event);
            account.interrupted += usize::from(event.outcome == "interrupted");
        }
        match end {
            End::Whole => {
                let event = event.unwrap_or_else(|| panic!("call {number} of {tenant} had its answer and is lost"));
                assert_eq!(event.outcome, "completed", "call {number}: {event:?}");
                account.whole += 1;
            }
            End::Refused(status) => {
                assert!(may_refuse.contains(status), "call {number} of {tenant} got {status}");
                assert!(!asked.contains(number) && event.is_none(), "call {number} was refused: {event:?}");
                account.refused += 1;
            }
            End::Broken | End::Left => {
                let is_lost = asked.contains(number) && event.is_none();
                assert!(!is_lost, "call {number} of {tenant} ({end:?}) left for the provider and is lost");
                account.cut += 1;
            }
        }
    }
    assert!(unknown.is_empty(), "booked, and nobody called: {unknown:?}");
    account
}

/// As the provider charged, or an estimate of the prompt alone where the gateway was killed.
fn demand_right(number: u64, event: &Booked) {
    let (prompt, completion) = charge(number);
    let tokens = (event.prompt_tokens, event.completion_tokens);
    assert_eq!(event.chats, 1, "call {number}: {event:?}");
    match (event.outcome.as_str(), event.usage_source.as_str()) {
        ("completed" | "client_left", "provider") => {
            let charged = (i64::try_from(prompt).unwrap(), i64::try_from(completion).unwrap());
            assert_eq!(tokens, charged, "call {number}: {event:?}");
        }
        ("interrupted", "estimate") => {
            assert!(tokens.0 > 0 && tokens.0 < 50 && tokens.1 == 0, "call {number}: {event:?}");
        }
        _ => panic!("call {number}: {event:?}"),
    }
}

/// Tenants in prod mode: each name with its plan.
pub fn tenants(gateway: &Gateway, plans: &[(&str, &str)]) -> Arc<Vec<Tenant>> {
    let issue = |(name, plan): &(&str, &str)| Tenant { name: (*name).to_owned(), key: gateway.issue(name, plan) };
    Arc::new(plans.iter().map(issue).collect())
}

/// Streams that have begun and go on when their gate is passed.
pub struct Paused {
    gate: Gate,
    wires: Vec<(Made, Wire)>,
}

impl Paused {
    /// Opens `count` streams. From now on the provider charges by the mark.
    pub fn open(gateway: &Gateway, provider: &Provider, tenant: &Tenant, numbers: &AtomicU64, count: u64) -> Self {
        let gate = Gate::default();
        let waits = gate.clone();
        provider.now_does(move |seen| {
            let mut script = charging(seen);
            // After the head and the first event.
            script.0.insert(2, Step::Wait(waits.clone(), 1));
            script
        });
        let wires = (0..count).map(|_| {
            // The next number that is a chat stream.
            let number =
                std::iter::repeat_with(|| numbers.fetch_add(1, Ordering::SeqCst)).find(|n| n % 6 == 2).unwrap();
            let mut wire = Wire::open(gateway.proxy);
            wire.send(&call(number, &tenant.key).bytes());
            assert_eq!(wire.head_of_answer("POST").expect("an answer").status(), 200);
            assert!(matches!(wire.piece(), Piece::Bytes(_)), "the first event");
            (Made { number, tenant: tenant.name.clone(), end: End::Broken }, wire)
        });
        let wires = wires.collect();
        provider.now_does(charging);
        Self { gate, wires }
    }

    /// Lets the streams go on, and demands that each ends whole.
    pub fn finish(self) -> Vec<Made> {
        self.gate.pass();
        let end = |(made, mut wire): (Made, Wire)| {
            assert!(wire.rest(&mut Vec::new()), "call {}: a stream under way is cut", made.number);
            Made { end: End::Whole, ..made }
        };
        self.wires.into_iter().map(end).collect()
    }

    /// The streams as they are: their gateway is gone.
    pub fn give_up(self) -> Vec<Made> {
        self.wires.into_iter().map(|(made, _)| made).collect()
    }
}

/// One call on a connection of its own.
pub fn call_once(gateway: &Gateway, tenant: &Tenant, numbers: &AtomicU64) -> Made {
    let number = numbers.fetch_add(1, Ordering::SeqCst);
    let end = make(&mut Wire::open(gateway.proxy), &call(number, &tenant.key), false);
    Made { number, tenant: tenant.name.clone(), end }
}

/// Waits until everything that was settled is in the ledger.
pub fn caught_up(gateway: &Gateway) {
    let all = || {
        let recorder = &gateway.ready()["recorder"];
        recorder["events_waiting"] == 0 && recorder["in_flight"] == 0
    };
    until("all is booked", Duration::from_secs(30), all);
}

/// Waits until the provider was asked so often.
pub fn demand_asked(provider: &Provider, count: usize) {
    until("calls at the provider", Duration::from_secs(60), || provider.count() >= count);
}
