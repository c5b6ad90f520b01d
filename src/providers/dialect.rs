//! Refusals in the two dialects that clients read: OpenAI's error envelope and Google's.
//!
//! May use: `domain`. Clients' SDKs take their exceptions from these fields, so they are the provider's own, with the
//! facts of a used-up quota beside them.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::hold::money_of;
use crate::domain::plan::{Metric, Subject};
use crate::domain::refusal::{QuotaFacts, RateFacts, Refusal};

#[derive(Serialize)]
struct OpenAiEnvelope<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Quota<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rate<'a>>,
}

#[derive(Serialize)]
struct GoogleEnvelope<'a> {
    error: GoogleError<'a>,
}

#[derive(Serialize)]
struct GoogleError<'a> {
    code: u16,
    message: String,
    status: &'static str,
    details: [GoogleDetail<'a>; 1],
}

#[derive(Serialize)]
struct GoogleDetail<'a> {
    reason: String,
    #[serde(flatten)]
    quota: Option<Quota<'a>>,
    #[serde(flatten)]
    rate: Option<Rate<'a>>,
}

#[derive(Serialize)]
struct Rate<'a> {
    tenant_id: String,
    plan: String,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    metric: &'a str,
    limit: u64,
    retry_after: u32,
}

impl<'a> Rate<'a> {
    fn of(refusal: &'a Refusal) -> Option<Self> {
        let Refusal::RateLimited(facts) = refusal else { return None };
        let RateFacts { tenant, subject, plan, metric, limit, retry_after_s } = &**facts;
        Some(Self {
            tenant_id: tenant.to_string(),
            plan: plan.to_string(),
            scope: subject.scope().as_str(),
            subject: named(subject),
            metric: metric.as_str(),
            limit: *limit,
            retry_after: *retry_after_s,
        })
    }
}

/// Which key, user or knowledge base; none for the tenant.
fn named(subject: &Subject) -> Option<&str> {
    (*subject != Subject::Tenant).then(|| subject.id())
}

#[derive(Serialize)]
struct Quota<'a> {
    tenant_id: String,
    plan: String,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    metric: &'a str,
    window: &'a str,
    limit: Amount,
    used: Amount,
    held: Amount,
    requested: Amount,
    resets_at: String,
}

/// How much of a metric: a whole number, of cost exact dollars.
struct Amount(Metric, u64);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self(Metric::Cost, nano) => {
                let dollars = RawValue::from_string(money_of(*nano).to_string());
                dollars.map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
            Self(_, count) => count.serialize(serializer),
        }
    }
}

impl<'a> Quota<'a> {
    fn of(refusal: &'a Refusal) -> Option<Self> {
        let (Refusal::QuotaUsedUp(facts) | Refusal::BudgetHeld(facts)) = refusal else { return None };
        let QuotaFacts { tenant, subject, plan, metric, period, limit, standing, asked, resets_at } = &**facts;
        let amount = |amount| Amount(*metric, amount);
        Some(Self {
            tenant_id: tenant.to_string(),
            plan: plan.to_string(),
            scope: subject.scope().as_str(),
            subject: named(subject),
            metric: metric.as_str(),
            window: period.window().as_str(),
            limit: amount(*limit),
            used: amount(standing.used),
            held: amount(standing.held),
            requested: amount(*asked),
            resets_at: resets_at.to_string(),
        })
    }
}

/// The refusal as OpenAI would say it.
pub(super) fn openai(refusal: &Refusal) -> String {
    let error = OpenAiError {
        message: refusal.to_string(),
        r#type: openai_type(refusal.status()),
        param: None,
        code: refusal.code(),
        quota: Quota::of(refusal),
        rate: Rate::of(refusal),
    };
    serialized(&OpenAiEnvelope { error })
}

/// The refusal as Google's APIs would say it (google.rpc.Status in JSON).
pub(super) fn google(refusal: &Refusal) -> String {
    let detail = GoogleDetail {
        reason: refusal.code().to_ascii_uppercase(),
        quota: Quota::of(refusal),
        rate: Rate::of(refusal),
    };
    let error = GoogleError {
        code: refusal.status(),
        message: refusal.to_string(),
        status: google_status(refusal.status()),
        details: [detail],
    };
    serialized(&GoogleEnvelope { error })
}

fn serialized(envelope: &impl Serialize) -> String {
    // Strings and numbers cannot fail to serialise.
    serde_json::to_string(envelope).unwrap_or_default()
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// The names of google.rpc.Code.
fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 => "UNIMPLEMENTED",
        503 | 502 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::Standing;
    use crate::domain::time::Window;

    fn used_up() -> Refusal {
        Refusal::QuotaUsedUp(Box::new(QuotaFacts {
            tenant: "acme".parse().unwrap(),
            subject: Subject::Tenant,
            plan: "starter".parse().unwrap(),
            metric: Metric::Chats,
            period: Window::Month.period("2026-11-24T10:00:00Z".parse().unwrap()),
            resets_at: "2026-12-01T00:00:00Z".parse().unwrap(),
            limit: 500,
            standing: Standing { used: 500, held: 0 },
            asked: 1,
        }))
    }

    #[test]
    fn a_used_up_quota_reads_as_the_dialect_demands() {
        let quota = r#""tenant_id":"acme","plan":"starter","scope":"tenant","metric":"chats","window":"month","limit":500,"used":500,"held":0,"requested":1,"resets_at":"2026-12-01T00:00:00Z"}"#;
        let message = "Tenant acme has used 500 of 500 chats of plan starter for 2026-11. Resets 2026-12-01T00:00:00Z.";
        assert_eq!(
            openai(&used_up()),
            format!(
                r#"{{"error":{{"message":"{message}","type":"insufficient_quota","param":null,"code":"quota_exceeded","quota":{{{quota}}}}}"#
            )
        );
        assert_eq!(
            google(&used_up()),
            format!(
                r#"{{"error":{{"code":402,"message":"{message}","status":"RESOURCE_EXHAUSTED","details":[{{"reason":"QUOTA_EXCEEDED",{quota}]}}}}"#
            )
        );
    }

    #[test]
    fn a_cost_is_told_in_exact_dollars_and_for_whom() {
        let Refusal::QuotaUsedUp(facts) = used_up() else { panic!("another refusal") };
        let facts = QuotaFacts {
            subject: Subject::User("alice".into()),
            metric: Metric::Cost,
            limit: 2_000_000_000,
            standing: Standing { used: 1, held: 30_000_000 },
            asked: 1_990_000_000,
            ..*facts
        };
        let body = openai(&Refusal::BudgetHeld(Box::new(facts)));
        let quota = r#""scope":"user","subject":"alice","metric":"cost_usd","window":"month","limit":2,"used":0.000000001,"held":0.03,"requested":1.99,"#;
        assert!(body.contains(quota) && body.contains(r#""code":"budget_held""#), "{body}");
    }

    #[test]
    fn other_refusals_have_the_envelope_without_a_quota() {
        let openai = openai(&Refusal::BadJson { reason: "it is \"no\" object" });
        let google = google(&Refusal::NoKey);
        assert!(
            openai.contains(r#"\"no\" object"#) && openai.contains(r#""type":"invalid_request_error""#),
            "{openai}"
        );
        assert!(!openai.contains("quota"), "{openai}");
        assert!(google.contains(r#""status":"UNAUTHENTICATED","details":[{"reason":"MISSING_API_KEY"}]"#), "{google}");
    }
}
