//! What one gateway knows of one tenant: its own calls, its lease, and what it has to tell. No I/O and no waiting.
//!
//! May use: `domain`, `ports`.
//!
//! A call is *listed* when the shared store is known to have it. One that was admitted from the lease is not at first: the
//! note that lists it says so, and says it again until it is acknowledged. Whatever becomes of a call only marks it; the
//! notes that are due are made when there is somebody to carry them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::ids::EventId;
use crate::domain::plan::Standing;
use crate::ports::counters::{Claim, CounterKey};
use crate::ports::shared::{CallState, Count, Epoch, Joined, LeaseAsk, Listing, Note};

/// Notes in one message: some 20 kB, and half a millisecond of the store's time.
pub(super) const NOTES_MAX: usize = 250;

/// The recorder tells within this that an event is booked, unless the ledger did not answer, which it tells too.
const LATE_US: u64 = 1_000_000;

/// After no lease was to be had, because little is left or the store does not answer, each call asks for itself.
const DECLINED_FOR_US: u64 = 100_000;

/// What is known of a tenant.
#[derive(Default)]
pub(super) struct Local {
    /// The epoch that this node is a part of, as far as it knows.
    epoch: Option<Epoch>,
    /// The last one that it was a part of.
    last: Option<Epoch>,
    /// Grows with each attempt to join: an answer from before one says nothing.
    joins: u64,
    joined_us: u64,
    is_joining: bool,
    /// The last attempt to join has had no answer: the store may list calls as they were then.
    is_unsure: bool,
    /// A message that has had no answer may be done until then: nothing is told before, as that would come after it.
    quiet_until_us: u64,
    calls: HashMap<EventId, Call>,
    /// Calls from leases, in flight, settled or booked, that are not known to be listed.
    unlisted: u64,
    dirty: VecDeque<EventId>,
    /// How often something was found that may be counted twice.
    doubts: u64,
    /// How many of them there were when calls were listed for the last attempt to join.
    doubts_listed: u64,
    /// How many of them are over, as all was built anew since. While there are others nothing is told.
    doubts_over: u64,
    /// It joins, and is not known to be open again. What is counted meanwhile without a hold is not listed, and may be in the
    /// sums that are read of the ledger.
    is_building: bool,
    /// When it was known to be open.
    open_us: u64,
    lease: Lease,
    denial: Option<Denial>,
    /// Notes are under way: one message at a time, so that they arrive in order.
    is_sending: bool,
    /// It stands in the courier's queue.
    pub is_queued: bool,
    /// Whoever waits for the tenant to be open.
    pub opened: Arc<Notify>,
    /// Whoever waits for a lease that a call before asks for.
    pub leased: Arc<Notify>,
    /// Whoever waits for a message that is under way.
    pub arrived: Arc<Notify>,
}

struct Call {
    amounts: Vec<(CounterKey, u64)>,
    state: State,
    is_listed: bool,
    /// A message that went out may have listed it.
    is_told: bool,
    is_dirty: bool,
    /// Which lease it was taken from; 0 for none.
    lease: u64,
    /// Nothing is said of it before: a hold that was given up may be done until then.
    not_before_us: u64,
    /// It came without a hold while the tenant was being built.
    is_late: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It asks to be held, and is not yet.
    Asked,
    Is(CallState),
}

/// Units that calls with these claims may have without asking.
#[derive(Default)]
struct Lease {
    /// Another number for each one.
    number: u64,
    units: u64,
    claims: Vec<Claim>,
    /// How the counters of these claims stood, with what this node did since.
    counts: Vec<Count>,
    until_us: u64,
    used_us: u64,
    /// A message about it is under way: no other may be.
    is_busy: bool,
    /// One that has had no answer may be done until then.
    busy_until_us: u64,
    /// A call with these claims asks for one along: those with the same ones wait for that.
    asked_for: Vec<Claim>,
    /// None was to be had: until then no call asks for one.
    declined_until_us: u64,
    /// The store is to hear what is left.
    is_news: bool,
    /// The store may have one of this node, whatever this node knows of it.
    is_granted: bool,
}

/// A refusal that holds for as long as the limit and the epoch are the same: what is used of it is never less again.
struct Denial {
    counter: CounterKey,
    max: u64,
    standing: Standing,
}

