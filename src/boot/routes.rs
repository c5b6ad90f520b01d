//! What the billing and admin routes work with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;

use crate::domain::key::KeyHash;
use crate::domain::refusal::Refusal;
use crate::edge::api::health::Pulse;
use crate::edge::api::identity::{AdminKey, Caller};
use crate::edge::api::{ApiState, PlanChanges, Resolve, STORE_TIMEOUT};
use crate::edge::auth;
use crate::metering::admin::Admin;
use crate::metering::identity::{Identities, Identity, Mode};
use crate::metering::reports::Reports;
use crate::ports::journal::Journal;
use crate::telemetry::metrics::Metrics;

/// The parts that routes share with the request path.
pub(super) struct Shared {
    pub admin: Admin,
    pub reports: Reports,
    pub admin_key: KeyHash,
    pub identities: Arc<Identities>,
    pub journal: Arc<dyn Journal>,
    pub metrics: Arc<Metrics>,
    /// Whether the process shuts down.
    pub draining: Arc<AtomicBool>,
}

/// The state of the routers on both listeners.
pub(super) fn state(shared: Shared) -> ApiState {
    let Shared { admin, reports, admin_key, identities, journal, metrics, draining } = shared;
    let plan_changes = match identities.mode() {
        Mode::Dev => PlanChanges::OwnTenant,
        Mode::Prod => PlanChanges::AdminOnly,
    };
    ApiState {
        admin: Arc::new(admin),
        reports: Arc::new(reports),
        admin_key: Arc::new(AdminKey::new(admin_key)),
        resolve: resolve(identities),
        plan_changes,
        pulse: Arc::new(move || {
            let backlog = journal.backlog();
            let draining = draining.load(Ordering::Relaxed);
            Pulse { draining, events_waiting: backlog.events, in_flight: backlog.in_flight, free: backlog.free }
        }),
        metrics: Arc::new(move || metrics.encode()),
        store_timeout: STORE_TIMEOUT,
    }
}

/// A tenant on the admin listener: one that is known already. Nothing is created or looked up there.
fn resolve(identities: Arc<Identities>) -> Resolve {
    Arc::new(move |headers: &HeaderMap, query: Option<&str>| {
        let presented = auth::presented(headers, query)?;
        match identities.known(&presented.secret)? {
            Identity::Tenant(account, _) => Ok(Caller::Tenant(account.tenant.id.clone())),
            Identity::Admin => Err(Refusal::BadKey),
        }
    })
}
