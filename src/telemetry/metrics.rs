//! Prometheus metrics: a sink that counts what the ledger has, and gauges read at each scrape.
//!
//! May use: `domain`, `ports`. No label is a tenant, key or model: their number is not bounded by this program. Floats
//! stand only where the client library wants them, and nothing is computed with them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::domain::bound::Bound;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::price::Priced;
use crate::domain::refusal::Refusal;
use crate::domain::threshold::Crossing;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterStore, CountersHealth};
use crate::ports::journal::Journal;
use crate::ports::sink::{EstimatedBy, Sink};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Microseconds to a tenth of a second: what the gateway adds.
const OVERHEAD_SECONDS: [f64; 10] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1];

/// What a model takes: from an error at once to ten minutes of thought.
const CALL_SECONDS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

type Label = (&'static str, Cow<'static, str>);
type Labelled<const N: usize, M> = Family<[Label; N], M>;
/// One number of an event.
type Count = fn(&UsageEvent) -> u64;
/// Provider, endpoint, status class and outcome.
type Shape<'a> = (&'a str, &'a str, &'static str, &'static str);

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    requests: Labelled<4, Counter>,
    chats: Labelled<1, Counter>,
    tokens: Labelled<2, Counter>,
    cost_picodollars: Labelled<1, Counter>,
    unpriced_requests: Labelled<1, Counter>,
    incomplete_requests: Labelled<1, Counter>,
    estimated_requests: Labelled<1, Counter>,
    refusals: Labelled<1, Counter>,
    limits: Labelled<1, Counter>,
    /// Those of `limits`, in the order of all: floods meet these, and counting one takes no look-up.
    limits_reached: [Counter; Bound::ALL.len()],
    estimates: Labelled<1, Counter>,
    threshold_crossings: Labelled<2, Counter>,
    config_reloads: Labelled<1, Counter>,
    call_seconds: Labelled<1, Histogram>,
    first_byte_seconds: Labelled<1, Histogram>,
    overhead_seconds: Histogram,
    recorder_lag_us: Gauge<u64, AtomicU64>,
    backlog_events: Gauge<u64, AtomicU64>,
    backlog_waiting_us: Gauge<u64, AtomicU64>,
    in_flight: Gauge<u64, AtomicU64>,
    journal_bytes: Gauge<u64, AtomicU64>,
    journal_bytes_max: Gauge<u64, AtomicU64>,
    journal_full: Gauge<u64, AtomicU64>,
    quarantined: Gauge<u64, AtomicU64>,
    counters: Arc<dyn CounterStore>,
    counters_gauges: [Gauge<u64, AtomicU64>; COUNTERS_GAUGES.len()],
}

/// One number of the counters' health.
type HealthOf = fn(&CountersHealth) -> u64;

const COUNTERS_GAUGES: [(&str, &str, HealthOf); 7] = [
    ("counters_shared", "1 where other gateways count in the same counters", |health| u64::from(health.shared)),
    ("counters_down", "1 while shared counters cannot be asked", |health| u64::from(health.down)),
    ("counters_nodes", "Gateways that share the counters; 0 while that is not known", |health| health.nodes),
    ("counters_building", "Tenants whose counters are being built anew", |health| health.building),
    ("counters_leased", "Calls that this gateway may admit without asking", |health| health.leased),
    ("counters_admitted_from_lease", "Calls admitted without asking since the start", |health| health.from_lease),
    ("counters_notes_waiting", "Calls whose state the shared counters were not told", |health| health.notes_waiting),
];

