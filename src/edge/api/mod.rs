//! Billing, administration and health over HTTP: one axum router for each listener, with an OpenAPI document made from
//! the same code.
//!
//! May use: `domain`, `providers`, `metering`. Knows neither pingora nor SQL. A router is called by the proxy listener
//! for its own paths, and served as it is by the admin listener.
//!
//! Who may see what is decided in `identity`, before a handler runs or reads a parameter. What a client sent too much is
//! refused by `input`. What a store says goes to the log, never to a client (`problem`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::refusal::Refusal;
use crate::edge::strangers::Strangers;
use crate::metering::admin::Admin;
use crate::metering::identity::Identities;
use crate::metering::reports::Reports;
use crate::metering::verify::counters::CountersSource;

mod admin;
mod audit;
mod billing;
mod cell;
mod counters;
mod crossings;
mod csv;
mod focus;
pub mod health;
mod identity;
mod input;
mod once;
mod prices;
mod problem;
mod provider_keys;
pub mod wire;

use health::{TellPulse, WriteMetrics};
use problem::Problem;

/// How long the ledger may take for one answer. Reports of a month take milliseconds; beyond this a client is told to
/// come back rather than kept.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Tenants, plans and keys.
    pub admin: Arc<Admin>,
    /// Reports.
    pub reports: Arc<Reports>,
    /// Counters as they are.
    pub counting: Arc<CountersSource>,
    /// Whose a credential is. The admin key is accepted on the admin listener only.
    pub identities: Arc<Identities>,
    /// Who presented wrong credentials, on the proxy listener.
    pub strangers: Arc<Strangers>,
    /// The same on the admin listener: an app that has a wrong key must not lock out the admin who has its address.
    pub admin_strangers: Arc<Strangers>,
    /// How the process is.
    pub pulse: TellPulse,
    /// All metrics.
    pub metrics: WriteMetrics,
    /// How long the ledger may take; [`STORE_TIMEOUT`].
    pub store_timeout: Duration,
}

/// Which listener a router is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Proxy,
    Admin,
}

/// The OpenAPI document of one listener.
#[derive(Clone)]
struct Document(Bytes);

/// What the document says beside its routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Tollgate", description = "Billing and administration of the gateway. Errors are `application/problem+json` (RFC 9457)."),
    components(schemas(problem::ProblemBody)),
    modifiers(&KeyScheme),
    security(("key" = [])),
    tags(
        (name = "billing", description = "What a tenant used, what is left, what it costs."),
        (name = "admin", description = "Tenants, their keys, and the log of changes."),
        (name = "health", description = "For load balancers and Prometheus."),
    ),
)]
struct Base;

struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A tenant's key, or on the admin listener the admin key."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The routes of the proxy listener.
pub fn proxy_router(state: ApiState) -> Router {
    finish(state, billing::router(), health::router(), Listener::Proxy)
}

/// The routes of the admin listener.
pub fn admin_router(state: ApiState) -> Router {
    let open = health::router().merge(health::metrics_router());
    let keyed = billing::router()
        .merge(admin::router())
        .merge(audit::router())
        .merge(counters::router())
        .merge(crossings::router())
        .merge(prices::router())
        .merge(provider_keys::router());
    finish(state, keyed, open, Listener::Admin)
}

/// `keyed` routes take a key, `open` ones none.
fn finish(
    state: ApiState,
    keyed: OpenApiRouter<ApiState>,
    open: OpenApiRouter<ApiState>,
    listener: Listener,
) -> Router {
    let mut base = Base::openapi();
    if listener == Listener::Proxy
        && let Some(tags) = &mut base.tags
    {
        tags.retain(|tag| tag.name != "admin");
    }
    let keyed = keyed.route_layer(from_fn_with_state(state.clone(), identity::identify));
    let routes = OpenApiRouter::with_openapi(base).merge(keyed).merge(open).routes(routes!(openapi));
    let (router, document) = routes.split_for_parts();
    let text = document.to_json().unwrap_or_else(|error| {
        tracing::error!(%error, "The OpenAPI document could not be written.");
        String::new()
    });
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(guard_answer))
        .layer(Extension(listener))
        .layer(Extension(Document(Bytes::from(text))))
        .with_state(state)
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    security(()),
    responses((status = 200, description = "The OpenAPI document of this listener.", content_type = "application/json")),
)]
async fn openapi(Extension(Document(text)): Extension<Document>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], text)
}

async fn no_route() -> Problem {
    Problem::not_found("unknown_route", "No such route. /openapi.json lists those there are.")
}

async fn no_method() -> Problem {
    let detail = "This route does not have that method. The Allow header lists those it has.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The answer to what a listener refuses before any route is looked for.
pub fn refused(refusal: Refusal) -> Response {
    guarded(Problem::from(refusal).into_response())
}

async fn guard_answer(request: Request, next: Next) -> Response {
    guarded(next.run(request).await)
}

/// Answers hold bills and keys: no cache keeps them, no browser guesses at what they are.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Waits for an answer that the ledger has a part in, no longer than it may take. Dropping a write at that point rolls
/// it back or leaves it done; both are whole.
async fn within<T, E: Into<Problem>>(state: &ApiState, work: impl Future<Output = Result<T, E>>) -> Result<T, Problem> {
    match tokio::time::timeout(state.store_timeout, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => {
            tracing::error!("The ledger did not answer a billing or admin request in time.");
            Err(Problem::ledger_silent())
        }
    }
}

#[cfg(test)]
mod tests;
