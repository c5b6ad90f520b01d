//! The end of a story of several nodes: the last life of each sees peace come, without a restart, and then all must be well.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};
use tollgate::domain::counting::{Amounts, subjects_of};
use tollgate::domain::event::UsageEvent;
use tollgate::domain::plan::{Metric, Subject};
use tollgate::domain::time::{Period, Window};
use tollgate::ports::counters::CounterKey;
use tollgate::ports::shared::Count;

use super::call::Script;
use super::life::Process;
use super::model::TENANTS;

/// Beyond the longest pause of the recorder, the longest lease, and what a call waits at most.
const HEALING: Duration = Duration::from_secs(6);

/// By then all is told, and leases that nobody uses have come back.
const QUIET: Duration = Duration::from_secs(3);

/// Calls that are admitted are over by then.
const CALLS_MAX: Duration = Duration::from_secs(20);

/// What they began is billed by then: a unit takes some seconds, and one that the ledger did not take at first as many more.
const BILLS_MAX: Duration = Duration::from_secs(40);

/// Where all nodes meet.
pub struct Meeting {
    nodes: usize,
    barrier: Barrier,
}

impl Meeting {
    pub fn new(nodes: usize) -> Rc<Self> {
        Rc::new(Self { nodes, barrier: Barrier::new(nodes) })
    }

    /// True for one of them.
    async fn all_are_here(&self) -> bool {
        self.barrier.wait().await.is_leader()
    }
}

impl Process {
    pub async fn meets(self: &Rc<Self>) {
        let (node, meeting) = (self.node.clone(), self.outside.meeting.clone());
        if meeting.all_are_here().await {
            node.make_peace();
        }
        self.calls_end().await;
        sleep(HEALING).await;
        if meeting.all_are_here().await {
            self.check_shared("when peace has come", false);
        }
        meeting.all_are_here().await;
        let periods = self.periods();
        self.uses_up().await;
        for node in 0..meeting.nodes {
            meeting.all_are_here().await;
            if node == self.node.number {
                self.uses_the_rest(periods).await;
            }
        }
        meeting.all_are_here().await;
        if periods == self.periods() {
            self.check_used_up(periods);
        }
        sleep(QUIET).await;
        meeting.all_are_here().await;
        self.check_shared("at the end", true);
        node.figures.lock().from_lease += self.admitted_from_lease();
        // Nobody leaves before.
        meeting.all_are_here().await;
    }

    fn periods(&self) -> [Period; 2] {
        let now = self.node.wall_clock();
        [Window::Month, Window::Day].map(|window| window.period(now))
    }

    /// More calls of each limited tenant than there is room for, through this node alone.
    async fn uses_up(self: &Rc<Self>) {
        let node = self.node.clone();
        for tenant in 0..TENANTS.len() {
            let calls = if tenant < 2 { node.model.lock().max(tenant) + 2 } else { 3 };
            for _ in 0..calls {
                self.begin_call(Script::plain(&node.chance).of(tenant, &node), false);
                node.pause().await;
            }
        }
        self.calls_end().await;
    }

    /// One call after the other, in no other's way: of those at once some are refused for what the others hold, and use less.
    async fn uses_the_rest(self: &Rc<Self>, periods: [Period; 2]) {
        let node = self.node.clone();
        for (tenant, period) in periods.into_iter().enumerate() {
            let calls_max = node.model.lock().max(tenant);
            for _ in 0..calls_max {
                if !self.has_more(tenant, period) {
                    break;
                }
                self.begin_call(Script::plain(&node.chance).of(tenant, &node), false);
                self.calls_end().await;
            }
        }
    }

    /// Whether a tenant has chats left, and enough of all else that any call uses.
    fn has_more(&self, tenant: usize, period: Period) -> bool {
        let model = self.node.model.lock();
        model.count(tenant, tenant, Some(period), |_| true) < model.max(tenant) && !model.is_short(tenant)
    }

    async fn calls_end(&self) {
        let began = Instant::now();
        while self.is_busy() && began.elapsed() < CALLS_MAX {
            sleep(Duration::from_millis(50)).await;
        }
        if self.is_busy() {
            self.node.fail("calls in peace do not end");
        }
        let units = &self.outside.books.units;
        while units.waiting() > 0 && began.elapsed() < BILLS_MAX {
            sleep(Duration::from_millis(50)).await;
        }
        if units.waiting() > 0 {
            self.node.fail(format!("{} units are not billed in peace", units.waiting()));
        }
    }

