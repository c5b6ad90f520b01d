//! Tenants and their keys from a shell, on the ledger itself: a gateway that runs on the same ledger sees each change
//! within seconds.
//!
//! May use: `boot`, `metering`, `adapters`, `config`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::adapters::memory_counters::MemoryCounters;
use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::boot::ledger::{Ledger, PATIENCE_OF_COMMANDS};
use crate::config::Config;
use crate::domain::audit::{Actor, Author};
use crate::domain::ids::{KeyId, TenantId};
use crate::domain::key::Key;
use crate::domain::models::Models;
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::zone::Zone;
use crate::metering::admin::{Admin, OVERLAP_DEFAULT_S, Order, TenantEdit};
use crate::metering::reports::Reports;
use crate::metering::rerate::Rerating;
use crate::metering::snapshot::Snapshots;
use crate::ports::clock::Clock;

use super::Failure;
use super::output::{Output, complain, table};

/// What `tollgate tenant` can do.
#[derive(Subcommand)]
pub(super) enum TenantCommand {
    /// Creates a tenant.
    #[command(after_help = "Example:\n  tollgate tenant create acme --name 'Acme Inc.' --plan growth")]
    Create(CreateTenant),
    /// Lists all tenants.
    List,
    /// Shows one tenant.
    Show {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Refuses all keys of a tenant until it is resumed.
    Suspend {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Lets a suspended tenant in again.
    Resume {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Puts a tenant on another plan; what was used carries over.
    #[command(after_help = "Example:\n  tollgate tenant set-plan acme pro")]
    SetPlan {
        /// The tenant's id.
        tenant: TenantId,
        /// The plan's name; see tollgate plan list.
        plan: String,
    },
    /// Gives a tenant another time zone, from its next call on; what was summed stays.
    #[command(after_help = "Example:\n  tollgate tenant set-timezone acme Europe/Berlin")]
    SetTimezone {
        /// The tenant's id.
        tenant: TenantId,
        /// The zone's IANA name.
        timezone: Zone,
    },
}

/// A new tenant.
#[derive(Args)]
pub(super) struct CreateTenant {
    /// Its id: a-z, 0-9, '_' and '-'.
    tenant: TenantId,
    /// Its display name; the id without one.
    #[arg(long)]
    name: Option<String>,
    /// Its plan.
    #[arg(long, default_value = "starter")]
    plan: String,
    /// Whose clock its days and months are of: an IANA name, such as Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    timezone: Zone,
}

/// What `tollgate key` can do.
#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Issues a key. It is shown this once and kept as a hash.
    #[command(after_help = "Example:\n  tollgate key create acme --name backend --expires 2027-01-01T00:00:00Z")]
    Create {
        /// Whose key.
        tenant: TenantId,
        /// A name to tell keys apart.
        #[arg(long, default_value = "default")]
        name: String,
        /// From when on it is refused (RFC 3339); never without one.
        #[arg(long, value_name = "TIME")]
        expires: Option<Micros>,
        /// The models that it may use, such as 'gpt-4o*,gemini-2.5-*'; those that the plan allows without it.
        #[arg(long, value_name = "PATTERNS")]
        models: Option<Models>,
    },
    /// Issues a key in the place of another, which works on for a while beside it.
    #[command(after_help = "Example:\n  tollgate key rotate acme key_0123456789abcdef --overlap 3600")]
    Rotate {
        /// Whose key.
        tenant: TenantId,
        /// The old key's id, such as key_0123456789abcdef.
        key: KeyId,
        /// How long the old key works on, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = OVERLAP_DEFAULT_S)]
        overlap: u32,
        /// From when on the new key is refused (RFC 3339); as the old one was without one.
        #[arg(long, value_name = "TIME")]
        expires: Option<Micros>,
    },
    /// Lists the keys of a tenant, revoked ones too.
    List {
        /// Whose keys.
        tenant: TenantId,
    },
    /// Revokes a key for good.
    Revoke {
        /// Whose key.
        tenant: TenantId,
        /// The key's id, such as key_0123456789abcdef.
        key: KeyId,
    },
}

/// What commands on the ledger work with.
pub(super) struct Desk {
    /// Administration of tenants.
    pub admin: Admin,
    /// Reports over usage.
    pub reports: Reports,
    /// Pricing of events once more.
    pub rerating: Rerating,
}

/// Who makes changes here, for the audit log.
pub(super) fn author() -> Author {
    Author::of(Actor::Cli)
}

/// What a command does with the ledger. None changes the schema of one that is there but [`Access::Migrates`]: gateways
/// of another version may be at work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads what is there.
    Reads,
    /// Changes what is there.
    Changes,
    /// The same, and makes a ledger where there is none: what a first user does before the first start.
    Begins,
    /// Makes the ledger, or brings its schema up to date.
    Migrates,
}

impl Access {
    async fn open(self, config: &Config) -> Result<Ledger, Failure> {
        if matches!(self, Self::Begins | Self::Migrates) {
            boot::make_data_dir(&config.data_dir)?;
        }
        Ok(match self {
            Self::Migrates => Ledger::open(config, true, PATIENCE_OF_COMMANDS).await?,
            _ => Ledger::open_as_it_is(config, self == Self::Begins, PATIENCE_OF_COMMANDS).await?,
        })
    }

