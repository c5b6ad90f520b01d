//! `/billing/*`: what a tenant used, what is left, what it costs, and the line items behind it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::{EventId, KeyId, TenantId};
use crate::domain::price::Priced;
use crate::domain::time::{Period, Window};
use crate::metering::admin::{LimitsView, Order, Who};
use crate::metering::identity::Mode;
use crate::metering::reports::{EVENTS_PER_PAGE_MAX, GroupBy, PageQuery, parse_group_by};

use super::identity::{Asker, Caller};
use super::input::{Query, read_json};
use super::once::{Answer, Ask, IdempotencyKey, told};
use super::problem::{Problem, ReadProblems, WriteProblems};
use super::wire::cost::CostReportBody;
use super::wire::events::{EventBody, EventsBody};
use super::wire::{LimitsBody, PlanChange, UsageBody};
use super::{ApiState, within};

/// Line items on a page where the client does not say.
const EVENTS_PER_PAGE: u32 = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(usage))
        .routes(routes!(limits))
        .routes(routes!(set_plan))
        .routes(routes!(cost_report))
        .routes(routes!(events))
        .routes(routes!(event))
}

/// What was used in a day or a month.
#[utoipa::path(
    get,
    path = "/billing/usage",
    tag = "billing",
    params(
        ("range" = Option<String>, Query, description = "`day` or `month` (the default).", example = "month"),
        ("date" = Option<String>, Query, description = "The day (`2026-11-24`) or month (`2026-11`) by the clock of the tenant, UTC unless it has another; without one tenant, UTC. The running one where it is left out.", example = "2026-11"),
        ("group_by" = Option<String>, Query, description = "A list of `provider`, `model`, `key`, `user`, `kb`, `day`, `hour`.", example = "provider,model"),
        ("tenant_id" = Option<String>, Query, description = "With the admin key: whose usage; everyone's where it is left out. With a tenant's key: its own id or nothing."),
    ),
    responses((status = 200, description = "The sums.", body = UsageBody), ReadProblems),
)]
async fn usage(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<UsageBody>, Problem> {
    let query = Query::parse(raw.as_deref(), &["range", "date", "group_by", "tenant_id"])?;
    let tenant = tenant(&state, &asker, &query).await?;
    let window = match query.get("range") {
        None | Some("month") => Window::Month,
        Some("day") => Window::Day,
        Some(_) => return Err(Problem::parameter("range", "range is day or month.")),
    };
    let period = period(&state, tenant.as_ref(), window, &query)?;
    let report = within(&state, state.reports.usage(tenant, period, group_by(&query)?)).await?;
    Ok(Json(report.into()))
}

/// What is left of the plan at this instant.
#[utoipa::path(
    get,
    path = "/billing/limits",
    tag = "billing",
    params(
        ("tenant_id" = Option<String>, Query, description = "With the admin key: whose limits. With a tenant's key: its own id or nothing.", example = "acme"),
        ("key_id" = Option<String>, Query, description = "Also the limits of this key; of the asking one where it is left out.", example = "key_0123456789abcdef"),
        ("user_id" = Option<String>, Query, description = "Also the limits of this user.", example = "alice"),
        ("kb_id" = Option<String>, Query, description = "Also the limits of this knowledge base.", example = "handbook"),
    ),
    responses((status = 200, description = "How every limit stands.", body = LimitsBody), ReadProblems),
)]
async fn limits(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Json<LimitsBody>, Problem> {
    let query = Query::parse(raw.as_deref(), &["tenant_id", "key_id", "user_id", "kb_id"])?;
    let tenant = asker.one_tenant(query.get("tenant_id"))?;
    let key = query.get("key_id").map(str::parse::<KeyId>).transpose();
    let key =
        key.map_err(|_| Problem::parameter("key_id", "key_id is the id of a key, such as key_0123456789abcdef."))?;
    let own = || caller.author.key.as_deref().and_then(|key| key.parse().ok());
    let of = |name| query.get(name).map(Box::from);
    let who = Who { key: key.or_else(own), user_id: of("user_id"), kb_id: of("kb_id") };
    let view = within(&state, state.admin.limits(&tenant, &who)).await?;
    Ok(Json(view.into()))
}

/// Puts a tenant on a plan. What was used carries over; it counts at once. Takes the admin key; in dev a tenant's own
/// key may change its own plan.
#[utoipa::path(
    post,
    path = "/billing/plan",
    tag = "billing",
    params(IdempotencyKey),
    request_body = PlanChange,
    responses((status = 200, description = "How every limit stands now.", body = LimitsBody), WriteProblems),
)]
async fn set_plan(
    State(state): State<ApiState>,
    asker: Asker,
    caller: Caller,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    Query::parse(raw.as_deref(), &[])?;
    if matches!((&asker, state.identities.mode()), (Asker::Tenant(_), Mode::Prod)) {
        return Err(Problem::forbidden("Only the admin key changes plans."));
    }
    let ask = Ask::read(caller, request.headers(), "POST /billing/plan")?;
    let body: PlanChange = read_json(request.into_body(), PlanChange::FIELDS).await?;
    let once = ask.once(&body)?;
    let PlanChange { tenant_id, plan } = body;
    let tenant = asker.one_tenant(Some(&tenant_id))?;
    let answer = |view: &LimitsView| Answer::ok(&LimitsBody::from(view.clone()));
    let tell = |view: &LimitsView| answer(view).pack();
    let order = Order::by(&ask.author).once(once.as_ref(), &tell);
    told(&state, state.admin.set_plan(order, &tenant, &plan), answer).await
}