    /// In the periods of this node's clock each limited tenant has used all that it may.
    fn check_used_up(&self, periods: [Period; 2]) {
        for (tenant, period) in periods.into_iter().enumerate() {
            if self.has_more(tenant, period) {
                let (seen, max) = {
                    let model = self.node.model.lock();
                    (model.count(tenant, tenant, Some(period), |_| true), model.max(tenant))
                };
                self.node.fail(format!(
                    "{} has {seen} chats of {max} in {period}, though it asks for more",
                    TENANTS[tenant]
                ));
            }
        }
    }

    /// Tokens and cost, and what users used, are those of the ledger's events, and of those that it refused, but for calls
    /// that nobody can know of.
    fn check_amounts(&self, (tenant, window, period): (usize, usize, Period), chats: &CounterKey, is_end: bool) {
        let books = &self.outside.books;
        let model = self.node.model.lock();
        let unknown = model.unknown(tenant, window, period);
        // What an earlier life claimed stays for a while, as with chats.
        let may_be_held = !is_end && model.has_left(tenant);
        drop(model);
        let (counting, events) = (self.snapshots.counting(), books.events());
        let its = events.iter().filter(|event| event.tenant == chats.tenant);
        let subjects: BTreeSet<Subject> = its.flat_map(subjects_of).chain([Subject::Tenant]).collect();
        let all = subjects.into_iter().flat_map(|subject| Metric::ALL.map(|metric| (subject.clone(), metric)));
        let chats_of_tenant = (Subject::Tenant, Metric::Chats);
        for (subject, metric) in all.filter(|of| *of != chats_of_tenant) {
            if !counting.has(subject.scope(), metric, period.window()) {
                continue;
            }
            let is_its = |event: &UsageEvent| subjects_of(event).any(|of| of == subject);
            let counter = CounterKey { subject: subject.clone(), metric, ..chats.clone() };
            let Some(count) = self.outside.store.count(&counter) else { continue };
            if !is_end && count == Count::default() {
                continue;
            }
            let of = |event: &UsageEvent| if is_its(event) { Amounts::of(event).of_metric(metric) } else { 0 };
            let missing: u64 = unknown.iter().filter_map(|id| books.event(*id)).map(|event| of(&event)).sum();
            let refused = books.all_refused().into_iter().filter(|event| {
                let period_of = event.period(period.window());
                (event.tenant.as_str(), period_of) == (TENANTS[tenant], period)
            });
            let refused: u64 = refused.filter(|event| !unknown.contains(&event.id)).map(|event| of(&event)).sum();
            let (used, ledger) = (count.booked + count.settled, books.used_of(&counter));
            if used + missing < ledger
                || used > ledger + refused
                || !(may_be_held || (count.held, count.leased) == (0, 0))
            {
                self.node.fail(format!(
                    "{} of {subject} of {} in {period}: {count:?}, {missing} are excused and {refused} refused, the ledger has {ledger}",
                    metric.as_str(),
                    TENANTS[tenant]
                ));
            }
        }
    }

    /// The shared counters are what the ledger says, and nothing is held or leased.
    fn check_shared(&self, when: &str, is_end: bool) {
        for (tenant, name) in TENANTS.iter().enumerate() {
            for (window, period) in self.periods().into_iter().enumerate() {
                let counter = CounterKey {
                    tenant: name.parse().unwrap(),
                    subject: Subject::Tenant,
                    metric: Metric::Chats,
                    period,
                };
                let ledger = self.outside.books.used_of(&counter);
                let Some(count) = self.outside.store.count(&counter) else {
                    // Nobody has asked for it since it was forgotten; what is used up is refused without.
                    continue;
                };
                if !is_end && count == Count::default() {
                    // It may be one that nobody has asked for since counters were opened.
                    continue;
                }
                self.check_amounts((tenant, window, period), &counter, is_end);
                let model = self.node.model.lock();
                let missing = model.missing(tenant, window, period);
                // What an earlier life left stays until its node has to do with the tenant, or somebody wants the room.
                let left_held = model.left_held(tenant, window, period);
                drop(model);
                let is_idle = if is_end { (count.held, count.leased) == (0, 0) } else { count.held <= left_held };
                if count.booked + count.settled + missing != ledger || !is_idle {
                    self.node.fail(format!(
                        "{when}, {name} in {period}: {count:?}, {missing} are excused, the ledger has {ledger}"
                    ));
                }
            }
        }
    }
}
