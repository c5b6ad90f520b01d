//! What the shared counters must count, whenever they admit somebody or are opened anew: every chat that was admitted, but
//! for those that nobody can know of.
//!
//! A chat is excused from being counted if its node died, or was silent for longer than it may be, before the counters
//! heard of it again; or was admitted from a lease under a plan that says so while they were away. By as much as excused
//! chats were missing when the counters admitted others, a limit may be passed, and not by one more.

use std::collections::BTreeSet;

use tollgate::domain::ids::EventId;
use tollgate::domain::time::Period;
use tollgate::ports::counters::CounterKey;

use super::model::{Call, Model, State, TENANTS};

/// A node that was not heard of for so long is not waited for.
pub const SILENT_US: u64 = 1_500_000;

/// How the shared counters have a call.
#[derive(Debug, Default)]
pub struct Shared {
    pub is_counted: bool,
    was_counted: bool,
    pub is_excused: bool,
    /// What they know that it takes.
    pub listed: Vec<(CounterKey, u64)>,
    admitted_us: u64,
}

/// What is known of a node's way to the counters.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// It is silent for longer than it may be, or was just now.
    pub is_silent: bool,
    /// When it last had trouble.
    pub trouble_us: u64,
}

impl Model {
    /// They list the call, which takes so much.
    pub fn is_listed(&mut self, id: EventId, amounts: &[(CounterKey, u64)]) {
        if let Some(call) = self.call_of(id) {
            let (listed, admitted_us) = (amounts.to_vec(), call.shared.admitted_us);
            call.shared = Shared { is_counted: true, was_counted: true, is_excused: false, listed, admitted_us };
        }
    }

    /// They hear that the call comes to nothing. Its node may be killed before that is in its journal for good.
    pub fn is_given_back(&mut self, id: EventId) {
        if let Some(call) = self.call_of(id) {
            call.shared.is_counted = false;
            call.shared.listed.clear();
        }
    }

    /// They lost a tenant, or all.
    pub fn is_forgotten(&mut self, tenant: Option<usize>) {
        self.forget(|call| tenant.is_none_or(|tenant| call.tenant == tenant));
    }

    /// They lost what they had of one node's calls.
    pub fn is_forgotten_of(&mut self, node: usize, tenant: usize) {
        self.forget(|call| (call.node, call.tenant) == (node, tenant));
    }

    fn forget(&mut self, is_lost: impl Fn(&Call) -> bool) {
        for call in self.calls.iter_mut().filter(|call| is_lost(call)) {
            call.shared.is_counted = false;
            call.shared.listed.clear();
        }
    }

    /// A node died: what it has not told, and what is forgotten until it is back, nobody knows.
    pub fn excuse(&mut self, node: usize) {
        self.calls.iter_mut().filter(|call| call.node == node).for_each(|call| call.shared.is_excused = true);
    }

    /// A node is back. What a late message of its earlier life told was forgotten since, and nobody could tell it again.
    pub fn excuse_forgotten(&mut self, node: usize) {
        let forgotten = self.calls.iter_mut().filter(|call| call.node == node && !call.shared.is_counted);
        forgotten.for_each(|call| call.shared.is_excused = true);
    }

    /// A call is admitted. `is_leftover`: from a lease, while the counters were away.
    pub fn is_held(&mut self, call: usize, now_us: u64, is_leftover: bool) {
        let call = &mut self.calls[call];
        call.shared.admitted_us = now_us;
        if is_leftover && call.is_chat {
            call.shared.is_excused |= !call.shared.is_counted;
            let (tenant, periods) = (call.tenant, call.periods);
            for period in periods {
                *self.excused.entry((tenant, period)).or_default() += 1;
            }
        }
    }

    /// So many chats may be above the limit.
    pub fn excused(&self, tenant: usize, period: Option<Period>) -> u64 {
        self.excused.get(&(tenant, period)).copied().unwrap_or_default()
    }