    async fn close(self, ledger: &Ledger) -> Result<(), Failure> {
        if self == Self::Reads {
            ledger.leave().await;
            return Ok(());
        }
        ledger.close().await.map_err(|error| Failure::from(error.to_string()))
    }
}

/// Opens the ledger, does `work` and closes it.
pub(super) fn with_ledger<T>(
    config: &Config,
    access: Access,
    work: impl AsyncFnOnce(&Desk) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system refused a runtime: {error}: raise the limits of this user (ulimit -a)"))?;
    runtime.block_on(async {
        let ledger = access.open(config).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (tenants, usage) = (ledger.tenants(), ledger.usage());
        let (plans, prices) = (boot::plans(config)?, boot::prices(config)?);
        let opened = Snapshots::open_anyway(tenants.as_ref(), plans, prices, boot::PRICE_FORMAT).await;
        let (snapshots, unreadable) = opened.map_err(|error| Failure::from(error.to_string()))?;
        snapshots.set_vault(boot::vault(config));
        let snapshots = Arc::new(snapshots);
        if let Some(why) = unreadable {
            complain(&[format!("prices here are those of the configuration: {why}: see tollgate prices update")]);
        }
        // What calls in flight hold is known to the gateway's own process only; these counters stay empty.
        let counters = Arc::new(MemoryCounters::new());
        let desk = Desk {
            admin: Admin::new(tenants.clone(), snapshots.clone(), counters, clock.clone()),
            reports: Reports::new(usage.clone(), snapshots.clone(), clock),
            rerating: Rerating::new(usage, tenants, snapshots),
        };
        let done = work(&desk).await;
        let closed = access.close(&ledger).await;
        let done = done?;
        closed.map(|()| done)
    })
}

/// Runs `tollgate tenant`.
pub(super) fn tenant(command: TenantCommand, config: &Config, output: Output) -> Result<(), Failure> {
    if let TenantCommand::List = command {
        let tenants = with_ledger(config, Access::Reads, async |desk| Ok(desk.admin.tenants().await?))?;
        let document: Vec<Value> = tenants.iter().map(tenant_document).collect();
        return output.print(&document, || tenant_table(&tenants));
    }
    let author = author();
    let access = match command {
        TenantCommand::Create(_) => Access::Begins,
        TenantCommand::List | TenantCommand::Show { .. } => Access::Reads,
        _ => Access::Changes,
    };
    let tenant = with_ledger(config, access, async |desk| {
        let admin = &desk.admin;
        Ok(match command {
            TenantCommand::Create(CreateTenant { tenant, name, plan, timezone }) => {
                let name = name.unwrap_or_else(|| tenant.to_string());
                admin.create_tenant(Order::by(&author), tenant, name, &plan, timezone).await?
            }
            TenantCommand::Suspend { tenant } => admin.change_tenant(&author, &tenant, suspended(true)).await?,
            TenantCommand::Resume { tenant } => admin.change_tenant(&author, &tenant, suspended(false)).await?,
            TenantCommand::SetTimezone { tenant, timezone } => {
                let edit = TenantEdit { zone: Some(timezone), ..TenantEdit::default() };
                admin.change_tenant(&author, &tenant, edit).await?
            }
            TenantCommand::SetPlan { tenant, plan } => {
                admin.set_plan(Order::by(&author), &tenant, &plan).await?;
                admin.tenant(&tenant).await?
            }
            TenantCommand::Show { tenant } => admin.tenant(&tenant).await?,
            TenantCommand::List => return Err(Failure(Vec::new())),
        })
    })?;
    output.print(&tenant_document(&tenant), || tenant_table(std::slice::from_ref(&tenant)))
}

fn suspended(is: bool) -> TenantEdit {
    TenantEdit { suspended: Some(is), ..TenantEdit::default() }
}

fn tenant_document(tenant: &Tenant) -> Value {
    let Tenant { id, name, plan, suspended, zone, created_at } = tenant;
    json!({
        "id": id.as_str(), "name": name, "plan": plan.as_str(), "suspended": suspended,
        "timezone": zone.name(), "created_at": created_at.to_string(),
    })
}

fn tenant_table(tenants: &[Tenant]) -> String {
    let row = |tenant: &Tenant| {
        let state = if tenant.suspended { "suspended" } else { "active" };
        [
            tenant.id.to_string(),
            tenant.name.clone(),
            tenant.plan.to_string(),
            state.to_owned(),
            tenant.zone.to_string(),
            tenant.created_at.to_string(),
        ]
    };
    table(["ID", "NAME", "PLAN", "STATE", "TIMEZONE", "CREATED"], &tenants.iter().map(row).collect::<Vec<_>>())
}

/// Runs `tollgate key`.
pub(super) fn key(command: KeyCommand, config: &Config, output: Output) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { tenant, name, expires, models } => {
            let author = author();
            let (key, secret) = with_ledger(config, Access::Changes, async |desk| {
                Ok(desk.admin.issue_key(Order::by(&author), &tenant, name, expires, models).await?)
            })?;
            show_once(&key, &secret, output)
        }
        KeyCommand::Rotate { tenant, key: old, overlap, expires } => {
            let author = author();
            let (key, secret) = with_ledger(config, Access::Changes, async |desk| {
                Ok(desk.admin.rotate_key(Order::by(&author), &tenant, &old, overlap, expires).await?)
            })?;
            show_once(&key, &secret, output)
        }
        KeyCommand::List { tenant } => {
            let keys = with_ledger(config, Access::Reads, async |desk| Ok(desk.admin.keys(&tenant).await?))?;
            let document: Vec<Value> = keys.iter().map(key_document).collect();
            output.print(&document, || key_table(&keys))
        }
        KeyCommand::Revoke { tenant, key } => {
            let author = author();
            let key = with_ledger(config, Access::Changes, async |desk| {
                Ok(desk.admin.revoke_key(&author, &tenant, &key).await?)
            })?;
            output.print(&key_document(&key), || key_table(std::slice::from_ref(&key)))
        }
    }
}

