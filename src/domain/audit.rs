//! The audit log: who changed what. One entry for each administrative change, none for one that changed nothing.
//!
//! What an entry says of a change is decided here, so that it is the same in every store.

use super::ids::{KeyId, PlanName, TenantId};
use super::key::Key;
use super::models::Models;
use super::provider_key::SealedKey;
use super::tenant::Tenant;
use super::time::{Micros, Period};
use super::zone::Zone;

/// In what role somebody makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// With the admin key.
    Admin,
    /// With a tenant's credential.
    Tenant,
    /// On the command line, with access to the ledger itself.
    Cli,
    /// A gateway, by itself.
    Gateway,
}

/// Who makes a change, and in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// In what role.
    pub actor: Actor,
    /// With which key: a tenant's by its id, the admin's by its last four characters. Never the key itself.
    pub key: Option<String>,
    /// The caller's own id of the request.
    pub request_id: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A tenant was created.
    TenantCreate,
    /// A tenant was renamed, suspended, let in again, or given another time zone.
    TenantChange,
    /// A tenant was put on another plan.
    PlanSet,
    /// A key was issued.
    KeyCreate,
    /// A key was revoked.
    KeyRevoke,
    /// A key was given an end, because another was issued in its place.
    KeyRotate,
    /// A tenant's own key for a provider was set.
    ProviderKeySet,
    /// It was removed.
    ProviderKeyRemove,
    /// Sealed keys were sealed anew under another master key.
    SecretsRotate,
    /// Another price book was put in force.
    PricesSet,
    /// Events began to be priced again. What that wrote is in the ledger, as signed corrections.
    PricesRerate,
    /// The events of old months began to be dropped.
    EventsDrop,
    /// The admin key of the ledger was made, because none was given.
    AdminKeyCreate,
}

/// What an entry tells of a tenant or a key, before or after the change: what the change is about, and no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The display name; of a key for a provider that one's name; of sealed keys the id of the master key.
    pub name: Option<String>,
    /// The plan.
    pub plan: Option<PlanName>,
    /// Whether the tenant is suspended.
    pub suspended: Option<bool>,
    /// Whose clock the tenant's days and months are of.
    pub zone: Option<Zone>,
    /// The last four characters of the key.
    pub last4: Option<String>,
    /// From when on the key is refused; `None` also for never.
    pub expires_at: Option<Micros>,
    /// The models that the key may use; `None` also for all.
    pub models: Option<Models>,
    /// The version of the price book in force, or `configured`: that of each gateway's configuration.
    pub prices: Option<String>,
    /// Which events.
    pub events: Option<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// To which tenant; `None` for what is everybody's.
    pub tenant: Option<TenantId>,
    /// To which of its keys.
    pub key: Option<KeyId>,
    /// How it was.
    pub before: Facts,
    /// How it is since.
    pub after: Facts,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log: the insert order.
    pub row: i64,
    /// When.
    pub at: Micros,
    /// Who.
    pub author: Author,
    /// The SHA-256 of the request's idempotency key, if it had one.
    pub idempotency_key_sha256: Option<[u8; 32]>,
    /// What.
    pub change: Change,
}

impl Actor {
    const ALL: [Self; 4] = [Self::Admin, Self::Tenant, Self::Cli, Self::Gateway];

    /// `admin`, `tenant`, `cli` or `gateway`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Tenant => "tenant",
            Self::Cli => "cli",
            Self::Gateway => "gateway",
        }
    }

    /// The names of all actors, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// The actor of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|actor| actor.as_str() == text)
    }
}

impl Author {
    /// Somebody of whom only the role is known.
    pub fn of(actor: Actor) -> Self {
        Self { actor, key: None, request_id: None }
    }
}

impl Action {
    const ALL: [Self; 13] = [
        Self::TenantCreate,
        Self::TenantChange,
        Self::PlanSet,
        Self::KeyCreate,
        Self::KeyRevoke,
        Self::KeyRotate,
        Self::ProviderKeySet,
        Self::ProviderKeyRemove,
        Self::SecretsRotate,
        Self::PricesSet,
        Self::PricesRerate,
        Self::EventsDrop,
        Self::AdminKeyCreate,
    ];

