//! Bills what providers finish later than they answer: responses in the background, batches.
//!
//! The call that began such a unit is in the ledger with its chat and without tokens. Its bill is one more event, by what
//! the provider says once it is done. Two ways lead there: an answer that passes by and tells it ([`Deferred::told`]), and
//! a question of the gateway's own, for units that nobody asks for ([`Deferred::run`]). Both write the same event with the
//! same id, so it does not matter which is first, on which node, or how often: the ledger has it once.
//!
//! Nothing here keeps a client waiting, and nothing is lost with this process: what is not billed is in the ledger, due for
//! another question.

mod going;
mod tally;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, ProviderId};
use crate::domain::price::rates::Used;
use crate::domain::price::tariff::{Charged, Pricing, Tariff};
use crate::domain::time::{MICROS_PER_SECOND, Micros};
use crate::domain::unit::{Unit, UnitName, UnitState};
use crate::ports::StoreError;
use crate::ports::asking::{Ask, Whose};
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterStore, used_by};
use crate::ports::journal::Journal;
use crate::ports::tenants::{TenantStore, plan_at};
use crate::ports::units::{DeferredUnit, Pauses, UnitStore};
use crate::ports::usage::UsageStore;
use crate::providers::{self, Lines, Provider, Reading, Results};

pub(super) use self::tally::delivered_tokens;
use self::tally::{Bill, Tally};
use super::in_flight::bounded;
use super::price_books;
use super::recorder::Recorder;
use super::snapshot::Snapshots;

/// Answers that wait to be looked into. What does not fit is asked for later.
const TOLD_MAX: usize = 256;

/// Answers that are looked into at once: a batch's whole file of results may be read for one.
const LOOKED_INTO_AT_ONCE: usize = 8;

/// Names that were looked into: a client that fetches a finished response again and again costs one look. When there are so
/// many the oldest are not told from the newest, and all are forgotten.
const KNOWN_MAX: usize = 1_024;

/// Bills that the ledger does not take, at most: beyond this it is better to ask again later.
const ON_THEIR_WAY_MAX: usize = 4_096;

/// Units that are taken in one turn, and asked for at once. A full turn is followed by the next without a pause.
const UNITS_PER_TURN: u32 = 32;
const ASKED_AT_ONCE: usize = 4;

/// The longest pause between two questions for one unit.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// One question, and one file of results: 50,000 lines of 200 MB in all, the most that a batch has, take some minutes.
const QUESTION_MAX: Duration = Duration::from_secs(60);
const FILE_MAX: Duration = Duration::from_secs(1_800);

/// A larger file of results is not read to its end: what was read is booked, flagged.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// After this a unit is given up and booked by an estimate of its prompt: batches end within 24 hours, or 48.
const PATIENCE_US: i64 = 72 * 3_600 * MICROS_PER_SECOND;

/// Settled units are kept for so long, for people.
const KEPT_US: i64 = 30 * 24 * 3_600 * MICROS_PER_SECOND;

/// Turns between two looks for units to forget.
const TURNS_TO_FORGET: u32 = 360;

/// How long the ledger may take for a bill before the unit is left to a later question.
const BOOKED_MAX: Duration = Duration::from_secs(10);

/// After a panic, which a store or a reader may meet.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// The parts that bills are made with.
pub struct Books {
    /// Where units wait.
    pub units: Arc<dyn UnitStore>,
    /// The ledger, asked whether it has a bill.
    pub usage: Arc<dyn UsageStore>,
    /// Which plan a tenant was on.
    pub tenants: Arc<dyn TenantStore>,
    /// Takes bills.
    pub journal: Arc<dyn Journal>,
    /// Counts them.
    pub counters: Arc<dyn CounterStore>,
    /// Carries them to the ledger.
    pub recorder: Arc<Recorder>,
    /// Prices.
    pub snapshots: Arc<Snapshots>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Bills units.
pub struct Deferred {
    books: Books,
    told: mpsc::Sender<(ProviderId, Reading)>,
    listener: tokio::sync::Mutex<mpsc::Receiver<(ProviderId, Reading)>>,
    /// Units that are looked into now: one answer that is fetched again meanwhile tells nothing new.
    looked_into: Mutex<HashSet<(ProviderId, UnitName)>>,
    known: Mutex<HashSet<(ProviderId, UnitName)>>,
    /// One bill at a time: whoever comes second finds it in the ledger, or on its way there: bills by their place in the
    /// journal, at most [`ON_THEIR_WAY_MAX`].
    billing: tokio::sync::Mutex<HashMap<EventId, u64>>,
}

/// What a provider said of a unit that it was asked for.
enum Standing {
    /// It is over.
    Over(Box<Reading>),
    /// It runs.
    Runs,
    /// Nobody can say now.
    Unsaid,
    /// The provider does not know it.
    Gone,
}

impl Deferred {
    /// One over its parts.
    pub fn new(books: Books) -> Self {
        let (told, listener) = mpsc::channel(TOLD_MAX);
        let listener = tokio::sync::Mutex::new(listener);
        let (looked_into, known) = (Mutex::default(), Mutex::default());
        Self { books, told, listener, looked_into, known, billing: tokio::sync::Mutex::default() }
    }

