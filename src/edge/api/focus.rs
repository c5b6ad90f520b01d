//! The cost of a month in the FinOps Open Cost and Usage Specification, version 1.2 (focus.finops.org): CSV with a line for
//! each tenant, day of its clock, provider, model and kind of token.
//!
//! All mandatory columns are there, and of the conditional ones those that apply. A column without a value is empty: a null.

use crate::domain::money::PicoUsd;
use crate::domain::price::rates::Unit;
use crate::domain::time::Period;
use crate::domain::zone::Zone;
use crate::metering::cost_lines::{CostLine, OTHER};
use crate::metering::reports::{KindReport, KindRow};

use super::cell::text;

const COLUMNS: [&str; 40] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SkuPriceDetails",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
];

/// The export of the month. What is billed is what the plan of the tenant makes of the provider's list price.
pub(super) fn csv(report: &KindReport, month: Period) -> String {
    let mut lines = vec![COLUMNS.join(",")];
    lines.extend(report.rows.iter().map(|row| line(report, month, row).join(",")));
    lines.push(String::new());
    lines.join("\r\n")
}

fn line(report: &KindReport, month: Period, row: &KindRow) -> [String; COLUMNS.len()] {
    let KindRow { tenant, day, provider, model, line, share: _ } = row;
    let CostLine { kind, quantity, unit, pico, cost, billable } = line;
    let known = tenant.as_ref().and_then(|id| report.zones.get(id));
    let utc = Zone::UTC;
    let (name, zone) = known.map_or(("", &utc), |(name, zone)| (name.as_str(), zone));
    let tenant = tenant.as_ref().map_or("", |id| id.as_str());
    let (vendor, service) = vendor(provider);
    // A price for one of what is counted; one for an hour of milliseconds has no end of digits for one.
    let price = pico.filter(|_| unit.is_some_and(|unit| unit.per() == 1));
    let unit_price = price.map_or_else(String::new, |price| PicoUsd::from(price).to_string());
    // What is of no unit has no quantity either: both are null, or neither is.
    let quantity = unit.map_or_else(String::new, |_| quantity.to_string());
    let measure = || unit.map_or_else(String::new, |unit| measure(unit).to_owned());
    let contracted = if billable == cost { unit_price.clone() } else { String::new() };
    let day = day.unwrap_or(month);
    let meter = meter(kind);
    let plain = |text: &str| text.to_owned();
    [
        billable.to_string(),
        text(&report.ledger_id).into_owned(),
        String::new(),
        plain("USD"),
        zone.end(month).to_string(),
        zone.start(month).to_string(),
        plain("Usage"),
        String::new(),
        text(&format!("{meter} of {model}")).into_owned(),
        plain("Usage-Based"),
        zone.end(day).to_string(),
        zone.start(day).to_string(),
        quantity.clone(),
        measure(),
        billable.to_string(),
        contracted,
        billable.to_string(),
        text(vendor).into_owned(),
        cost.to_string(),
        unit_price,
        plain(if *kind == OTHER { "Other" } else { "Standard" }),
        quantity,
        measure(),
        text(vendor).into_owned(),
        text(vendor).into_owned(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        plain("AI and Machine Learning"),
        text(service).into_owned(),
        plain("Generative AI"),
        text(&format!("{provider}/{model}/{kind}")).into_owned(),
        plain(meter),
        if price.is_some() { text(&report.price_version).into_owned() } else { String::new() },
        String::new(),
        text(tenant).into_owned(),
        text(name).into_owned(),
        plain("Tenant"),
        plain("{}"),
    ]
}

/// Who sells it, and what it is called there.
fn vendor(provider: &str) -> (&str, &str) {
    match provider {
        "openai" => ("OpenAI", "OpenAI API"),
        "gemini" => ("Google", "Gemini API"),
        other => (other, other),
    }
}

fn measure(unit: Unit) -> &'static str {
    match unit {
        Unit::Token => "Tokens",
        Unit::Hour => "Milliseconds",
        Unit::Character => "Characters",
        Unit::Image => "Images",
        Unit::Search => "Searches",
        Unit::Request => "Requests",
    }
}

