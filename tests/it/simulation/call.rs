//! One call: what the edge does with an exchange, against a provider that answers as its script says.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;
use tollgate::domain::event::{Outcome, UsageSource};
use tollgate::domain::plan::{Metric, OnCountersDown};
use tollgate::domain::refusal::Refusal;
use tollgate::domain::settlement::Ending;
use tollgate::metering::in_flight::{Caller, InFlight};
use tollgate::providers::{self, CredentialPlace, Endpoint, Provider, estimate};

use super::bills;
use super::budgets::OUTPUT_MAX;
use super::chance::Chance;
use super::executor::Planted;
use super::ledger::POISON;
use super::life::Process;
use super::model::{Form, TENANTS, UNLIMITED};
use super::node::Node;

/// Beyond this a journal does not wait for its disk: a call is refused then, an answer goes on.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What upset the shared counters is over after this: leases have ended, all nodes are heard of, and all is told.
const CALM: Duration = Duration::from_secs(6);

/// A chat that is given back is free again for every node after this.
const GIVEN_BACK_US: u64 = 1_500_000;

/// No call waits longer to be admitted or refused, the journal aside.
const ADMISSION_MAX: Duration = Duration::from_secs(6);

/// With counters that are known to be away nobody waits for them.
const DOWN_MAX: Duration = Duration::from_millis(100);

/// How the provider and the client behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    WholeWithoutUsage,
    Status(u16),
    Unreachable,
    NoHead,
    /// The provider breaks off, before or after it told the usage.
    BreaksOff {
        told: bool,
    },
    /// The client leaves; the answer is read to its end, or not.
    ClientLeaves {
        capped: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Stream,
    Embeddings,
    /// One that is answered at once and done later.
    Background,
}

/// How a call goes, as its seed has it.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    tenant: usize,
    kind: Kind,
    fate: Fate,
    poison: bool,
    fat: bool,
    words: u64,
    prompt: u64,
    completion: u64,
    /// The most output that it declares.
    output_max: Option<u64>,
    /// Which user it is made for.
    user: Option<u64>,
    /// The name of what it begins.
    unit: u64,
}

impl Script {
    pub fn draw(node: &Node) -> Self {
        let chance = &node.chance;
        let kind = chance.pick(&[Kind::Chat, Kind::Chat, Kind::Stream, Kind::Stream, Kind::Embeddings]);
        let fate = match chance.below(16) {
            0..=5 => Fate::Whole,
            6 => Fate::WholeWithoutUsage,
            7 | 8 => Fate::Status(chance.pick(&[204, 302, 400, 429, 500, 529])),
            9 => Fate::Unreachable,
            10 => Fate::NoHead,
            11 | 12 => Fate::BreaksOff { told: chance.per_mille(400) },
            _ => Fate::ClientLeaves { capped: chance.per_mille(500) },
        };
        Self {
            tenant: usize::try_from(chance.below(3)).unwrap(),
            kind,
            fate,
            // Only what is no chat: a chat in quarantine is in no sum that counters begin with.
            poison: kind == Kind::Embeddings && chance.per_mille(200),
            fat: node.setup.fat,
            words: chance.below(4),
            prompt: chance.between(1, 5_000),
            completion: if kind == Kind::Embeddings { 0 } else { chance.between(1, 5_000) },
            output_max: None,
            user: Some(chance.below(4)).filter(|user| *user < 3),
            unit: chance.next(),
        }
        .perhaps_later(chance)
        .within_limits(node)
    }

    /// One that nothing goes wrong with and that no limit refuses.
    pub fn plain(chance: &Chance) -> Self {
        Self {
            tenant: UNLIMITED,
            kind: Kind::Chat,
            fate: Fate::Whole,
            poison: false,
            fat: false,
            words: 1,
            prompt: chance.between(1, 5_000),
            completion: chance.between(1, 5_000),
            output_max: None,
            user: None,
            unit: 0,
        }
    }

    /// The same, of another tenant.
    pub fn of(self, tenant: usize, node: &Node) -> Self {
        Self { tenant, ..self }.within_limits(node)
    }

    /// What is billed later passes limits: only a tenant without any begins such.
    fn perhaps_later(self, chance: &Chance) -> Self {
        if self.tenant != UNLIMITED || self.kind == Kind::Embeddings || !chance.per_mille(250) {
            return self;
        }
        Self { kind: Kind::Background, fate: Fate::Whole, ..self }
    }

