//! Which columns the tables of a ledger have.
//!
//! May use: nothing of ours. Generated columns are left out. A test compares these lists with the schemas.

use super::Table;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A number of 64 bits.
    Integer,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// 0 or 1.
    Truth,
    /// The 16 bytes of an event's id.
    Id,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
}

impl Table {
    /// All of them, in an order in which each comes behind those that it refers to, and the largest first: what changes
    /// while it is copied then is in what comes later. The ledger's id comes last.
    pub const ALL: [Self; 15] = [
        Self::UsageEvents,
        Self::Tenants,
        Self::TenantPlans,
        Self::Keys,
        Self::ProviderKeys,
        Self::UsageDaily,
        Self::UsageMonthly,
        Self::UsageScopes,
        Self::ThresholdCrossings,
        Self::AuditLog,
        Self::IdempotencyRecords,
        Self::DeferredUnits,
        Self::ProviderObjects,
        Self::PriceBooks,
        Self::Meta,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsageEvents => "usage_events",
            Self::Tenants => "tenants",
            Self::TenantPlans => "tenant_plans",
            Self::Keys => "keys",
            Self::ProviderKeys => "provider_keys",
            Self::UsageDaily => "usage_daily",
            Self::UsageMonthly => "usage_monthly",
            Self::UsageScopes => "usage_scopes",
            Self::ThresholdCrossings => "threshold_crossings",
            Self::AuditLog => "audit_log",
            Self::IdempotencyRecords => "idempotency_records",
            Self::DeferredUnits => "deferred_units",
            Self::ProviderObjects => "provider_objects",
            Self::PriceBooks => "price_books",
            Self::Meta => "meta",
        }
    }

    /// The table of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.as_str() == name)
    }

    /// Its columns, those of its key first.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::UsageEvents => USAGE_EVENTS,
            Self::Tenants => TENANTS,
            Self::TenantPlans => TENANT_PLANS,
            Self::Keys => KEYS,
            Self::ProviderKeys => PROVIDER_KEYS,
            Self::UsageDaily => USAGE_DAILY,
            // The same but for the two columns of bounds.
            Self::UsageMonthly => USAGE_DAILY.split_last_chunk::<2>().map_or(USAGE_DAILY, |(sums, _)| sums),
            Self::UsageScopes => USAGE_SCOPES,
            Self::ThresholdCrossings => THRESHOLD_CROSSINGS,
            Self::AuditLog => AUDIT_LOG,
            Self::IdempotencyRecords => IDEMPOTENCY_RECORDS,
            Self::DeferredUnits => DEFERRED_UNITS,
            Self::ProviderObjects => PROVIDER_OBJECTS,
            Self::PriceBooks => PRICE_BOOKS,
            Self::Meta => META,
        }
    }

    /// How many of the columns are the key.
    pub fn key_columns(self) -> usize {
        match self {
            // tenant_id, period, provider, model
            Self::UsageDaily | Self::UsageMonthly => 4,
            // tenant_id, period, scope, subject
            Self::UsageScopes => 4,
            // provider and unit, or name; tenant_id and provider
            Self::DeferredUnits | Self::ProviderObjects | Self::ProviderKeys => 2,
            _ => 1,
        }
    }
}

const fn integer(name: &'static str) -> Column {
    Column { name, shape: Shape::Integer }
}

const fn text(name: &'static str) -> Column {
    Column { name, shape: Shape::Text }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, shape: Shape::Bytes }
}

const fn truth(name: &'static str) -> Column {
    Column { name, shape: Shape::Truth }
}

const META: &[Column] = &[
    integer("singleton"),
    bytes("ledger_id"),
    integer("revision"),
    bytes("admin_key_hash"),
    integer("events_from"),
    text("active_prices"),
    integer("active_prices_since"),
    text("active_prices_by"),
];

const PRICE_BOOKS: &[Column] =
    &[text("version"), text("document"), text("base"), integer("added_at"), text("added_by")];

const TENANTS: &[Column] = &[text("id"), text("name"), truth("suspended"), integer("created_at"), text("timezone")];

const TENANT_PLANS: &[Column] =
    &[integer("row"), text("tenant_id"), text("plan"), integer("valid_from"), text("changed_by")];

const KEYS: &[Column] = &[
    integer("row"),
    text("id"),
    text("tenant_id"),
    bytes("hash"),
    text("last4"),
    text("name"),
    integer("created_at"),
    integer("expires_at"),
    integer("revoked_at"),
    integer("last_used_at"),
    text("allowed_models"),
];

const PROVIDER_KEYS: &[Column] =
    &[text("tenant_id"), text("provider"), text("last4"), text("master_key_id"), bytes("sealed"), integer("set_at")];

