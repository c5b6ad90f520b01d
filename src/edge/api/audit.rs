//! `GET /admin/audit`: who changed what. The admin key only.

use axum::Json;
use axum::extract::{RawQuery, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::audit::{Action, Actor};
use crate::metering::admin::ENTRIES_PER_PAGE_MAX;
use crate::ports::tenants::AuditFilter;

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
        ("actor" = Option<String>, Query, description = "Changes made by `admin`, `tenant`, `cli` or `gateway`."),
        ("action" = Option<String>, Query, description = "Changes of one kind.", example = "plan.set"),
        ("from" = Option<String>, Query, description = "Made at or after (RFC 3339).", example = "2026-11-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Made before (RFC 3339).", example = "2026-12-01T00:00:00Z"),
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
    let query = Query::parse(raw.as_deref(), &["tenant_id", "actor", "action", "from", "to", "cursor", "limit"])?;
    let tenant = asker.tenant_or_all(query.get("tenant_id"))?;
    let (after, limit) = query.page(ENTRIES_PER_PAGE, ENTRIES_PER_PAGE_MAX)?;
    if let Some(named) = &tenant {
        within(&state, state.admin.tenant(named)).await?;
    }
    let filter = AuditFilter {
        tenant,
        actor: named(&query, "actor", Actor::parse, &Actor::names())?,
        action: named(&query, "action", Action::parse, &Action::names())?,
        from: query.instant("from")?,
        to: query.instant("to")?,
    };
    Ok(Json(within(&state, state.admin.audit(filter, after, limit)).await?.into()))
}

fn named<T>(query: &Query, name: &'static str, parse: fn(&str) -> Option<T>, all: &str) -> Result<Option<T>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| Problem::parameter(name, format!("{name} is one of {all}.")))
}
