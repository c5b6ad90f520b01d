//! Tenants, their plans and keys, at rest; the log of their changes; and what made each change happen once.

use crate::domain::audit::{Action, Actor, AuditEntry, Author, Change};
use crate::domain::ids::{KeyId, PlanName, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::domain::tenant::Tenant;
use crate::domain::time::{MICROS_PER_SECOND, Micros};
use crate::domain::zone::Zone;

use super::prices::{ActiveBook, PriceStore};
use super::{BoxFuture, StoreError};

/// All tenants and keys, and the revision they were read at.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Every tenant.
    pub tenants: Vec<Tenant>,
    /// Every key that is not revoked.
    pub keys: Vec<Key>,
    /// Every tenant's own keys for providers, sealed.
    pub provider_keys: Vec<SealedKey>,
    /// The price book that was put in force for all gateways; `None`: each has its own.
    pub prices: Option<ActiveBook>,
    /// Grows with each change; see [`TenantStore::revision`].
    pub revision: i64,
}

/// A change to a tenant; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// A new display name.
    pub name: Option<String>,
    /// Suspended or not.
    pub suspended: Option<bool>,
    /// A new plan.
    pub plan: Option<PlanName>,
    /// Another time zone.
    pub zone: Option<Zone>,
}

/// A plan that a tenant was put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanChange {
    /// The plan.
    pub plan: PlanName,
    /// Since when; until the next change.
    pub valid_from: Micros,
    /// Who asked for it, where that is known.
    pub by: Option<String>,
}

/// The plan of a tenant's history that held at an instant: the first one before there was any.
pub fn plan_at(history: &[PlanChange], at: Micros) -> Option<&PlanChange> {
    history.iter().rev().find(|change| change.valid_from <= at).or(history.first())
}

/// How long the answer to a request with an idempotency key is remembered, in microseconds: 24 hours.
pub const REMEMBERED_US: i64 = 24 * 3_600 * MICROS_PER_SECOND;

/// 32 bytes that stand for something: a SHA-256 or an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// What is remembered of a request with an idempotency key, together with what it changed. A store sees neither the key
/// nor the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Stands for caller, route and idempotency key: what a second try is found by.
    pub id: Digest,
    /// The SHA-256 of the idempotency key, for the audit log.
    pub key_sha256: Digest,
    /// What was asked and answered.
    pub answered: Answered,
}

/// What a remembered request asked for, and the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Stands for the body: the same id with another body is another request.
    pub request: Digest,
    /// The answer, encrypted.
    pub sealed: Vec<u8>,
}

/// By whom and when something is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// By whom.
    pub author: Author,
    /// When.
    pub at: Micros,
    /// What to remember of the request, if it came with an idempotency key.
    pub memory: Option<Memory>,
}

impl Act {
    /// An act that may be done twice.
    pub fn by(author: Author, at: Micros) -> Self {
        Self { author, at, memory: None }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done<T> {
    /// It is made, or there was nothing to change.
    Now(T),
    /// A request of the same id was answered within the last [`REMEMBERED_US`]: nothing was done.
    Before(Answered),
}

/// Which entries of the audit log; `None` for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Changes of one tenant.
    pub tenant: Option<TenantId>,
    /// By whom.
    pub actor: Option<Actor>,
    /// What was done.
    pub action: Option<Action>,
    /// At or after.
    pub from: Option<Micros>,
    /// Before.
    pub to: Option<Micros>,
}

impl AuditFilter {
    /// Whether an entry is one of these.
    pub fn fits(&self, entry: &AuditEntry) -> bool {
        let Self { tenant, actor, action, from, to } = self;
        tenant.as_ref().is_none_or(|tenant| entry.change.tenant.as_ref() == Some(tenant))
            && actor.is_none_or(|actor| entry.author.actor == actor)
            && action.is_none_or(|action| entry.change.action == action)
            && from.is_none_or(|from| entry.at >= from)
            && to.is_none_or(|to| entry.at < to)
    }
}

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Which entries.
    pub filter: AuditFilter,
    /// Where it begins.
    pub start: AuditStart,
    /// At most this many entries.
    pub entries_max: u32,
}