/// What to do with a call.
pub(super) enum Begin {
    /// It is admitted.
    Held(Vec<Standing>),
    /// It is refused.
    Refused { claim: usize, standing: Standing },
    /// The store is to be asked.
    Ask(Asking),
    /// The others do not know yet that this node is there, or it is joining, or a lease is on its way, or word that the call
    /// is gone: there is more to say after that.
    Wait,
}

/// A call that asks the store.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    pub is_alone: bool,
    pub lease: Option<LeaseAsk>,
    joins: u64,
    at_us: u64,
}

/// A lease that a node would have: so many units at most, at most one part in so many of what is left, for so long.
pub(super) type Wish = (u64, u64, Duration);

/// Notes for one message.
pub(super) struct Batch {
    pub epoch: Epoch,
    pub notes: Vec<Note>,
    pub lease_left: Option<u64>,
}

impl Local {
    /// A call comes in. `is_live`: others know that this node is there, so its calls are waited for where counters are built.
    pub(super) fn begin(&mut self, id: EventId, claims: &[Claim], now_us: u64, is_live: bool) -> Begin {
        if self.lease.units > 0 && self.lease.until_us <= now_us {
            self.end_lease();
        }
        // One with other claims leaves it to the others, and asks for itself.
        if is_live
            && self.lease.claims == claims
            && let Some(standings) = self.take(id, now_us, 0)
        {
            return Begin::Held(standings);
        }
        if let Some(Denial { counter, max, standing }) = &self.denial
            && let Some(at) = claims.iter().position(|claim| claim.max == Some(*max) && claim.counter == *counter)
        {
            return Begin::Refused { claim: at, standing: *standing };
        }
        let is_asked_for = !claims.is_empty() && self.lease.asked_for == claims;
        if !is_live || self.is_joining || is_asked_for || self.may_go(id, now_us) {
            return Begin::Wait;
        }
        let has_calls = self.calls.values().any(|call| call.state != State::Asked && !call.is_gone());
        // One that was a part of an epoch before joins, which tells whether this is another one.
        let is_alone = !has_calls && (self.epoch.is_some() || self.last.is_none());
        let call = Call {
            amounts: Vec::new(),
            state: State::Asked,
            is_listed: true,
            is_told: true,
            is_dirty: false,
            lease: 0,
            not_before_us: 0,
            is_late: false,
        };
        // It may be one that asked before, and was given up: for other claims, if its plan was changed meanwhile.
        let call = self.calls.entry(id).or_insert(call);
        (call.state, call.not_before_us) = (State::Asked, 0);
        call.amounts = amounts(claims, |_, claim| claim.amount);
        Begin::Ask(Asking { is_alone, lease: None, joins: self.joins, at_us: now_us })
    }

    /// Whether a message that says that the call is gone may be done yet: it asked before, and the tenant was changed. What is
    /// held before that is lost with it.
    fn may_go(&self, id: EventId, now_us: u64) -> bool {
        let is_told =
            |call: &Call| call.is_gone() && ((self.is_sending && !call.is_dirty) || self.quiet_until_us > now_us);
        self.calls.get(&id).is_some_and(is_told)
    }

    /// Admits a call from what is left of the lease, also if that is over or the node was not heard of: for a plan that
    /// says so while the store is away. A question that it asked may be answered until `late_us`.
    pub(super) fn take_leftover(
        &mut self,
        id: EventId,
        claims: &[Claim],
        now_us: u64,
        late_us: u64,
    ) -> Option<Vec<Standing>> {
        (self.lease.claims == claims).then(|| self.take(id, now_us, late_us)).flatten()
    }

    fn take(&mut self, id: EventId, now_us: u64, late_us: u64) -> Option<Vec<Standing>> {
        self.lease.units = self.lease.units.checked_sub(1)?;
        self.lease.used_us = now_us;
        let amounts = amounts(&self.lease.claims, |_, claim| claim.amount);
        for (count, claim) in self.lease.counts.iter_mut().zip(&self.lease.claims) {
            count.held = count.held.saturating_add(claim.amount);
        }
        let call = Call {
            amounts,
            state: State::Is(CallState::Held),
            is_listed: false,
            // It may have asked before, and been taken though no answer came.
            is_told: self.calls.contains_key(&id),
            is_dirty: false,
            lease: self.lease.number,
            not_before_us: late_us,
            is_late: false,
        };
        self.calls.insert(id, call);
        self.unlisted = self.unlisted.saturating_add(1);
        self.mark(id);
        Some(self.lease.counts.iter().map(standing).collect())
    }