    /// An answer passed by that told of a unit. Waits for nothing.
    pub fn told(&self, provider: ProviderId, reading: Reading) {
        let Some(unit) = reading.ended() else { return };
        let is_known = self.known.lock().contains(&(provider.clone(), unit.name.clone()));
        if !is_known && self.told.try_send((provider, reading)).is_err() {
            debug!("A finished unit was not looked into; the provider is asked for it later.");
        }
    }

    /// Bills what was told, and asks for what nobody tells of, as often as `interval` says at least. Runs for ever; a panic
    /// on the way loses nothing.
    pub async fn run(&self, ask: &dyn Ask, interval: &(dyn Fn() -> Duration + Send + Sync)) {
        let work = || async { tokio::join!(self.listen(ask), self.poll(ask, interval)) };
        while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            error!("Billing of deferred units met a panic; nothing is lost, and it goes on.");
            sleep(AFTER_PANIC).await;
        }
    }

    async fn listen(&self, ask: &dyn Ask) {
        let mut listener = self.listener.lock().await;
        stream::poll_fn(|context| listener.poll_recv(context))
            .for_each_concurrent(LOOKED_INTO_AT_ONCE, |(provider, reading)| self.look_into(ask, provider, reading))
            .await;
    }

    async fn poll(&self, ask: &dyn Ask, interval: &(dyn Fn() -> Duration + Send + Sync)) {
        let mut turns = 0_u32;
        loop {
            sleep(interval()).await;
            while self.turn(ask, interval()).await {}
            if turns.is_multiple_of(TURNS_TO_FORGET) {
                let before = Micros(self.books.clock.now().0.saturating_sub(KEPT_US));
                if let Err(error) = self.books.units.forget(before).await {
                    debug!(%error, "Settled units were not forgotten; it is tried again.");
                }
            }
            turns = turns.wrapping_add(1);
        }
    }

    /// Asks for the units that are due. Whether there may be more.
    pub async fn turn(&self, ask: &dyn Ask, interval: Duration) -> bool {
        let pauses = Pauses { first: interval, longest: PAUSE_MAX.max(interval) };
        let units = match self.books.units.claim(self.books.clock.now(), pauses, UNITS_PER_TURN).await {
            Ok(units) => units,
            Err(error) => {
                debug!(%error, "Units that are due could not be taken; it is tried again.");
                return false;
            }
        };
        let is_full = u32::try_from(units.len()) == Ok(UNITS_PER_TURN);
        stream::iter(units).for_each_concurrent(ASKED_AT_ONCE, |unit| self.ask_for(ask, unit)).await;
        is_full
    }

    /// Bills a unit that an answer told of, if it is one of ours that is not billed.
    async fn look_into(&self, ask: &dyn Ask, provider: ProviderId, reading: Reading) {
        let Some(name) = reading.ended().map(|unit| unit.name.clone()) else { return };
        let unit = (provider, name);
        if !self.looked_into.lock().insert(unit.clone()) {
            return;
        }
        // Also where a panic leads out of here, or the task ends.
        let _end = AtEnd(|| {
            self.looked_into.lock().remove(&unit);
        });
        // The call that began it may have ended a moment ago.
        if !self.books.recorder.caught_up().await {
            return;
        }
        let (provider, name) = &unit;
        match self.books.units.waiting(provider, name).await {
            Ok(Some(unit)) => {
                // What a client was told may lack what it did not ask for. Nothing is not booked on that word alone.
                let standing = match reading.says_what_it_used() {
                    true => Standing::Over(Box::new(reading)),
                    false => self.standing(ask, &unit).await,
                };
                self.settle(ask, &unit, standing).await;
            }
            Ok(None) => self.remember(provider, name),
            Err(error) => debug!(%error, "A finished unit was not looked into; the provider is asked for it later."),
        }
    }

    async fn ask_for(&self, ask: &dyn Ask, unit: DeferredUnit) {
        let standing = self.standing(ask, &unit).await;
        self.settle(ask, &unit, standing).await;
    }