impl Metrics {
    /// Fresh metrics. `journal` and `counters` are asked at each scrape, `clock` at each batch.
    pub fn new(journal: Arc<dyn Journal>, counters: Arc<dyn CounterStore>, clock: Arc<dyn Clock>) -> Self {
        let call_seconds: fn() -> Histogram = || Histogram::new(CALL_SECONDS);
        let (limits, bounds) = (Labelled::<1, Counter>::default(), Bound::ALL);
        let mut metrics = Self {
            registry: Registry::with_prefix("tollgate"),
            journal,
            clock,
            requests: Family::default(),
            chats: Family::default(),
            tokens: Family::default(),
            cost_picodollars: Family::default(),
            unpriced_requests: Family::default(),
            incomplete_requests: Family::default(),
            estimated_requests: Family::default(),
            refusals: Family::default(),
            limits_reached: bounds.map(|bound| limits.get_or_create_owned(&[("limit", Cow::Borrowed(bound.as_str()))])),
            limits,
            estimates: Family::default(),
            threshold_crossings: Family::default(),
            config_reloads: Family::default(),
            call_seconds: Family::new_with_constructor(call_seconds),
            first_byte_seconds: Family::new_with_constructor(call_seconds),
            overhead_seconds: Histogram::new(OVERHEAD_SECONDS),
            recorder_lag_us: Gauge::default(),
            backlog_events: Gauge::default(),
            in_flight: Gauge::default(),
            backlog_waiting_us: Gauge::default(),
            journal_bytes: Gauge::default(),
            journal_bytes_max: Gauge::default(),
            journal_full: Gauge::default(),
            quarantined: Gauge::default(),
            counters,
            counters_gauges: Default::default(),
        };
        metrics.register_counters();
        metrics.register_gauges();
        metrics
    }

