//! `GET /admin/threshold-crossings`: which thresholds of limits were crossed. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::metering::reports::EVENTS_PER_PAGE_MAX;

use super::identity::Asker;
use super::input::Query;
use super::problem::{Problem, ReadProblems};
use super::wire::crossings::CrossingsBody;
use super::{ApiState, within};

/// Crossings on a page where the client does not say.
const CROSSINGS_PER_PAGE: u32 = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(threshold_crossings))
}

/// The thresholds of limits that were crossed, each once in a day or month, in the order in which they were noted. Whoever
/// keeps the last `id` and asks for what comes after it misses none.
#[utoipa::path(
    get,
    path = "/admin/threshold-crossings",
    tag = "admin",
    params(
        ("tenant_id" = Option<String>, Query, description = "Those of one tenant; of all where it is left out.", example = "acme"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, or the id of any crossing: what was noted after it."),
        ("limit" = Option<u32>, Query, description = "Crossings on the page: 1 to 1000, 100 where it is left out.", example = 100),
    ),
    responses((status = 200, description = "One page.", body = CrossingsBody), ReadProblems),
)]
async fn threshold_crossings(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<CrossingsBody>, Problem> {
    asker.must_be_admin()?;
    let query = Query::parse(raw.as_deref(), &["tenant_id", "cursor", "limit"])?;
    let tenant = asker.tenant_or_all(query.get("tenant_id"))?;
    let (after, limit) = query.page(CROSSINGS_PER_PAGE, EVENTS_PER_PAGE_MAX)?;
    if let Some(named) = &tenant {
        within(&state, state.admin.tenant(named)).await?;
    }
    Ok(Json(within(&state, state.reports.crossings(tenant, after, limit)).await?.into()))
}
