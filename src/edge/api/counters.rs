//! `GET /admin/counters`: every counter of this process, for whoever compares them with the ledger. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::identity::Asker;
use super::input::Query;
use super::problem::{Problem, ReadProblems};
use super::wire::counters::CountersBody;
use super::{ApiState, within};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(counters))
}

/// Every counter of this gateway. It answers once the ledger has the calls that they count, or says that it has not.
/// `tollgate verify` compares them with the ledger.
#[utoipa::path(
    get,
    path = "/admin/counters",
    tag = "admin",
    responses((status = 200, description = "All counters.", body = CountersBody), ReadProblems),
)]
async fn counters(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<CountersBody>, Problem> {
    asker.must_be_admin()?;
    Query::parse(raw.as_deref(), &[])?;
    Ok(Json(within(&state, state.counting.view()).await?.into()))
}
