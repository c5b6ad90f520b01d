//! Rates that gateways share, beside the counters of their tenant: one question for all of a call's.
//!
//! A request at once has a place with an end: this node says again and again that its requests still run, and those of a node
//! that was killed end by themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::Subject;
use crate::domain::rate::{self, RateMetric};
use crate::ports::BoxFuture;
use crate::ports::counters::CountersUnavailable;
use crate::ports::rates::{PLACE_LASTS_US, RateClaim, RateOutcome, RateStanding, RateStore};

use super::words::{Answer, Arguments, Strange};
use super::{RedisCounters, Store, micros};

/// Places are renewed three times before they end: one renewal may fail, and the next one too.
const RENEWALS: u32 = 3;

/// Places that one question renews: a millisecond of the server.
const RENEWED_AT_ONCE: usize = 500;

/// The end of a call may take so long to be told; untold, its places end by themselves.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Rates in the Redis of the counters.
pub struct RedisRates {
    shared: Arc<Shared>,
    upkeep: JoinHandle<()>,
}

struct Shared {
    store: Arc<Store>,
    lasts: Duration,
    within: Duration,
    runtime: Handle,
    /// The requests of this node that run, and of which subjects they have places.
    running: Mutex<HashMap<EventId, (TenantId, Vec<String>)>>,
}

impl RedisCounters {
    /// The rates in the same Redis. What a call asks of them has `within`; they are looked after on `runtime`.
    pub fn rates(&self, within: Duration, runtime: &Handle) -> RedisRates {
        self.rates_lasting(Duration::from_micros(PLACE_LASTS_US), within, runtime)
    }

    /// The same with places that end sooner.
    pub fn rates_lasting(&self, lasts: Duration, within: Duration, runtime: &Handle) -> RedisRates {
        let store = self.store.clone();
        let shared = Arc::new(Shared { store, lasts, within, runtime: runtime.clone(), running: Mutex::default() });
        let upkeep = runtime.spawn(renew(shared.clone()));
        RedisRates { shared, upkeep }
    }
}

impl Drop for RedisRates {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Shared {
    async fn run(
        &self,
        name: &'static str,
        tenant: &TenantId,
        arguments: &Arguments,
        within: Duration,
    ) -> Result<(String, Answer), CountersUnavailable> {
        let key = format!("{}r{{{tenant}}}", self.store.ledger()?.prefix);
        self.store.run(name, key.as_bytes(), arguments, within).await
    }

    async fn take(
        &self,
        id: EventId,
        tenant: &TenantId,
        claims: &[RateClaim],
    ) -> Result<RateOutcome, CountersUnavailable> {
        let mut arguments = Arguments::default();
        arguments.id(id).exact(micros(self.lasts)).count(claims);
        for claim in claims {
            named(&mut arguments, claim);
            match claim.metric {
                RateMetric::Concurrent => arguments.exact(claim.max),
                RateMetric::Requests | RateMetric::Tokens => arguments.exact(rate::span_us(claim.amount, claim.max)),
            };
        }
        let (word, mut answer) = self.run("rate", tenant, &arguments, self.within).await?;
        match word.as_str() {
            "taken" => {
                let places = claims.iter().filter(|claim| claim.metric == RateMetric::Concurrent);
                let places: Vec<String> = places.map(name).collect();
                if !places.is_empty() {
                    self.running.lock().insert(id, (tenant.clone(), places));
                }
                Ok(RateOutcome::Taken(standings(claims, &mut answer)?))
            }
            "full" => {
                let mut refused = || Ok(RateOutcome::Refused { claim: answer.place()?, wait_us: answer.unsigned()? });
                refused().map_err(|Strange| strange())
            }
            _ => Err(strange()),
        }
    }

    async fn read(&self, tenant: &TenantId, claims: &[RateClaim]) -> Result<Vec<RateStanding>, CountersUnavailable> {
        let mut arguments = Arguments::default();
        arguments.count(claims);
        for claim in claims {
            named(&mut arguments, claim);
        }
        let (_, mut answer) = self.run("rate_read", tenant, &arguments, self.within).await?;
        standings(claims, &mut answer)
    }
}

impl RateStore for RedisRates {
    fn take<'a>(
        &'a self,
        id: EventId,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<RateOutcome, CountersUnavailable>> {
        Box::pin(self.shared.take(id, tenant, claims))
    }

