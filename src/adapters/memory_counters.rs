//! Counters in the memory of this process: for one node, and the model that other counter stores are tested against.
//!
//! May use: `domain`, `ports`.
//!
//! Everything of a tenant lies in one shard behind one short lock, so a call's claims are checked and taken in one
//! step. Counters start at zero when the process does: whoever starts it seeds them from the ledger first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::ready;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use parking_lot::{Mutex, MutexGuard};

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{Metric, Standing, Subject};
use crate::domain::time::{Period, Window};
use crate::ports::BoxFuture;
use crate::ports::counters::{
    Claim, Counted, CounterKey, CounterStore, CountersHealth, CountersUnavailable, HoldOutcome, Terms,
};

/// Shards, each with its own lock: enough that request threads of a large machine seldom meet on one.
const SHARDS: u64 = 64;

/// Settled ids remembered in each shard. A second settlement of one call comes, if at all, right behind the first; the
/// last 1,024 of each shard cover that for about 50 KB a shard. An older id settled again would count again.
const SETTLED_MAX: usize = 1_024;

/// Periods kept of each window of a tenant: the current one, the two before (calls admitted before midnight settle into the
/// last, and it is yesterday yet in a zone behind UTC), and two for a clock that jumped ahead and came back. The oldest in
/// which nothing is held goes first, with the counters of all its subjects: so there are those of the keys, users and
/// knowledge bases that called in the last few days or months, and no others.
const PERIODS_MAX: usize = 5;

/// Counters of all tenants, in process. Beyond the port's contract: it is never unavailable and waits for nothing but
/// the lock of a shard. `hold` and `settle` are idempotent by id within a tenant, over every call in flight and the
/// last settled calls of the shard (1,024); a restart forgets both, as it forgets the counters.
#[derive(Debug)]
pub struct MemoryCounters {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    tenants: HashMap<TenantId, Counters, Hashing>,
    calls: HashMap<EventId, Call, Hashing>,
    /// The settled ones among `calls`, oldest first.
    settled: VecDeque<EventId>,
}

/// The counters of one tenant.
#[derive(Debug, Default)]
struct Counters {
    /// Those of the tenant as a whole, which every call has to do with.
    own: Few,
    /// Those of its keys, users and knowledge bases. Clients choose their ids: the hasher is the standard one.
    of: HashMap<Subject, Few>,
    /// The periods of these, the oldest first, of months and of days.
    periods: [Vec<Period>; 2],
}

/// The counters of one subject: a few, so a node or two of the tree.
#[derive(Debug, Default)]
struct Few(BTreeMap<(Metric, Period), Standing>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Held,
    Settled,
}

type Hashing = BuildHasherDefault<IdHasher>;

/// Multiplies and turns, eight bytes at a time: a fifth of the standard hasher's time. The ids are those of the gateway
/// itself (events) and of its operator (tenants), so nobody gains by making them collide.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl MemoryCounters {
    /// No counter is known yet.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards }
    }

    /// `None` never happens: the remainder is below the number of shards.
    fn shard(&self, tenant: &TenantId) -> Option<MutexGuard<'_, Shard>> {
        // The map inside a shard looks at the lowest and the highest bits: the shard is chosen by those between.
        let at = usize::try_from((Hashing::default().hash_one(tenant) >> 32) % SHARDS).ok()?;
        self.shards.get(at).map(Mutex::lock)
    }

    fn read_one(&self, key: &CounterKey) -> Standing {
        let shard = self.shard(&key.tenant);
        let counters = shard.as_ref().and_then(|shard| shard.tenants.get(&key.tenant));
        counters.and_then(|counters| counters.get(key)).unwrap_or_default()
    }

    fn seed_one(&self, key: &CounterKey, used: u64) {
        if let Some(mut shard) = self.shard(&key.tenant) {
            let standing = shard.counters(&key.tenant).standing(key);
            standing.used = standing.used.max(used);
        }
    }
}

