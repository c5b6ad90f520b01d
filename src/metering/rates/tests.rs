//! Tests of what a call gives back that nobody knows to have taken anything.

use std::future::{pending, ready};

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::super::fakes::World;
use super::*;
use crate::adapters::system_clock::SystemClock;
use crate::domain::plan::Scope;
use crate::ports::BoxFuture;
use crate::ports::counters::CountersUnavailable;
use crate::ports::rates::RateStanding;

/// A store that answers so, or never, and keeps what it was told to be over.
struct Store {
    answer: Option<Result<RateOutcome, CountersUnavailable>>,
    ended: Mutex<Vec<Vec<u64>>>,
}

impl RateStore for Store {
    fn take<'a>(
        &'a self,
        _: EventId,
        _: &'a TenantId,
        _: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<RateOutcome, CountersUnavailable>> {
        match self.answer.clone() {
            Some(answer) => Box::pin(ready(answer)),
            None => Box::pin(pending()),
        }
    }

    fn end(&self, _: EventId, _: &TenantId, _: &[RateClaim], used: &[u64]) {
        self.ended.lock().push(used.to_vec());
    }

    fn read<'a>(
        &'a self,
        _: &'a TenantId,
        _: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<Vec<RateStanding>, CountersUnavailable>> {
        Box::pin(pending())
    }
}

/// What is told to be over by a call that uses nothing of what it takes.
async fn ended(answer: Option<Result<RateOutcome, CountersUnavailable>>) -> Vec<Vec<u64>> {
    let world = World::open().await;
    let account = world.snapshots.load().accounts["acme"].clone();
    let caller = Caller { account, key: None, user_id: None, kb_id: None };
    let rate = |metric| Rate { scope: Scope::Tenant, metric, max: 10 };
    let rates = vec![rate(RateMetric::Tokens), rate(RateMetric::Concurrent)];
    let plan = Plan { rates, ..Plan::unlimited("starter".parse().unwrap()) };
    let store = Arc::new(Store { answer, ended: Mutex::default() });
    let shared: Arc<dyn RateStore> = store.clone();
    // One that has not answered by then is not waited for any longer.
    drop(Permit::take(Some(&shared), &SystemClock::new(), (&caller, &plan), 5).now_or_never());
    let ended = store.ended.lock();
    ended.clone()
}

#[tokio::test]
async fn what_a_late_answer_or_none_may_have_taken_is_given_back() {
    let nothing_used = [vec![0, 0]];
    let late = Err(CountersUnavailable("late".to_owned()));
    assert_eq!(ended(Some(late)).await, nothing_used);
    assert_eq!(ended(None).await, nothing_used, "its caller is gone");
    assert_eq!(ended(Some(Ok(RateOutcome::Taken(Vec::new())))).await, nothing_used);
    let refused = RateOutcome::Refused { claim: 0, wait_us: 1 };
    assert!(ended(Some(Ok(refused))).await.is_empty(), "a refusal took nothing");
}
