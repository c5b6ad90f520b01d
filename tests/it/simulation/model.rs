//! What must be true of the books, known from the other side: what was asked, what the provider saw and charged, and what
//! a kill or a power cut may take.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::domain::event::{Outcome, UsageEvent, UsageSource};
use tollgate::domain::ids::EventId;
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::ports::counters::{Claim, CounterKey};

use super::budgets::Budgets;
use super::tally::Shared;
use super::world::{Kind, Setup};

/// The tenants: one with a limit a month, one with a limit a day, one without.
pub const TENANTS: [&str; 3] = ["monthly", "daily", "unlimited"];
pub const UNLIMITED: usize = 2;

/// What the ledger must say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub outcome: Outcome,
    pub chats: u64,
    pub prompt: u64,
    pub completion: u64,
    pub pico_usd: i128,
    pub source: UsageSource,
    pub status: u16,
}

impl Form {
    fn of(event: &UsageEvent) -> Self {
        Self {
            outcome: event.outcome,
            chats: event.chats,
            prompt: event.tokens.prompt,
            completion: event.tokens.completion,
            // No model in the simulation is without a price.
            pico_usd: event.cost.map_or(-1, |cost| cost.0),
            source: event.source,
            status: event.status,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asks to be admitted.
    Asking,
    Refused,
    /// Admitted, on its way.
    Open,
    /// Its settlement has begun.
    Settling,
    /// Settled, or dropped.
    Settled,
    /// Was open when its process died.
    Killed,
}

/// One call as the world outside saw it.
#[derive(Debug)]
pub struct Call {
    pub node: usize,
    pub life: u32,
    pub tenant: usize,
    pub is_chat: bool,
    /// It is made for a user.
    pub has_user: bool,
    /// What it claimed when it was taken.
    pub claims: Vec<Claim>,
    pub id: Option<EventId>,
    pub periods: [Option<Period>; 2],
    asked_us: u64,
    /// Since when it is admitted, or over without that.
    pub since_us: u64,
    pub state: State,
    /// The provider has seen it.
    pub reached: bool,
    /// As it is booked if nothing is heard of it.
    pub pending: Form,
    /// As it must be booked if it is settled.
    pub expected: Option<Form>,
    /// Everything that was written before this operation of the disk was written before it was admitted.
    admitted_op: u64,
    admitted_durably: bool,
    settled_op: Option<u64>,
    settled_durably: bool,
    /// When it was settled, nothing was known to be wrong with the disk.
    settled_cleanly: bool,
    may_be_missing: bool,
    may_be_pending: bool,
    /// Refused, as the disk failed to write its admission, which may stand there all the same until the disk is healed.
    may_be_phantom: bool,
    /// Checked against the ledger; what it counts. `None` in it: lost to a power cut.
    pub booked: Option<Option<Form>>,
    /// How the shared counters have it.
    pub shared: Shared,
}

pub struct Model {
    /// Of each limited tenant, one after the other.
    limits: [Vec<InForce>; 2],
    pub calls: Vec<Call>,
    by_id: BTreeMap<EventId, usize>,
    pub on: Vec<Footing>,
    /// So many chats above the limit are excused.
    pub excused: BTreeMap<(usize, Option<Period>), u64>,
    /// The same of tokens and cost.
    pub excused_amounts: BTreeMap<CounterKey, u64>,
    /// The most that a limit was passed by.
    pub over: u64,
    pub is_shared: bool,
    pub budgets: Option<Budgets>,
}

/// A limit, and until when calls may have gone by it.
#[derive(Debug, Clone, Copy)]
struct InForce {
    plan: usize,
    max: u64,
    until_us: u64,
}

/// What one node stands on.
#[derive(Default)]
pub struct Footing {
    /// The life that is, or was last.
    pub life: u32,
    /// The periods that the counters of this life know, of each window.
    known: [Vec<Period>; 2],
    /// Others that calls of this life fell into.
    foreign: BTreeSet<Period>,
    /// Everything that was written before this operation of the disk is safe.
    pub safe_op: u64,
    /// This life began with pages that no sync will write any more.
    pub began_on_lost_pages: bool,
    /// A write or a sync failed since everything was last known to be safe.
    pub disk_is_suspect: bool,
    /// The disk had no room since then.
    pub disk_was_full: bool,
}

impl Model {
    pub fn new(setup: &Setup) -> Self {
        Self {
            limits: [setup.month_max, setup.day_max].map(|max| vec![InForce { plan: 0, max, until_us: u64::MAX }]),
            calls: Vec::new(),
            by_id: BTreeMap::new(),
            on: setup.skews_us.iter().map(|_| Footing::default()).collect(),
            excused: BTreeMap::new(),
            excused_amounts: BTreeMap::new(),
            over: 0,
            is_shared: setup.kind == Kind::Many,
            budgets: setup.budgets,
        }
    }

    /// A tenant is put on another plan. Until that is all over, calls go by either.
    pub fn changes(&mut self, tenant: usize, plan: usize, max: u64) -> usize {
        self.limits[tenant].push(InForce { plan, max, until_us: u64::MAX });
        self.limits[tenant].len() - 1
    }

    /// Whoever asks from now on goes by that plan or a newer one.
    pub fn has_changed(&mut self, tenant: usize, change: usize, now_us: u64) {
        let older = self.limits[tenant].iter_mut().take(change);
        older.for_each(|limit| limit.until_us = limit.until_us.min(now_us));
    }

    /// The limits that a call may go by. `None`: there is none.
    fn maxima(&self, call: &Call) -> impl Iterator<Item = u64> {
        self.in_force(call).map(|limit| limit.max)
    }

    /// The plans that it may go by.
    pub fn plans(&self, call: &Call) -> impl Iterator<Item = usize> {
        self.in_force(call).map(|limit| limit.plan)
    }

    fn in_force(&self, call: &Call) -> impl Iterator<Item = &InForce> {
        let of = self.limits.get(call.tenant).map_or(&[][..], Vec::as_slice);
        of.iter().filter(|limit| limit.until_us > call.asked_us)
    }

    /// The newest plan of a tenant.
    pub fn plan(&self, tenant: usize) -> usize {
        self.limits.get(tenant).and_then(|limits| limits.last()).map_or(0, |limit| limit.plan)
    }

    /// The newest limit of a tenant.
    pub fn max(&self, tenant: usize) -> u64 {
        self.limits[tenant].last().map_or(u64::MAX, |limit| limit.max)
    }

    /// A process begins at this hour.
    pub fn begins(&mut self, node: usize, now: Micros) {
        let on = &mut self.on[node];
        on.foreign.clear();
        on.known = [Window::Month, Window::Day].map(|window| {
            let current = window.period(now);
            let next = window.period(current.end());
            let before = current.previous();
            vec![before.previous(), before, current, next, window.period(next.end())]
        });
    }

    pub fn asks(
        &mut self,
        of: (usize, u32),
        (tenant, is_chat, has_user): (usize, bool, bool),
        pending: Form,
        now_us: u64,
    ) -> usize {
        let (node, life) = of;
        self.calls.push(Call {
            node,
            life,
            tenant,
            is_chat,
            has_user,
            claims: Vec::new(),
            id: None,
            periods: [None; 2],
            asked_us: now_us,
            since_us: now_us,
            state: State::Asking,
            reached: false,
            pending,
            expected: None,
            admitted_op: 0,
            admitted_durably: false,
            settled_op: None,
            settled_durably: false,
            settled_cleanly: false,
            may_be_missing: false,
            may_be_pending: false,
            may_be_phantom: false,
            booked: None,
            shared: Shared::default(),
        });
        self.calls.len() - 1
    }

    pub fn is_named(&mut self, call: usize, id: EventId, now: Micros) {
        self.by_id.insert(id, call);
        let call = &mut self.calls[call];
        call.id = Some(id);
        let periods = [Window::Month, Window::Day].map(|window| window.period(now));
        call.periods = periods.map(Some);
        let on = &mut self.on[call.node];
        for (known, period) in on.known.iter_mut().zip(periods) {
            // Of a window five periods are kept: one that the start did not foresee takes the place of the oldest.
            if !known.contains(&period) && on.foreign.insert(period) && !known.is_empty() {
                known.remove(0);
            }
        }
    }

    pub fn call_of(&mut self, id: EventId) -> Option<&mut Call> {
        self.by_id.get(&id).map(|at| &mut self.calls[*at])
    }

    /// A power cut took it before it was safe.
    pub fn is_lost(&self, id: EventId) -> bool {
        self.place_of(id).is_some_and(|call| self.calls[call].booked == Some(None))
    }

    pub fn place_of(&self, id: EventId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub fn is_refused(&mut self, call: usize, now_us: u64) {
        let call = &mut self.calls[call];
        let may_be_phantom = self.on[call.node].disk_is_suspect;
        (call.state, call.may_be_phantom, call.since_us) = (State::Refused, may_be_phantom, now_us);
    }

    /// Everything that was written before this operation of the disk is safe, and nothing is wrong with it.
    pub fn is_healed(&mut self, node: usize, op: u64) {
        let on = &mut self.on[node];
        on.safe_op = op;
        (on.disk_is_suspect, on.disk_was_full) = (false, false);
        for call in self.calls.iter_mut().filter(|call| call.node == node) {
            call.may_be_phantom = false;
        }
    }

    pub fn is_admitted(&mut self, call: usize, op: u64, durably: bool, now_us: u64) {
        let call = &mut self.calls[call];
        call.since_us = now_us;
        (call.state, call.admitted_op, call.admitted_durably) = (State::Open, op, durably);
    }

    /// The provider sees it. No limit may be passed by that.
    pub fn reaches(&mut self, call: usize) -> Result<(), String> {
        self.calls[call].reached = true;
        self.keeps_budgets(call)?;
        if !self.calls[call].is_chat {
            return Ok(());
        }
        let Call { node, tenant, periods, .. } = self.calls[call];
        let Some(period) = periods.get(tenant).copied() else { return Ok(()) };
        let Some(max) = self.maxima(&self.calls[call]).max().filter(|_| self.knows(node, period)) else {
            return Ok(());
        };
        let seen = self.count(tenant, tenant, period, |call| call.reached);
        let excused = self.excused(tenant, period);
        if seen > max + excused {
            let all = self.calls.iter().enumerate();
            let reached =
                all.filter(|(_, call)| call.is_of(tenant, tenant, period) && call.reached && call.chats() > 0);
            let reached: Vec<(usize, State)> = reached.map(|(at, call)| (at, call.state)).collect();
            return Err(format!(
                "the provider sees {seen} chats of {} in {period:?}, {max} is the limit, and {excused} are excused: {reached:?}",
                TENANTS[tenant]
            ));
        }
        self.over = self.over.max(seen.saturating_sub(max));
        Ok(())
    }

    /// Whether the counters of this life know all of a period. One that begins with a clock far beside the truth does not
    /// know the periods of the truth; it is none of the promises.
    pub fn knows(&self, node: usize, period: Option<Period>) -> bool {
        self.is_shared || period.is_some_and(|period| self.on[node].known.iter().any(|known| known.contains(&period)))
    }

    /// A chat is refused as used up: it must be. (Those that ask may hold their chat already, and those that were over
    /// after `since_us` may hold it still, and those of an earlier life of their node until it has to do with the tenant.)
    pub fn is_used_up(&self, call: usize, since_us: u64) -> Result<(), String> {
        let Call { tenant, periods, .. } = self.calls[call];
        let max = self.maxima(&self.calls[call]).min().unwrap_or(u64::MAX);
        let period = periods.get(tenant).copied().flatten();
        let taken = self.count(tenant, tenant, period, |_| true);
        let on = &self.on;
        let is_over = |call: &Call| call.since_us < since_us && call.life == on[call.node].life;
        let given_back = |call: &&Call| call.is_of(tenant, tenant, period) && call.chats() == 0 && !is_over(call);
        let given_back = self.calls.iter().filter(given_back).count() as u64;
        // The call that is refused asks, too.
        if (taken + given_back).saturating_sub(1) < max {
            return Err(format!(
                "a chat of {} is refused with {taken} of {max} taken, and {given_back} given back just now, or nobody knows",
                TENANTS[tenant]
            ));
        }
        Ok(())
    }

    /// Chats of a tenant that count in a period, or may.
    pub fn count(&self, tenant: usize, window: usize, period: Option<Period>, which: impl Fn(&Call) -> bool) -> u64 {
        let counts = |call: &&Call| call.is_of(tenant, window, period) && which(call);
        self.calls.iter().filter(counts).map(Call::chats).sum()
    }

    /// The call is dropped where it stands. `op`: the disk's next operation, unless the process died meanwhile.
    pub fn is_dropped(&mut self, call: usize, op: Option<u64>, dropped: &Form, unsent: &Form, now_us: u64) {
        let call = &mut self.calls[call];
        let suspect = self.on[call.node].disk_is_suspect;
        match call.state {
            State::Asking => {
                // Nobody knows whether it was admitted.
                call.may_be_missing = true;
                call.expected = Some(unsent.clone());
                call.admitted_op = op.unwrap_or(u64::MAX);
            }
            State::Open => call.expected = Some(dropped.clone()),
            State::Settling => {}
            State::Refused | State::Settled | State::Killed => return,
        }
        call.state = if op.is_some() { State::Settled } else { State::Settling };
        call.since_us = now_us;
        (call.settled_op, call.settled_cleanly) = (op, !suspect);
    }

    pub fn is_settling(&mut self, call: usize, expected: Form, now_us: u64) {
        let call = &mut self.calls[call];
        call.since_us = now_us;
        (call.state, call.expected) = (State::Settling, Some(expected));
    }

    pub fn is_settled(&mut self, call: usize, op: u64, durably: bool, now_us: u64) {
        let call = &mut self.calls[call];
        let suspect = self.on[call.node].disk_is_suspect;
        call.since_us = now_us;
        (call.state, call.settled_op, call.settled_durably) = (State::Settled, Some(op), durably);
        call.settled_cleanly = !suspect;
    }

    /// The process is gone, and with the power what was not safe.
    pub fn dies(
        &mut self,
        node: usize,
        power_cut: bool,
        booked: impl Fn(EventId) -> Option<UsageEvent>,
    ) -> Result<(), String> {
        self.verify_booked(node, &booked)?;
        let its = |call: &&mut Call| call.node == node;
        if power_cut && self.on[node].began_on_lost_pages {
            // What was found at the start was not on the disk: a sync had failed, and its process was killed before it
            // could write everything again.
            for call in self.calls.iter_mut().filter(its).filter(|call| call.id.is_some_and(|id| booked(id).is_none()))
            {
                (call.booked, call.may_be_missing, call.may_be_pending) = (None, true, true);
            }
        }
        let safe_op = self.on[node].safe_op;
        for call in self.calls.iter_mut().filter(its).filter(|call| call.booked.is_none()) {
            match call.state {
                State::Refused => continue,
                // Nobody outside knows how far it came.
                State::Asking => (call.may_be_missing, call.may_be_pending) = (true, true),
                State::Open | State::Settling => call.may_be_pending = true,
                State::Settled | State::Killed => {}
            }
            let is_admission_safe = call.admitted_durably || call.admitted_op <= safe_op;
            let is_settlement_safe = match call.settled_op {
                // What a full or failing disk did not take may wait in memory, whatever was synced since.
                Some(op) => call.settled_durably || (call.settled_cleanly && (op <= safe_op || !power_cut)),
                None => false,
            };
            call.may_be_pending |= !is_settlement_safe;
            call.may_be_missing |= power_cut && !is_admission_safe;
            if !matches!(call.state, State::Settled) {
                call.state = State::Killed;
            }
        }
        self.on[node].disk_is_suspect = false;
        Ok(())
    }

    /// Checks what the ledger has of calls that were settled.
    fn verify_booked(&mut self, node: usize, booked: impl Fn(EventId) -> Option<UsageEvent>) -> Result<(), String> {
        let its = |(_, call): &(usize, &mut Call)| call.node == node && call.booked.is_none();
        for (number, call) in self.calls.iter_mut().enumerate().filter(its) {
            if let Some(event) = call.id.and_then(&booked) {
                call.verify(number, Some(&event))?;
            }
        }
        Ok(())
    }

    /// Checks every call of a node that is over: it is in the ledger or on its way there, if it is not in quarantine. Gives how many
    /// were lost to a power cut.
    pub fn verify(
        &mut self,
        node: usize,
        quarantined: &BTreeSet<EventId>,
        booked: impl Fn(EventId) -> Option<UsageEvent>,
    ) -> Result<u64, String> {
        let mut lost = 0;
        let its = |(_, call): &(usize, &mut Call)| call.node == node && call.booked.is_none();
        for (number, call) in self.calls.iter_mut().enumerate().filter(its) {
            let Some(id) = call.id.filter(|id| !quarantined.contains(id)) else { continue };
            if call.may_be_phantom && booked(id).is_some() {
                (call.state, call.may_be_pending) = (State::Killed, true);
            }
            if call.state != State::Refused {
                lost += call.verify(number, booked(id).as_ref())?;
            }
        }
        Ok(lost)
    }

    /// Checks that the ledger has every call as it was seen before, except those in quarantine.
    pub fn verify_ledger(
        &self,
        node: usize,
        quarantined: &BTreeSet<EventId>,
        booked: impl Fn(EventId) -> Option<UsageEvent>,
    ) -> Result<(), String> {
        for (number, call) in self.calls.iter().enumerate().filter(|(_, call)| call.node == node) {
            let (Some(id), Some(form)) = (call.id, &call.booked) else { continue };
            let in_ledger = booked(id).as_ref().map(Form::of);
            if in_ledger != *form && !quarantined.contains(&id) {
                return Err(format!("call {number} is in the ledger as {in_ledger:?}, but: {call:?}"));
            }
        }
        Ok(())
    }

    /// The periods in which a tenant has calls of one life.
    pub fn periods_of(&self, tenant: usize, of: (usize, u32)) -> Vec<Period> {
        let calls = self.calls.iter().filter(|call| call.tenant == tenant && (call.node, call.life) == of);
        let periods: BTreeSet<Period> = calls.flat_map(|call| call.periods).flatten().collect();
        periods.into_iter().filter(|period| self.knows(of.0, Some(*period))).collect()
    }

    /// Events of calls that a node's journal has as settled.
    pub fn settled(&self, node: usize) -> Vec<EventId> {
        let safe_op = self.on[node].safe_op;
        let is_written = |call: &Call| call.settled_cleanly || call.settled_op.is_some_and(|op| op <= safe_op);
        let is_settled = |call: &&Call| call.node == node && call.state == State::Settled && !call.may_be_missing;
        let settled = self.calls.iter().filter(is_settled).filter(|call| is_written(call));
        settled.filter_map(|call| call.id).collect()
    }

    /// What all calls of a tenant in a period come to.
    pub fn sums(&self, tenant: usize, window: usize, period: Period) -> [i128; 4] {
        let of = |call: &&Call| call.tenant == tenant && call.periods[window] == Some(period);
        let booked = self.calls.iter().filter(of).filter_map(|call| call.booked.as_ref()?.as_ref());
        booked.fold([0; 4], |[chats, prompt, completion, pico_usd], form| {
            [
                chats + i128::from(form.chats),
                prompt + i128::from(form.prompt),
                completion + i128::from(form.completion),
                pico_usd + form.pico_usd,
            ]
        })
    }

    /// Each event in the ledger belongs to one call that was not refused.
    pub fn owns(&self, events: &[UsageEvent]) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        for event in events {
            let Some(call) = self.by_id.get(&event.id) else {
                return Err(format!("nobody made the call of event {}: {event:?}", event.id));
            };
            if self.calls[*call].state == State::Refused {
                return Err(format!("call {call} was refused and is booked: {event:?}"));
            }
            if seen.insert(event.id, ()).is_some() {
                return Err(format!("call {call} is booked twice"));
            }
        }
        Ok(())
    }
}

impl Call {
    /// Whether it is a chat of that tenant in that period.
    pub fn is_of(&self, tenant: usize, window: usize, period: Option<Period>) -> bool {
        self.tenant == tenant && self.is_chat && self.periods[window] == period && self.id.is_some()
    }

    /// Whether its month or day is over for longer than counters go back.
    pub fn is_past(&self, now: Micros) -> bool {
        let floors = [Window::Month, Window::Day].map(|window| window.period(now).previous());
        self.periods.iter().zip(floors).any(|(period, floor)| period.is_some_and(|period| period < floor))
    }

    /// What it takes of a limit, as far as anybody knows.
    pub fn chats(&self) -> u64 {
        match (&self.booked, self.state, &self.expected) {
            (Some(booked), ..) => booked.as_ref().map_or(0, |form| form.chats),
            (None, State::Refused, _) => 0,
            (None, State::Settling | State::Settled, Some(expected)) => expected.chats,
            (None, ..) => 1,
        }
    }

    fn verify(&mut self, number: usize, event: Option<&UsageEvent>) -> Result<u64, String> {
        let form = event.map(Form::of);
        let is_right = match &form {
            None => self.may_be_missing,
            Some(form) => self.expected.as_ref() == Some(form) || (self.may_be_pending && self.pending == *form),
        };
        if !is_right {
            return Err(format!("call {number} is booked as {form:?}, but: {self:?}"));
        }
        form.as_ref().map_or(Ok(()), |form| self.keeps_within(number, form))?;
        let is_lost = form.is_none() && self.reached;
        self.booked = Some(form);
        Ok(u64::from(is_lost))
    }
}