impl Default for MemoryCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl CounterStore for MemoryCounters {
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        _: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        let outcome = tenant_of(claims).and_then(|tenant| Some(self.shard(tenant)?.hold(id, tenant, claims)));
        Box::pin(ready(Ok(outcome.unwrap_or_else(|| HoldOutcome::Held(Vec::new())))))
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        let tenant = tenant_of(claims).or_else(|| used.first().map(|(counter, _)| &counter.tenant));
        if let Some(tenant) = tenant
            && let Some(mut shard) = self.shard(tenant)
        {
            shard.settle(id, tenant, claims, used);
        }
    }

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        Box::pin(ready(Ok(counters.iter().map(|key| self.read_one(key)).collect())))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        // A shard is locked for as long as its part takes to copy: a tenth of a millisecond at 100,000 counters.
        let all = self.shards.iter().flat_map(|shard| shard.lock().list()).collect();
        Box::pin(ready(Ok(all)))
    }

    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        for (key, used) in counters {
            self.seed_one(key, *used);
        }
        Box::pin(ready(Ok(())))
    }

    fn changed<'a>(&'a self, _: &'a TenantId, _: i64) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn health(&self) -> CountersHealth {
        CountersHealth::default()
    }
}

impl Shard {
    fn counters(&mut self, tenant: &TenantId) -> &mut Counters {
        self.tenants.entry(tenant.clone()).or_default()
    }

    fn list(&self) -> Vec<Counted> {
        let mut all = Vec::new();
        for (tenant, counters) in &self.tenants {
            let own = (&Subject::Tenant, &counters.own);
            for (subject, few) in counters.of.iter().chain([own]) {
                all.extend(few.0.iter().map(|(&(metric, period), &standing)| {
                    let counter = CounterKey { tenant: tenant.clone(), subject: subject.clone(), metric, period };
                    Counted { counter, standing, booked: standing.used }
                }));
            }
        }
        all
    }

    fn hold(&mut self, id: EventId, tenant: &TenantId, claims: &[Claim]) -> HoldOutcome {
        let is_known = self.calls.contains_key(&id);
        let counters = self.counters(tenant);
        if !is_known && let Err(refused) = counters.take(claims) {
            return refused;
        }
        let standings = claims.iter().map(|claim| *counters.standing(&claim.counter)).collect();
        if !is_known {
            self.calls.insert(id, Call::Held);
        }
        HoldOutcome::Held(standings)
    }

    fn settle(&mut self, id: EventId, tenant: &TenantId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        let before = self.calls.insert(id, Call::Settled);
        if before == Some(Call::Settled) {
            return;
        }
        self.settled.push_back(id);
        if self.settled.len() > SETTLED_MAX
            && let Some(oldest) = self.settled.pop_front()
        {
            self.calls.remove(&oldest);
        }
        let counters = self.counters(tenant);
        if before == Some(Call::Held) {
            for claim in claims {
                let standing = counters.standing(&claim.counter);
                standing.held = standing.held.saturating_sub(claim.amount);
            }
        }
        for (counter, used) in used {
            let standing = counters.standing(counter);
            standing.used = standing.used.saturating_add(*used);
        }
    }
}

impl Counters {
    fn get(&self, key: &CounterKey) -> Option<Standing> {
        let few = if key.subject == Subject::Tenant { &self.own } else { self.of.get(&key.subject)? };
        few.0.get(&(key.metric, key.period)).copied()
    }

    fn standing(&mut self, key: &CounterKey) -> &mut Standing {
        let periods = match key.period.window() {
            Window::Month => &self.periods[0],
            Window::Day => &self.periods[1],
        };
        if !periods.contains(&key.period) {
            self.begin(key.period);
        }
        let few = if key.subject == Subject::Tenant {
            &mut self.own
        } else if self.of.contains_key(&key.subject) {
            // Asked first, so that the subject need not be cloned.
            self.of.get_mut(&key.subject).unwrap_or(&mut self.own)
        } else {
            self.of.entry(key.subject.clone()).or_default()
        };
        few.0.entry((key.metric, key.period)).or_default()
    }

    /// Takes every claim or none. Two claims on one counter are both counted. One that is refused leaves nothing behind:
    /// clients choose the ids of users, and those of refused calls are not to fill the memory.
    fn take(&mut self, claims: &[Claim]) -> Result<(), HoldOutcome> {
        for (at, claim) in claims.iter().enumerate() {
            let Some(max) = claim.max else { continue };
            let standing = self.get(&claim.counter).unwrap_or_default();
            let before = claims.iter().take(at).filter(|other| other.counter == claim.counter);
            let taken = before.fold(standing.held, |held, other| held.saturating_add(other.amount));
            if (Standing { held: taken, ..standing }).remaining(max) < claim.amount {
                return Err(HoldOutcome::Refused { claim: at, standing });
            }
        }
        for claim in claims {
            let standing = self.standing(&claim.counter);
            standing.held = standing.held.saturating_add(claim.amount);
        }
        Ok(())
    }