    /// Lets this call ask for a lease along, unless a message about it is under way. A unit is one of each claim.
    pub(super) fn with_lease(&mut self, asking: &mut Asking, claims: &[Claim], (units_max, parts, lasts): Wish) {
        if claims.iter().any(|claim| claim.amount != 1) {
            return;
        }
        let is_free = !self.lease.is_busy && asking.at_us >= self.lease.busy_until_us;
        let is_declined = asking.at_us < self.lease.declined_until_us;
        if is_free && !is_declined && self.lease.units == 0 {
            (self.lease.is_busy, self.lease.is_granted) = (true, true);
            self.lease.asked_for = claims.to_vec();
            asking.lease = Some(LeaseAsk { units_max, parts, lasts, left: self.unlisted });
        }
    }

    /// The question is over, whatever came of it. `late_us`: it had no answer, and may be done until then. The lease is
    /// declined where there is no answer, or one to the call alone.
    pub(super) fn asked(&mut self, asking: &Asking, late_us: Option<u64>, is_declined: bool) {
        if asking.lease.is_some() {
            self.lease.is_busy = false;
            self.lease.asked_for.clear();
            if let Some(late_us) = late_us {
                // What may be leased is given back.
                (self.lease.busy_until_us, self.lease.is_news) = (late_us, true);
            }
            if is_declined {
                self.lease.declined_until_us = asking.at_us.saturating_add(DECLINED_FOR_US);
            }
            self.leased.notify_waiters();
        }
    }

    /// The store took the call in. `None` if that says nothing, because this node joined anew meanwhile: ask again.
    pub(super) fn held(
        &mut self,
        id: EventId,
        claims: &[Claim],
        asking: &Asking,
        (epoch, counts, leased): (Epoch, &[Count], u64),
    ) -> Option<Vec<Standing>> {
        if self.joins != asking.joins {
            return None;
        }
        if self.epoch != Some(epoch) {
            self.unjoin();
            (self.epoch, self.last) = (Some(epoch), Some(epoch));
        }
        self.calls.get_mut(&id)?.state = State::Is(CallState::Held);
        if let Some(wish) = asking.lease.filter(|_| leased > 0) {
            // The second half of its time is for telling the calls that were taken from it: one that the store hears of
            // after the lease is over may have its room given away.
            let lasts = wish.lasts / 2;
            self.lease.number = self.lease.number.saturating_add(1);
            self.lease.units = leased;
            self.lease.until_us = asking.at_us.saturating_add(micros(lasts));
            self.lease.used_us = asking.at_us;
            self.lease.claims = claims.to_vec();
        }
        if self.lease.claims == claims {
            let unlisted = self.unlisted;
            let with_own = |count: &Count| Count { held: count.held.saturating_add(unlisted), ..*count };
            self.lease.counts = counts.iter().map(with_own).collect();
        }
        Some(counts.iter().map(standing).collect())
    }

    /// The store refused the call.
    pub(super) fn refused(&mut self, id: EventId, claims: &[Claim], claim: usize, count: &Count) -> Standing {
        self.calls.remove(&id);
        let standing = standing(count);
        if let Some(claim) = claims.get(claim)
            && standing.held == 0
            && let Some(max) = claim.max.filter(|max| standing.used >= *max)
        {
            self.denial = Some(Denial { counter: claim.counter.clone(), max, standing });
        }
        standing
    }

    /// The call is not known to be held, and never will be from `not_before_us` on.
    pub(super) fn abandoned(&mut self, id: EventId, not_before_us: u64) {
        if let Some(call) = self.calls.get_mut(&id).filter(|call| call.state == State::Asked) {
            (call.state, call.not_before_us) = (State::Is(CallState::Gone), not_before_us);
            self.mark(id);
        }
    }

