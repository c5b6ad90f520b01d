//! `/admin/tenants/{id}/provider-keys`: tenants' own keys for providers. The admin key only.
//!
//! A key goes in and never comes out: what is shown is its last four characters and when it was set.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::TenantId;

use super::admin::{admit, tenant_in};
use super::identity::{Asker, Caller, unknown_tenant};
use super::input::read_json;
use super::once::author;
use super::problem::{Problem, ReadProblems, WriteProblems};
use super::wire::tenants::{NewProviderKey, ProviderKeyBody, ProviderKeysBody};
use super::{ApiState, within};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(provider_keys)).routes(routes!(
        provider_key,
        set_provider_key,
        remove_provider_key
    ))
}

/// A tenant's own keys for providers: which there are, and since when.
#[utoipa::path(
    get,
    path = "/admin/tenants/{id}/provider-keys",
    tag = "admin",
    params(("id" = String, Path, description = "Whose keys.", example = "acme")),
    responses((status = 200, description = "The keys, without the keys themselves.", body = ProviderKeysBody), ReadProblems),
)]
async fn provider_keys(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<ProviderKeysBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let tenant = tenant_in(path)?;
    let keys = within(&state, state.admin.provider_keys(&tenant)).await?;
    Ok(Json(ProviderKeysBody { provider_keys: keys.into_iter().map(ProviderKeyBody::from).collect() }))
}

/// A tenant's own key for one provider: its last four characters, and since when.
#[utoipa::path(
    get,
    path = "/admin/tenants/{id}/provider-keys/{provider}",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("provider" = String, Path, description = "For which provider.", example = "openai"),
    ),
    responses((status = 200, description = "The key, without the key itself.", body = ProviderKeyBody), ReadProblems),
)]
async fn provider_key(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<ProviderKeyBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, provider) = provider_in(path)?;
    let keys = within(&state, state.admin.provider_keys(&tenant)).await?;
    let found = keys.into_iter().find(|key| key.provider.as_str() == provider);
    let none = || Problem::not_found("unknown_provider_key", "The tenant has no key of its own for this provider.");
    found.map(|key| Json(ProviderKeyBody::from(key))).ok_or_else(none)
}

/// Sets a tenant's own key for a provider, in the place of the one it has. Its calls go out with it at once, on all gateways
/// within 5 seconds. What it began under another key, such as a batch, is asked for with this one.
#[utoipa::path(
    put,
    path = "/admin/tenants/{id}/provider-keys/{provider}",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("provider" = String, Path, description = "For which provider.", example = "openai"),
    ),
    request_body = NewProviderKey,
    responses((status = 200, description = "The key, without the key itself.", body = ProviderKeyBody), WriteProblems),
)]
async fn set_provider_key(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<ProviderKeyBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, provider) = provider_in(path)?;
    let author = author(caller, request.headers());
    let NewProviderKey { key } = read_json(request.into_body(), NewProviderKey::FIELDS).await?;
    let key = SecretString::from(key);
    Ok(Json(within(&state, state.admin.set_provider_key(&author, &tenant, &provider, &key)).await?.into()))
}

/// Removes a tenant's own key for a provider: its calls go out with the operator's again. Removing twice changes nothing.
#[utoipa::path(
    delete,
    path = "/admin/tenants/{id}/provider-keys/{provider}",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("provider" = String, Path, description = "For which provider.", example = "openai"),
    ),
    responses((status = 204, description = "There is none."), WriteProblems),
)]
async fn remove_provider_key(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, provider) = provider_in(path)?;
    let author = author(caller, &headers);
    within(&state, state.admin.remove_provider_key(&author, &tenant, &provider)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn provider_in(path: Result<Path<(String, String)>, PathRejection>) -> Result<(TenantId, String), Problem> {
    let Path((tenant, provider)) = path.map_err(|_| unknown_tenant())?;
    Ok((tenant.parse().map_err(|_| unknown_tenant())?, provider))
}
