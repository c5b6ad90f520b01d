//! The same story on every store and on the model: what each step answers, and what is listed after it.

use std::sync::Arc;
use std::time::Duration;

use tollgate::domain::counting::Counting;
use tollgate::domain::ids::EventId;
use tollgate::domain::plan::{Metric, Scope, Subject};
use tollgate::domain::time::{Period, Window};
use tollgate::ports::counters::{Claim, CounterKey};
use tollgate::ports::shared::{
    Ask, CallState, Epoch, Floors, Held, Joined, Joining, LeaseAsk, Listing, Look, NodeId, Note, Part,
};

use super::bench::{Bench, HOUR, Store, WITHIN, adapters, day, floors, month};
use crate::conformance::event_id;
use crate::support::machine::{Chance, full};

/// Does `steps` that follow from a seed, and tells what each answered: two stores that do the same tell the same.
async fn story(store: &Store, seed: u64, steps: usize, benches: &[Bench]) -> Vec<String> {
    let mut teller = Teller { chance: Chance::seeded(seed), epochs: vec![Epoch(1)], joins: 0 };
    let mut told = Vec::with_capacity(steps);
    for _ in 0..steps {
        let at = teller.below(benches.len());
        let mut bench = Bench { store: Arc::clone(store), ..benches[at].clone() };
        if teller.one_in(40) {
            bench.member.life = teller.chance.below(3);
        }
        let line = teller.step(&bench, at).await;
        told.push(format!("{line}\n    {:?}", bench.listed().await));
    }
    told
}

struct Teller {
    chance: Chance,
    epochs: Vec<Epoch>,
    joins: u64,
}

