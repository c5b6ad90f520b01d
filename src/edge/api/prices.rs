//! `POST /admin/prices/preview`: what a call would cost. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::price::ServiceTier;
use crate::domain::price::rates::Used;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;

use super::ApiState;
use super::identity::Asker;
use super::input::{Query, read_json};
use super::problem::{Problem, WriteProblems};
use super::wire::prices::{Preview, PreviewBody};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(preview))
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
