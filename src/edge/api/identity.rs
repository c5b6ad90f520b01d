//! Who asks, and what they may see: a tenant sees itself, the admin sees all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use crate::domain::ids::TenantId;
use crate::domain::key::KeyHash;
use crate::domain::refusal::Refusal;
use crate::metering::admin::hash_key;

use super::ApiState;
use super::problem::Problem;

/// Whose credential a request carries. On the proxy listener the exchange finds it and puts it into the request's
/// extensions, where no client can put anything; on the admin listener [`identify`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A tenant's key, or in dev its id.
    Tenant(TenantId),
    /// The admin key.
    Admin,
}

/// The admin key, as its hash. It can be replaced while requests run.
#[derive(Debug)]
pub struct AdminKey {
    hash: ArcSwap<KeyHash>,
}

impl AdminKey {
    /// The admin key with this hash.
    pub fn new(hash: KeyHash) -> Self {
        Self { hash: ArcSwap::from_pointee(hash) }
    }

    /// From now on the key with this hash is the admin key, and the one before is not.
    pub fn replace(&self, hash: KeyHash) {
        self.hash.store(Arc::new(hash));
    }

    /// Whether `presented` is the admin key. Takes the same time for every wrong one.
    pub fn is(&self, presented: &str) -> bool {
        hash_key(presented).0.ct_eq(&self.hash.load().0).into()
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::NoKey.into())
    }
}

/// Finds the caller on the admin listener.
pub async fn identify(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    // Nobody but this function says who calls here.
    request.extensions_mut().remove::<Caller>();
    match caller(&state, request.headers(), request.uri().query()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

fn caller(state: &ApiState, headers: &HeaderMap, query: Option<&str>) -> Result<Caller, Refusal> {
    let presented = presented(headers);
    if presented.iter().any(|one| state.admin_key.is(one)) {
        // A second credential beside it would leave open as whom the request was meant.
        let has_other = presented.iter().any(|one| !state.admin_key.is(one))
            || headers.contains_key("x-goog-api-key")
            || query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")));
        return if has_other { Err(Refusal::TwoKeys) } else { Ok(Caller::Admin) };
    }
    match (state.resolve)(headers, query) {
        // Only the admin key itself makes an admin.
        Ok(Caller::Admin) => Err(Refusal::BadKey),
        // No place that a tenant's key may be in, but there was something where the admin key may be.
        Err(Refusal::NoKey) if !presented.is_empty() => Err(Refusal::BadKey),
        other => other,
    }
}

/// Everything that stands where the admin key may be: not in the query, which ends up in logs and histories.
fn presented(headers: &HeaderMap) -> Vec<&str> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let plain = ["x-api-key", "api-key"].into_iter().flat_map(|name| headers.get_all(name));
    bearer.chain(plain.filter_map(|value| value.to_str().ok().map(str::trim))).filter(|one| !one.is_empty()).collect()
}

impl Caller {
    /// The one tenant that a request is about: the caller's own, or the one that the admin names.
    pub fn one_tenant(&self, asked: Option<&str>) -> Result<TenantId, Problem> {
        self.tenant_or_all(asked)?.ok_or_else(|| {
            Problem::parameter("tenant_id", "The admin key belongs to no tenant. Name one with tenant_id.")
        })
    }

    /// The tenant that a request is about; `None` for all, which is for the admin only.
    pub fn tenant_or_all(&self, asked: Option<&str>) -> Result<Option<TenantId>, Problem> {
        match (self, asked) {
            (Self::Tenant(own), None) => Ok(Some(own.clone())),
            (Self::Tenant(own), Some(asked)) if asked == own.as_str() => Ok(Some(own.clone())),
            // Said without a look at what was asked: whether another tenant exists is none of a tenant's business.
            (Self::Tenant(_), Some(_)) => {
                Err(Problem::forbidden("This key sees its own tenant only. Leave tenant_id out.").about("tenant_id"))
            }
            (Self::Admin, None) => Ok(None),
            (Self::Admin, Some(asked)) => asked.parse().map(Some).map_err(|_| unknown_tenant()),
        }
    }

    /// Refuses everyone but the admin.
    pub fn must_be_admin(&self) -> Result<(), Problem> {
        match self {
            Self::Admin => Ok(()),
            Self::Tenant(_) => Err(Problem::forbidden("This takes the admin key.")),
        }
    }
}

/// No tenant can have that id.
pub fn unknown_tenant() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown_tenant", "There is no tenant of that id.")
}