/// Where a part of the audit log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditStart {
    /// After the entry in that row; 0 for the oldest.
    After(i64),
    /// So many entries before the end.
    End,
}

/// The store of tenants, plans of tenants and keys. The contract: each call is one transaction; one that changes
/// anything also raises the revision, so that another process sees it; one that fails changed nothing.
///
/// A call that takes an [`Act`] also writes, in the same transaction, exactly one entry of the audit log if it changed
/// anything and none if not; and, if it succeeds, the act's memory. When a memory of that id is there already and not
/// too old, the call changes nothing and gives that one ([`Done::Before`]). Of any number of concurrent calls with the
/// same id one is done, the others wait for it. So no crash can leave a change without its entry and its answer, and
/// none can make it happen twice. Each call that takes an act may also drop a bounded number of memories that are too
/// old.
pub trait TenantStore: PriceStore + Send + Sync {
    /// Everything, read at one revision.
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>>;

    /// A number that grows with every change of tenants, keys or the prices in force by any process.
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// Creates a tenant on a plan. [`StoreError::Exists`] when the id is taken.
    fn create_tenant<'a>(&'a self, tenant: &'a Tenant, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>>;

    /// Changes a tenant and says how it is now; another plan is a new entry in its history. [`StoreError::Missing`] when there is none.
    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Tenant>, StoreError>>;

    /// The plans a tenant was put on, oldest first; the last is the one it is on. Empty when there is no such tenant.
    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>>;

    /// Adds a key. [`StoreError::Missing`] when its tenant does not exist, [`StoreError::Exists`] when its id or hash
    /// is taken.
    fn add_key<'a>(&'a self, key: &'a Key, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>>;

    /// All keys of a tenant, revoked ones too, newest first.
    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>>;

    /// Revokes a key; revoking twice changes nothing. [`StoreError::Missing`] when the tenant has no such key.
    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Key>, StoreError>>;

    /// Adds a key in the place of another, which ends at `ends_at` if it would not end before. [`StoreError::Missing`] when
    /// the tenant has no such key, or it is revoked. It is two changes, and so two entries of the audit log.
    fn rotate_key<'a>(
        &'a self,
        old: &'a KeyId,
        ends_at: Micros,
        new: &'a Key,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>>;

    /// Puts a tenant's own key for a provider in the place of the one it has. [`StoreError::Missing`] when there is no such
    /// tenant.
    fn set_provider_key<'a>(&'a self, key: &'a SealedKey, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>>;

    /// Removes a tenant's own key for a provider, and says whether there was one: with `sealed_with`, one that is sealed with that
    /// master key. Where there is none nothing changes.
    fn remove_provider_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        provider: &'a ProviderId,
        sealed_with: Option<MasterId>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>>;

    /// Puts `after` in the place of `before`, the same key sealed anew; says whether `before` was still there.
    fn reseal_provider_key<'a>(
        &'a self,
        before: &'a SealedKey,
        after: &'a SealedKey,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>>;

    /// What a request of this id was answered within [`REMEMBERED_US`] before `now`.
    fn recall(&self, id: Digest, now: Micros) -> BoxFuture<'_, Result<Option<Answered>, StoreError>>;

    /// Writes the entry of a change that is made in steps, each a transaction of its own, before the first of them: so
    /// there is no step without its entry.
    fn record<'a>(&'a self, change: &'a Change, act: &'a Act) -> BoxFuture<'a, Result<(), StoreError>>;

    /// A part of the audit log, oldest entry first. No call of any store changes an entry or drops one, and the store
    /// refuses whoever else tries.
    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>>;

    /// Remembers when keys last made a call, to the minute below. Keys that are not there and earlier times than the
    /// known ones change nothing. The revision stays: no decision depends on it.
    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The hash of the admin key, if one was made for this ledger.
    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>>;

    /// Keeps the hash of the admin key that ends so, unless there is one: of several gateways that start together one makes it,
    /// and the log says which key.
    fn set_admin_key_hash<'a>(
        &'a self,
        hash: KeyHash,
        last4: &'a str,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}
