//! The cost report as CSV (RFC 4180), safe to open in a spreadsheet.

use std::borrow::Cow;

use crate::domain::price::rates::Rates;
use crate::metering::cost_lines::{self, CostLine};
use crate::metering::reports::{CostReport, CostRow, GroupRow, KindRow, Totals};

use super::cell::text;
use super::wire::cost::{CostSumsBody, PiecePricesBody, UnitPricesBody};

/// The columns after those that name the row.
const FIGURES: [&str; 24] = [
    "requests",
    "chats",
    "failed_requests",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_long_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "total_tokens",
    "audio_ms",
    "characters",
    "images",
    "web_searches",
    "file_searches",
    "unpriced_requests",
    "estimated_requests",
    "estimated_cost_usd",
    "billable_cost_usd",
];

/// The columns after those, where the row is a model: dollars for a million tokens or for one of anything else, and the
/// version of these prices.
const PRICES: [&str; 18] = [
    "input_usd_per_million_tokens",
    "cached_usd_per_million_tokens",
    "cache_write_usd_per_million_tokens",
    "cache_write_long_usd_per_million_tokens",
    "input_audio_usd_per_million_tokens",
    "cached_audio_usd_per_million_tokens",
    "input_image_usd_per_million_tokens",
    "output_usd_per_million_tokens",
    "output_audio_usd_per_million_tokens",
    "output_image_usd_per_million_tokens",
    "usd_per_audio_hour",
    "usd_per_character",
    "usd_per_image",
    "usd_per_web_search",
    "usd_per_grounded_request",
    "usd_per_file_search",
    "usd_per_request",
    "price_version",
];

/// The columns where rows are kinds of token.
const KINDS: [&str; 11] = [
    "provider",
    "model",
    "kind",
    "quantity",
    "unit",
    "price_usd",
    "price_per",
    "price_version",
    "estimated_cost_usd",
    "billable_cost_usd",
    "share_percent",
];

/// One line for each group of the asked grouping; by provider and model, with their prices, where none was asked.
pub fn cost_report(report: &CostReport) -> String {
    let mut lines = Vec::new();
    if report.group_by.is_empty() {
        lines.push([&["provider", "model"][..], &FIGURES, &PRICES].concat().join(","));
        for CostRow { provider, model, sums, rates } in &report.rows {
            let mut cells = vec![text(provider), text(model)];
            cells.extend(figures(*sums).into_iter().map(Cow::Owned));
            cells.extend(prices(*rates).into_iter().map(Cow::Owned));
            cells.push(text(&report.price_version));
            lines.push(cells.join(","));
        }
    } else {
        let names: Vec<&str> = report.group_by.iter().map(|dimension| dimension.as_str()).collect();
        lines.push([&names[..], &FIGURES].concat().join(","));
        for GroupRow { values, sums } in &report.groups {
            let mut cells: Vec<Cow<'_, str>> =
                values.iter().map(|value| text(value.as_deref().unwrap_or(""))).collect();
            cells.extend(figures(*sums).into_iter().map(Cow::Owned));
            lines.push(cells.join(","));
        }
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// One line for each model and kind of token, with what part of the whole it is.
pub fn kinds(report: &CostReport) -> String {
    let mut lines = vec![KINDS.join(",")];
    for KindRow { tenant: _, day: _, provider, model, line, share } in &report.kinds() {
        let CostLine { kind, quantity, unit, cost, billable, .. } = line;
        let (price, per) =
            line.price().map_or_else(Default::default, |(price, per)| (price.to_string(), per.to_string()));
        let cells = [
            text(provider).into_owned(),
            text(model).into_owned(),
            (*kind).to_owned(),
            quantity.to_string(),
            unit.map_or_else(String::new, |unit| unit.as_str().to_owned()),
            price,
            per,
            text(&report.price_version).into_owned(),
            cost.to_string(),
            billable.to_string(),
            share.map_or_else(String::new, cost_lines::percent),
        ];
        lines.push(cells.join(","));
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// One cell for each kind; empty where a kind, or the whole model, has no price of its own.
fn prices(rates: Option<Rates>) -> [String; PRICES.len() - 1] {
    let UnitPricesBody {
        input,
        cached,
        cache_write,
        cache_write_long,
        input_audio,
        cached_audio,
        input_image,
        output,
        output_audio,
        output_image,
    } = rates.map(UnitPricesBody::from).unwrap_or_default();
    let PiecePricesBody { audio_hour, character, image, web_search, grounded, file_search, request } =
        rates.map(PiecePricesBody::from).unwrap_or_default();
    [
        input,
        cached,
        cache_write,
        cache_write_long,
        input_audio,
        cached_audio,
        input_image,
        output,
        output_audio,
        output_image,
        audio_hour,
        character,
        image,
        web_search,
        grounded,
        file_search,
        request,
    ]
    .map(|price| price.map_or_else(String::new, |price| price.0.to_string()))
}

fn figures(sums: Totals) -> [String; FIGURES.len()] {
    let CostSumsBody {
        requests,
        chats,
        failed_requests,
        tokens,
        quantities,
        estimated_cost_usd,
        billable_cost_usd,
        unpriced_requests,
        estimated,
    } = sums.into();
    let counts = [
        requests,
        chats,
        failed_requests,
        tokens.prompt_tokens,
        tokens.cached_tokens,
        tokens.cache_write_tokens,
        tokens.cache_write_long_tokens,
        tokens.prompt_audio_tokens,
        tokens.prompt_image_tokens,
        tokens.cached_audio_tokens,
        tokens.completion_tokens,
        tokens.reasoning_tokens,
        tokens.completion_audio_tokens,
        tokens.completion_image_tokens,
        tokens.total_tokens,
        quantities.audio_ms,
        quantities.characters,
        quantities.images,
        quantities.web_searches,
        quantities.file_searches,
        unpriced_requests,
        estimated.requests,
    ];
    let mut cells =
        counts.iter().map(u64::to_string).chain([estimated_cost_usd, billable_cost_usd].map(|cost| cost.0.to_string()));
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}
