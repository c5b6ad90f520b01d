//! `/admin/*`: tenants and their keys. The admin key only.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::{IdError, KeyId, TenantId};
use crate::domain::key::Key;
use crate::domain::models::Models;
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::zone::{Zone, ZoneError};
use crate::metering::admin::{OVERLAP_DEFAULT_S, Order, TenantEdit};

use super::identity::{Asker, Caller, unknown_tenant};
use super::input::{Query, read_json};
use super::once::{Answer, Ask, IdempotencyKey, author, told};
use super::problem::{Problem, ReadProblems, WriteProblems};
use super::wire::tenants::{
    IssuedKeyBody, KeyBody, KeyRotation, KeysBody, NewKey, NewTenant, TenantBody, TenantPatch, TenantsBody,
};
use super::{ApiState, within};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_tenant, tenants))
        .routes(routes!(tenant, change_tenant))
        .routes(routes!(issue_key, keys))
        .routes(routes!(key, revoke_key))
        .routes(routes!(rotate_key))
}

/// Creates a tenant.
#[utoipa::path(
    post,
    path = "/admin/tenants",
    tag = "admin",
    params(IdempotencyKey),
    request_body = NewTenant,
    responses((status = 201, description = "The tenant.", body = TenantBody), WriteProblems),
)]
async fn create_tenant(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    admit(&asker, raw.as_deref())?;
    let ask = Ask::read(caller, request.headers(), "POST /admin/tenants")?;
    let body: NewTenant = read_json(request.into_body(), NewTenant::FIELDS).await?;
    let once = ask.once(&body)?;
    let NewTenant { id, name, plan, timezone } = body;
    let zone = timezone.as_deref().map_or(Ok(Zone::UTC), zone_in)?;
    let id: TenantId = id.parse().map_err(|error: IdError| Problem::body_field("id", format!("Bad id: {error}.")))?;
    let name = name.unwrap_or_else(|| id.to_string());
    let answer = |tenant: &Tenant| {
        let location = format!("/admin/tenants/{}", tenant.id);
        Answer::created(location, &TenantBody::from(tenant.clone()))
    };
    let tell = |tenant: &Tenant| answer(tenant).pack();
    let order = Order::by(&ask.author).once(once.as_ref(), &tell);
    told(&state, state.admin.create_tenant(order, id, name, &plan, zone), answer).await
}

fn zone_in(text: &str) -> Result<Zone, Problem> {
    text.parse().map_err(|error: ZoneError| Problem::body_field("timezone", format!("Bad timezone: {error}.")))
}

/// All tenants.
#[utoipa::path(
    get,
    path = "/admin/tenants",
    tag = "admin",
    responses((status = 200, description = "All tenants.", body = TenantsBody), ReadProblems),
)]
async fn tenants(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<TenantsBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let tenants = within(&state, state.admin.tenants()).await?;
    Ok(Json(TenantsBody { tenants: tenants.into_iter().map(TenantBody::from).collect() }))
}

/// One tenant.
#[utoipa::path(
    get,
    path = "/admin/tenants/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The tenant.", example = "acme")),
    responses((status = 200, description = "The tenant.", body = TenantBody), ReadProblems),
)]
async fn tenant(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<TenantBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let id = tenant_in(path)?;
    Ok(Json(within(&state, state.admin.tenant(&id)).await?.into()))
}

/// Renames a tenant, suspends it, lets it in again or gives it another time zone. Its plan is changed by `POST /billing/plan`.
#[utoipa::path(
    patch,
    path = "/admin/tenants/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The tenant.", example = "acme")),
    request_body = TenantPatch,
    responses((status = 200, description = "The tenant as it is now.", body = TenantBody), WriteProblems),
)]
async fn change_tenant(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<TenantBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let id = tenant_in(path)?;
    let author = author(caller, request.headers());
    let TenantPatch { name, suspended, timezone } = read_json(request.into_body(), TenantPatch::FIELDS).await?;
    if name.is_none() && suspended.is_none() && timezone.is_none() {
        return Err(Problem::body_field(
            "name",
            "Nothing to change: give name, suspended, timezone or several of them.",
        ));
    }
    let zone = timezone.as_deref().map(zone_in).transpose()?;
    let edit = TenantEdit { name, suspended, zone };
    Ok(Json(within(&state, state.admin.change_tenant(&author, &id, edit)).await?.into()))
}

/// Issues a key. The answer holds the key itself, this once.
#[utoipa::path(
    post,
    path = "/admin/tenants/{id}/keys",
    tag = "admin",
    params(("id" = String, Path, description = "Whose key.", example = "acme"), IdempotencyKey),
    request_body = NewKey,
    responses((status = 201, description = "The key.", body = IssuedKeyBody), WriteProblems),
)]
async fn issue_key(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    admit(&asker, raw.as_deref())?;
    let id = tenant_in(path)?;
    let ask = Ask::read(caller, request.headers(), format!("POST /admin/tenants/{id}/keys"))?;
    let body: NewKey = read_json(request.into_body(), NewKey::FIELDS).await?;
    let once = ask.once(&body)?;
    let NewKey { name, expires_at, allowed_models } = body;
    let expires_at = expires_at.as_deref().map(expiry_in).transpose()?;
    let models = allowed_models.map(|models| Models::of(models.iter().map(String::as_str))).transpose();
    let models =
        models.map_err(|error| Problem::body_field("allowed_models", format!("The list allowed_models {error}.")))?;
    let tell = |key: &(Key, String)| issued(key).pack();
    let order = Order::by(&ask.author).once(once.as_ref(), &tell);
    told(&state, state.admin.issue_key(order, &id, name, expires_at, models), issued).await
}