const USAGE_EVENTS: &[Column] = &[
    integer("row"),
    Column { name: "id", shape: Shape::Id },
    text("tenant_id"),
    text("key_id"),
    text("user_id"),
    text("kb_id"),
    text("provider"),
    text("model"),
    text("requested_model"),
    text("endpoint"),
    integer("chats"),
    integer("prompt_tokens"),
    integer("cached_tokens"),
    integer("cache_write_tokens"),
    integer("cache_write_long_tokens"),
    integer("prompt_audio_tokens"),
    integer("prompt_image_tokens"),
    integer("cached_audio_tokens"),
    integer("completion_tokens"),
    integer("reasoning_tokens"),
    integer("completion_audio_tokens"),
    integer("completion_image_tokens"),
    integer("audio_ms"),
    integer("characters"),
    integer("images"),
    integer("web_searches"),
    integer("file_searches"),
    text("usage_source"),
    integer("estimated_cost_pico_usd"),
    integer("billable_cost_pico_usd"),
    text("priced"),
    text("price_version"),
    text("service_tier"),
    integer("requested_at"),
    integer("utc_offset_s"),
    integer("duration_us"),
    integer("first_byte_us"),
    integer("status"),
    text("outcome"),
    text("request_id"),
    Column { name: "corrects", shape: Shape::Id },
    text("priced_before"),
];

const USAGE_DAILY: &[Column] = &[
    text("tenant_id"),
    text("period"),
    text("provider"),
    text("model"),
    integer("requests"),
    integer("chats"),
    integer("failed_requests"),
    integer("prompt_tokens"),
    integer("cached_tokens"),
    integer("cache_write_tokens"),
    integer("cache_write_long_tokens"),
    integer("prompt_audio_tokens"),
    integer("prompt_image_tokens"),
    integer("cached_audio_tokens"),
    integer("completion_tokens"),
    integer("reasoning_tokens"),
    integer("completion_audio_tokens"),
    integer("completion_image_tokens"),
    integer("audio_ms"),
    integer("characters"),
    integer("images"),
    integer("web_searches"),
    integer("file_searches"),
    integer("estimated_cost_micro_usd"),
    integer("estimated_cost_rest_pico_usd"),
    integer("billable_cost_micro_usd"),
    integer("billable_cost_rest_pico_usd"),
    integer("unpriced_requests"),
    integer("estimated_requests"),
    integer("estimated_prompt_tokens"),
    integer("estimated_completion_tokens"),
    integer("first_row"),
    integer("last_row"),
];

const AUDIT_LOG: &[Column] = &[
    integer("row"),
    integer("at"),
    text("actor"),
    text("actor_key"),
    text("action"),
    text("tenant_id"),
    text("key_id"),
    text("request_id"),
    bytes("idempotency_key_sha256"),
    text("name_before"),
    text("name_after"),
    text("plan_before"),
    text("plan_after"),
    truth("suspended_before"),
    truth("suspended_after"),
    text("last4_before"),
    text("last4_after"),
    integer("expires_at_before"),
    integer("expires_at_after"),
    text("allowed_models_before"),
    text("allowed_models_after"),
    text("prices_before"),
    text("prices_after"),
    text("timezone_before"),
    text("timezone_after"),
    text("events_before"),
    text("events_after"),
];

const PROVIDER_OBJECTS: &[Column] =
    &[text("provider"), text("name"), text("tenant_id"), truth("passes"), integer("noted_at")];

const IDEMPOTENCY_RECORDS: &[Column] = &[bytes("id"), bytes("request"), bytes("answer"), integer("at")];

const USAGE_SCOPES: &[Column] = &[
    text("tenant_id"),
    text("period"),
    text("scope"),
    text("subject"),
    integer("chats"),
    integer("tokens"),
    integer("cost_nano_usd"),
];

const THRESHOLD_CROSSINGS: &[Column] = &[
    integer("row"),
    text("tenant_id"),
    text("scope"),
    text("subject"),
    text("metric"),
    text("period"),
    integer("percent"),
    integer("limit_units"),
    integer("used_units"),
    text("plan"),
    Column { name: "event_id", shape: Shape::Id },
    integer("at"),
];

const DEFERRED_UNITS: &[Column] = &[
    text("provider"),
    text("unit"),
    Column { name: "event_id", shape: Shape::Id },
    integer("requested_at"),
    integer("utc_offset_s"),
    text("tenant_id"),
    text("key_id"),
    text("user_id"),
    text("kb_id"),
    text("model"),
    text("requested_model"),
    text("endpoint"),
    integer("prompt_tokens"),
    integer("delivered_tokens"),
    integer("output_max"),
    integer("own_account"),
    integer("due_at"),
    integer("asked"),
    integer("settled_at"),
];
