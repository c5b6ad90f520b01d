//! What the journal holds against the ledger.
//!
//! May use: `domain`, `ports`.
//!
//! A gateway may be writing both meanwhile: it books an event in the ledger, and then notes in the journal that it did.
//! So the journal is read first. What it says is booked was in the ledger before that was noted, and is there in any
//! later look at the ledger, which only grows. What it says is not booked may be booked by the time the ledger is looked
//! at; then it has to be the same event. A start in that time may write an event again that the ledger had refused: the
//! last record of an event tells whether it is booked.

use std::collections::{BTreeMap, HashMap};

use crate::domain::counting::Counting;
use crate::domain::event::{Outcome, UsageEvent};
use crate::domain::ids::EventId;
use crate::domain::money::PicoUsd;
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;
use crate::ports::counters::{CounterKey, used_by};
use crate::ports::usage::UsageStore;

use super::{Differences, Kind};

/// Events looked up at once.
const LOOKUP_EVENTS: usize = 250;

/// Events that are not in the ledger, kept to be told; a journal that lost its ledger has them all.
const MISSING_MAX: usize = 10_000;

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalFacts {
    /// Settled events found.
    pub settled: u64,
    /// Of these, not yet known to be booked.
    pub waiting: u64,
    /// Calls admitted and not settled.
    pub open: u64,
    /// Events that the ledger refused.
    pub quarantined: u64,
    /// What these count: a counter may have it though the ledger has not.
    pub quarantined_used: HashMap<CounterKey, u64>,
}

/// A comparison under way.
pub struct JournalCheck<'a> {
    store: &'a dyn UsageStore,
    differences: &'a mut Differences,
    facts: JournalFacts,
    /// Settled events to be looked up, and whether they are booked.
    batch: Vec<(UsageEvent, bool)>,
    /// Booked, and not in the ledger.
    missing: BTreeMap<[u8; 16], UsageEvent>,
    missing_beyond: u64,
}

impl<'a> JournalCheck<'a> {
    /// Begins one. Events are to be given in the order of the journal.
    pub fn new(store: &'a dyn UsageStore, differences: &'a mut Differences) -> Self {
        let (facts, batch) = (JournalFacts::default(), Vec::with_capacity(LOOKUP_EVENTS));
        Self { store, differences, facts, batch, missing: BTreeMap::new(), missing_beyond: 0 }
    }