    /// A call is over. One that is not known counts from now on.
    pub(super) fn settle(&mut self, id: EventId, used: &[(CounterKey, u64)]) {
        let given_back = used.iter().all(|(_, used)| *used == 0);
        let Some(call) = self.calls.get_mut(&id) else {
            if !given_back {
                self.adopt(id, used.to_vec());
            }
            return;
        };
        if !matches!(call.state, State::Asked | State::Is(CallState::Held)) {
            return;
        }
        for (count, claim) in self.lease.counts.iter_mut().zip(&self.lease.claims) {
            let of = |amounts: &[(CounterKey, u64)]| {
                amounts.iter().find(|(counter, _)| *counter == claim.counter).map_or(0, |(_, amount)| *amount)
            };
            count.held = count.held.saturating_sub(of(&call.amounts));
            count.settled = count.settled.saturating_add(of(used));
        }
        call.state = State::Is(if given_back { CallState::Gone } else { CallState::Settled });
        if !given_back {
            call.amounts = used.to_vec();
        }
        if given_back && !call.is_told {
            // Nobody was told of it: its unit is the lease's again.
            let is_of_lease = call.lease == self.lease.number;
            self.calls.remove(&id);
            self.unlisted = self.unlisted.saturating_sub(1);
            self.lease.units = self.lease.units.saturating_add(u64::from(is_of_lease));
            return;
        }
        self.mark(id);
    }

    /// Takes a call in that the store may not have: it counts, also beyond a limit.
    pub(super) fn adopt(&mut self, id: EventId, amounts: Vec<(CounterKey, u64)>) {
        let (state, is_late) = (State::Is(CallState::Settled), self.is_building);
        let call = Call {
            amounts,
            state,
            is_listed: false,
            is_told: false,
            is_dirty: false,
            lease: 0,
            not_before_us: 0,
            is_late,
        };
        self.calls.insert(id, call);
        self.mark(id);
    }

    /// The ledger had the call before it was written: what was counted may have been counted by another node, if it is a bill.
    pub(super) fn doubt(&mut self, id: EventId, is_bill: bool) {
        let is_doubtful = is_bill || self.calls.get(&id).is_some_and(|call| call.is_late);
        self.doubts = self.doubts.saturating_add(u64::from(is_doubtful));
    }

    /// The tenant is known to be open.
    pub(super) fn is_open(&mut self, now_us: u64) {
        if std::mem::replace(&mut self.is_building, false) {
            self.open_us = now_us;
        }
    }