impl Teller {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.chance.below(u64::try_from(end).unwrap())).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn period(&mut self) -> Period {
        let periods = [month("2026-11"), month("2026-11"), day("2026-11-24"), day("2026-11-25"), month("2026-10")];
        periods[self.below(periods.len())]
    }

    fn amount(&mut self) -> u64 {
        if self.one_in(4) { self.chance.below(4) } else { 1 }
    }

    fn amounts(&mut self, bench: &Bench) -> Vec<(CounterKey, u64)> {
        let mut amounts: Vec<(CounterKey, u64)> = Vec::new();
        for _ in 0..=self.below(2) {
            let subject = [Subject::Tenant, Subject::User("a b".into())][usize::from(self.one_in(3))].clone();
            let metric = [Metric::Chats, Metric::Cost][usize::from(self.one_in(3))];
            let counter = CounterKey { subject, metric, ..bench.counter(self.period()) };
            if amounts.iter().all(|(known, _)| *known != counter) {
                amounts.push((counter, self.amount()));
            }
        }
        amounts
    }

    /// A call of the gateway at this place alone.
    fn call(&mut self, at: usize) -> EventId {
        event_id(u64::try_from(at * 100 + self.below(8)).unwrap())
    }

    fn note(&mut self, bench: &Bench, at: usize) -> Note {
        let states = [CallState::Held, CallState::Settled, CallState::Booked, CallState::Gone];
        let state = states[self.below(states.len())];
        let listing = match state {
            CallState::Held if self.one_in(2) => Listing::FromLease,
            CallState::Settled if self.one_in(2) => [Listing::FromLease, Listing::Unheld][self.below(2)],
            _ => Listing::Known,
        };
        Note { id: self.call(at), state, amounts: self.amounts(bench), listing }
    }

    fn counting(&mut self) -> Counting {
        let users = Counting::one(Scope::User, Metric::Cost, Window::Day);
        if self.one_in(6) { Counting::TENANT | users } else { Counting::TENANT }
    }

    fn epoch(&mut self) -> Epoch {
        let last = self.epochs.len() - 1;
        let at = if self.one_in(20) { self.below(last + 1) } else { last };
        self.epochs[at]
    }

    fn learn(&mut self, epoch: Epoch) {
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
    }

    async fn step(&mut self, bench: &Bench, at: usize) -> String {
        match self.below(20) {
            0..=7 => self.hold(bench, at).await,
            8..=12 => {
                let notes: Vec<_> = (0..self.below(4)).map(|_| self.note(bench, at)).collect();
                let left = self.one_in(3).then(|| self.chance.below(5));
                let epoch = self.epoch();
                format!("note {notes:?} {left:?}: {:?}", bench.note(epoch, &notes, left).await)
            }
            13 | 14 => self.join(bench, at).await,
            15 | 16 => {
                let look = self.look(bench).await;
                // Most of the time it is opened at once: shut, it has little to tell.
                if self.one_in(4) { look } else { format!("{look}; {}", self.finish(bench, at).await) }
            }
            17 => self.finish(bench, at).await,
            18 => {
                let revision = i64::try_from(self.chance.below(4)).unwrap() - 1;
                let revision = if self.one_in(3) { revision } else { 0 };
                bench.store.changed(&bench.tenant, revision, WITHIN).await.unwrap();
                format!("changed {revision}")
            }
            _ => {
                let counters = [bench.november(), bench.counter(day("2026-11-24"))];
                format!("read {:?}", bench.store.read(&bench.tenant, &counters).await.unwrap())
            }
        }
    }

    async fn finish(&mut self, bench: &Bench, at: usize) -> String {
        let sums = self.amounts(bench);
        let known: Vec<_> = (0..self.below(3)).map(|_| self.call(at)).collect();
        let joins = if self.one_in(8) { self.joins + 1 } else { self.joins };
        let epoch = self.epoch();
        let writer = self.one_in(2).then(|| self.chance.below(2));
        let mut parts = String::new();
        if let Some(writer) = writer {
            let (sums, is_first) = (self.amounts(bench), !self.one_in(3));
            let tenant = &bench.tenant;
            let part = Part { tenant, epoch, joins, writer, is_first, sums: &sums, within: WITHIN };
            parts = format!("{part:?}: {}; ", bench.store.sums(&part).await.unwrap());
        }
        let finished = bench.finish_as(writer, epoch, joins, &sums, &known).await;
        format!("{parts}finish {sums:?} {known:?} {writer:?}: {finished}")
    }

    async fn hold(&mut self, bench: &Bench, at: usize) -> String {
        let amounts = self.amounts(bench);
        let max = |teller: &mut Self| [None, Some(3), Some(6), Some(20)][teller.below(4)];
        let claims: Vec<_> =
            amounts.into_iter().map(|(counter, amount)| Claim { counter, amount, max: max(self) }).collect();
        let mut ask =
            Ask { id: self.call(at), is_alone: self.one_in(4), counting: self.counting(), ..bench.ask(0, &claims) };
        if self.one_in(2) {
            let lasts = if self.one_in(2) { Duration::ZERO } else { HOUR };
            let (units_max, parts, left) = (self.chance.below(6), 1 + self.chance.below(3), self.chance.below(6));
            ask.lease = Some(LeaseAsk { units_max, parts, lasts, left });
        }
        ask.revision = if self.one_in(8) { 1 } else { 2 };
        let held = bench.asked(ask).await;
        if let Held::Taken { epoch, .. } = held {
            self.learn(epoch);
        }
        format!("hold {ask:?}: {held:?}")
    }

    async fn join(&mut self, bench: &Bench, at: usize) -> String {
        let count = if self.one_in(2) { 0 } else { self.below(4) };
        let calls: Vec<_> = (0..count)
            .map(|_| self.note(bench, at))
            .filter(|note| note.state != CallState::Gone)
            .map(|note| Note { listing: Listing::Known, ..note })
            .collect();
        let is_first = !self.one_in(4);
        let joining = Joining {
            member: bench.member,
            tenant: &bench.tenant,
            epoch: if is_first { Epoch(u128::from(self.chance.next())) } else { self.epoch() },
            is_forced: self.one_in(20),
            counting: self.counting(),
            floors: if self.one_in(2) { floors() } else { Floors { month: month("2026-10"), day: day("2026-11-25") } },
            calls: &calls,
            is_first,
            is_last: !self.one_in(4),
            within: WITHIN,
        };
        let joined = bench.store.join(&joining).await.unwrap();
        if let Joined::Open(epoch) | Joined::Building(epoch) = joined {
            self.learn(epoch);
        }
        format!("join {joining:?}: {joined:?}")
    }

    /// As one gateway, whoever it is: that others have to wait for a second is another test.
    async fn look(&mut self, bench: &Bench) -> String {
        let mut look = bench.store.look(NodeId(0), &bench.tenant).await.unwrap();
        if let Look::Building { joins, joined, calls, epoch, .. } = &mut look {
            joined.sort();
            calls.sort_by_key(|id| id.to_bytes());
            self.joins = *joins;
            self.learn(*epoch);
        }
        format!("look: {look:?}")
    }
}

#[tokio::test]
async fn any_story_is_the_same_as_the_models() {
    let seed = Chance::new().seed;
    let steps = if full() { 20_000 } else { 2_000 };
    let stores = adapters().await;
    let first = Bench::new(&stores[0].1, "story");
    let benches = [first.clone(), first.another(), first.another()];
    let model = story(&stores[0].1, seed, steps, &benches).await;
    for (name, store) in &stores[1..] {
        let other = story(store, seed, steps, &benches).await;
        for (step, (model, other)) in model.iter().zip(&other).enumerate() {
            assert_eq!(model, other, "{name}: seed {seed}, step {step}");
        }
    }
}
