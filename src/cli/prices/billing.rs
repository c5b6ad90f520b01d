//! What was billed for an event beside what it cost: by which prices of the plan, or which part of the cost.
//!
//! May use: as [`super`].

use serde::Serialize;

use crate::domain::event::UsageEvent;
use crate::domain::price::tariff::{Percent, Version};
use crate::domain::price::{Explanation, PriceBook};
use crate::edge::api::wire::Usd;
use crate::edge::api::wire::prices::{EntryBody, LineBody};

use super::{Failure, line_row, sum_row};

/// What of an event's price version is the plan's.
pub(super) struct OfPlan {
    percent: Percent,
    own: Option<PriceBook>,
}

/// What was billed.
#[derive(Serialize)]
pub(super) struct Billing {
    /// What is billed of the cost where the plan has no price of its own.
    percent: String,
    /// The plan's own price list, and the entry and lines in it that were billed; null and empty where it has none for
    /// the model.
    own_version: Option<String>,
    entry: Option<EntryBody>,
    lines: Vec<LineBody>,
    computed_usd: Option<Usd>,
    booked_usd: Option<Usd>,
}

impl OfPlan {
    /// What the version names, where `own` is its list.
    pub(super) fn of(version: Option<Version<'_>>, own: Option<PriceBook>) -> Result<Self, Failure> {
        let named = version.and_then(|version| version.own);
        let is_there = own.as_ref().is_some_and(|own| Some(&*own.version()) == named);
        match named {
            Some(named) if !is_there => {
                Err(format!("the ledger does not have the plan's own prices, version {named}").into())
            }
            _ => Ok(Self { percent: version.map_or(Percent::WHOLE, |version| version.percent), own }),
        }
    }

    /// The model whose prices the event has in this list, and in the plan's.
    pub(super) fn priced_as<'a>(&self, event: &'a UsageEvent, list: &PriceBook) -> &'a str {
        event.named().priced_as(list, self.own.as_ref(), event.requested_at)
    }
}

impl Billing {
    /// What was billed for an event, and why.
    pub(super) fn of(event: &UsageEvent, plan: &OfPlan, list: &PriceBook) -> Result<Self, Failure> {
        let too_large = |error: crate::domain::money::MoneyError| Failure::from(error.to_string());
        let OfPlan { percent, own } = plan;
        // What was not charged, such as a failed call, is not billed whatever the plan has a price for.
        let model = plan.priced_as(event, list);
        let own_entry = own.as_ref().filter(|_| event.used_anything());
        let own_entry = own_entry.and_then(|own| explained(own, event, model));
        let own_entry = own_entry.filter(|entry| entry.charge().cost.is_some());
        let computed = match (&own_entry, event.cost) {
            (Some(entry), _) => entry.charge().cost,
            (None, Some(cost)) => Some(percent.of(cost).map_err(too_large)?),
            (None, None) => None,
        };
        let lines = own_entry.as_ref().map(LineBody::all).transpose().map_err(too_large)?.unwrap_or_default();
        Ok(Self {
            percent: percent.to_string(),
            own_version: own.as_ref().map(|own| own.version().to_string()),
            entry: own_entry.as_ref().map(EntryBody::from),
            lines,
            computed_usd: computed.map(Usd),
            booked_usd: event.billable.map(Usd),
        })
    }

    /// Whether what was booked is something else.
    pub(super) fn differs(&self) -> bool {
        let pico = |usd: &Option<Usd>| usd.as_ref().map(|usd| usd.0);
        pico(&self.computed_usd) != pico(&self.booked_usd)
    }

    /// The rows behind those of the cost.
    pub(super) fn rows(&self) -> Vec<[String; 5]> {
        let Self { percent, own_version, lines, computed_usd, booked_usd, .. } = self;
        if own_version.is_none() && *percent == Percent::WHOLE.to_string() && !self.differs() {
            return Vec::new();
        }
        let mut rows: Vec<_> = lines.iter().map(line_row).collect();
        let how = match (own_version, self.entry.is_some()) {
            (Some(version), true) => format!("billed by the plan's prices, version {version}"),
            _ => format!("billed at {percent} % of it"),
        };
        rows.push(sum_row(how, computed_usd));
        rows.push(sum_row("booked as billed".to_owned(), booked_usd));
        rows
    }
}

/// The prices of a model, for what an event used.
pub(super) fn explained<'a>(book: &'a PriceBook, event: &UsageEvent, model: &str) -> Option<Explanation<'a>> {
    book.explain(event.provider.as_str(), model, event.service_tier, event.used(), event.requested_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::PicoUsd;

    #[test]
    fn a_plan_s_prices_that_are_gone_are_named() {
        let version = Version::parse("aaaaaaaaaaaa+bbbbbbbbbbbbx120");
        let error = OfPlan::of(version, None).err().unwrap();
        assert!(error.0[0].contains("bbbbbbbbbbbb"), "{error:?}");
        let plan = OfPlan::of(Version::parse("aaaaaaaaaaaax120"), None).ok().unwrap();
        assert_eq!(plan.percent.of(PicoUsd(10)), Ok(PicoUsd(12)));
    }
}
