//! The bodies of the admin routes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::key::Key;
use crate::domain::provider_key::SealedKey;
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantBody {
    /// Its id.
    #[schema(example = "acme")]
    id: String,
    /// Its display name.
    #[schema(example = "Acme")]
    name: String,
    /// The plan it is on.
    #[schema(example = "starter")]
    plan: String,
    /// Whether its keys are refused.
    suspended: bool,
    /// Whose clock its days and months are of: an IANA name.
    #[schema(example = "Europe/Berlin")]
    timezone: String,
    /// When it was created.
    #[schema(example = "2026-11-24T10:00:00Z")]
    created_at: String,
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        let Tenant { id, name, plan, suspended, zone, created_at } = tenant;
        let (id, plan, timezone) = (id.to_string(), plan.to_string(), zone.to_string());
        Self { id, name, plan, suspended, timezone, created_at: created_at.to_string() }
    }
}

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantsBody {
    /// In the order of their ids.
    pub tenants: Vec<TenantBody>,
}

/// The body of `POST /admin/tenants`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its id: 1 to 64 characters out of `a-z`, `0-9`, `_` and `-`.
    #[schema(example = "acme")]
    pub id: String,
    /// Its display name; the id where there is none.
    #[schema(example = "Acme")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its plan.
    #[schema(example = "starter")]
    pub plan: String,
    /// Its time zone, by its IANA name; UTC where there is none.
    #[schema(example = "Europe/Berlin")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

impl NewTenant {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["id", "name", "plan", "timezone"];
}

/// The body of `PATCH /admin/tenants/{id}`; what is not there stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// A new display name.
    pub name: Option<String>,
    /// Whether its keys are refused.
    pub suspended: Option<bool>,
    /// Another time zone, by its IANA name. It holds from the next call on: what was summed stays.
    pub timezone: Option<String>,
}

impl TenantPatch {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["name", "suspended", "timezone"];
}

/// What is known of a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyBody {
    /// Its public id. It gives no access.
    #[schema(example = "key_0123456789abcdef")]
    pub id: String,
    /// Whose it is.
    #[schema(example = "acme")]
    tenant_id: String,
    /// Its display name.
    #[schema(example = "production")]
    name: String,
    /// Its last four characters.
    #[schema(example = "x7Qa")]
    last4: String,
    /// When it was issued.
    created_at: String,
    /// From when on it is refused; null for never.
    expires_at: Option<String>,
    /// When it was revoked.
    revoked_at: Option<String>,
    /// When it last made a call, to the minute.
    last_used_at: Option<String>,
    /// Patterns of the models that it may use of those that the plan allows; null for all of them.
    #[schema(example = json!(["gpt-4o*"]))]
    allowed_models: Option<Vec<String>>,
}

impl From<Key> for KeyBody {
    fn from(key: Key) -> Self {
        // The hash stays inside: it is what a stolen ledger would be searched for.
        let Key { id, tenant, hash: _, last4, name, created_at, expires_at, revoked_at, last_used_at, models } = key;
        let text = |at: Option<Micros>| at.map(|at| at.to_string());
        Self {
            id: id.to_string(),
            tenant_id: tenant.to_string(),
            name,
            last4,
            created_at: created_at.to_string(),
            expires_at: text(expires_at),
            revoked_at: text(revoked_at),
            last_used_at: text(last_used_at),
            allowed_models: models.map(|models| models.patterns().map(str::to_owned).collect()),
        }
    }
}

/// A new key, with the key itself.
#[derive(Serialize, ToSchema)]
pub struct IssuedKeyBody {
    /// What is known of the key.
    #[serde(flatten)]
    pub known: KeyBody,
    /// The key. It is shown this once and kept nowhere; the same request with the same `Idempotency-Key` shows it again.
    #[schema(example = "tg_live_0123456789abcdefghijABCDEFGHIJ01abc123")]
    pub key: String,
}

/// All keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeysBody {
    /// Newest first, revoked ones too.
    pub keys: Vec<KeyBody>,
}

/// The body of `POST /admin/tenants/{id}/keys/{key_id}/rotate`; `{}` takes the defaults.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// How long the old key works on, in seconds: a day where it is not said, at most 31 days, 0 to end it at once.
    #[schema(example = 86_400)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u32>,
    /// From when on the new key is refused; as the old one was where it is not said.
    #[schema(example = "2027-11-24T00:00:00Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl KeyRotation {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["overlap_seconds", "expires_at"];
}

/// The body of `PUT /admin/tenants/{id}/provider-keys/{provider}`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProviderKey {
    /// The tenant's key at that provider. It is encrypted at once and never shown again.
    #[schema(example = "sk-proj-0123456789abcdef")]
    pub key: String,
}

impl NewProviderKey {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["key"];
}

/// What is known of a tenant's own key for a provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderKeyBody {
    /// For which provider.
    #[schema(example = "openai")]
    provider: String,
    /// Its last four characters.
    #[schema(example = "cdef")]
    last4: String,
    /// When it was set.
    #[schema(example = "2026-11-24T10:00:00Z")]
    set_at: String,
    /// The id of the master key that it is encrypted with.
    #[schema(example = "0123456789abcdef")]
    master_key_id: String,
}

impl From<SealedKey> for ProviderKeyBody {
    fn from(key: SealedKey) -> Self {
        let SealedKey { tenant: _, provider, last4, master, sealed: _, set_at } = key;
        let (provider, set_at, master_key_id) = (provider.to_string(), set_at.to_string(), master.to_string());
        Self { provider, last4, set_at, master_key_id }
    }
}

/// A tenant's own keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderKeysBody {
    /// In the order of the providers' names.
    pub provider_keys: Vec<ProviderKeyBody>,
}

/// The body of `POST /admin/tenants/{id}/keys`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its display name.
    #[schema(example = "production")]
    pub name: String,
    /// From when on it is refused; never where there is none.
    #[schema(example = "2027-11-24T00:00:00Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Patterns of the models that it may use: `*` is anything, `#` a digit. Those that the plan allows where there is none.
    #[schema(example = json!(["gpt-4o*"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
}

impl NewKey {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["name", "expires_at", "allowed_models"];
}
