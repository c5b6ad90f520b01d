//! Who asks, and what they may see: a tenant sees itself, the admin sees all.

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::request::Parts;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::domain::audit::{Actor, Author};
use crate::domain::ids::TenantId;
use crate::domain::key;
use crate::domain::refusal::Refusal;
use crate::edge::auth;
use crate::edge::strangers::Guest;
use crate::metering::identity::Identity;

use super::problem::Problem;
use super::{ApiState, Listener, within};

/// Whose credential a request carries. [`identify`] puts it into the request's extensions, where no client can put
/// anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// A tenant's key, or in dev its id.
    Tenant(TenantId),
    /// The admin key.
    Admin,
}

/// Who asks for a change: for the audit log, and for what an idempotency key is bound to.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Without the id of the request.
    pub author: Author,
    /// The credential.
    pub secret: SecretString,
}

impl FromRequestParts<ApiState> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::NoKey.into())
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::NoKey.into())
    }
}

/// Finds who asks, before any handler runs.
pub async fn identify(
    State(state): State<ApiState>,
    Extension(listener): Extension<Listener>,
    mut request: Request,
    next: Next,
) -> Response {
    let guest = request.extensions().get::<Guest>().copied().unwrap_or_default();
    let found = match secret(request.headers(), request.uri().query(), listener) {
        Ok(secret) => within(&state, asker(&state, (&secret, guest), listener)).await,
        Err(refusal) => Err(refusal.into()),
    };
    match found {
        Ok((asker, caller)) => {
            request.extensions_mut().insert(asker);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn asker(
    state: &ApiState,
    (secret, guest): (&str, Guest),
    listener: Listener,
) -> Result<(Asker, Caller), Refusal> {
    let strangers = match listener {
        Listener::Proxy => &state.strangers,
        Listener::Admin => &state.admin_strangers,
    };
    let found = strangers.identity(&state.identities, secret, || guest).await?;
    let (asker, actor, key) = match (found, listener) {
        (Identity::Tenant(account, key), _) => {
            (Asker::Tenant(account.tenant.id.clone()), Actor::Tenant, key.map(|key| key.id.to_string()))
        }
        (Identity::Admin, Listener::Admin) => (Asker::Admin, Actor::Admin, Some(key::last4(secret))),
        (Identity::Admin, Listener::Proxy) => return Err(Refusal::AdminKeyOnProxy),
    };
    let author = Author { actor, key, request_id: None };
    Ok((asker, Caller { author, secret: SecretString::from(secret) }))
}

/// The one credential of a request. The admin listener also takes it as `x-api-key`, which on the proxy listener belongs
/// to the call and is dropped.
fn secret(headers: &HeaderMap, query: Option<&str>, listener: Listener) -> Result<Zeroizing<String>, Refusal> {
    let mut found = auth::presented(headers, query).map(|presented| presented.secret);
    let also = headers.get_all("x-api-key").iter().filter(|_| listener == Listener::Admin);
    for value in also {
        let value = value.to_str().map_err(|_| Refusal::BadKey)?.trim();
        match &found {
            Ok(secret) if secret.as_str() != value => return Err(Refusal::TwoKeys),
            Err(Refusal::NoKey) => found = Ok(value.to_owned().into()),
            Ok(_) | Err(_) => {}
        }
    }
    found.and_then(|secret| if secret.is_empty() { Err(Refusal::NoKey) } else { Ok(secret) })
}

impl Asker {
    /// The one tenant that a request is about: the asker's own, or the one that the admin names.
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
    Problem::not_found("unknown_tenant", "There is no tenant of that id.")
}
