//! `/admin/prices`: which prices are in force, and what a call would cost by them. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::price::changes::changes;
use crate::domain::price::rates::Used;
use crate::domain::price::{PriceBook, ServiceTier};
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;
use crate::metering::admin::Order;
use crate::providers;

use super::ApiState;
use super::identity::{Asker, Caller};
use super::input::{Query, read_body, read_json};
use super::once::{Answer, Ask, IdempotencyKey, author, told};
use super::problem::{Problem, ReadProblems, WriteProblems};
use super::wire::prices::{Preview, PreviewBody, PricesBody, UpdateBody};
use super::within;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(preview)).routes(routes!(books, update, configured))
}

/// A price file, as in `tollgate prices update`.
const FILE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The prices in force and why these, and every book that was ever in force.
#[utoipa::path(
    get,
    path = "/admin/prices",
    tag = "admin",
    responses((status = 200, description = "The books.", body = PricesBody), ReadProblems),
)]
async fn books(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<PricesBody>, Problem> {
    asker.must_be_admin()?;
    Query::parse(raw.as_deref(), &[])?;
    Ok(Json(within(&state, state.admin.prices()).await?.into()))
}

/// Puts a price book in force for all gateways of the ledger, for calls that begin from then on. The body is a price file;
/// what is in force already changes nothing.
#[utoipa::path(
    post,
    path = "/admin/prices",
    tag = "admin",
    params(("dry_run" = Option<bool>, Query, description = "`true`: only says what would change."), IdempotencyKey),
    request_body = serde_json::Value,
    responses((status = 200, description = "What it changes.", body = UpdateBody), WriteProblems),
)]
async fn update(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    asker.must_be_admin()?;
    let query = Query::parse(raw.as_deref(), &["dry_run"])?;
    let dry_run = match query.get("dry_run") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::parameter("dry_run", "dry_run is true or false.".to_owned())),
    };
    let ask = Ask::read(caller, request.headers(), "POST /admin/prices")?;
    let file = read_body(request.into_body(), FILE_BYTES_MAX).await?;
    let book = state.admin.read_prices(&file).map_err(|error| {
        let detail = format!("This is no price file: {error}.");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_prices", detail)
    })?;
    let (before, _) = state.reports.prices();
    let mut body = UpdateBody::new(&before, &book, changes(&before, &book));
    if dry_run {
        return Ok(Json(body).into_response());
    }
    body.in_force = true;
    // Two files of one version are one book.
    let once = ask.once(&book.version().to_string())?;
    let answer = |(): &()| Answer::ok(&body);
    let tell = |done: &()| answer(done).pack();
    let order = Order::by(&ask.author).once(once.as_ref(), &tell);
    told(&state, state.admin.set_prices(order, Some(&book)), answer).await
}

/// Gives each gateway the prices of its own configuration again.
#[utoipa::path(
    delete,
    path = "/admin/prices",
    tag = "admin",
    responses((status = 200, description = "The books.", body = PricesBody), WriteProblems),
)]
async fn configured(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Json<PricesBody>, Problem> {
    asker.must_be_admin()?;
    Query::parse(raw.as_deref(), &[])?;
    let none: Option<&PriceBook> = None;
    let author = author(caller, &headers);
    within(&state, state.admin.set_prices(Order::by(&author), none)).await?;
    Ok(Json(within(&state, state.admin.prices()).await?.into()))
}

/// What a call would cost by the prices that are in effect, line by line. Nothing is booked.
#[utoipa::path(
    post,
    path = "/admin/prices/preview",
    tag = "admin",
    request_body = Preview,
    responses((status = 200, description = "The cost.", body = PreviewBody), WriteProblems),
)]
async fn preview(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<PreviewBody>, Problem> {
    asker.must_be_admin()?;
    Query::parse(raw.as_deref(), &[])?;
    let asked: Preview = read_json(request.into_body(), Preview::FIELDS).await?;
    if !providers::ALL.iter().any(|provider| provider.id().as_str() == asked.provider) {
        let known: Vec<_> = providers::ALL.iter().map(|provider| provider.id().to_string()).collect();
        return Err(Problem::body_field("provider", format!("provider is one of {}.", known.join(", "))));
    }
    let tier = asked.service_tier.as_deref().map_or(Some(ServiceTier::Standard), ServiceTier::parse);
    let tier = tier.ok_or_else(|| {
        let known = ServiceTier::ALL.map(ServiceTier::as_str).join(", ");
        Problem::body_field("service_tier", format!("service_tier is one of {known}."))
    })?;
    let at = asked.at.as_deref().map(str::parse::<Micros>).transpose();
    let at = at.map_err(|error| Problem::body_field("at", format!("at is no instant: {error}.")))?;
    let tokens: Tokens = asked.tokens();
    let tokens = tokens.checked().map_err(|error| {
        Problem::body_field("prompt_tokens", format!("These counts cannot be one call's: {error}."))
    })?;
    let (prices, now) = state.reports.prices();
    let quantities = asked
        .quantities()
        .checked()
        .map_err(|error| Problem::body_field("audio_ms", format!("These quantities cannot be one call's: {error}.")))?;
    let used = Used { tokens, quantities };
    let explained = prices.explain(&asked.provider, &asked.model, tier, used, at.unwrap_or(now));
    PreviewBody::new(&prices.version(), explained.as_ref())
        .map(Json)
        .map_err(|error| Problem::body_field("prompt_tokens", format!("{error}.")))
}
