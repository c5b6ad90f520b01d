//! Partitions of events by month: made before they are needed, by whichever process needs one first.
//!
//! May use: `domain`, `ports`. A partition is made beside the table and then attached: that waits for no append and no
//! reader, where making it in place would wait for all of them and keep new ones waiting.

use std::collections::BTreeSet;

use sqlx::Row;

use super::session::Session;
use super::{LOCK_CLASS, LOCK_PARTITIONS, PostgresLedger, store_error};
use crate::domain::event::UsageEvent;
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;

/// The months that this process knows to have a partition. A retention elsewhere may have dropped one since.
pub(super) type Months = BTreeSet<Period>;

/// What stands before `2026_11` in a partition's name.
const PREFIX: &str = "usage_events_";

/// Before 2000 and from 2200 on (UTC) there is one partition each, which the schema made.
pub(super) const OWN_FROM: Micros = Micros(946_684_800_000_000);
const OWN_UNTIL: Micros = Micros(7_258_118_400_000_000);

impl PostgresLedger {
    /// Sees to it that there is a place for every event, and for those of a month later.
    pub(super) async fn make_room(&self, events: &[UsageEvent]) -> Result<(), StoreError> {
        self.make_room_at(events.iter().map(|event| event.requested_at)).await
    }

    /// The same for events that were requested then.
    pub(super) async fn make_room_at(&self, instants: impl Iterator<Item = Micros>) -> Result<(), StoreError> {
        let missing: Months = {
            let known = self.months.lock();
            let months = instants.filter_map(month_of);
            months.filter(|month| !known.contains(month)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let next: Vec<Period> = missing.iter().filter_map(|month| month_of(month.end())).collect();
        let session = Session::of(&self.writer).await?;
        let known = self.make(session, missing.into_iter().chain(next).collect()).await?;
        self.months.lock().extend(known);
        Ok(())
    }

    /// What was known of partitions may be wrong.
    pub(super) fn forget_room(&self) {
        self.months.lock().clear();
    }

    async fn make(&self, mut session: Session, months: Months) -> Result<Months, StoreError> {
        session.say(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {LOCK_PARTITIONS})")).await?;
        let made = make_missing(&mut session, months).await;
        session.commit(made).await
    }
}

async fn make_missing(session: &mut Session, months: Months) -> Result<Months, StoreError> {
    let mut known = partitions(session).await?;
    for month in months {
        if known.insert(month) {
            let (name, from, to) = (name_of(month), month.start().0, month.end().0);
            session
                .say(&format!(
                    "CREATE TABLE {name} (LIKE usage_events INCLUDING ALL); \
                     ALTER TABLE usage_events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
                ))
                .await?;
        }
    }
    Ok(known)
}

/// The months that have a partition.
pub(super) async fn partitions(session: &mut Session) -> Result<Months, StoreError> {
    let question = "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
                    WHERE inhparent = 'usage_events'::regclass";
    let found = Session::within(sqlx::query(question).fetch_all(&mut **session)).await?;
    let names = found.iter().map(|row| row.try_get::<&str, _>(0)).collect::<Result<Vec<_>, _>>();
    Ok(names.map_err(store_error)?.into_iter().filter_map(month_named).collect())
}

/// The month whose partition holds what was requested then, where it is one of a month.
fn month_of(at: Micros) -> Option<Period> {
    (OWN_FROM <= at && at < OWN_UNTIL).then(|| Window::Month.period(at))
}

pub(super) fn name_of(month: Period) -> String {
    format!("{PREFIX}{}", month.to_string().replace('-', "_"))
}

fn month_named(name: &str) -> Option<Period> {
    Period::parse_month(&name.strip_prefix(PREFIX)?.replace('_', "-")).ok()
}