    /// A stable name, such as `tenant.create`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantCreate => "tenant.create",
            Self::TenantChange => "tenant.change",
            Self::PlanSet => "plan.set",
            Self::KeyCreate => "key.create",
            Self::KeyRevoke => "key.revoke",
            Self::KeyRotate => "key.rotate",
            Self::ProviderKeySet => "provider_key.set",
            Self::ProviderKeyRemove => "provider_key.remove",
            Self::SecretsRotate => "secrets.rotate",
            Self::PricesSet => "prices.set",
            Self::PricesRerate => "prices.rerate",
            Self::EventsDrop => "events.drop",
            Self::AdminKeyCreate => "admin_key.create",
        }
    }

    /// The names of all actions, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// The action of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl Change {
    /// A tenant is created.
    pub fn tenant_created(tenant: &Tenant) -> Self {
        let Tenant { id, name, plan, suspended, zone, created_at: _ } = tenant;
        let after = Facts {
            name: Some(name.clone()),
            plan: Some(plan.clone()),
            suspended: Some(*suspended),
            zone: Some(zone.clone()),
            ..Facts::default()
        };
        Self { action: Action::TenantCreate, tenant: Some(id.clone()), key: None, before: Facts::default(), after }
    }

    /// A tenant becomes another; `None` when nothing of it changes.
    pub fn tenant_changed(before: &Tenant, after: &Tenant) -> Option<Self> {
        let renamed = before.name != after.name;
        let moved = before.plan != after.plan;
        let switched = before.suspended != after.suspended;
        let elsewhere = before.zone != after.zone;
        let facts = |tenant: &Tenant| Facts {
            name: renamed.then(|| tenant.name.clone()),
            plan: moved.then(|| tenant.plan.clone()),
            suspended: switched.then_some(tenant.suspended),
            zone: elsewhere.then(|| tenant.zone.clone()),
            ..Facts::default()
        };
        let action = match (renamed || switched || elsewhere, moved) {
            (false, false) => return None,
            (false, true) => Action::PlanSet,
            (true, _) => Action::TenantChange,
        };
        Some(Self { action, tenant: Some(after.id.clone()), key: None, before: facts(before), after: facts(after) })
    }

    /// A key is issued.
    pub fn key_created(key: &Key) -> Self {
        Self {
            action: Action::KeyCreate,
            tenant: Some(key.tenant.clone()),
            key: Some(key.id.clone()),
            before: Facts::default(),
            after: Facts::of_key(key),
        }
    }

    /// A key is revoked: after it there is none.
    pub fn key_revoked(key: &Key) -> Self {
        Self {
            action: Action::KeyRevoke,
            tenant: Some(key.tenant.clone()),
            key: Some(key.id.clone()),
            before: Facts::of_key(key),
            after: Facts::default(),
        }
    }

    /// A key is to end at `after.expires_at`, because another was issued in its place.
    pub fn key_rotated(before: &Key, after: &Key) -> Self {
        Self {
            action: Action::KeyRotate,
            tenant: Some(after.tenant.clone()),
            key: Some(after.id.clone()),
            before: Facts::of_key(before),
            after: Facts::of_key(after),
        }
    }

    /// A tenant's own key for a provider is set or removed; `None` when there was none and is none.
    pub fn provider_key_set(before: Option<&SealedKey>, after: Option<&SealedKey>) -> Option<Self> {
        let tenant = after.or(before)?.tenant.clone();
        let facts = |key: Option<&SealedKey>| {
            key.map_or_else(Facts::default, |key| Facts {
                name: Some(key.provider.to_string()),
                last4: Some(key.last4.clone()),
                ..Facts::default()
            })
        };
        let action = if after.is_some() { Action::ProviderKeySet } else { Action::ProviderKeyRemove };
        Some(Self { action, tenant: Some(tenant), key: None, before: facts(before), after: facts(after) })
    }

    /// A tenant's own key for a provider is sealed anew under another master key.
    pub fn resealed(before: &SealedKey, after: &SealedKey) -> Self {
        let facts = |key: &SealedKey| Facts {
            name: Some(key.master.to_string()),
            last4: Some(key.last4.clone()),
            ..Facts::default()
        };
        let tenant = Some(after.tenant.clone());
        Self { action: Action::SecretsRotate, tenant, key: None, before: facts(before), after: facts(after) }
    }

    /// Another price book is put in force; `None`: that of each gateway's configuration.
    pub fn prices_set(before: Option<&str>, after: Option<&str>) -> Self {
        let facts = |version: Option<&str>| Facts {
            prices: Some(version.unwrap_or("configured").to_owned()),
            ..Facts::default()
        };
        Self { action: Action::PricesSet, tenant: None, key: None, before: facts(before), after: facts(after) }
    }

    /// Events, of one tenant or of all, begin to be priced again by a version of the prices.
    pub fn rerated(tenant: Option<TenantId>, events: String, version: &str) -> Self {
        let after = Facts { prices: Some(version.to_owned()), events: Some(events), ..Facts::default() };
        Self { action: Action::PricesRerate, tenant, key: None, before: Facts::default(), after }
    }

    /// Events of the months before this one begin to be dropped.
    pub fn events_dropped(before: Period) -> Self {
        let facts = Facts { events: Some(format!("before {before}")), ..Facts::default() };
        Self { action: Action::EventsDrop, tenant: None, key: None, before: facts, after: Facts::default() }
    }

    /// The ledger's own admin key is made.
    pub fn admin_key_created(last4: &str) -> Self {
        let after = Facts { last4: Some(last4.to_owned()), ..Facts::default() };
        Self { action: Action::AdminKeyCreate, tenant: None, key: None, before: Facts::default(), after }
    }
}

