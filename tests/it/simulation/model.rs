//! What must be true of the books, known from the other side: what was asked, what the provider saw and charged, and what
//! a kill or a power cut may take.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::domain::event::{Outcome, UsageEvent, UsageSource};
use tollgate::domain::ids::EventId;
use tollgate::domain::time::{Micros, Period, Window};

use super::world::Setup;

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
    life: u32,
    pub tenant: usize,
    pub is_chat: bool,
    pub id: Option<EventId>,
    periods: [Option<Period>; 2],
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
}

pub struct Model {
    limits: [Option<u64>; 2],
    /// The periods that the counters of this life know, of each window.
    known: [Vec<Period>; 2],
    /// Others that calls of this life fell into.
    foreign: BTreeSet<Period>,
    pub calls: Vec<Call>,
    by_id: BTreeMap<EventId, usize>,
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
            limits: [Some(setup.month_max), Some(setup.day_max)],
            known: [Vec::new(), Vec::new()],
            foreign: BTreeSet::new(),
            calls: Vec::new(),
            by_id: BTreeMap::new(),
            safe_op: 0,
            began_on_lost_pages: false,
            disk_is_suspect: false,
            disk_was_full: false,
        }
    }

    /// A process begins at this hour.
    pub fn begins(&mut self, now: Micros) {
        self.foreign.clear();
        self.known = [Window::Month, Window::Day].map(|window| {
            let current = window.period(now);
            let next = window.period(current.end());
            vec![current.previous(), current, next, window.period(next.end())]
        });
    }

    pub fn asks(&mut self, life: u32, tenant: usize, is_chat: bool, pending: Form) -> usize {
        self.calls.push(Call {
            life,
            tenant,
            is_chat,
            id: None,
            periods: [None; 2],
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
        });
        self.calls.len() - 1
    }

    pub fn is_named(&mut self, call: usize, id: EventId, now: Micros) {
        self.by_id.insert(id, call);
        let call = &mut self.calls[call];
        call.id = Some(id);
        let periods = [Window::Month, Window::Day].map(|window| window.period(now));
        call.periods = periods.map(Some);
        for (known, period) in self.known.iter_mut().zip(periods) {
            // Of a window four periods are kept: one that the start did not foresee takes the place of the oldest.
            if !known.contains(&period) && self.foreign.insert(period) && !known.is_empty() {
                known.remove(0);
            }
        }
    }

    pub fn is_refused(&mut self, call: usize) {
        let may_be_phantom = self.disk_is_suspect;
        let call = &mut self.calls[call];
        (call.state, call.may_be_phantom) = (State::Refused, may_be_phantom);
    }

    /// Everything that was written before this operation of the disk is safe, and nothing is wrong with it.
    pub fn is_healed(&mut self, op: u64) {
        self.safe_op = op;
        (self.disk_is_suspect, self.disk_was_full) = (false, false);
        for call in &mut self.calls {
            call.may_be_phantom = false;
        }
    }

    pub fn is_admitted(&mut self, call: usize, op: u64, durably: bool) {
        let call = &mut self.calls[call];
        (call.state, call.admitted_op, call.admitted_durably) = (State::Open, op, durably);
    }

    /// The provider sees it. No limit may be passed by that.
    pub fn reaches(&mut self, call: usize) -> Result<(), String> {
        self.calls[call].reached = true;
        if !self.calls[call].is_chat {
            return Ok(());
        }
        let Call { tenant, periods, .. } = self.calls[call];
        for (limit, (at, period)) in self.limits.iter().zip(periods.iter().enumerate()) {
            let Some(max) = limit.filter(|_| tenant == at && self.knows(*period)) else { continue };
            let seen = self.count(tenant, at, *period, |call| call.reached);
            if seen > max {
                return Err(format!(
                    "the provider sees {seen} chats of {} in {period:?}, {max} is the limit",
                    TENANTS[tenant]
                ));
            }
        }
        Ok(())
    }

    /// Whether the counters of this life know all of a period. One that begins with a clock far beside the truth does not
    /// know the periods of the truth; it is none of the promises.
    fn knows(&self, period: Option<Period>) -> bool {
        period.is_some_and(|period| self.known.iter().any(|known| known.contains(&period)))
    }

    /// A chat is refused as used up: it must be. (Those that ask may hold their chat already.)
    pub fn is_used_up(&self, call: usize) -> Result<(), String> {
        let Call { tenant, periods, .. } = self.calls[call];
        let max = self.limits.get(tenant).copied().flatten().unwrap_or(u64::MAX);
        let taken = self.count(tenant, tenant, periods.get(tenant).copied().flatten(), |_| true);
        // The call that is refused asks, too.
        if taken.saturating_sub(1) < max {
            return Err(format!("a chat of {} is refused with {taken} of {max} taken", TENANTS[tenant]));
        }
        Ok(())
    }

    /// Chats of a tenant that count in a period, or may.
    fn count(&self, tenant: usize, window: usize, period: Option<Period>, which: impl Fn(&Call) -> bool) -> u64 {
        let counts = |call: &&Call| {
            call.tenant == tenant && call.is_chat && call.periods[window] == period && call.id.is_some() && which(call)
        };
        self.calls.iter().filter(counts).map(Call::chats).sum()
    }

    /// The call is dropped where it stands. `op`: the disk's next operation, unless the process died meanwhile.
    pub fn is_dropped(&mut self, call: usize, op: Option<u64>, dropped: &Form, unsent: &Form) {
        let suspect = self.disk_is_suspect;
        let call = &mut self.calls[call];
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
        (call.settled_op, call.settled_cleanly) = (op, !suspect);
    }

    pub fn is_settling(&mut self, call: usize, expected: Form) {
        let call = &mut self.calls[call];
        (call.state, call.expected) = (State::Settling, Some(expected));
    }

    pub fn is_settled(&mut self, call: usize, op: u64, durably: bool) {
        let suspect = self.disk_is_suspect;
        let call = &mut self.calls[call];
        (call.state, call.settled_op, call.settled_durably) = (State::Settled, Some(op), durably);
        call.settled_cleanly = !suspect;
    }

    /// The process is gone, and with the power what was not safe.
    pub fn dies(&mut self, power_cut: bool, booked: impl Fn(EventId) -> Option<UsageEvent>) -> Result<(), String> {
        self.verify_booked(&booked)?;
        if power_cut && self.began_on_lost_pages {
            // What was found at the start was not on the disk: a sync had failed, and its process was killed before it
            // could write everything again.
            for call in self.calls.iter_mut().filter(|call| call.id.is_some_and(|id| booked(id).is_none())) {
                (call.booked, call.may_be_missing, call.may_be_pending) = (None, true, true);
            }
        }
        let safe_op = self.safe_op;
        for call in self.calls.iter_mut().filter(|call| call.booked.is_none()) {
            match call.state {
                State::Refused => continue,
                // Nobody outside knows how far it came.
                State::Asking => (call.may_be_missing, call.may_be_pending) = (true, true),
                State::Open | State::Settling => call.may_be_pending = true,
                State::Settled | State::Killed => {}
            }
            let is_admission_safe = call.admitted_durably || call.admitted_op <= safe_op;
            let is_settlement_safe = match call.settled_op {
                Some(op) => call.settled_durably || op <= safe_op || (!power_cut && call.settled_cleanly),
                None => false,
            };
            call.may_be_pending |= !is_settlement_safe;
            call.may_be_missing |= power_cut && !is_admission_safe;
            if !matches!(call.state, State::Settled) {
                call.state = State::Killed;
            }
        }
        self.disk_is_suspect = false;
        Ok(())
    }

    /// Checks what the ledger has of calls that were settled.
    fn verify_booked(&mut self, booked: impl Fn(EventId) -> Option<UsageEvent>) -> Result<(), String> {
        for (number, call) in self.calls.iter_mut().enumerate().filter(|(_, call)| call.booked.is_none()) {
            if let Some(event) = call.id.and_then(&booked) {
                call.verify(number, Some(&event))?;
            }
        }
        Ok(())
    }

    /// Checks every call that is over: it is in the ledger or on its way there, if it is not in quarantine. Gives how many
    /// were lost to a power cut.
    pub fn verify(
        &mut self,
        quarantined: &BTreeSet<EventId>,
        booked: impl Fn(EventId) -> Option<UsageEvent>,
    ) -> Result<u64, String> {
        let mut lost = 0;
        for (number, call) in self.calls.iter_mut().enumerate().filter(|(_, call)| call.booked.is_none()) {
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
        quarantined: &BTreeSet<EventId>,
        booked: impl Fn(EventId) -> Option<UsageEvent>,
    ) -> Result<(), String> {
        for (number, call) in self.calls.iter().enumerate() {
            let (Some(id), Some(form)) = (call.id, &call.booked) else { continue };
            let in_ledger = booked(id).as_ref().map(Form::of);
            if in_ledger != *form && !quarantined.contains(&id) {
                return Err(format!("call {number} is in the ledger as {in_ledger:?}, but: {call:?}"));
            }
        }
        Ok(())
    }

    /// The periods in which a tenant has calls of one life.
    pub fn periods_of(&self, tenant: usize, life: u32) -> Vec<Period> {
        let calls = self.calls.iter().filter(|call| call.tenant == tenant && call.life == life);
        let periods: BTreeSet<Period> = calls.flat_map(|call| call.periods).flatten().collect();
        periods.into_iter().filter(|period| self.knows(Some(*period))).collect()
    }

    /// Events of calls that the journal has as settled.
    pub fn settled(&self) -> Vec<EventId> {
        let is_written = |call: &Call| call.settled_cleanly || call.settled_op.is_some_and(|op| op <= self.safe_op);
        let settled =
            self.calls.iter().filter(|call| call.state == State::Settled && !call.may_be_missing && is_written(call));
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
    /// What it takes of a limit, as far as anybody knows.
    fn chats(&self) -> u64 {
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
        let is_lost = form.is_none() && self.reached;
        self.booked = Some(form);
        Ok(u64::from(is_lost))
    }
}