    /// A settled event. `booked`: the journal knows that the ledger has it.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn settled(&mut self, event: UsageEvent, booked: bool) -> Result<(), StoreError> {
        self.facts.settled = self.facts.settled.saturating_add(1);
        if !booked {
            self.facts.waiting = self.facts.waiting.saturating_add(1);
        }
        self.batch.push((event, booked));
        if self.batch.len() >= LOOKUP_EVENTS { self.look_up().await } else { Ok(()) }
    }

    /// An admitted call that is not settled.
    pub fn open(&mut self, _: &UsageEvent) {
        self.facts.open = self.facts.open.saturating_add(1);
    }

    /// An event that the ledger refused, with its words.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn quarantined(&mut self, event: &UsageEvent, reason: &str) -> Result<(), StoreError> {
        self.look_up().await?;
        self.missing.remove(&event.id.to_bytes());
        self.facts.quarantined = self.facts.quarantined.saturating_add(1);
        for (counter, amount) in used_by(event, Counting::ALL) {
            let used = self.facts.quarantined_used.entry(counter).or_default();
            *used = used.saturating_add(amount);
        }
        let place = format!("journal event {} of {}", event.id, event.tenant);
        self.differences.add(Kind::Quarantine, place, "ledger", ("it to be booked", format!("it refused: {reason}")));
        Ok(())
    }

    /// All of the journal was given.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn finish(mut self) -> Result<JournalFacts, StoreError> {
        self.look_up().await?;
        for event in self.missing.values() {
            let place = format!("journal event {} of {}", event.id, event.tenant);
            let expected = "it to be there, as the journal says that it was booked";
            self.differences.add(Kind::Journal, place, "ledger", (expected, "no such event"));
        }
        for _ in 0..self.missing_beyond {
            self.differences.add(Kind::Journal, "journal", "ledger", ("a booked event to be there", "no such event"));
        }
        Ok(self.facts)
    }

    async fn look_up(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        let ids: Vec<EventId> = batch.iter().map(|(event, _)| event.id).collect();
        let known = if ids.is_empty() { HashMap::new() } else { self.find(&ids).await? };
        // Asked after the events were: what was dropped before the look is known to be.
        let from = if known.len() < ids.len() { self.store.events_from().await? } else { None };
        let was_dropped = |event: &UsageEvent| from.is_some_and(|from| event.requested_at < from);
        for (event, is_booked) in batch {
            let id = event.id.to_bytes();
            match known.get(&event.id) {
                Some(Some(booked)) => self.same(event, booked),
                Some(None) => {}
                None if is_booked && was_dropped(&event) => {}
                None if is_booked && self.missing.len() < MISSING_MAX => drop(self.missing.insert(id, event)),
                None if is_booked => self.missing_beyond = self.missing_beyond.saturating_add(1),
                None => drop(self.missing.remove(&id)),
            }
        }
        Ok(())
    }

    /// Those of `ids` that the ledger has; without their content where that cannot be read, which is told as a difference
    /// of the ledger itself.
    async fn find(&self, ids: &[EventId]) -> Result<HashMap<EventId, Option<UsageEvent>>, StoreError> {
        match self.store.find(ids).await {
            Ok(found) => return Ok(found.into_iter().map(|stored| (stored.event.id, Some(stored.event))).collect()),
            Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error),
        }
        let mut known = HashMap::new();
        for id in ids {
            match self.store.event(None, *id).await {
                Ok(found) => known.extend(found.map(|stored| (*id, Some(stored.event)))),
                Err(StoreError::Corrupt(_)) => drop(known.insert(*id, None)),
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    fn same(&mut self, mut journal: UsageEvent, booked: &UsageEvent) {
        if journal.is_bill() {
            // Several nodes may write one bill, each at its own time; the ledger has the first.
            journal.duration_us = booked.duration_us;
        }
        // The ledger does not keep them with its events.
        journal.overhead_us = booked.overhead_us;
        journal.unit.clone_from(&booked.unit);
        // A start books a call without a settlement as interrupted. It may do so for one whose settlement was booked and
        // is no longer in the journal: the ledger keeps what it had, which is right.
        let is_guess = journal.outcome == Outcome::Interrupted && journal.status == 0;
        if is_guess || journal == *booked {
            return;
        }
        for ((what, expected), (_, found)) in fields(&journal).into_iter().zip(fields(booked)) {
            if expected != found {
                let place = format!("journal event {} of {}", journal.id, journal.tenant);
                self.differences.add(Kind::Journal, place, what, (expected, found));
            }
        }
    }
}

/// Everything of an event that the ledger keeps, with the names of its columns.
fn fields(event: &UsageEvent) -> Vec<(&'static str, String)> {
    let UsageEvent {
        id: _, // it was found by that
        tenant,
        key,
        user_id,
        kb_id,
        provider,
        model,
        requested_model,
        endpoint,
        chats,
        tokens,
        quantities,
        source,
        cost,
        billable,
        priced,
        price_version,
        service_tier,
        requested_at,
        utc_offset_s,
        duration_us,
        first_byte_us,
        overhead_us: _, // not kept
        status,
        outcome,
        request_id,
        unit: _, // not kept there
        corrects,
    } = event;
    let amount = |amount: &Option<PicoUsd>| amount.map_or_else(|| "none".to_owned(), |amount| amount.0.to_string());
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or("none").to_owned();
    let mut fields = vec![
        ("tenant_id", tenant.to_string()),
        ("key_id", key.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
        ("user_id", text(user_id)),
        ("kb_id", text(kb_id)),
        ("provider", provider.to_string()),
        ("model", model.to_string()),
        ("requested_model", requested_model.to_string()),
        ("endpoint", endpoint.to_string()),
        ("chats", chats.to_string()),
        ("usage_source", source.as_str().to_owned()),
        ("estimated_cost_pico_usd", amount(cost)),
        ("billable_cost_pico_usd", amount(billable)),
        ("priced", priced.as_str().to_owned()),
        ("price_version", price_version.to_string()),
        ("service_tier", service_tier.as_str().to_owned()),
        ("requested_at", requested_at.to_string()),
        ("utc_offset_s", utc_offset_s.to_string()),
        ("duration_us", duration_us.to_string()),
        ("first_byte_us", first_byte_us.map_or_else(|| "none".to_owned(), |us| us.to_string())),
        ("status", status.to_string()),
        ("outcome", outcome.as_str().to_owned()),
        ("request_id", text(request_id)),
        ("corrects", corrects.map_or_else(|| "none".to_owned(), |corrected| corrected.event.to_string())),
        ("priced_before", corrects.map_or("none", |corrected| corrected.priced.as_str()).to_owned()),
    ];
    fields.extend(Tokens::KINDS.into_iter().zip(tokens.kinds().map(|kind| kind.to_string())));
    fields.extend(Quantities::KINDS.into_iter().zip(quantities.kinds().map(|kind| kind.to_string())));
    fields
}