    /// Whether all is to be built anew, whatever the store has.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubts > self.doubts_over
    }

    /// The ledger has the call.
    pub(super) fn booked(&mut self, id: EventId, now_us: u64) {
        let is_late = self.calls.get(&id).is_some_and(|call| call.is_late);
        // It may have had it when it was read. Where it has it only now, it did not.
        let is_doubtful = is_late && (self.is_building || now_us < self.open_us.saturating_add(LATE_US));
        self.doubts = self.doubts.saturating_add(u64::from(is_doubtful));
        if let Some(call) = self.calls.get_mut(&id).filter(|call| !call.is_gone()) {
            call.state = State::Is(CallState::Booked);
            self.mark(id);
        }
    }

    fn mark(&mut self, id: EventId) {
        if let Some(call) = self.calls.get_mut(&id).filter(|call| !call.is_dirty) {
            call.is_dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.dirty.is_empty() || self.lease.is_news || self.is_doubtful()
    }

    /// Whether it must join before it can tell anything.
    pub(super) fn must_join(&self) -> bool {
        self.epoch.is_none()
    }

    /// Whether it was a part of the tenant when it asked, and still is.
    pub(super) fn is_part(&self, asking: &Asking) -> bool {
        self.epoch.is_some() && self.joins == asking.joins
    }

    /// Calls of which the store does not know the newest.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.len()
    }

    /// Units that are left.
    pub(super) fn leased(&self) -> u64 {
        self.lease.units
    }

    /// The next message, if there is something to tell and none is under way. It ends with [`Self::told`] or
    /// [`Self::not_told`].
    pub(super) fn batch(&mut self, now_us: u64) -> Option<Batch> {
        let may_tell = !self.is_sending && !self.is_doubtful() && self.quiet_until_us <= now_us;
        let epoch = self.epoch.filter(|_| may_tell)?;
        let mut notes = Vec::new();
        for _ in 0..self.dirty.len() {
            if notes.len() >= NOTES_MAX {
                break;
            }
            let Some(id) = self.dirty.pop_front() else { break };
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if call.not_before_us > now_us {
                self.dirty.push_back(id);
                continue;
            }
            call.is_dirty = false;
            if let Some(note) = call.note(id) {
                call.is_told = true;
                notes.push(note);
            }
        }
        let is_free = !self.lease.is_busy && self.lease.busy_until_us <= now_us;
        let lease_left = (self.lease.is_news && is_free).then(|| {
            self.lease.is_busy = true;
            let told = notes.iter().filter(|note| note.listing == Listing::FromLease).count();
            let told = u64::try_from(told).unwrap_or(u64::MAX);
            self.lease.units.saturating_add(self.unlisted.saturating_sub(told))
        });
        if notes.is_empty() && lease_left.is_none() {
            return None;
        }
        self.is_sending = true;
        Some(Batch { epoch, notes, lease_left })
    }

    /// The store has a message. What became of its calls meanwhile is told with the next.
    pub(super) fn told(&mut self, batch: &Batch) {
        self.is_over();
        if let Some(left) = batch.lease_left {
            (self.lease.is_busy, self.lease.is_news) = (false, false);
            self.lease.is_granted &= left > 0;
        }
        for note in &batch.notes {
            let Some(call) = self.calls.get_mut(&note.id) else { continue };
            // One that is gone is listed no more, whatever it is since: it may have asked again, and have a lease's unit.
            let is_listed = call.is_listed || note.state != CallState::Gone;
            let was_unlisted = !std::mem::replace(&mut call.is_listed, is_listed) && is_listed;
            self.unlisted = self.unlisted.saturating_sub(u64::from(was_unlisted && call.lease > 0));
            match call.state {
                // One that asked again and was given up again may be taken yet: that it is gone is told once more.
                State::Is(CallState::Booked | CallState::Gone)
                    if call.state == State::Is(note.state) && !call.is_dirty =>
                {
                    self.calls.remove(&note.id);
                }
                state if state != State::Is(note.state) => self.mark(note.id),
                _ => {}
            }
        }
    }

    /// The store has not answered to a message, and may do it until `late_us`: it is told again after that.
    pub(super) fn not_told(&mut self, batch: &Batch, late_us: u64) {
        self.quiet_until_us = self.quiet_until_us.max(late_us);
        self.is_over();
        if batch.lease_left.is_some() {
            (self.lease.is_busy, self.lease.busy_until_us) = (false, late_us);
        }
        for note in &batch.notes {
            self.mark(note.id);
        }
    }

    fn is_over(&mut self) {
        self.is_sending = false;
        self.arrived.notify_waiters();
    }

    /// Whether a message is under way.
    pub(super) fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Begins to join, and lists all calls that count; and whether the store may list others of an attempt before. Until
    /// [`Self::joined`] nothing is told and nobody is admitted. `None`: not now.
    pub(super) fn join(&mut self, now_us: u64) -> Option<(Vec<Note>, bool)> {
        if self.is_sending || self.quiet_until_us > now_us {
            return None;
        }
        self.joins = self.joins.saturating_add(1);
        self.is_building = true;
        self.doubts_listed = self.doubts;
        self.unjoin();
        self.is_joining = true;
        let was_unsure = std::mem::replace(&mut self.is_unsure, true);
        let note = |(id, call): (&EventId, &mut Call)| match call.state {
            State::Asked | State::Is(CallState::Gone) => None,
            State::Is(state) => {
                call.is_told = true;
                Some(Note { id: *id, state, amounts: call.amounts.clone(), listing: Listing::Known })
            }
        };
        Some((self.calls.iter_mut().filter_map(note).collect(), was_unsure))
    }

    /// It is not known of which epoch this node is a part.
    pub(super) fn unjoin(&mut self) {
        self.epoch = None;
        self.denial = None;
        self.lease = self.lease.next();
    }

    /// The attempt to join is over. `late_us`: it had no answer, and may be done until then.
    pub(super) fn not_joined(&mut self, late_us: Option<u64>) {
        self.is_joining = false;
        match late_us {
            Some(late_us) => self.quiet_until_us = self.quiet_until_us.max(late_us),
            None => self.is_unsure = false,
        }
    }

    /// The answer to the join that listed these calls. Whether it is to be built all the same: it was opened without this node,
    /// which has told of calls under another epoch since, so that nobody has told of them under this one.
    pub(super) fn joined(&mut self, joined: Joined, listed: &[Note], now_us: u64) -> bool {
        self.joined_us = now_us;
        match joined {
            // Begun anew before all calls were listed.
            Joined::Moved => {}
            Joined::Open(epoch) => {
                if self.last.is_some_and(|last| last != epoch) {
                    return true;
                }
                (self.epoch, self.last) = (Some(epoch), Some(epoch));
                // What it had leased there is nobody's now.
                self.lease.is_news = true;
            }
            Joined::Building(epoch) => {
                (self.epoch, self.last) = (Some(epoch), Some(epoch));
                let listed: HashSet<EventId> = listed.iter().map(|note| note.id).collect();
                for (_, call) in self.calls.iter_mut().filter(|(id, call)| !call.is_listed && listed.contains(id)) {
                    (call.is_listed, call.is_late) = (true, false);
                    self.unlisted = self.unlisted.saturating_sub(u64::from(call.lease > 0));
                }
                // Of what came up since the calls were listed nothing is known.
                self.doubts_over = self.doubts_listed;
            }
        }
        false
    }

    /// Whether it is, or was, a part of this build.
    pub(super) fn has_joined(&self, epoch: Epoch) -> bool {
        self.last == Some(epoch)
    }

    /// The build that it is a part of.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Whether it joined within the last so many microseconds.
    pub(super) fn joined_within(&self, now_us: u64, span_us: u64) -> bool {
        self.epoch.is_some() && now_us.saturating_sub(self.joined_us) < span_us
    }

    /// Gives the rest of the lease back, and says what is left of it as long as the store may have it: somebody waits for it.
    pub(super) fn recalled(&mut self) -> bool {
        if self.lease.units > 0 {
            self.end_lease();
        }
        self.lease.is_news |= self.lease.is_granted;
        self.lease.is_news
    }

    /// Gives the rest of the lease back if nobody used it for so long.
    pub(super) fn end_lease_idle_for(&mut self, now_us: u64, idle_us: u64) -> bool {
        let is_idle = self.lease.units > 0 && now_us.saturating_sub(self.lease.used_us) >= idle_us;
        if is_idle {
            self.end_lease();
        }
        is_idle
    }

    fn end_lease(&mut self) {
        self.lease = Lease { is_news: true, ..self.lease.next() };
    }
}