    fn end(&self, id: EventId, tenant: &TenantId, claims: &[RateClaim], used: &[u64]) {
        self.shared.running.lock().remove(&id);
        let mut arguments = Arguments::default();
        arguments.id(id).count(claims);
        for (claim, used) in claims.iter().zip(used) {
            named(&mut arguments, claim);
            arguments.exact(rate::span_us(claim.amount, claim.max)).exact(rate::span_us(*used, claim.max));
        }
        let (shared, tenant) = (self.shared.clone(), tenant.clone());
        self.shared.runtime.spawn(async move {
            // What is not told ends by itself: places soon, buckets fill.
            shared.run("rate_end", &tenant, &arguments, END_WITHIN).await.map(drop).unwrap_or_default();
        });
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<Vec<RateStanding>, CountersUnavailable>> {
        Box::pin(self.shared.read(tenant, claims))
    }
}

/// How rates stand, as the script says of each.
fn standings(claims: &[RateClaim], answer: &mut Answer) -> Result<Vec<RateStanding>, CountersUnavailable> {
    let mut standing = |claim: &RateClaim| {
        let value = answer.unsigned()?;
        Ok(match claim.metric {
            RateMetric::Concurrent => RateStanding { taken: value, full_in_us: 0 },
            RateMetric::Requests | RateMetric::Tokens => {
                RateStanding { taken: rate::lacks(value, 0, claim.max), full_in_us: value }
            }
        })
    };
    claims.iter().map(&mut standing).collect::<Result<_, Strange>>().map_err(|Strange| strange())
}

fn strange() -> CountersUnavailable {
    CountersUnavailable("the script answers something else".to_owned())
}

/// What the script knows a rate by.
fn name(claim: &RateClaim) -> String {
    let metric = match claim.metric {
        RateMetric::Requests => 'r',
        RateMetric::Tokens => 't',
        RateMetric::Concurrent => 'c',
    };
    match &claim.subject {
        Subject::Tenant => format!("{metric}:tenant"),
        subject => format!("{metric}:{}:{}", subject.scope().as_str(), subject.id()),
    }
}

fn named(arguments: &mut Arguments, claim: &RateClaim) {
    let kind: &[u8] = if claim.metric == RateMetric::Concurrent { b"p" } else { b"b" };
    arguments.bytes(kind).text(name(claim));
}

/// Until it is aborted: says that the requests of this node still run.
async fn renew(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.lasts / RENEWALS).await;
        for (tenant, places) in shared.places() {
            for places in places.chunks(RENEWED_AT_ONCE) {
                let arguments = shared.renewal(places);
                if let Err(error) = shared.run("rate_renew", &tenant, &arguments, END_WITHIN).await {
                    warn!(%error, "Requests that run could not be renewed in the shared rates.");
                }
            }
        }
    }
}

impl Shared {
    /// All places of this node.
    fn places(&self) -> HashMap<TenantId, Vec<(String, EventId)>> {
        let mut by_tenant: HashMap<TenantId, Vec<_>> = HashMap::new();
        for (id, (tenant, places)) in self.running.lock().iter() {
            by_tenant.entry(tenant.clone()).or_default().extend(places.iter().map(|name| (name.clone(), *id)));
        }
        by_tenant
    }

    /// Those of them that are not over meanwhile: one that is would be put back, until it ends by itself.
    fn renewal(&self, places: &[(String, EventId)]) -> Arguments {
        let running = self.running.lock();
        let places: Vec<_> = places.iter().filter(|(_, id)| running.contains_key(id)).collect();
        let mut arguments = Arguments::default();
        arguments.exact(micros(self.lasts)).count(&places);
        for (name, id) in places {
            arguments.text(name).id(*id);
        }
        arguments
    }
}
