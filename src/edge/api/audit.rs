//! `GET /admin/audit`: who changed what. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::metering::admin::ENTRIES_PER_PAGE_MAX;

use super::identity::Asker;
use super::input::Query;
use super::problem::{Problem, ReadProblems};
use super::wire::audit::AuditBody;
use super::{ApiState, within};

/// Entries on a page where the client does not say.
const ENTRIES_PER_PAGE: u32 = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(audit))
}

/// The log of administrative changes, over HTTP and on the command line, oldest first. A request that changed nothing,
/// or that was done before, has no entry.
#[utoipa::path(
    get,
    path = "/admin/audit",
    tag = "admin",
    params(
        ("tenant_id" = Option<String>, Query, description = "Changes of one tenant; of all where it is left out.", example = "acme"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, or the id of any entry: what was done after it."),
        ("limit" = Option<u32>, Query, description = "Entries on the page: 1 to 1000, 100 where it is left out.", example = 100),
    ),
    responses((status = 200, description = "One page.", body = AuditBody), ReadProblems),
)]
async fn audit(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<AuditBody>, Problem> {
    asker.must_be_admin()?;
    let query = Query::parse(raw.as_deref(), &["tenant_id", "cursor", "limit"])?;
    let tenant = asker.tenant_or_all(query.get("tenant_id"))?;
    let (after, limit) = query.page(ENTRIES_PER_PAGE, ENTRIES_PER_PAGE_MAX)?;
    if let Some(named) = &tenant {
        within(&state, state.admin.tenant(named)).await?;
    }
    Ok(Json(within(&state, state.admin.audit(tenant, after, limit)).await?.into()))
}