impl Lease {
    /// None, after this one.
    fn next(&self) -> Self {
        let Self { is_busy, busy_until_us, declined_until_us, is_granted, .. } = *self;
        let (number, asked_for) = (self.number.saturating_add(1), self.asked_for.clone());
        Self { number, is_busy, busy_until_us, asked_for, declined_until_us, is_granted, ..Self::default() }
    }
}

impl Call {
    fn is_gone(&self) -> bool {
        self.state == State::Is(CallState::Gone)
    }

    /// What the store is to be told. A call that is not listed is listed first.
    fn note(&self, id: EventId) -> Option<Note> {
        let State::Is(state) = self.state else { return None };
        let state = match state {
            CallState::Booked if !self.is_listed => CallState::Settled,
            // It never counts as used: who is refused while it does believes that for as long as the window lasts.
            CallState::Gone if !self.is_listed => CallState::Held,
            state => state,
        };
        let listing = match (self.is_listed, self.lease) {
            (true, _) => Listing::Known,
            (false, 0) => Listing::Unheld,
            (false, _) => Listing::FromLease,
        };
        Some(Note { id, state, amounts: self.amounts.clone(), listing })
    }
}

fn amounts(claims: &[Claim], amount: impl Fn(usize, &Claim) -> u64) -> Vec<(CounterKey, u64)> {
    claims.iter().enumerate().map(|(at, claim)| (claim.counter.clone(), amount(at, claim))).collect()
}

fn standing(count: &Count) -> Standing {
    Standing { used: count.booked.saturating_add(count.settled), held: count.held }
}

/// Whole microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