fn meter(kind: &str) -> &str {
    match kind {
        "input" => "Input tokens",
        "cached" => "Cached input tokens",
        "cache_write" => "Cache write tokens",
        "input_audio" => "Audio input tokens",
        "cached_audio" => "Cached audio input tokens",
        "input_image" => "Image input tokens",
        "output" => "Output tokens",
        "output_audio" => "Audio output tokens",
        "output_image" => "Image output tokens",
        "cache_write_long" => "Long cache write tokens",
        OTHER => "Other charges",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_mandatory_column_is_there_once_and_a_line_has_them_all() {
        for mandatory in [
            "BilledCost",
            "BillingAccountId",
            "BillingAccountName",
            "BillingCurrency",
            "BillingPeriodEnd",
            "BillingPeriodStart",
            "ChargeCategory",
            "ChargeClass",
            "ChargeDescription",
            "ChargePeriodEnd",
            "ChargePeriodStart",
            "ContractedCost",
            "EffectiveCost",
            "InvoiceIssuerName",
            "ListCost",
            "PricingQuantity",
            "PricingUnit",
            "ProviderName",
            "PublisherName",
            "ServiceCategory",
            "ServiceName",
        ] {
            assert_eq!(COLUMNS.iter().filter(|column| **column == mandatory).count(), 1, "{mandatory}");
        }
        let tenant: crate::domain::ids::TenantId = "acme".parse().unwrap();
        let zones = BTreeMap::from([(tenant.clone(), ("=Acme".to_owned(), "Europe/Berlin".parse().unwrap()))]);
        let row = |kind, pico: Option<i64>, cost, billable| KindRow {
            tenant: Some(tenant.clone()),
            day: Some(Period::parse_day("2026-10-25").unwrap()),
            provider: "openai".to_owned(),
            model: "gpt-4o".to_owned(),
            line: CostLine {
                kind,
                quantity: 1_000,
                unit: pico.map(|_| Unit::Token),
                pico,
                cost: PicoUsd(cost),
                billable: PicoUsd(billable),
            },
            share: None,
        };
        let report = KindReport {
            rows: vec![
                row("input", Some(2_500_000), 2_500_000_000, 2_500_000_000),
                row("other", None, -1, 500_000_000_000),
            ],
            zones,
            ledger_id: "00ff".to_owned(),
            price_version: "v1".into(),
        };
        let text = csv(&report, Period::parse_month("2026-10").unwrap());
        let lines: Vec<Vec<&str>> = text.split("\r\n").map(|line| line.split(',').collect()).collect();
        assert_eq!((lines.len(), lines[3].join("")), (4, String::new()));
        let cell = |line: usize, column: &str| lines[line][COLUMNS.iter().position(|name| *name == column).unwrap()];
        for line in [1, 2] {
            assert_eq!(lines[line].len(), COLUMNS.len());
            // A day of 25 hours, in a month that ends in another offset than it began.
            assert_eq!(cell(line, "ChargePeriodStart"), "2026-10-24T22:00:00Z");
            assert_eq!(cell(line, "ChargePeriodEnd"), "2026-10-25T23:00:00Z");
            assert_eq!(cell(line, "BillingPeriodStart"), "2026-09-30T22:00:00Z");
            assert_eq!(cell(line, "BillingPeriodEnd"), "2026-10-31T23:00:00Z");
            // A name is whatever somebody wrote, and no formula.
            assert_eq!((cell(line, "SubAccountId"), cell(line, "SubAccountName")), ("acme", "\"'=Acme\""));
        }
        let told = ["ListUnitPrice", "PricingQuantity", "ListCost", "BilledCost", "SkuPriceId"];
        assert_eq!(told.map(|column| cell(1, column)), ["0.0000025", "1000", "0.0025", "0.0025", "v1"]);
        assert_eq!(told.map(|column| cell(2, column)), ["", "", "-0.000000000001", "0.5", ""]);
    }
}
