//! Errors of the billing and admin routes: `application/problem+json` (RFC 9457).
//!
//! A problem says what the client may read and nothing else: words of a store or of the system go to the log, here,
//! once, where they are turned into a problem.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response};
use utoipa::{IntoResponses, ToSchema};

use crate::domain::refusal::Refusal;
use crate::metering::admin::AdminError;
use crate::metering::reports::ReportError;
use crate::metering::vault::VaultError;
use crate::metering::verify::counters::CountingError;
use crate::ports::StoreError;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The problem type of a quota that is used up (draft-ietf-httpapi-ratelimit-headers-11, section 6.1).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The header of a request that is to be done once, as sentences about it spell it.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// One error, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<&'static str>,
    violated: Option<&'static str>,
    retry_after_s: Option<u32>,
}

/// The body of every error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// A URI that names the kind of problem; `about:blank` where the status says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong, and where it can be told, what to do instead.
    detail: String,
    /// A stable name of this error, for programs.
    code: &'static str,
    /// The query parameter, header or body field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    /// The policies of the plan that are used up.
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated_policies: Vec<&'static str>,
}

impl Problem {
    /// A problem with a status, a stable code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, violated: None, retry_after_s: None }
    }

    /// A query parameter that cannot be used: 400.
    pub fn parameter(field: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail).about(field)
    }

    /// A header that cannot be used: 400.
    pub fn header(field: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_header", detail).about(field)
    }

    /// A body field that cannot be used: 422.
    pub fn body_field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail).about(field)
    }

    /// The caller may not do this: 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// There is no such thing: 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// Something outside the gateway does not answer: 503.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        Self { retry_after_s: Some(1), ..problem }
    }

    /// The gateway's own fault: 500. What it is stands in the log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The gateway could not do this. Its log says why.")
    }

    /// The ledger failed: 503 where trying again can help, else 500. What it said goes to the log only.
    fn ledger_failed(error: &impl std::error::Error, passing: bool) -> Self {
        tracing::error!(%error, "The ledger failed under a billing or admin request.");
        if passing { Self::ledger_silent() } else { Self::internal() }
    }

    /// The ledger does not answer: 503.
    pub fn ledger_silent() -> Self {
        Self::unavailable("ledger_unavailable", "The ledger does not answer at the moment. Try again shortly.")
    }

    /// The same, naming the parameter or field.
    pub fn about(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: if self.violated.is_some() { QUOTA_EXCEEDED } else { "about:blank" },
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            field: self.field,
            violated_policies: self.violated.into_iter().collect(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = match serde_json::to_vec(&self.body()) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "A problem could not be written as JSON.");
                Vec::new()
            }
        };
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let violated = match &refusal {
            Refusal::QuotaUsedUp(quota) | Refusal::BudgetHeld(quota) => Some(quota.metric.as_str()),
            _ => None,
        };
        let retry_after_s = refusal.retry_after_s();
        Self { violated, retry_after_s, ..Self::new(status, refusal.code(), refusal.to_string()) }
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        let detail = sentence(&error);
        match error {
            AdminError::UnknownTenant(_) => Self::not_found("unknown_tenant", detail),
            AdminError::UnknownKey { .. } => Self::not_found("unknown_key", detail),
            AdminError::KeyRevoked { .. } => Self::new(StatusCode::CONFLICT, "key_revoked", detail),
            AdminError::UnknownPlan { .. } => Self::body_field("plan", detail).coded("unknown_plan"),
            AdminError::PlanGone { .. } => Self::new(StatusCode::CONFLICT, "plan_not_configured", detail),
            AdminError::TenantExists(_) => Self::new(StatusCode::CONFLICT, "tenant_exists", detail),
            AdminError::InvalidName => Self::body_field("name", detail),
            AdminError::ExpiryPassed { .. } => Self::body_field("expires_at", detail),
            AdminError::OverlapTooLong => Self::body_field("overlap_seconds", detail),
            AdminError::UnknownProvider(_) => Self::not_found("unknown_provider", detail),
            AdminError::InvalidProviderKey => Self::body_field("key", detail),
            AdminError::Vault(VaultError::NoMasterKey) => Self::new(StatusCode::CONFLICT, "no_master_key", detail),
            AdminError::Vault(error) => {
                tracing::error!(%error, "A key cannot be sealed.");
                Self::internal()
            }
            AdminError::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail).about(IDEMPOTENCY_KEY)
            }
            AdminError::DoneBefore(_) => {
                // `once` answers this before it can become a problem.
                tracing::error!("An answer from before was lost on its way.");
                Self::internal()
            }
            AdminError::Randomness(ref reason) => {
                tracing::error!(%reason, "No key can be made.");
                Self::unavailable("no_randomness", "No key can be made at the moment. The gateway's log says why.")
            }
            AdminError::Counters(ref error) => {
                tracing::error!(%error, "Counters failed under a billing request.");
                Self::from(Refusal::CountersDown)
            }
            AdminError::Store(_) => Self::ledger_failed(&error, error.is_passing()),
        }
    }
}

impl From<CountingError> for Problem {
    fn from(error: CountingError) -> Self {
        match &error {
            CountingError::Counters(error) => {
                tracing::error!(%error, "Counters failed under an admin request.");
                Self::from(Refusal::CountersDown)
            }
            CountingError::Store(store) => Self::ledger_failed(&error, matches!(store, StoreError::Unavailable(_))),
        }
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        let detail = sentence(&error);
        match error {
            ReportError::TooManyGroups { .. } => Self::parameter("group_by", detail).coded("too_many_groups"),
            ReportError::InvalidGroupBy => Self::parameter("group_by", detail),
            ReportError::Dropped(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "events_dropped", detail),
            ReportError::UnknownCursor => Self::parameter("cursor", detail).coded("unknown_cursor"),
            ReportError::Overflow => {
                tracing::error!("A report's sums do not fit.");
                Self::internal()
            }
            ReportError::Store(_) => Self::ledger_failed(&error, error.is_passing()),
        }
    }
}

impl Problem {
    fn coded(self, code: &'static str) -> Self {
        Self { code, ..self }
    }
}

/// An error's text as a sentence.
fn sentence(error: &impl std::error::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

/// What reading routes can answer instead, for the OpenAPI document. The examples are made by the code that makes the
/// answers.
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        documented(&[
            Problem::parameter("date", "date takes a month such as 2026-11."),
            Problem::from(Refusal::BadKey),
            Problem::forbidden("This key belongs to another tenant."),
            Problem::not_found("unknown_tenant", "There is no tenant nobody."),
            Problem::ledger_silent(),
        ])
    }
}

/// What changing routes can answer instead.
pub struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        let mut responses = documented(&[
            Problem::new(StatusCode::CONFLICT, "tenant_exists", "Tenant acme exists already."),
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is over the limit of 65536 bytes."),
            Problem::body_field("plan", "There is no plan of that name; the plans are growth, pro, starter.")
                .coded("unknown_plan"),
        ]);
        responses.extend(ReadProblems::responses());
        responses
    }
}

fn documented(problems: &[Problem]) -> BTreeMap<String, RefOr<response::Response>> {
    let one = |problem: &Problem| {
        let body = problem.body();
        let example = serde_json::to_value(&body).ok();
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).example(example).build();
        let response = ResponseBuilder::new().description(body.title).content(PROBLEM_JSON, content).build();
        (problem.status.as_u16().to_string(), RefOr::T(response))
    };
    problems.iter().map(one).collect()
}