impl Facts {
    fn of_key(key: &Key) -> Self {
        // The hash stays where it is needed: it is what a stolen log would be searched for.
        let Key { last4, name, expires_at, models, .. } = key;
        let (name, last4, models) = (Some(name.clone()), Some(last4.clone()), models.clone());
        Self { name, last4, expires_at: *expires_at, models, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant {
            id: "acme".parse().unwrap(),
            name: "Acme".to_owned(),
            plan: "starter".parse().unwrap(),
            suspended: false,
            zone: Zone::UTC,
            created_at: Micros(1),
        }
    }

    #[test]
    fn an_entry_tells_what_changed_and_nothing_of_what_did_not() {
        let plan: PlanName = "pro".parse().unwrap();
        let moved = Tenant { plan: plan.clone(), ..acme() };
        let suspended = Tenant { suspended: true, ..acme() };
        let both = Tenant { plan: plan.clone(), name: "New".to_owned(), ..acme() };
        let check = |after: &Tenant| Change::tenant_changed(&acme(), after).map(|change| (change.action, change.after));
        let on_pro = Facts { plan: Some(plan), ..Facts::default() };
        assert_eq!(check(&acme()), None);
        assert_eq!(check(&moved), Some((Action::PlanSet, on_pro.clone())));
        let told = Facts { suspended: Some(true), ..Facts::default() };
        assert_eq!(check(&suspended), Some((Action::TenantChange, told)));
        let told = Facts { name: Some("New".to_owned()), ..on_pro };
        assert_eq!(check(&both), Some((Action::TenantChange, told)));
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let told = Facts { zone: Some(zone.clone()), ..Facts::default() };
        assert_eq!(check(&Tenant { zone, ..acme() }), Some((Action::TenantChange, told)));
    }

    #[test]
    fn actions_and_actors_survive_their_names() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
        }
        for actor in Actor::ALL {
            assert_eq!(Actor::parse(actor.as_str()), Some(actor));
        }
        assert_eq!((Action::parse("Plan.set"), Actor::parse("root")), (None, None));
    }
}