fn show_once(key: &Key, secret: &str, output: Output) -> Result<(), Failure> {
    let mut document = key_document(key);
    if let Some(members) = document.as_object_mut() {
        members.insert("key".to_owned(), Value::from(secret));
    }
    output.print(&document, || {
        format!("{secret}\n\nThis key of tenant {} is shown this once. Its id is {}.", key.tenant, key.id)
    })
}

fn key_document(key: &Key) -> Value {
    let Key { id, tenant, hash: _, last4, name, created_at, expires_at, revoked_at, last_used_at, models } = key;
    let time = |at: &Option<Micros>| at.map(|at| at.to_string());
    json!({
        "id": id.as_str(), "tenant_id": tenant.as_str(), "name": name, "last4": last4,
        "created_at": created_at.to_string(), "expires_at": time(expires_at), "revoked_at": time(revoked_at),
        "last_used_at": time(last_used_at),
        "allowed_models": models.as_ref().map(|models| models.patterns().collect::<Vec<_>>()),
    })
}

fn key_table(keys: &[Key]) -> String {
    let time = |at: Option<Micros>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let row = |key: &Key| {
        [
            key.id.to_string(),
            key.name.clone(),
            format!("…{}", key.last4),
            key.created_at.to_string(),
            time(key.expires_at),
            time(key.revoked_at),
            time(key.last_used_at),
        ]
    };
    let head = ["ID", "NAME", "KEY", "CREATED", "EXPIRES", "REVOKED", "LAST USED"];
    table(head, &keys.iter().map(row).collect::<Vec<_>>())
}