/// What it costs, in total and by provider and model.
#[utoipa::path(
    get,
    path = "/billing/cost-report",
    tag = "billing",
    params(
        ("range" = Option<String>, Query, description = "`month` (the default) or `all`.", example = "month"),
        ("date" = Option<String>, Query, description = "The month (`2026-11`) by the clock of the tenant, UTC unless it has another; without one tenant, UTC. The running one where it is left out.", example = "2026-11"),
        ("group_by" = Option<String>, Query, description = "A list of `provider`, `model`, `key`, `user`, `kb`, `day`, `hour`; or `kind` alone: by provider, model and kind of token, with what part of the whole each is.", example = "user,model"),
        ("format" = Option<String>, Query, description = "`json` (the default); `csv`: a line for each group, or for each provider and model where no grouping is asked; or `focus`: a line for each tenant, day, provider, model and kind of token, as FOCUS 1.2 has it.", example = "json"),
        ("tenant_id" = Option<String>, Query, description = "With the admin key: whose cost; everyone's where it is left out. With a tenant's key: its own id or nothing."),
    ),
    responses(
        (status = 200, description = "The report.", content((CostReportBody = "application/json"), (String = "text/csv"))),
        ReadProblems,
    ),
)]
async fn cost_report(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref(), &["range", "date", "group_by", "format", "tenant_id"])?;
    let tenant = tenant(&state, &asker, &query).await?;
    let period = match query.get("range") {
        None | Some("month") => Some(period(&state, tenant.as_ref(), Window::Month, &query)?),
        Some("all") if query.get("date").is_some() => {
            return Err(Problem::parameter("date", "range=all is all time and takes no date."));
        }
        Some("all") => None,
        Some(_) => return Err(Problem::parameter("range", "range is month or all.")),
    };
    let by_kind = query.get("group_by") == Some("kind");
    let when = period.map_or_else(|| "all".to_owned(), |period| period.to_string());
    let as_csv = match query.get("format") {
        None | Some("json") => false,
        Some("csv") => true,
        Some("focus") => {
            let (Some(period), None) = (period, query.get("group_by")) else {
                return Err(Problem::parameter("format", "format=focus is of one month and has groups of its own."));
            };
            let report = within(&state, state.reports.daily_kinds(tenant, period)).await?;
            return Ok(csv_file(&format!("focus-{when}.csv"), super::focus::csv(&report, period)));
        }
        Some(_) => return Err(Problem::parameter("format", "format is json, csv or focus.")),
    };
    let file = format!("cost-report-{when}.csv");
    let group_by = if by_kind { Vec::new() } else { group_by(&query)? };
    let report = within(&state, state.reports.cost(tenant, period, group_by)).await?;
    Ok(match (as_csv, by_kind) {
        (true, true) => csv_file(&file, super::csv::kinds(&report)),
        (true, false) => csv_file(&file, super::csv::cost_report(&report)),
        (false, true) => Json(CostReportBody::with_kinds(report)).into_response(),
        (false, false) => Json(CostReportBody::from(report)).into_response(),
    })
}

fn csv_file(name: &str, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, text).into_response()
}