fn expiry_in(text: &str) -> Result<Micros, Problem> {
    text.parse().map_err(|error| Problem::body_field("expires_at", format!("Bad expires_at: {error}.")))
}

fn issued((known, key): &(Key, String)) -> Answer {
    let location = format!("/admin/tenants/{}/keys/{}", known.tenant, known.id);
    Answer::created(location, &IssuedKeyBody { known: known.clone().into(), key: key.clone() })
}

/// Issues a key in the place of another, which works on for a while beside it. The answer holds the new key itself, this
/// once.
#[utoipa::path(
    post,
    path = "/admin/tenants/{id}/keys/{key_id}/rotate",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("key_id" = String, Path, description = "The old key's id.", example = "key_0123456789abcdef"),
        IdempotencyKey,
    ),
    request_body = KeyRotation,
    responses((status = 201, description = "The new key.", body = IssuedKeyBody), WriteProblems),
)]
async fn rotate_key(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, old) = key_in(path)?;
    let ask = Ask::read(caller, request.headers(), format!("POST /admin/tenants/{tenant}/keys/{old}/rotate"))?;
    let body: KeyRotation = read_json(request.into_body(), KeyRotation::FIELDS).await?;
    let once = ask.once(&body)?;
    let KeyRotation { overlap_seconds, expires_at } = body;
    let expires_at = expires_at.as_deref().map(expiry_in).transpose()?;
    let tell = |key: &(Key, String)| issued(key).pack();
    let order = Order::by(&ask.author).once(once.as_ref(), &tell);
    let overlap_s = overlap_seconds.unwrap_or(OVERLAP_DEFAULT_S);
    told(&state, state.admin.rotate_key(order, &tenant, &old, overlap_s, expires_at), issued).await
}

/// All keys of a tenant, revoked ones too, newest first.
#[utoipa::path(
    get,
    path = "/admin/tenants/{id}/keys",
    tag = "admin",
    params(("id" = String, Path, description = "Whose keys.", example = "acme")),
    responses((status = 200, description = "The keys, without the keys themselves.", body = KeysBody), ReadProblems),
)]
async fn keys(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<KeysBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let id = tenant_in(path)?;
    let keys = within(&state, state.admin.keys(&id)).await?;
    Ok(Json(KeysBody { keys: keys.into_iter().map(KeyBody::from).collect() }))
}

/// One key of a tenant.
#[utoipa::path(
    get,
    path = "/admin/tenants/{id}/keys/{key_id}",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("key_id" = String, Path, description = "The key's id.", example = "key_0123456789abcdef"),
    ),
    responses((status = 200, description = "The key, without the key itself.", body = KeyBody), ReadProblems),
)]
async fn key(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<KeyBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, key) = key_in(path)?;
    Ok(Json(within(&state, state.admin.key(&tenant, &key)).await?.into()))
}

/// Revokes a key for good. Revoking twice changes nothing.
#[utoipa::path(
    delete,
    path = "/admin/tenants/{id}/keys/{key_id}",
    tag = "admin",
    params(
        ("id" = String, Path, description = "Whose key.", example = "acme"),
        ("key_id" = String, Path, description = "The key's id.", example = "key_0123456789abcdef"),
    ),
    responses((status = 200, description = "The key, with the time it was revoked.", body = KeyBody), WriteProblems),
)]
async fn revoke_key(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Json<KeyBody>, Problem> {
    admit(&asker, raw.as_deref())?;
    let (tenant, key) = key_in(path)?;
    let author = author(caller, &headers);
    Ok(Json(within(&state, state.admin.revoke_key(&author, &tenant, &key)).await?.into()))
}

/// The admin only, and no query: these routes have no parameters.
pub(super) fn admit(asker: &Asker, raw_query: Option<&str>) -> Result<(), Problem> {
    asker.must_be_admin()?;
    Query::parse(raw_query, &[]).map(drop)
}

/// A text that is no id names no tenant: that is a 404, as for an id that nobody has.
pub(super) fn tenant_in(path: Result<Path<String>, PathRejection>) -> Result<TenantId, Problem> {
    path.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(unknown_tenant)
}

fn key_in(path: Result<Path<(String, String)>, PathRejection>) -> Result<(TenantId, KeyId), Problem> {
    let Path((tenant, key)) = path.map_err(|_| unknown_tenant())?;
    let tenant = tenant.parse().map_err(|_| unknown_tenant())?;
    let unknown_key = || Problem::not_found("unknown_key", "There is no key of that id.");
    Ok((tenant, key.parse().map_err(|_| unknown_key())?))
}
