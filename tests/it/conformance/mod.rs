//! One suite for each port, as functions over the port's trait object, run against every adapter.
//!
//! A new adapter adds a line to `adapters` of its port's suite; a rule of a port's contract adds a function.

mod changes;
mod continuations;
mod counters;
mod journal;
mod objects;
mod prices;
mod rates;
mod retention;
mod shared;
mod tenants;
mod thresholds;
mod units;
mod usage;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::adapters::postgres::PostgresLedger;
use tollgate::adapters::sqlite::SqliteLedger;
use tollgate::domain::event::{Outcome, UsageEvent, UsageSource};
use tollgate::domain::ids::{EventId, ProviderId, TenantId};
use tollgate::domain::money::PicoUsd;
use tollgate::domain::price::{Priced, ServiceTier};
use tollgate::domain::quantities::Quantities;
use tollgate::domain::time::Micros;
use tollgate::domain::tokens::Tokens;

use super::support::postgres::Database;

/// What has to live as long as a store does.
pub(super) type Keep = Box<dyn Any + Send>;

pub(super) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub(super) fn at(text: &str) -> Micros {
    text.parse().unwrap()
}

fn event_id(number: u64) -> EventId {
    EventId::new(1_764_000_000_000, u128::from(number) << 20)
}

/// A plain event of tenant `acme` with its own id.
pub(super) fn event(number: u64) -> UsageEvent {
    UsageEvent {
        id: event_id(number),
        tenant: tenant("acme"),
        key: Some("key_0123456789abcdef".parse().unwrap()),
        user_id: None,
        kb_id: None,
        provider: ProviderId::new("openai"),
        model: "gpt-4o".into(),
        requested_model: "gpt-4o".into(),
        endpoint: Cow::Borrowed("chat.completions"),
        chats: 1,
        tokens: Tokens { prompt: 11, completion: 7, ..Tokens::default() },
        quantities: Quantities::default(),
        source: UsageSource::Provider,
        cost: Some(PicoUsd(97_500_000)),
        billable: Some(PicoUsd(97_500_000)),
        priced: Priced::Priced,
        price_version: "2026-11-24".into(),
        service_tier: ServiceTier::Standard,
        requested_at: at("2026-11-24T10:00:00Z"),
        utc_offset_s: 0,
        duration_us: 1_200,
        first_byte_us: Some(800),
        overhead_us: 0,
        status: 200,
        outcome: Outcome::Completed,
        request_id: Some(format!("req_{number}").into()),
        unit: None,
        corrects: None,
    }
}

/// A new SQLite ledger, and the directory that goes with it.
pub(super) async fn sqlite() -> (Arc<SqliteLedger>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("billing/billing.db");
    let ledger = SqliteLedger::open(path.to_str().unwrap(), true).await.unwrap();
    ledger.migrate().await.unwrap();
    (Arc::new(ledger), directory)
}

/// A new Postgres ledger, and the database that goes with it.
pub(super) async fn postgres() -> (Arc<PostgresLedger>, Database) {
    let database = Database::new();
    let ledger = PostgresLedger::open(&database.url, Duration::ZERO).await.unwrap();
    ledger.migrate().await.unwrap();
    (Arc::new(ledger), database)
}
