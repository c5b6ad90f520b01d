//! The body of the counters route, as it is written and as the command line reads it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::plan::{Metric, Scope, Standing, Subject};
use crate::domain::time::Period;
use crate::metering::verify::counters::CountersView;
use crate::ports::counters::{Counted, CounterKey};

/// All counters of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountersBody {
    /// When they were read.
    #[schema(example = "2026-11-24T10:00:00Z")]
    at: String,
    /// The ledger that this gateway books in.
    #[schema(example = "00112233445566778899aabbccddeeff")]
    ledger_id: String,
    /// Whether the ledger had every call that these counters count when this was answered.
    is_booked: bool,
    /// Calls admitted and not settled when they were read.
    in_flight: u64,
    /// Whether other gateways count in them too: then `in_flight` is not all.
    is_shared: bool,
    /// All of them, in no order.
    counters: Vec<CounterBody>,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CounterBody {
    /// Whose.
    #[schema(example = "acme")]
    tenant_id: String,
    /// Of whom in it: `tenant` for the tenant as a whole, `key`, `user` or `kb`.
    #[schema(example = "tenant")]
    scope: String,
    /// The id of that key, user or knowledge base; empty for the tenant.
    #[schema(example = "")]
    subject: String,
    /// Of what; `cost_usd` is counted in nano-dollars.
    #[schema(example = "chats")]
    metric: String,
    /// `day` or `month`.
    #[schema(example = "month")]
    window: String,
    /// Which day or month.
    #[schema(example = "2026-11")]
    period: String,
    /// Settled.
    used: u64,
    /// The part of it that the ledger is known to have.
    booked: u64,
    /// Held by calls in flight.
    held: u64,
}

impl From<CountersView> for CountersBody {
    fn from(view: CountersView) -> Self {
        let CountersView { at, ledger_id, is_booked, in_flight, is_shared, counters } = view;
        let counter = |Counted { counter, standing: Standing { used, held }, booked }: Counted| {
            let CounterKey { tenant, subject, metric, period } = counter;
            CounterBody {
                tenant_id: tenant.to_string(),
                scope: subject.scope().as_str().to_owned(),
                subject: subject.id().to_owned(),
                metric: metric.as_str().to_owned(),
                window: period.window().as_str().to_owned(),
                period: period.to_string(),
                used,
                booked,
                held,
            }
        };
        let counters = counters.into_iter().map(counter).collect();
        Self { at: at.to_string(), ledger_id, is_booked, in_flight, is_shared, counters }
    }
}

/// The way back; the text says what cannot be read.
impl TryFrom<CountersBody> for CountersView {
    type Error = String;

    fn try_from(body: CountersBody) -> Result<Self, String> {
        let CountersBody { at, ledger_id, is_booked, in_flight, is_shared, counters } = body;
        let counter = |counter: CounterBody| {
            let CounterBody { tenant_id, scope, subject, metric, window, period, used, booked, held } = counter;
            let unknown = |what: &str| format!("{what} is not known to this tollgate: use the gateway's own version");
            let parsed = match window.as_str() {
                "day" => Period::parse_day(&period),
                "month" => Period::parse_month(&period),
                _ => return Err(unknown(&format!("the window {window}"))),
            };
            let metric = Metric::parse(&metric).ok_or_else(|| unknown(&format!("the metric {metric}")))?;
            let of = Scope::parse(&scope).and_then(|scope| Subject::of(scope, &subject));
            let subject = of.ok_or_else(|| unknown(&format!("the {scope} {subject}")))?;
            let key = CounterKey {
                tenant: tenant_id.parse().map_err(|_| unknown(&format!("the tenant {tenant_id}")))?,
                subject,
                metric,
                period: parsed.map_err(|_| unknown(&format!("the {window} {period}")))?,
            };
            Ok(Counted { counter: key, standing: Standing { used, held }, booked })
        };
        Ok(Self {
            at: at.parse().map_err(|_| format!("the time {at} is none"))?,
            ledger_id,
            is_booked,
            in_flight,
            is_shared,
            counters: counters.into_iter().map(counter).collect::<Result<_, String>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Window;

    #[test]
    fn what_is_written_is_read_back() {
        let key = |period| CounterKey {
            tenant: "acme".parse().unwrap(),
            subject: Subject::Tenant,
            metric: Metric::Chats,
            period,
        };
        let at = "2026-11-24T10:00:00.000001Z".parse().unwrap();
        let view = CountersView {
            at,
            ledger_id: "00ff".to_owned(),
            is_booked: true,
            in_flight: 3,
            is_shared: true,
            counters: [Window::Day, Window::Month]
                .map(|window| Counted {
                    counter: key(window.period(at)),
                    standing: Standing { used: 7, held: 1 },
                    booked: 5,
                })
                .into(),
        };
        let text = serde_json::to_string(&CountersBody::from(view.clone())).unwrap();
        let body: CountersBody = serde_json::from_str(&text).unwrap();
        assert_eq!(CountersView::try_from(body), Ok(view), "{text}");
        let body = |counter: &str| {
            let text = format!(
                r#"{{"at":"2026-11-24T10:00:00Z","ledger_id":"","is_booked":true,"in_flight":0,"is_shared":false,"counters":[{{"used":1,"booked":1,"held":0,"scope":"tenant","subject":"",{counter}}}]}}"#
            );
            CountersView::try_from(serde_json::from_str::<CountersBody>(&text).unwrap())
        };
        for (counter, reads) in [
            (r#""tenant_id":"a","metric":"chats","window":"day","period":"2026-11-24""#, true),
            (r#""tenant_id":"a","metric":"tokens","window":"day","period":"2026-11-24""#, true),
            (r#""tenant_id":"a","metric":"words","window":"day","period":"2026-11-24""#, false),
            (r#""tenant_id":"a","metric":"chats","window":"day","period":"2026-11""#, false),
            (r#""tenant_id":"a","metric":"chats","window":"week","period":"2026-11""#, false),
            (r#""tenant_id":"A","metric":"chats","window":"month","period":"2026-11""#, false),
        ] {
            assert_eq!(body(counter).is_ok(), reads, "{counter}");
        }
    }
}
