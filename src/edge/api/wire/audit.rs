//! The bodies of the audit log.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::audit::{AuditEntry, Author, Change, Facts};
use crate::metering::admin::AuditPage;

/// What an entry tells of a tenant or a key: what the change is about.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactsBody {
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    /// Whether the tenant is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<bool>,
    /// The tenant's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// The last four characters of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    last4: Option<String>,
    /// From when on the key is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Patterns of the models that the key may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_models: Option<Vec<String>>,
    /// The version of the price book in force, or `configured`.
    #[serde(skip_serializing_if = "Option::is_none")]
    prices: Option<String>,
    /// Which events, of a change that is about many.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<String>,
}

impl From<Facts> for FactsBody {
    fn from(facts: Facts) -> Self {
        let Facts { name, plan, suspended, zone, last4, expires_at, models, prices, events } = facts;
        let (plan, expires_at) = (plan.map(|plan| plan.to_string()), expires_at.map(|at| at.to_string()));
        let allowed_models = models.map(|models| models.patterns().map(str::to_owned).collect());
        let timezone = zone.map(|zone| zone.to_string());
        Self { name, plan, suspended, timezone, last4, expires_at, allowed_models, prices, events }
    }
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntryBody {
    /// Its place in the log, and a cursor.
    #[schema(example = "17")]
    id: String,
    /// When.
    #[schema(example = "2026-11-24T10:00:00Z")]
    at: String,
    /// Who: `admin`, `tenant` or `cli`; `gateway` for what one does by itself.
    #[schema(example = "admin")]
    actor: &'static str,
    /// With which key: a tenant's by its id, the admin's by its last four characters; null where there was none.
    #[schema(example = "x7Qa")]
    actor_key: Option<String>,
    /// What: `tenant.create`, `tenant.change`, `plan.set`, `key.create`, `key.rotate`, `key.revoke`, `provider_key.set`,
    /// `provider_key.remove`, `secrets.rotate`, `prices.set`, `prices.rerate` or `events.drop`.
    #[schema(example = "plan.set")]
    action: &'static str,
    /// To which tenant; null for what is everybody's.
    #[schema(example = "acme")]
    tenant_id: Option<String>,
    /// To which of its keys.
    key_id: Option<String>,
    /// The `x-request-id` of the request.
    request_id: Option<String>,
    /// The SHA-256 of its `Idempotency-Key`, in hexadecimal.
    idempotency_key_sha256: Option<String>,
    /// How it was, as far as it changed.
    #[schema(example = json!({"plan": "starter"}))]
    before: FactsBody,
    /// How it is since.
    #[schema(example = json!({"plan": "growth"}))]
    after: FactsBody,
}

impl From<AuditEntry> for AuditEntryBody {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { row, at, author, idempotency_key_sha256, change } = entry;
        let Author { actor, key: actor_key, request_id } = author;
        let Change { action, tenant, key, before, after } = change;
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: row.to_string(),
            at: at.to_string(),
            actor: actor.as_str(),
            actor_key,
            action: action.as_str(),
            tenant_id: tenant.map(|tenant| tenant.to_string()),
            key_id: key.map(|key| key.to_string()),
            request_id,
            idempotency_key_sha256: idempotency_key_sha256.map(hex),
            before: before.into(),
            after: after.into(),
        }
    }
}

/// One page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditBody {
    /// Oldest first.
    entries: Vec<AuditEntryBody>,
    /// The `cursor` of the next page; null when this is the last one for now. Later entries come after the last `id`
    /// here, which is a cursor too.
    next_cursor: Option<String>,
}

impl From<AuditPage> for AuditBody {
    fn from(page: AuditPage) -> Self {
        let AuditPage { entries, next } = page;
        Self {
            entries: entries.into_iter().map(AuditEntryBody::from).collect(),
            next_cursor: next.map(|next| next.to_string()),
        }
    }
}
