//! What was billed for an event beside what it cost: by which prices of the plan, or which part of the cost.
//!
//! May use: as [`super`].

use std::sync::Arc;

use serde::Serialize;

use crate::domain::event::UsageEvent;
use crate::domain::price::PriceBook;
use crate::domain::price::tariff::{Percent, Pricing, Tariff, Version};
use crate::edge::api::wire::Usd;
use crate::edge::api::wire::prices::{EntryBody, LineBody};

use super::{Failure, line_row, sum_row};

/// What was billed.
#[derive(Serialize)]
pub(super) struct Billing {
    /// What is billed of the cost where the plan has no price of its own.
    percent: String,
    /// The plan's own price list, and the entry and lines in it that were billed; null and empty where it has none for
    /// the model. Kinds that it leaves out have the list's price at the percent.
    own_version: Option<String>,
    entry: Option<EntryBody>,
    lines: Vec<LineBody>,
    computed_usd: Option<Usd>,
    booked_usd: Option<Usd>,
}

/// What of an event's price version is the plan's, where `own` is its list.
pub(super) fn pricing(version: Option<Version<'_>>, own: Option<PriceBook>) -> Result<Pricing, Failure> {
    let named = version.and_then(|version| version.own);
    let is_there = own.as_ref().is_some_and(|own| Some(&*own.version()) == named);
    match named {
        Some(named) if !is_there => {
            Err(format!("the ledger does not have the plan's own prices, version {named}").into())
        }
        _ => {
            let percent = version.map_or(Percent::WHOLE, |version| version.percent);
            Ok(Pricing { percent, own: own.map(Arc::new) })
        }
    }
}

impl Billing {
    /// What was billed for an event, and why.
    pub(super) fn of(event: &UsageEvent, tariff: &Tariff) -> Result<Self, Failure> {
        let too_large = |error: crate::domain::money::MoneyError| Failure::from(error.to_string());
        let Pricing { percent, own } = tariff.pricing();
        let model = tariff.priced_as(event.named(), event.requested_at);
        let (provider, tier) = (event.provider.as_str(), event.service_tier);
        // What was not charged, such as a failed call, is not billed whatever the plan has a price for.
        let own_entry = own.as_ref().filter(|_| event.used_anything());
        let own_entry = own_entry.and_then(|_| tariff.own(provider, model, tier, event.used(), event.requested_at));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::PicoUsd;

    #[test]
    fn a_plan_s_prices_that_are_gone_are_named() {
        let version = Version::parse("aaaaaaaaaaaa+bbbbbbbbbbbbx120");
        let error = pricing(version, None).err().unwrap();
        assert!(error.0[0].contains("bbbbbbbbbbbb"), "{error:?}");
        let plan = pricing(Version::parse("aaaaaaaaaaaax120"), None).ok().unwrap();
        assert_eq!(plan.percent.of(PicoUsd(10)), Ok(PicoUsd(12)));
    }
}