    /// Where money is limited it says how much it puts out at most, and uses no more than that, nor more than its body.
    fn within_limits(mut self, node: &Node) -> Self {
        if self.tenant != UNLIMITED && self.kind == Kind::Background {
            self.kind = Kind::Chat;
        }
        if node.setup.budgets.is_none() || self.tenant == UNLIMITED {
            return Self { output_max: None, ..self };
        }
        if self.kind != Kind::Embeddings {
            let most = node.chance.early_or_late(OUTPUT_MAX).max(16);
            (self.output_max, self.completion) = (Some(most), 1 + self.completion % most);
        }
        // One in quarantine is in no sum that counters begin with.
        self.poison = false;
        self.prompt = 1 + self.prompt % self.body().len() as u64;
        self
    }

    fn path(&self) -> &'static str {
        match self.kind {
            Kind::Embeddings => "/v1/embeddings",
            Kind::Background => "/v1/responses",
            Kind::Chat | Kind::Stream => "/v1/chat/completions",
        }
    }

    fn body(&self) -> Bytes {
        let max = self.output_max.map(|max| format!(r#""max_tokens":{max},"#)).unwrap_or_default();
        Bytes::from(match self.kind {
            Kind::Chat => {
                format!(r#"{{"model":"gpt-4o-mini",{max}"messages":[{{"role":"user","content":"Count to three."}}]}}"#)
            }
            Kind::Stream => format!(
                r#"{{"model":"gpt-4o-mini","stream":true,{max}"messages":[{{"role":"user","content":"Count to four."}}]}}"#
            ),
            Kind::Background => r#"{"model":"gpt-4o-mini","input":"Count to six.","background":true}"#.to_owned(),
            Kind::Embeddings => r#"{"model":"text-embedding-3-small","input":"Count to five."}"#.to_owned(),
        })
    }

    fn caller(&self, process: &Process) -> Caller {
        let fat = || "\u{10ffff}".repeat(127);
        let user = |user: u64| if self.fat { format!("{}{user}", fat()) } else { format!("u{user}") };
        Caller {
            account: process.snapshots.load().accounts[TENANTS[self.tenant]].clone(),
            key: None,
            user_id: self.user.map(|of| user(of).into()),
            kb_id: if self.poison { Some(POISON.into()) } else { self.fat.then(|| fat().into()) },
        }
    }

    /// By the price lists of the provider: 0.15 and 0.60 dollars a million tokens, 0.02 for embeddings.
    fn pico_usd(&self, prompt: u64, completion: u64) -> i128 {
        let (of_prompt, of_completion) = if self.kind == Kind::Embeddings { (20_000, 0) } else { (150_000, 600_000) };
        i128::from(prompt) * of_prompt + i128::from(completion) * of_completion
    }

    fn status(&self) -> u16 {
        if let Fate::Status(status) = self.fate { status } else { 200 }
    }

    fn usage(&self) -> String {
        let Self { prompt, completion, .. } = self;
        format!(
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{}}}"#,
            prompt + completion
        )
    }

    /// The pieces of the answer, with the bytes of text in each and whether it tells the usage.
    fn pieces(&self) -> Vec<(String, u64, bool)> {
        let told = match self.fate {
            Fate::Whole | Fate::ClientLeaves { capped: false } => true,
            Fate::BreaksOff { told } => told,
            _ => false,
        };
        let usage = self.usage();
        match (self.kind, self.fate) {
            (_, Fate::Status(_)) => vec![("{}".to_owned(), 0, false)],
            (Kind::Stream, fate) => {
                let word = |at| {
                    let text = format!("word{at} ");
                    let bytes = text.len() as u64;
                    (
                        format!(
                            "data: {{\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n"
                        ),
                        bytes,
                        false,
                    )
                };
                let mut pieces: Vec<_> = (0..self.words).map(word).collect();
                if told {
                    pieces.push((
                        format!("data: {{\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{usage}}}\n\n"),
                        0,
                        true,
                    ));
                }
                if matches!(fate, Fate::Whole | Fate::WholeWithoutUsage | Fate::ClientLeaves { capped: false }) {
                    pieces.push(("data: [DONE]\n\n".to_owned(), 0, false));
                }
                pieces
            }
            (Kind::Background, _) => vec![(
                format!(
                    r#"{{"id":"resp_{:016x}","object":"response","background":true,"status":"queued","model":"gpt-4o-mini","output":[],"usage":null}}"#,
                    self.unit
                ),
                0,
                true,
            )],
            // A document is read when it is whole.
            (_, Fate::BreaksOff { .. } | Fate::ClientLeaves { capped: true }) => Vec::new(),
            (Kind::Chat, _) => {
                let usage = if told { format!(",\"usage\":{usage}") } else { String::new() };
                let answer = format!(
                    r#"{{"model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"One, two."}}}}]{usage}}}"#
                );
                vec![(answer, 9, told)]
            }
            (Kind::Embeddings, _) => {
                let usage = if told {
                    format!(r#","usage":{{"prompt_tokens":{0},"total_tokens":{0}}}"#, self.prompt)
                } else {
                    String::new()
                };
                vec![(format!(r#"{{"object":"list","data":[],"model":"text-embedding-3-small"{usage}}}"#), 0, told)]
            }
        }
    }
}

/// What the world knows of the exchange so far.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    sent: bool,
    status: u16,
    text_bytes: u64,
    told: bool,
}

fn route(script: &Script) -> (&'static dyn Provider, Endpoint) {
    providers::route(&Method::POST, script.path(), CredentialPlace::Bearer).unwrap()
}

/// One call and its model.
struct Exchange {
    process: Rc<Process>,
    script: Script,
    number: usize,
    prompt_estimate: u64,
    is_chat: bool,
    seen: Cell<Seen>,
}

impl Exchange {
    fn node(&self) -> &Node {
        &self.process.node
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.get();
        change(&mut seen);
        self.seen.set(seen);
    }

    /// What must be booked, by the table of who pays for what ending.
    fn form(&self, outcome: Outcome, is_paid: bool) -> Form {
        let Seen { status, text_bytes, told, .. } = self.seen.get();
        let Script { prompt, completion, .. } = self.script;
        let (prompt, completion, source) = match (is_paid, told) {
            (false, _) => (0, 0, UsageSource::Provider),
            (true, true) => (prompt, completion, UsageSource::Provider),
            (true, false) => (self.prompt_estimate, text_bytes.div_ceil(4), UsageSource::Estimate),
        };
        let is_deferred = is_paid && told && self.script.kind == Kind::Background;
        let (outcome, prompt, completion) =
            if is_deferred { (Outcome::Deferred, 0, 0) } else { (outcome, prompt, completion) };
        let pico_usd = self.script.pico_usd(prompt, completion);
        Form { outcome, chats: u64::from(is_paid && self.is_chat), prompt, completion, pico_usd, source, status }
    }

    fn dropped(&self) -> Form {
        let Seen { sent, status, .. } = self.seen.get();
        match status {
            400.. => self.form(Outcome::UpstreamError, false),
            204 | 300.. => self.form(Outcome::Interrupted, false),
            _ => self.form(Outcome::Interrupted, sent),
        }
    }

    fn unsent(&self) -> Form {
        self.form(Outcome::Interrupted, false)
    }

    async fn run(&self) {
        let (provider, endpoint) = route(&self.script);
        let call = provider.call(&endpoint, None, &self.script.body()).unwrap();
        let (asked, was_down) = (Instant::now(), self.process.is_down());
        let admitted = self.process.meter().admit(self.script.caller(&self.process), provider, endpoint, call).await;
        let mut in_flight = match admitted {
            Ok(in_flight) => in_flight,
            Err(refusal) => return self.refused(&refusal, asked.elapsed(), was_down),
        };
        let node = self.node();
        if node.is_dead() {
            // What a process does between its death and the end of its step nobody sees.
            return std::future::pending().await;
        }
        self.is_admitted();
        node.pause().await;
        if self.script.fate == Fate::Unreachable {
            return self.unanswered(in_flight, Ending::BrokeOff, 502).await;
        }
        in_flight.sending();
        self.see(|seen| seen.sent = true);
        node.pause().await;
        self.reaches_provider();
        node.pause().await;
        if self.script.fate == Fate::NoHead {
            return self.unanswered(in_flight, Ending::TimedOut, 504).await;
        }
        self.answer(in_flight).await;
    }

    fn is_admitted(&self) {
        let node = self.node();
        let now_us = node.elapsed_us();
        let is_leftover = node.setup.on_counters_down == OnCountersDown::Lease && self.process.was_cut_off();
        let mut model = node.model.lock();
        model.is_admitted(self.number, node.disk_ops(), node.setup.strict, now_us);
        model.is_held(self.number, now_us, is_leftover);
    }

    fn refused(&self, refusal: &Refusal, waited: Duration, was_down: bool) {
        let node = self.node();
        if node.is_dead() {
            return;
        }
        let now_us = node.elapsed_us();
        if *refusal == Refusal::JournalFull && node.setup.strict && waited >= DURABLE_WAIT_MAX {
            node.note(|| format!("call {} does not go out, as the disk does not sync", self.number));
            let op = Some(node.disk_ops());
            return node.model.lock().is_dropped(self.number, op, &self.dropped(), &self.unsent(), now_us);
        }
        let by_counters = matches!(refusal, Refusal::QuotaUsedUp(_) | Refusal::BudgetHeld(_) | Refusal::CountersDown);
        // One whose plan was changed meanwhile begins again.
        let longest = if node.setup.plans_change { 2 * ADMISSION_MAX } else { ADMISSION_MAX };
        if by_counters && waited > if was_down { DOWN_MAX } else { longest } {
            node.fail(format!("call {} is refused after {waited:?}: {refusal:?}", self.number));
        }
        let mut model = node.model.lock();
        node.note(|| format!("call {} is refused after {waited:?}: {refusal:?}", self.number));
        let is_right = match refusal {
            Refusal::QuotaUsedUp(_) | Refusal::BudgetHeld(_) if node.is_shared() && !node.is_calm_for(CALM) => Ok(()),
            Refusal::QuotaUsedUp(facts) | Refusal::BudgetHeld(facts) if facts.metric != Metric::Chats => {
                model.has_no_room(self.number, facts, now_us.saturating_sub(GIVEN_BACK_US))
            }
            Refusal::QuotaUsedUp(_) => model.is_used_up(self.number, now_us.saturating_sub(GIVEN_BACK_US)),
            Refusal::CountersDown if node.is_shared() && !node.is_calm_for(CALM) => Ok(()),
            // Somebody set the clock while it waited.
            Refusal::CountersDown if model.calls[self.number].is_past(node.wall_clock()) => Ok(()),
            Refusal::CountersDown if node.broken.counters.load(std::sync::atomic::Ordering::Relaxed) => Ok(()),
            Refusal::JournalFull
                if node.broken.writes.load(std::sync::atomic::Ordering::Relaxed)
                    || model.on[node.number].disk_is_suspect
                    || model.on[node.number].disk_was_full
                    || self.process.is_at_bound() =>
            {
                Ok(())
            }
            _ => Err(format!("call {} is refused though nothing is wrong: {refusal:?}", self.number)),
        };
        model.is_refused(self.number, now_us);
        drop(model);
        if let Err(wrong) = is_right {
            node.fail(wrong);
        }
    }

    fn reaches_provider(&self) {
        let node = self.node();
        if node.is_dead() {
            return;
        }
        node.figures.lock().reached += 1;
        let Script { kind, unit, prompt, completion, .. } = self.script;
        if kind == Kind::Background {
            self.process.outside.books.units.begins(node, bills::name_of(unit), (prompt, completion));
        }
        let reached = node.model.lock().reaches(self.number);
        if let Err(wrong) = reached {
            node.fail(wrong);
        }
    }

    async fn unanswered(&self, in_flight: InFlight, ending: Ending, status: u16) {
        self.see(|seen| seen.status = status);
        let expected = self.form(Outcome::NoAnswer, false);
        self.settle(expected, in_flight.settle_unanswered(ending, status)).await;
    }

    async fn answer(&self, mut in_flight: InFlight) {
        let node = self.node();
        let status = self.script.status();
        let content_type =
            if self.script.kind == Kind::Stream && status == 200 { "text/event-stream" } else { "application/json" };
        let request_id = "r".repeat(if self.script.fat { 200 } else { 8 });
        in_flight.head(status, Some(content_type), Some(&request_id));
        self.see(|seen| seen.status = status);
        let mut out = Vec::new();
        for (piece, text_bytes, told) in self.script.pieces() {
            node.pause().await;
            in_flight.pass(Bytes::from(piece), &mut out);
            self.see(|seen| {
                seen.text_bytes += text_bytes;
                seen.told |= told;
            });
        }
        node.pause().await;
        in_flight.flush(&mut out);
        let (ending, outcome, is_paid) = match self.script.fate {
            Fate::Status(400..) => (Ending::Whole, Outcome::UpstreamError, false),
            Fate::Status(_) => (Ending::Whole, Outcome::Completed, false),
            Fate::BreaksOff { .. } => (Ending::BrokeOff, Outcome::UpstreamFailed, true),
            Fate::ClientLeaves { capped: true } => (Ending::DrainCapped, Outcome::ClientLeft, true),
            Fate::ClientLeaves { capped: false } => (Ending::ClientLeft, Outcome::ClientLeft, true),
            _ => (Ending::Whole, Outcome::Completed, true),
        };
        self.settle(self.form(outcome, is_paid), in_flight.settle(ending)).await;
    }

    async fn settle<T>(&self, expected: Form, settling: impl Future<Output = T>) {
        let node = self.node();
        node.model.lock().is_settling(self.number, expected, node.elapsed_us());
        let began = Instant::now();
        settling.await;
        if node.is_dead() {
            return;
        }
        let durably = node.setup.strict && began.elapsed() < DURABLE_WAIT_MAX;
        node.model.lock().is_settled(self.number, node.disk_ops(), durably, node.elapsed_us());
    }
}

/// How a call is aborted at one of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abort {
    Drop,
    Panic,
}

/// The task of a call, which may be aborted before any of its steps.
pub struct CallTask {
    exchange: Rc<Exchange>,
    running: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// The steps that are left to it, and what happens then.
    abort: Option<(u64, Abort)>,
    has_panicked: bool,
}

impl CallTask {
    pub fn new(process: &Rc<Process>, script: Script, may_abort: bool) -> (usize, Self) {
        let node = &process.node;
        let (provider, endpoint) = route(&script);
        let call = provider.call(&endpoint, None, &script.body()).unwrap();
        let prompt_estimate = estimate::of_prompt(&call.prompt).prompt;
        let is_chat = script.kind != Kind::Embeddings;
        let pending = Form {
            outcome: Outcome::Interrupted,
            chats: u64::from(is_chat),
            prompt: prompt_estimate,
            completion: 0,
            pico_usd: script.pico_usd(prompt_estimate, 0),
            source: UsageSource::Estimate,
            status: 0,
        };
        let number = node.model.lock().asks(
            (node.number, node.life()),
            (script.tenant, is_chat, script.user.is_some()),
            pending,
            node.elapsed_us(),
        );
        node.note(|| format!("call {number}: {script:?}"));
        node.figures.lock().calls += 1;
        process.under_way.update(|under_way| under_way + 1);
        let seen = Cell::default();
        let exchange = Rc::new(Exchange { process: process.clone(), script, number, prompt_estimate, is_chat, seen });
        let draw_abort = || (node.chance.between(1, 8), node.chance.pick(&[Abort::Drop, Abort::Panic]));
        let abort = (may_abort && node.chance.per_mille(200)).then(draw_abort);
        let running = exchange.clone();
        let running = Some(Box::pin(async move { running.run().await }) as Pin<Box<dyn Future<Output = ()>>>);
        (number, Self { exchange, running, abort, has_panicked: false })
    }
}

impl Future for CallTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some((left, abort)) = &mut self.abort {
            *left -= 1;
            if *left == 0 && *abort == Abort::Drop {
                return Poll::Ready(());
            }
            if *left == 0 {
                self.has_panicked = true;
                // What the call owns is dropped while its thread unwinds.
                let _owned = self.running.take();
                resume_unwind(Box::new(Planted));
            }
        }
        let Some(running) = &mut self.running else { return Poll::Ready(()) };
        let polled = running.as_mut().poll(context);
        if polled.is_ready() {
            self.running = None;
        }
        polled
    }
}

impl Drop for CallTask {
    fn drop(&mut self) {
        let node = self.exchange.node();
        let was_dead = node.is_dead();
        let was_running = self.running.take().is_some();
        self.exchange.process.under_way.update(|under_way| under_way - 1);
        if (was_running && !was_dead) || self.has_panicked {
            node.note(|| format!("call {} is dropped", self.exchange.number));
            let op = (!node.is_dead()).then(|| node.disk_ops());
            node.model.lock().is_dropped(
                self.exchange.number,
                op,
                &self.exchange.dropped(),
                &self.exchange.unsent(),
                node.elapsed_us(),
            );
        }
    }
}