    async fn standing(&self, ask: &dyn Ask, unit: &DeferredUnit) -> Standing {
        let Some(provider) = provider_of(unit) else { return Standing::Unsaid };
        let Some((target, reads)) = provider.unit_question(&unit.name) else { return Standing::Unsaid };
        let Some(mut reader) = provider.unit_reader(reads, None) else { return Standing::Unsaid };
        let mut see = |piece: &[u8]| {
            reader.look(piece);
            true
        };
        let status = timeout(QUESTION_MAX, ask.get(whose(unit), &unit.provider, &target, &mut see)).await;
        match status {
            Ok(Ok(200)) => {
                let reading = reader.reading();
                match reading.unit.as_deref().filter(|told| told.name == unit.name) {
                    Some(told) if told.state == UnitState::Running => Standing::Runs,
                    Some(_) => Standing::Over(Box::new(reading)),
                    None => Standing::Unsaid,
                }
            }
            Ok(Ok(404 | 410)) => Standing::Gone,
            _ => Standing::Unsaid,
        }
    }

    /// Books the bill of a unit, if it can be made. Whether it is booked.
    async fn settle(&self, ask: &dyn Ask, unit: &DeferredUnit, standing: Standing) -> bool {
        let age_us = self.books.clock.now().0.saturating_sub(unit.requested_at.0);
        let is_said = match standing {
            Standing::Over(_) => true,
            Standing::Runs | Standing::Unsaid => false,
            // A tenant may have changed its own key for one of another account, which knows nothing of it.
            Standing::Gone => !unit.own_account,
        };
        if !is_said && age_us <= PATIENCE_US {
            return false;
        }
        let tariff = match self.tariff(unit).await {
            Ok(tariff) => tariff,
            Err(error) => {
                debug!(%error, unit = %unit.name, "The ledger cannot say by which plan a unit is billed; it is billed later.");
                return false;
            }
        };
        let bill = match standing {
            Standing::Over(reading) => {
                let results = self.results(ask, unit, &reading, &tariff).await;
                results.map(|results| Bill::of(unit, *reading, results, &tariff))
            }
            Standing::Gone => Some(Bill::estimate(unit, 404, &tariff)),
            Standing::Runs | Standing::Unsaid => None,
        };
        let bill = match bill {
            Some(bill) => bill,
            None if age_us > PATIENCE_US => {
                warn!(unit = %unit.name, tenant = %unit.tenant, "A provider has not finished a unit in three days; it is booked by an estimate.");
                Bill::estimate(unit, 0, &tariff)
            }
            None => return false,
        };
        self.book(unit, self.event(unit, bill, tariff.version())).await
    }