    /// Notes a new period, and makes room for it. All subjects are looked through for that: a millisecond or two at
    /// 20,000 of them, once a day and tenant.
    fn begin(&mut self, period: Period) {
        let window = period.window();
        let [months, days] = &mut self.periods;
        let periods = match window {
            Window::Month => months,
            Window::Day => days,
        };
        if periods.len() >= PERIODS_MAX {
            let all = || self.of.values().chain([&self.own]).flat_map(|few| &few.0);
            let is_held = |oldest: &Period| all().any(|((_, period), standing)| period == oldest && standing.held > 0);
            if let Some(gone) = periods.iter().position(|oldest| !is_held(oldest)) {
                let gone = periods.remove(gone);
                self.own.forget(gone);
                self.of.retain(|_, few| few.forget(gone));
            }
        }
        let at = periods.partition_point(|known| *known < period);
        periods.insert(at, period);
    }
}

impl Few {
    /// Lets the counters of a period go. Whether any are left.
    fn forget(&mut self, gone: Period) -> bool {
        self.0.retain(|(_, period), _| *period != gone);
        !self.0.is_empty()
    }
}

impl IdHasher {
    fn add(&mut self, word: u64) {
        // 2^64 divided by the golden ratio, made odd: its multiples spread evenly (Knuth, volume 3, 6.4).
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // A product is random in its high bits; a map wants that of the low bits too.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.write(&id.to_le_bytes());
    }
}