/// The line items behind every sum, in insert order.
#[utoipa::path(
    get,
    path = "/billing/events",
    tag = "billing",
    params(
        ("from" = Option<String>, Query, description = "Requested at or after (RFC 3339).", example = "2026-11-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Requested before (RFC 3339).", example = "2026-12-01T00:00:00Z"),
        ("priced" = Option<String>, Query, description = "Only those that are `priced`, `free`, `unpriced` or `incomplete`; goes with `from`.", example = "incomplete"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, or the id of any event: what was booked after it."),
        ("limit" = Option<u32>, Query, description = "Line items on the page: 1 to 1000, 100 where it is left out.", example = 100),
        ("tenant_id" = Option<String>, Query, description = "With the admin key: whose events; everyone's where it is left out. With a tenant's key: its own id or nothing."),
    ),
    responses((status = 200, description = "One page.", body = EventsBody), ReadProblems),
)]
async fn events(
    State(state): State<ApiState>,
    asker: Asker,
    RawQuery(raw): RawQuery,
) -> Result<Json<EventsBody>, Problem> {
    let query = Query::parse(raw.as_deref(), &["from", "to", "priced", "cursor", "limit", "tenant_id"])?;
    let tenant = tenant(&state, &asker, &query).await?;
    let (from, to) = (query.instant("from")?, query.instant("to")?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Problem::parameter("from", "from is not before to."));
    }
    let priced = query.get("priced").map(|text| Priced::parse(text).ok_or(())).transpose();
    let priced = priced.map_err(|()| {
        Problem::parameter("priced", format!("priced is one of {}.", Priced::ALL.map(Priced::as_str).join(", ")))
    })?;
    if priced.is_some() && from.is_none() {
        // Those that are not priced may be few, and a search of everything for them may not end in time.
        return Err(Problem::parameter("priced", "priced goes with from: say since when.".to_owned()));
    }
    let after = query.get("cursor").map(str::parse::<EventId>).transpose();
    let after = after.map_err(|_| Problem::parameter("cursor", "cursor is the next_cursor of a page."))?;
    let page_sizes = 1..=EVENTS_PER_PAGE_MAX;
    let limit = query.get("limit").map_or(Some(EVENTS_PER_PAGE), |limit| limit.parse().ok());
    let events_max = limit
        .filter(|limit| page_sizes.contains(limit))
        .ok_or_else(|| Problem::parameter("limit", format!("limit is a number from 1 to {EVENTS_PER_PAGE_MAX}.")))?;
    let page = PageQuery { tenant, from, to, priced, after, events_max };
    Ok(Json(within(&state, state.reports.events(page)).await?.into()))
}

/// One line item.
#[utoipa::path(
    get,
    path = "/billing/events/{id}",
    tag = "billing",
    params(("id" = String, Path, description = "The event's id, which the answer to the call carried as `x-tollgate-request-id`.", example = "019abf5e-0e00-7000-8000-000000000001")),
    responses((status = 200, description = "The line item.", body = EventBody), ReadProblems),
)]
async fn event(
    State(state): State<ApiState>,
    asker: Asker,
    path: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Json<EventBody>, Problem> {
    let query = Query::parse(raw.as_deref(), &["tenant_id"])?;
    let tenant = tenant(&state, &asker, &query).await?;
    let unknown = || Problem::not_found("unknown_event", "There is no event of that id.");
    let id: EventId = path.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(unknown)?;
    let event = within(&state, state.reports.event(tenant.as_ref(), id)).await?;
    event.map(|event| Json(event.into())).ok_or_else(unknown)
}

/// Whose ledger a reading route is about; a tenant that the admin names has to exist.
async fn tenant(state: &ApiState, asker: &Asker, query: &Query) -> Result<Option<TenantId>, Problem> {
    let tenant = asker.tenant_or_all(query.get("tenant_id"))?;
    if let (Asker::Admin, Some(named)) = (asker, &tenant) {
        within(state, state.admin.tenant(named)).await?;
    }
    Ok(tenant)
}

fn period(state: &ApiState, tenant: Option<&TenantId>, window: Window, query: &Query) -> Result<Period, Problem> {
    let Some(date) = query.get("date") else { return Ok(state.reports.current(window, tenant)) };
    let parsed = match window {
        Window::Day => Period::parse_day(date),
        Window::Month => Period::parse_month(date),
    };
    parsed.map_err(|error| Problem::parameter("date", format!("Bad date: {error}.")))
}

fn group_by(query: &Query) -> Result<GroupBy, Problem> {
    Ok(query.get("group_by").map(parse_group_by).transpose()?.unwrap_or_default())
}