    /// By the prices that were in force when the unit began, and what its plan made of them, as every call is: the event of
    /// its begin names them. Where the ledger has no such event or book any more, by the prices in force and the plan that the
    /// tenant was on then; by the one that it is on now where there is no such plan any more.
    async fn tariff(&self, unit: &DeferredUnit) -> Result<Arc<Tariff>, StoreError> {
        if let Some(begun) = self.books.usage.event(Some(&unit.tenant), unit.event).await? {
            let format = self.books.snapshots.format();
            match price_books::tariff(&*self.books.tenants, &begun.event.price_version, format).await {
                Ok(Some(tariff)) => return Ok(Arc::new(tariff)),
                // One that cannot be read now will not be read later either.
                Ok(None) | Err(StoreError::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let history = self.books.tenants.plan_history(&unit.tenant).await?;
        let snapshot = self.books.snapshots.load();
        let then = plan_at(&history, unit.requested_at).map(|change| &change.plan);
        let now = || snapshot.accounts.get(&unit.tenant).map(|account| &account.tenant.plan);
        let plan = then.filter(|plan| snapshot.plans.contains_key(*plan)).or_else(now);
        Ok(plan.map_or_else(
            || Arc::new(Tariff::new(snapshot.prices.clone(), Pricing::default())),
            |plan| snapshot.tariff(plan),
        ))
    }

    /// The results of a unit with many parts, where its own word does not do; `None` where they cannot be had now.
    async fn results(
        &self,
        ask: &dyn Ask,
        unit: &DeferredUnit,
        reading: &Reading,
        tariff: &Tariff,
    ) -> Option<Option<Tally>> {
        let Some(told) = reading.ended() else { return Some(None) };
        let mut tally = Tally::default();
        match &told.results {
            Results::None => Some(None),
            Results::Here(parts) => {
                parts.iter().for_each(|part| tally.add(unit, part, tariff));
                Some(Some(tally))
            }
            Results::File(_) if tally::is_enough(unit, reading, tariff) => Some(None),
            Results::File(target) => {
                let provider = provider_of(unit)?;
                let (mut lines, mut bytes, tally_of) = (Lines::default(), 0_u64, &mut tally);
                let mut line_of = |line: Option<&[u8]>| match line {
                    Some(line) if line.trim_ascii().is_empty() => {}
                    Some(line) => {
                        if let Some(part) = provider.result(line) {
                            tally_of.add(unit, &part, tariff);
                        }
                    }
                    None => tally_of.add(unit, &Reading::default(), tariff),
                };
                let mut see = |piece: &[u8]| {
                    bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    lines.feed(piece, &mut line_of);
                    bytes <= FILE_BYTES_MAX
                };
                let status = timeout(FILE_MAX, ask.get(whose(unit), &unit.provider, target, &mut see)).await;
                let is_whole = bytes <= FILE_BYTES_MAX;
                match status {
                    Ok(Ok(200)) if is_whole => lines.finish(line_of),
                    // It is what it is; the rest is not known.
                    _ if !is_whole => line_of(None),
                    // The file is gone, and with it what was in it.
                    Ok(Ok(404 | 410)) => line_of(None),
                    _ => return None,
                }
                Some(Some(tally))
            }
        }
    }

    fn event(&self, unit: &DeferredUnit, bill: Bill, price_version: Arc<str>) -> UsageEvent {
        let Bill { used: Used { tokens, quantities }, source, charged, model, tier, outcome, status } = bill;
        let Charged { charge, billable, is_own: _ } = charged;
        let now = self.books.clock.now();
        UsageEvent {
            id: unit.event.of_bill(),
            tenant: unit.tenant.clone(),
            key: unit.key.clone(),
            user_id: unit.user_id.clone(),
            kb_id: unit.kb_id.clone(),
            provider: unit.provider.clone(),
            model: model.map_or_else(|| unit.model.clone(), bounded),
            requested_model: unit.requested_model.clone(),
            endpoint: unit.endpoint.clone().into(),
            chats: 0,
            tokens,
            quantities,
            source,
            cost: charge.cost,
            billable,
            priced: charge.priced,
            price_version,
            service_tier: tier,
            requested_at: unit.requested_at,
            utc_offset_s: unit.utc_offset_s,
            duration_us: u64::try_from(now.0.saturating_sub(unit.requested_at.0)).unwrap_or(0),
            first_byte_us: None,
            overhead_us: 0,
            status,
            outcome,
            request_id: Some(unit.name.as_str().chars().take(super::in_flight::REQUEST_ID_CHARS_MAX).collect()),
            unit: Some(Box::new(Unit {
                name: unit.name.clone(),
                prompt_tokens: unit.prompt_tokens,
                delivered_tokens: unit.delivered_tokens,
                output_max: unit.output_max,
                own_account: unit.own_account,
            })),
            corrects: None,
        }
    }

    /// Whether it is booked.
    async fn book(&self, unit: &DeferredUnit, event: UsageEvent) -> bool {
        let Books { units, usage, tenants: _, journal, counters, snapshots, recorder, clock } = &self.books;
        let mut on_their_way = self.billing.lock().await;
        // One of an earlier life may be in the journal, where it is counted.
        if !recorder.caught_up().await {
            return false;
        }
        match usage.known(&[event.id]).await {
            Ok(known) if known.is_empty() => {
                // One that the ledger has not taken yet is counted, and not written once more.
                let position = if let Some(position) = on_their_way.get(&event.id) {
                    *position
                } else {
                    if on_their_way.len() >= ON_THEIR_WAY_MAX {
                        return false;
                    }
                    // As it is admitted it is settled: a process that ends between the two leaves the same event.
                    let Ok(slot) = journal.admit(&event) else {
                        debug!(unit = %unit.name, "The journal takes no bill now; it is written later.");
                        return false;
                    };
                    // Counters first: what is booked before they hear of it would be listed for good.
                    counters.settle(event.id, &[], &used_by(&event, snapshots.counting()));
                    let position = journal.settle(slot, &event);
                    on_their_way.insert(event.id, position);
                    position
                };
                if timeout(BOOKED_MAX, recorder.reaches(position)).await.is_err() {
                    return false;
                }
                info!(unit = %unit.name, tenant = %event.tenant, id = %event.id, "A deferred unit is billed.");
            }
            Ok(_) => {}
            Err(error) => {
                debug!(%error, unit = %unit.name, "The ledger cannot say whether it has a bill; it is written later.");
                return false;
            }
        }
        match units.settled(&unit.provider, &unit.name, clock.now()).await {
            Ok(()) => {
                on_their_way.remove(&event.id);
                self.remember(&unit.provider, &unit.name);
            }
            // It is asked for once more, and its bill is found.
            Err(error) => debug!(%error, unit = %unit.name, "A unit was billed and not noted as settled."),
        }
        true
    }

    fn remember(&self, provider: &ProviderId, name: &UnitName) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert((provider.clone(), name.clone()));
    }
}

fn provider_of(unit: &DeferredUnit) -> Option<&'static dyn Provider> {
    providers::ALL.iter().find(|provider| provider.id() == unit.provider).copied()
}

/// In whose account a unit is.
fn whose(unit: &DeferredUnit) -> Whose<'_> {
    Whose { tenant: &unit.tenant, own_account: unit.own_account }
}

/// Does something when it goes.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests;