    /// They are opened with what the ledger had: all that counts is in it, or listed.
    pub fn is_opened(
        &mut self,
        tenant: usize,
        in_sums: &BTreeSet<EventId>,
        ways: &[Way],
        now_us: u64,
    ) -> Result<(), String> {
        for call in self.calls.iter_mut().filter(|call| call.tenant == tenant) {
            if call.id.is_some_and(|id| in_sums.contains(&id)) {
                call.shared.is_counted = true;
                let takes = |counter: &CounterKey| (counter.clone(), call.takes(counter));
                call.shared.listed = call.claims.iter().map(|claim| takes(&claim.counter)).collect();
            }
        }
        self.excuse_silent(ways, now_us);
        let missing = |(_, call): &(usize, &Call)| {
            call.tenant == tenant && (call.is_missing() || call.lacks()) && !call.shared.is_excused
        };
        match self.calls.iter().enumerate().find(missing) {
            Some((number, call)) => {
                Err(format!("{} is opened without call {number} of node {}: {call:?}", TENANTS[tenant], call.node))
            }
            None => Ok(()),
        }
    }

    /// They have admitted a chat, with so many counted or leased in a period now.
    pub fn has_admitted(
        &mut self,
        (tenant, window, period): (usize, usize, Period),
        counted: u64,
        ways: &[Way],
        now_us: u64,
    ) -> Result<(), String> {
        let period = Some(period);
        self.excuse_silent(ways, now_us);
        let admitted = self.count(tenant, window, period, Call::is_admitted);
        let excused = self.count(tenant, window, period, |call| call.is_missing() && call.shared.is_excused);
        if admitted > counted + excused {
            let missing: Vec<usize> = (0..self.calls.len())
                .filter(|at| self.calls[*at].is_of(tenant, window, period) && self.calls[*at].is_missing())
                .collect();
            let taking: Vec<(usize, State)> = (0..self.calls.len())
                .filter(|at| self.calls[*at].is_of(tenant, window, period) && self.calls[*at].is_admitted())
                .filter(|at| self.calls[*at].chats() > 0)
                .map(|at| (at, self.calls[at].state))
                .collect();
            return Err(format!(
                "the store counts {counted} chats of {} in {period:?}, where {admitted} were admitted: {taking:?}; not listed are calls {missing:?}, and {excused} of them are excused",
                TENANTS[tenant]
            ));
        }
        let over = self.excused.entry((tenant, period)).or_default();
        *over = (*over).max(excused);
        Ok(())
    }

    /// Chats that the counters do not count, and are excused.
    pub fn missing(&self, tenant: usize, window: usize, period: Period) -> u64 {
        self.count(tenant, window, Some(period), |call| call.is_missing() && call.shared.is_excused)
    }

    /// Calls of any kind that the counters do not count, and are excused.
    pub fn unknown(&self, tenant: usize, window: usize, period: Period) -> BTreeSet<EventId> {
        let is_unknown = |call: &&Call| {
            let Shared { is_counted, is_excused, .. } = call.shared;
            call.tenant == tenant && call.periods[window] == Some(period) && !is_counted && is_excused
        };
        self.calls.iter().filter(is_unknown).filter_map(|call| call.id).collect()
    }

    /// Chats that came to nothing, and that an earlier life of their node may have left held.
    pub fn left_held(&self, tenant: usize, window: usize, period: Period) -> u64 {
        let is_left = |call: &&Call| {
            call.is_of(tenant, window, Some(period)) && call.chats() == 0 && call.life < self.on[call.node].life
        };
        self.calls.iter().filter(is_left).count() as u64
    }

    /// Whether an earlier life of a node made calls of a tenant.
    pub fn has_left(&self, tenant: usize) -> bool {
        self.calls.iter().any(|call| call.tenant == tenant && call.life < self.on[call.node].life)
    }

    pub fn excuse_silent(&mut self, ways: &[Way], now_us: u64) {
        let is_missing =
            |call: &&mut Call| call.is_missing() || (!call.is_chat && !call.shared.is_counted) || call.lacks();
        for call in self.calls.iter_mut().filter(is_missing) {
            let Way { is_silent, trouble_us } = ways[call.node];
            let Shared { was_counted, admitted_us, .. } = call.shared;
            // It could not be told of for as long as a node may be silent.
            let is_untold = !was_counted && now_us > admitted_us + SILENT_US && trouble_us > admitted_us;
            call.shared.is_excused |= is_silent || is_untold;
        }
    }
}

impl Call {
    fn is_admitted(&self) -> bool {
        !matches!(self.state, State::Asking | State::Refused)
    }

    /// It counts, and the counters do not know of it.
    fn is_missing(&self) -> bool {
        self.is_chat && self.is_admitted() && self.chats() > 0 && !self.shared.is_counted
    }
}