    fn register_counters(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Metered calls in the ledger, by status class and outcome",
            self.requests.clone(),
        );
        registry.register("chats", "Chats counted", self.chats.clone());
        registry.register(
            "tokens",
            "Tokens booked; cached is a part of prompt, reasoning a part of completion",
            self.tokens.clone(),
        );
        registry.register(
            "cost_picodollars",
            "Cost booked, in 1e-12 USD; divide by 1e12 for dollars",
            self.cost_picodollars.clone(),
        );
        registry.register(
            "unpriced_requests",
            "Calls booked whose model has no price: add it to the price file",
            self.unpriced_requests.clone(),
        );
        registry.register(
            "incomplete_requests",
            "Calls booked whose cost is in doubt, as not all of it has a verified price of its own",
            self.incomplete_requests.clone(),
        );
        registry.register(
            "estimated_requests",
            "Calls booked whose tokens the gateway had to estimate",
            self.estimated_requests.clone(),
        );
        registry.register("refusals", "Requests that the gateway answered itself, by code", self.refusals.clone());
        registry.register(
            "limits_reached",
            "Clients that met a limit and were refused or cut, by limit",
            self.limits.clone(),
        );
        registry.register("estimates", "Calls whose tokens were estimated, by how", self.estimates.clone());
        registry.register(
            "threshold_crossings",
            "Thresholds of limits that were crossed, by what is counted and percent",
            self.threshold_crossings.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the configuration; after an error the last good one stays in force",
            self.config_reloads.clone(),
        );
        // Both are there from the start: an alarm on a series that is not there yet misses its first count.
        for taken in [true, false] {
            self.config_reloads.get_or_create(&reload_result(taken)).inc_by(0);
        }
    }

    fn register_gauges(&mut self) {
        let registry = &mut self.registry;
        registry.register("request_duration_seconds", "From admission to settlement", self.call_seconds.clone());
        registry.register(
            "first_byte_seconds",
            "From admission to the first byte of the answer",
            self.first_byte_seconds.clone(),
        );
        registry.register(
            "overhead_seconds",
            "The part of the time to the first byte that the gateway itself took",
            self.overhead_seconds.clone(),
        );
        registry.register(
            "recorder_lag_microseconds",
            "How old the oldest event of the last batch was when the ledger had it",
            self.recorder_lag_us.clone(),
        );
        registry.register(
            "recorder_backlog_events",
            "Settled events not yet in the ledger",
            self.backlog_events.clone(),
        );
        registry.register("in_flight", "Admitted calls not yet settled", self.in_flight.clone());
        registry.register(
            "recorder_backlog_waiting_microseconds",
            "For how long the ledger has taken none of the waiting events",
            self.backlog_waiting_us.clone(),
        );
        registry.register("journal_bytes", "Bytes that the journal occupies", self.journal_bytes.clone());
        registry.register("journal_bytes_max", "Bytes that it may occupy", self.journal_bytes_max.clone());
        registry.register("journal_full", "1 while calls are refused for want of room", self.journal_full.clone());
        registry.register(
            "quarantined_events",
            "Events that the ledger refused since the start, set aside",
            self.quarantined.clone(),
        );
        for ((name, help, _), gauge) in COUNTERS_GAUGES.iter().zip(&self.counters_gauges) {
            registry.register(*name, *help, gauge.clone());
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The running version", Info::new(version));
    }

    /// The configuration was read again: it is in force now, or it was refused.
    pub fn reloaded(&self, taken: bool) {
        self.config_reloads.get_or_create(&reload_result(taken)).inc();
    }

    /// All metrics as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let backlog = self.journal.backlog();
        self.backlog_events.set(backlog.events);
        self.in_flight.set(backlog.in_flight);
        self.backlog_waiting_us.set(backlog.waiting_us);
        self.journal_bytes.set(backlog.bytes);
        self.journal_bytes_max.set(backlog.bytes_max);
        self.journal_full.set(u64::from(backlog.full));
        self.quarantined.set(backlog.quarantined);
        let health = self.counters.health();
        for ((_, _, of), gauge) in COUNTERS_GAUGES.iter().zip(&self.counters_gauges) {
            gauge.set(of(&health));
        }
        let mut text = String::new();
        // Writing to a String cannot fail; should a metric refuse to be written, a scrape without end mark is an error
        // to Prometheus, which is what it then is.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// Adds a batch up before it touches the registry: a look-up by labels costs more than counting the call.
    fn count(&self, events: &[&UsageEvent]) {
        let mut shapes: HashMap<Shape<'_>, u64> = HashMap::new();
        let mut providers: HashMap<&str, Vec<&UsageEvent>> = HashMap::new();
        for event in events {
            let (status, outcome) = (status_class(event.status), event.outcome.as_str());
            let shape = (event.provider.as_str(), event.endpoint.as_ref(), status, outcome);
            *shapes.entry(shape).or_default() += 1;
            providers.entry(event.provider.as_str()).or_default().push(event);
        }
        for ((provider, endpoint, status, outcome), calls) in shapes {
            let labels = [
                label("provider", provider),
                label("endpoint", endpoint),
                ("status", Cow::Borrowed(status)),
                ("outcome", Cow::Borrowed(outcome)),
            ];
            self.requests.get_or_create(&labels).inc_by(calls);
        }
        for (provider, events) in providers {
            self.count_provider(provider, &events);
        }
    }

    fn count_provider(&self, provider: &str, events: &[&UsageEvent]) {
        let labels = [label("provider", provider)];
        // A counter wraps at 64 bits (cost: 18 million dollars), which Prometheus takes for a restart.
        let sum = |count: Count| events.iter().map(|event| count(event)).fold(0, u64::wrapping_add);
        let kinds: [(&'static str, Count); 4] = [
            ("prompt", |event| event.tokens.prompt),
            ("cached", |event| event.tokens.cached),
            ("completion", |event| event.tokens.completion),
            ("reasoning", |event| event.tokens.reasoning),
        ];
        for (kind, count) in kinds {
            self.tokens.get_or_create(&[label("provider", provider), ("kind", Cow::Borrowed(kind))]).inc_by(sum(count));
        }
        let pico = |event: &UsageEvent| event.cost.and_then(|cost| u64::try_from(cost.0).ok()).unwrap_or(0);
        self.chats.get_or_create(&labels).inc_by(sum(|event| event.chats));
        self.cost_picodollars.get_or_create(&labels).inc_by(sum(pico));
        let unpriced = sum(|event| u64::from(event.priced == Priced::Unpriced));
        let incomplete = sum(|event| u64::from(event.priced == Priced::Incomplete));
        let estimated = sum(|event| u64::from(event.source == UsageSource::Estimate));
        for (counter, calls) in [
            (&self.unpriced_requests, unpriced),
            (&self.incomplete_requests, incomplete),
            (&self.estimated_requests, estimated),
        ] {
            if calls > 0 {
                counter.get_or_create(&labels).inc_by(calls);
            }
        }
        let call_seconds = self.call_seconds.get_or_create_owned(&labels);
        let first_byte_seconds = self.first_byte_seconds.get_or_create_owned(&labels);
        // How long a provider took that finishes later is no time of a call.
        for event in events.iter().filter(|event| !event.is_bill()) {
            call_seconds.observe(seconds(event.duration_us));
            if let Some(first_byte_us) = event.first_byte_us {
                first_byte_seconds.observe(seconds(first_byte_us));
                self.overhead_seconds.observe(seconds(event.overhead_us));
            }
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Sink for Metrics {
    fn booked(&self, events: &[UsageEvent]) {
        // A correction is no call, and a counter cannot fall: what was corrected, the ledger says.
        let calls = events.iter().filter(|event| event.outcome != Outcome::Correction);
        let events: Vec<&UsageEvent> = calls.collect();
        self.count(&events);
        let settled = |event: &&UsageEvent| event.requested_at.0.saturating_add_unsigned(event.duration_us);
        if let Some(oldest) = events.iter().map(settled).min() {
            let lag_us = self.clock.now().0.saturating_sub(oldest);
            self.recorder_lag_us.set(u64::try_from(lag_us).unwrap_or(0));
        }
    }

    fn crossed(&self, crossings: &[Crossing]) {
        for Crossing { metric, percent, .. } in crossings {
            let labels = [("metric", Cow::Borrowed(metric.as_str())), ("percent", Cow::Owned(percent.to_string()))];
            self.threshold_crossings.get_or_create(&labels).inc();
        }
    }

    fn refused(&self, refusal: &Refusal) {
        self.refusals.get_or_create(&[("code", Cow::Borrowed(refusal.code()))]).inc();
        if let Some(bound) = refusal.bound() {
            self.cut(bound);
        }
    }

    fn cut(&self, bound: Bound) {
        let counters = Bound::ALL.iter().zip(&self.limits_reached);
        if let Some((_, counter)) = counters.into_iter().find(|(of, _)| **of == bound) {
            counter.inc();
        }
    }

    fn estimated(&self, by: EstimatedBy) {
        self.estimates.get_or_create(&[("by", Cow::Borrowed(by.as_str()))]).inc();
    }
}

fn label(name: &'static str, value: &str) -> Label {
    (name, Cow::Owned(value.to_owned()))
}

fn reload_result(taken: bool) -> [Label; 1] {
    [("result", Cow::Borrowed(if taken { "ok" } else { "error" }))]
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory_counters::MemoryCounters;
    use crate::domain::ids::{EventId, ProviderId};
    use crate::domain::money::PicoUsd;
    use crate::domain::price::ServiceTier;
    use crate::domain::quantities::Quantities;
    use crate::domain::time::Micros;
    use crate::domain::tokens::Tokens;
    use crate::ports::journal::{Backlog, Batch, JournalFull, Slot};
    use crate::ports::{BoxFuture, StoreError};

    struct At(i64);
    impl Clock for At {
        fn now(&self) -> Micros {
            Micros(self.0)
        }
        fn monotonic_us(&self) -> u64 {
            0
        }
        fn random(&self) -> u128 {
            0
        }
    }

    struct Behind;
    impl Journal for Behind {
        fn admit(&self, _: &UsageEvent) -> Result<Slot, JournalFull> {
            Err(JournalFull)
        }
        fn settle(&self, _: Slot, _: &UsageEvent) -> u64 {
            0
        }
        fn durable(&self, _: u64) -> BoxFuture<'_, bool> {
            Box::pin(async { true })
        }
        fn waiting(&self, _: &mut dyn FnMut(UsageEvent)) -> Result<(), StoreError> {
            Ok(())
        }
        fn quarantine(&self, _: &UsageEvent, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
        fn ready(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
        fn is_closed(&self) -> bool {
            false
        }
        fn settled_through(&self) -> u64 {
            0
        }
        fn next(&self, _: usize) -> BoxFuture<'_, Batch> {
            Box::pin(async { Batch { events: Arc::from([]), through: 0 } })
        }
        fn ack(&self, _: u64) {}
        fn close(&self) {}
        fn backlog(&self) -> Backlog {
            let (bytes, bytes_max) = (4_096, 1_048_576);
            Backlog { events: 3, waiting_us: 70, in_flight: 2, bytes, bytes_max, full: true, quarantined: 1 }
        }
    }

    fn event() -> UsageEvent {
        UsageEvent {
            id: EventId::new(0, 0),
            tenant: "acme".parse().unwrap(),
            key: None,
            user_id: Some("someone".into()),
            kb_id: None,
            provider: ProviderId::new("openai"),
            model: "gpt-4".into(),
            requested_model: "gpt-4".into(),
            endpoint: "chat.completions".into(),
            chats: 1,
            tokens: Tokens { prompt: 11, completion: 7, ..Tokens::default() },
            quantities: Quantities::default(),
            source: UsageSource::Estimate,
            cost: Some(PicoUsd(750_000_000)),
            billable: Some(PicoUsd(750_000_000)),
            priced: Priced::Priced,
            price_version: "v".into(),
            service_tier: ServiceTier::Standard,
            requested_at: Micros(1_000_000),
            utc_offset_s: 0,
            duration_us: 500_000,
            first_byte_us: Some(300_000),
            overhead_us: 80,
            status: 200,
            outcome: Outcome::Completed,
            request_id: None,
            unit: None,
            corrects: None,
        }
    }

    #[test]
    fn what_is_booked_is_counted_without_naming_a_tenant() {
        let metrics = Metrics::new(Arc::new(Behind), Arc::new(MemoryCounters::new()), Arc::new(At(2_000_000)));
        metrics.booked(&[event(), UsageEvent { status: 502, outcome: Outcome::NoAnswer, chats: 0, ..event() }]);
        let (incomplete, unpriced) = (Priced::Incomplete, Priced::Unpriced);
        let in_doubt = |priced| UsageEvent { provider: ProviderId::new("gemini"), priced, ..event() };
        metrics.booked(&[in_doubt(incomplete), in_doubt(incomplete), in_doubt(unpriced), in_doubt(Priced::Free)]);
        metrics.refused(&Refusal::UnknownRoute);
        metrics.estimated(EstimatedBy::BytesForWant);
        metrics.reloaded(false);
        let text = metrics.encode();
        for line in [
            r#"tollgate_requests_total{provider="openai",endpoint="chat.completions",status="2xx",outcome="completed"} 1"#,
            r#"tollgate_requests_total{provider="openai",endpoint="chat.completions",status="5xx",outcome="no_answer"} 1"#,
            r#"tollgate_chats_total{provider="openai"} 1"#,
            r#"tollgate_tokens_total{provider="openai",kind="prompt"} 22"#,
            r#"tollgate_tokens_total{provider="openai",kind="completion"} 14"#,
            r#"tollgate_cost_picodollars_total{provider="openai"} 1500000000"#,
            r#"tollgate_estimated_requests_total{provider="openai"} 2"#,
            r#"tollgate_incomplete_requests_total{provider="gemini"} 2"#,
            r#"tollgate_unpriced_requests_total{provider="gemini"} 1"#,
            r#"tollgate_refusals_total{code="unknown_route"} 1"#,
            r#"tollgate_estimates_total{by="bytes_queue_full"} 1"#,
            r#"tollgate_config_reloads_total{result="ok"} 0"#,
            r#"tollgate_config_reloads_total{result="error"} 1"#,
            r#"tollgate_request_duration_seconds_bucket{le="0.5",provider="openai"} 2"#,
            r#"tollgate_overhead_seconds_bucket{le="0.0001"} 6"#,
            "tollgate_recorder_lag_microseconds 500000",
            "tollgate_recorder_backlog_events 3",
            "tollgate_in_flight 2",
            "tollgate_recorder_backlog_waiting_microseconds 70",
            "tollgate_journal_bytes 4096",
            "tollgate_journal_bytes_max 1048576",
            "tollgate_journal_full 1",
            "tollgate_quarantined_events 1",
            "tollgate_counters_shared 0",
            "tollgate_counters_down 0",
            concat!("tollgate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
        }
        assert!(!text.contains("acme") && !text.contains("someone") && !text.contains("gpt-4"));
    }

    #[test]
    fn every_status_has_a_class() {
        for (status, class) in [(0, "none"), (200, "2xx"), (302, "3xx"), (402, "4xx"), (529, "5xx"), (600, "none")] {
            assert_eq!(status_class(status), class);
        }
    }
}