/// All claims of a call are of one tenant: the port says so.
fn tenant_of(claims: &[Claim]) -> Option<&TenantId> {
    let tenant = &claims.first()?.counter.tenant;
    debug_assert!(claims.iter().all(|claim| claim.counter.tenant == *tenant), "the claims of a call are of one tenant");
    Some(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::Metric;
    use futures_util::FutureExt;

    fn key(month: &str) -> CounterKey {
        let period = Period::parse_month(month).unwrap();
        CounterKey { tenant: "acme".parse().unwrap(), subject: Subject::Tenant, metric: Metric::Chats, period }
    }

    fn used(counters: &MemoryCounters, month: &str) -> u64 {
        counters.read(&[key(month)]).now_or_never().unwrap().unwrap()[0].used
    }

    #[test]
    fn the_oldest_month_is_forgotten_and_a_clock_that_jumps_loses_nothing() {
        let counters = MemoryCounters::new();
        for month in ["2026-08", "2026-09", "2026-10", "2026-11", "2050-01"] {
            counters.seed(&[(key(month), 7)]).now_or_never().unwrap().unwrap();
        }
        assert_eq!(used(&counters, "2026-11"), 7, "after the jump ahead and back");
        counters.seed(&[(key("2026-12"), 7)]).now_or_never().unwrap().unwrap();
        let months = ["2026-08", "2026-09", "2026-10", "2026-11", "2026-12", "2050-01"];
        assert_eq!(months.map(|month| used(&counters, month)), [0, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn a_month_with_a_call_in_flight_is_not_forgotten() {
        let counters = MemoryCounters::new();
        let id = EventId::new(1, 1);
        let claims = [Claim { counter: key("2026-01"), amount: 1, max: Some(1) }];
        counters.hold(id, &claims, Terms::default()).now_or_never().unwrap().unwrap();
        for month in ["2026-02", "2026-03", "2026-04", "2026-05", "2026-06", "2026-07"] {
            counters.seed(&[(key(month), 7)]).now_or_never().unwrap().unwrap();
        }
        counters.settle(id, &claims, &[(claims[0].counter.clone(), 1)]);
        assert_eq!(used(&counters, "2026-01"), 1);
        assert_eq!(used(&counters, "2026-02"), 0);
    }

    #[test]
    fn users_of_days_that_are_over_are_forgotten_and_a_call_in_flight_across_midnight_settles_right() {
        let counters = MemoryCounters::new();
        let of = |user: u64, day: u64| CounterKey {
            subject: Subject::User(format!("user-{user}").into()),
            metric: Metric::Cost,
            period: Period::parse_day(&format!("2026-11-{day:02}")).unwrap(),
            ..key("2026-11")
        };
        let claims = [Claim { counter: of(1, 1), amount: 500, max: Some(1_000) }];
        let id = EventId::new(1, 1);
        counters.hold(id, &claims, Terms::default()).now_or_never().unwrap().unwrap();
        for day in 1..=20 {
            for user in day * 1_000..(day + 1) * 1_000 {
                counters.settle(EventId::new(day, u128::from(user)), &[], &[(of(user, day), 3)]);
            }
        }
        let subjects = || counters.shards.iter().flat_map(|shard| shard.lock().list()).count();
        // Those of four days, and of the one with the call.
        assert_eq!(subjects(), 5_001);
        counters.settle(id, &claims, &[(of(1, 1), 700)]);
        let standing = counters.read(&[of(1, 1), of(1_001, 1)]).now_or_never().unwrap().unwrap();
        assert_eq!(standing, [Standing { used: 700, held: 0 }, Standing { used: 3, held: 0 }]);
        counters.settle(EventId::new(30, 0), &[], &[(of(1, 21), 3)]);
        assert_eq!(subjects(), 4_001, "the first day is gone");
    }

    #[test]
    fn refused_calls_leave_no_counters_behind() {
        let counters = MemoryCounters::new();
        let of = |subject| CounterKey { subject, ..key("2026-11") };
        for user in 0..1_000 {
            let claim = |subject, max| Claim { counter: of(subject), amount: 1, max: Some(max) };
            let claims = [claim(Subject::User(format!("user-{user}").into()), 9), claim(Subject::Tenant, 0)];
            let outcome = counters.hold(EventId::new(1, user), &claims, Terms::default()).now_or_never().unwrap();
            assert_eq!(outcome, Ok(HoldOutcome::Refused { claim: 1, standing: Standing::default() }));
        }
        assert_eq!(counters.list().now_or_never().unwrap().unwrap(), []);
        // Two claims on one counter are one sum.
        let twice = vec![Claim { counter: of(Subject::Tenant), amount: 1, max: Some(1) }; 2];
        let outcome = counters.hold(EventId::new(2, 0), &twice, Terms::default()).now_or_never().unwrap();
        assert_eq!(outcome, Ok(HoldOutcome::Refused { claim: 1, standing: Standing::default() }));
    }

    #[test]
    fn settled_calls_are_remembered_within_their_bound() {
        let counters = MemoryCounters::new();
        let claims = [Claim { counter: key("2026-11"), amount: 1, max: None }];
        let calls = u64::try_from(SETTLED_MAX).unwrap() + 10;
        for call in 0..calls {
            let id = EventId::new(call, u128::from(call));
            counters.settle(id, &claims, &[(claims[0].counter.clone(), 1)]);
            counters.settle(id, &claims, &[(claims[0].counter.clone(), 1)]);
        }
        assert_eq!(used(&counters, "2026-11"), calls);
        let remembered: usize = counters.shards.iter().map(|shard| shard.lock().calls.len()).sum();
        assert_eq!(remembered, SETTLED_MAX);
    }

    #[test]
    fn neighbouring_ids_spread_over_shards_buckets_and_tags() {
        let calls = (0..10_000).map(|random| Hashing::default().hash_one(EventId::new(5, random)));
        let names = (0..10_000).map(|number| format!("tenant-{number}").parse::<TenantId>().unwrap());
        let tenants = names.map(|name| Hashing::default().hash_one(name));
        for hashes in [calls.collect::<Vec<u64>>(), tenants.collect()] {
            // Of 10,000 in 64 places 156 are expected in each: the bits of a shard, a bucket and a map's tag.
            for shift in [32, 0, 58] {
                let mut places = [0_u32; 64];
                for hash in &hashes {
                    places[usize::try_from((hash >> shift) % 64).unwrap()] += 1;
                }
                assert!(places.iter().all(|place| (78..312).contains(place)), "{shift}: {places:?}");
            }
        }
    }
}
