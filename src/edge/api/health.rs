//! `/healthz`, `/readyz` and `/metrics`: for load balancers, orchestrators and Prometheus. They take no key.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ports::counters::CountersHealth;
use crate::ports::journal::Backlog;

use super::{ApiState, Listener, within};

/// What Prometheus reads: OpenMetrics text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A ledger that has taken none of the waiting events for so long does not take them: a batch is written within a second.
const BEHIND_US: u64 = 3_000_000;

/// Tells how the process is, without waiting. Boot fills it from the journal and the shutdown signal.
pub type TellPulse = Arc<dyn Fn() -> Pulse + Send + Sync>;

/// Writes all metrics as OpenMetrics text.
pub type WriteMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pulse {
    /// Shutting down: no new calls.
    pub draining: bool,
    /// How far the ledger is behind, and what the journal can still take.
    pub backlog: Backlog,
    /// How the counters are.
    pub counters: CountersHealth,
    /// The configuration was to be read again and was refused: the last good one is in force.
    pub reload_failed: bool,
}

/// The answer of `/healthz`.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthBody {
    /// `ok`: the process runs.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyBody {
    /// `ready`, `degraded` (reports are late, or shared counters are away) or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// What the status follows from.
    checks: ChecksBody,
    /// How far the ledger is behind. On the admin listener only: it tells of all tenants together.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorder: Option<RecorderBody>,
    /// The counters that this gateway shares with others. On the admin listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<SharedCountersBody>,
    /// Which configuration is in force. On the admin listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationBody>,
}

/// What readiness follows from.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChecksBody {
    /// The ledger: `ok` or `down`.
    #[schema(example = "ok")]
    store: &'static str,
    /// The way to the ledger: `ok`, `behind` (the ledger takes no events) or `full`.
    #[schema(example = "ok")]
    recorder: &'static str,
    /// The counters: `ok`, or `down` while shared ones cannot be asked: calls are refused, or admitted from leases.
    #[schema(example = "ok")]
    counters: &'static str,
    /// Whether the process shuts down.
    draining: bool,
}

/// How far the ledger is behind.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecorderBody {
    /// Settled events that are not in the ledger.
    events_waiting: u64,
    /// Admitted calls that are not settled.
    in_flight: u64,
    /// For how many milliseconds the ledger has taken none of the waiting events; 0 when there are none.
    waiting_ms: u64,
    /// Bytes that the journal occupies.
    journal_bytes: u64,
    /// Bytes that it may occupy.
    journal_bytes_max: u64,
    /// Events that the ledger refused since the start, set aside in the journal.
    quarantined: u64,
}

/// The counters that several gateways share.
#[derive(Debug, Serialize, ToSchema)]
pub struct SharedCountersBody {
    /// Gateways that share them, this one included; 0 while that is not known.
    nodes: u64,
    /// Tenants whose counters are being built anew.
    building: u64,
    /// Calls that this gateway may admit without asking.
    leased: u64,
    /// Calls whose state the counters were not told.
    notes_waiting: u64,
}

/// Which configuration is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigurationBody {
    /// Whether the last reload was refused, so that an older configuration is in force. The log says why.
    last_reload_failed: bool,
}

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(healthz)).routes(routes!(readyz))
}

pub(super) fn metrics_router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(metrics))
}

/// Whether the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    security(()),
    responses((status = 200, description = "It runs.", body = HealthBody)),
)]
async fn healthz() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// Whether the process should get calls. It should while the ledger is away: calls are journalled and booked later, and
/// taking every node out at once would turn a slow report into an outage.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "Ready, or degraded.", body = ReadyBody),
        (status = 503, description = "Draining, or the way to the ledger is full.", body = ReadyBody),
    ),
)]
async fn readyz(State(state): State<ApiState>, Extension(listener): Extension<Listener>) -> Response {
    let store_answers = within(&state, state.reports.ready()).await.is_ok();
    let Pulse { draining, backlog, counters, reload_failed } = (state.pulse)();
    let is_full = backlog.full;
    // A ledger may answer questions and take no events: it is locked, or its disk is full.
    let is_behind = backlog.waiting_us > BEHIND_US;
    let (code, status) = match (draining || is_full, store_answers && !is_behind && !counters.down) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::OK, "degraded"),
    };
    let checks = ChecksBody {
        store: if store_answers { "ok" } else { "down" },
        recorder: match (is_full, is_behind) {
            (true, _) => "full",
            (false, true) => "behind",
            (false, false) => "ok",
        },
        counters: if counters.down { "down" } else { "ok" },
        draining,
    };
    let is_admin = listener == Listener::Admin;
    let recorder = is_admin.then(|| recorder_body(&backlog));
    let configuration = is_admin.then_some(ConfigurationBody { last_reload_failed: reload_failed });
    let counters = (is_admin && counters.shared).then(|| shared_body(&counters));
    (code, Json(ReadyBody { status, checks, recorder, counters, configuration })).into_response()
}

fn shared_body(health: &CountersHealth) -> SharedCountersBody {
    let CountersHealth { nodes, building, leased, notes_waiting, .. } = *health;
    SharedCountersBody { nodes, building, leased, notes_waiting }
}

fn recorder_body(backlog: &Backlog) -> RecorderBody {
    let Backlog { events, waiting_us, in_flight, bytes, bytes_max, quarantined, .. } = *backlog;
    RecorderBody {
        events_waiting: events,
        in_flight,
        waiting_ms: waiting_us / 1_000,
        journal_bytes: bytes,
        journal_bytes_max: bytes_max,
        quarantined,
    }
}

/// All metrics, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    security(()),
    responses((status = 200, description = "OpenMetrics text.", body = String, content_type = "application/openmetrics-text")),
)]
async fn metrics(State(state): State<ApiState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], (state.metrics)())
}
