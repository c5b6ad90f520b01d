//! The body of the cost report, and the kinds of token that it shares with line items.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::money::PicoUsd;
use crate::domain::price::rates::{Rates, Unit};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;
use crate::metering::cost_lines::{self, CostLine};
use crate::metering::reports::{CostReport, CostRow, GroupRow, KindRow, Totals};

use super::{EstimatedBody, PeriodBody, SumsBody, Usd};

/// Unit prices are said for so many tokens, as the providers' price lists do.
const TOKENS_PER_UNIT: u64 = 1_000_000;

/// Every kind of token. Kinds are parts of `prompt_tokens` or `completion_tokens`, never beside them.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TokensBody {
    /// All input.
    pub prompt_tokens: u64,
    /// Input read from the provider's cache.
    pub cached_tokens: u64,
    /// Input written to the provider's cache.
    pub cache_write_tokens: u64,
    /// The part of it that the cache keeps for an hour or longer.
    pub cache_write_long_tokens: u64,
    /// Audio input.
    pub prompt_audio_tokens: u64,
    /// Image input.
    pub prompt_image_tokens: u64,
    /// Audio input read from the cache.
    pub cached_audio_tokens: u64,
    /// All output.
    pub completion_tokens: u64,
    /// Output spent on reasoning.
    pub reasoning_tokens: u64,
    /// Audio output.
    pub completion_audio_tokens: u64,
    /// Image output.
    pub completion_image_tokens: u64,
    /// Input and output.
    pub total_tokens: u64,
}

impl From<Tokens> for TokensBody {
    fn from(tokens: Tokens) -> Self {
        let total_tokens = tokens.total();
        let Tokens {
            prompt,
            cached,
            cache_write,
            cache_write_long,
            prompt_audio,
            prompt_image,
            cached_audio,
            completion,
            reasoning,
            completion_audio,
            completion_image,
        } = tokens;
        Self {
            prompt_tokens: prompt,
            cached_tokens: cached,
            cache_write_tokens: cache_write,
            cache_write_long_tokens: cache_write_long,
            prompt_audio_tokens: prompt_audio,
            prompt_image_tokens: prompt_image,
            cached_audio_tokens: cached_audio,
            completion_tokens: completion,
            reasoning_tokens: reasoning,
            completion_audio_tokens: completion_audio,
            completion_image_tokens: completion_image,
            total_tokens,
        }
    }
}

/// What is charged by something else than tokens; all 0 where tokens are counted for it.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct QuantitiesBody {
    /// Milliseconds of audio that are charged by their length.
    pub audio_ms: u64,
    /// Characters that were spoken.
    pub characters: u64,
    /// Images that were made.
    pub images: u64,
    /// Searches of the web.
    pub web_searches: u64,
    /// Searches of files.
    pub file_searches: u64,
}

impl From<Quantities> for QuantitiesBody {
    fn from(quantities: Quantities) -> Self {
        let Quantities { audio_ms, characters, images, web_searches, file_searches } = quantities;
        Self { audio_ms, characters, images, web_searches, file_searches }
    }
}

/// Sums with every kind of token.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostSumsBody {
    /// Answers below 400, and calls that were interrupted or broke off. What was deferred is one when it is billed.
    pub requests: u64,
    /// Chats that count against the plan.
    pub chats: u64,
    /// Answers of 400 and more, and calls without an answer.
    pub failed_requests: u64,
    /// Tokens of each kind.
    #[serde(flatten)]
    pub tokens: TokensBody,
    /// What was charged beside tokens.
    #[serde(flatten)]
    pub quantities: QuantitiesBody,
    /// What providers charge for everything that has a price.
    pub estimated_cost_usd: Usd,
    /// What is billed for it: the same, unless the plan has prices of its own.
    pub billable_cost_usd: Usd,
    /// Requests whose model has no price: their cost is unknown, not 0.
    pub unpriced_requests: u64,
    /// The part that was estimated.
    pub estimated: EstimatedBody,
}

impl From<Totals> for CostSumsBody {
    fn from(sums: Totals) -> Self {
        let (tokens, quantities) = (sums.tokens.into(), sums.quantities.into());
        let SumsBody {
            requests,
            chats,
            failed_requests,
            estimated_cost_usd,
            billable_cost_usd,
            unpriced_requests,
            estimated,
            ..
        } = sums.into();
        Self {
            requests,
            chats,
            failed_requests,
            tokens,
            quantities,
            estimated_cost_usd,
            billable_cost_usd,
            unpriced_requests,
            estimated,
        }
    }
}

/// What one model of one provider cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostRowBody {
    /// The provider.
    #[schema(example = "openai")]
    pub provider: String,
    /// The model, as the provider answered.
    #[schema(example = "gpt-4o-mini")]
    pub model: String,
    /// What it comes to.
    #[serde(flatten)]
    pub sums: CostSumsBody,
    /// List prices in dollars for a million tokens: of the standard tier, for short inputs, at the end of the report's
    /// time. Null when the model has no price. Each event was charged by the prices of its own tier, length and moment.
    pub usd_per_million_tokens: Option<UnitPricesBody>,
    /// The same for what is charged beside tokens, each.
    pub usd_per_unit: Option<PiecePricesBody>,
    /// The version of the list that these unit prices are from: the one in force now, which need not be the one that
    /// priced the calls. Each event names its own.
    pub price_version: String,
}

/// Dollars for a million tokens of each kind; a kind that is not there has no price of its own.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UnitPricesBody {
    /// Input.
    pub input: Option<Usd>,
    /// Input read from the provider's cache.
    pub cached: Option<Usd>,
    /// Input written to the provider's cache.
    pub cache_write: Option<Usd>,
    /// Input written to it for an hour or longer.
    pub cache_write_long: Option<Usd>,
    /// Audio input.
    pub input_audio: Option<Usd>,
    /// Audio input read from the cache.
    pub cached_audio: Option<Usd>,
    /// Image input.
    pub input_image: Option<Usd>,
    /// Output.
    pub output: Option<Usd>,
    /// Audio output.
    pub output_audio: Option<Usd>,
    /// Image output.
    pub output_image: Option<Usd>,
}

impl From<Rates> for UnitPricesBody {
    fn from(rates: Rates) -> Self {
        let million = |pico: Option<i64>| PicoUsd::of(TOKENS_PER_UNIT, pico?).ok().map(Usd);
        Self {
            input: million(rates.input),
            cached: million(rates.cached),
            cache_write: million(rates.cache_write),
            cache_write_long: million(rates.cache_write_long),
            input_audio: million(rates.input_audio),
            cached_audio: million(rates.cached_audio),
            input_image: million(rates.input_image),
            output: million(rates.output),
            output_audio: million(rates.output_audio),
            output_image: million(rates.output_image),
        }
    }
}

/// Dollars for each of what is charged beside tokens; what is not there has no price.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct PiecePricesBody {
    /// An hour of audio, of which milliseconds are charged.
    pub audio_hour: Option<Usd>,
    /// A character that is spoken.
    pub character: Option<Usd>,
    /// An image that is made.
    pub image: Option<Usd>,
    /// A search of the web.
    pub web_search: Option<Usd>,
    /// A request in which the web was searched, however often.
    pub grounded: Option<Usd>,
    /// A search of files.
    pub file_search: Option<Usd>,
    /// The request itself.
    pub request: Option<Usd>,
}

impl From<Rates> for PiecePricesBody {
    fn from(rates: Rates) -> Self {
        let each = |pico: Option<i64>| pico.map(|pico| Usd(pico.into()));
        Self {
            audio_hour: each(rates.audio_hour),
            character: each(rates.character),
            image: each(rates.image),
            web_search: each(rates.web_search),
            grounded: each(rates.grounded),
            file_search: each(rates.file_search),
            request: each(rates.request),
        }
    }
}

/// One group and its sums with every kind of token.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostGroupBody {
    /// The value of each asked dimension; null where the events have none.
    #[schema(example = json!({"day": "2026-11-24"}))]
    pub group: BTreeMap<&'static str, Option<String>>,
    /// What it comes to.
    #[serde(flatten)]
    pub sums: CostSumsBody,
}

/// The answer of `GET /billing/cost-report` as JSON.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostReportBody {
    /// Whose cost; null for all tenants.
    #[schema(example = "acme")]
    tenant_id: Option<String>,
    /// `month` or `all`.
    #[schema(example = "month")]
    range: &'static str,
    /// The time that it is about; null for all time.
    period: Option<PeriodBody>,
    /// Everything.
    totals: CostSumsBody,
    /// The same by provider and model.
    rows: Vec<CostRowBody>,
    /// The same by what `group_by` asked for; every grouping adds up to the totals.
    groups: Vec<CostGroupBody>,
    /// The same by kinds of token, where `group_by=kind` asked for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<CostKindBody>,
}

/// What a model cost by one kind of token.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostKindBody {
    /// The provider.
    #[schema(example = "openai")]
    provider: String,
    /// The model.
    #[schema(example = "gpt-4o-mini")]
    model: String,
    /// The kind of token, or of what is charged beside tokens; `other` is what list prices of the standard tier do not explain:
    /// steps of long inputs, other tiers, prices that changed, prices of requests, corrections.
    #[schema(example = "input")]
    kind: &'static str,
    /// How many.
    quantity: u64,
    /// Of what: `token`, `millisecond`, `character`, `image` or `search`.
    #[schema(example = "token")]
    unit: Option<&'static str>,
    /// The list price of so many of them as `price_per` says.
    price_usd: Option<Usd>,
    /// For how many the price is: a million tokens, an hour of milliseconds, one of all others.
    #[schema(example = 1_000_000)]
    price_per: Option<u64>,
    /// The version of the list that this price is from: the one in force now, which need not be the one that priced the
    /// calls. Each event names its own.
    price_version: String,
    /// What the provider charges for them.
    estimated_cost_usd: Usd,
    /// What is billed for them.
    billable_cost_usd: Usd,
    /// What part of the whole it is, in percent: an exact decimal. All parts add up to 100. Null where the whole is nothing.
    #[schema(example = "12.5")]
    share_percent: Option<String>,
}

impl CostReportBody {
    /// The same with its kinds.
    pub fn with_kinds(report: CostReport) -> Self {
        let (rows, version) = (report.kinds(), report.price_version.clone());
        let kind = |KindRow { tenant: _, day: _, provider, model, line, share }: KindRow| {
            let CostLine { kind, quantity, unit, cost, billable, .. } = line;
            let (price, price_per) = line.price().unzip();
            CostKindBody {
                provider,
                model,
                kind,
                quantity,
                unit: unit.map(Unit::as_str),
                price_usd: price.map(Usd),
                price_per,
                price_version: version.to_string(),
                estimated_cost_usd: Usd(cost),
                billable_cost_usd: Usd(billable),
                share_percent: share.map(cost_lines::percent),
            }
        };
        Self { kinds: rows.into_iter().map(kind).collect(), ..report.into() }
    }
}

impl From<CostReport> for CostReportBody {
    fn from(report: CostReport) -> Self {
        let CostReport { tenant, period, zone, totals, rows, group_by, groups, price_version } = report;
        let names = group_by.iter().map(|dimension| dimension.as_str());
        let group =
            |GroupRow { values, sums }| CostGroupBody { group: names.clone().zip(values).collect(), sums: sums.into() };
        let row = |CostRow { provider, model, sums, rates }| CostRowBody {
            provider,
            model,
            sums: sums.into(),
            usd_per_million_tokens: rates.map(UnitPricesBody::from),
            usd_per_unit: rates.map(PiecePricesBody::from),
            price_version: price_version.to_string(),
        };
        Self {
            tenant_id: tenant.map(|tenant| tenant.to_string()),
            range: period.map_or("all", |period| period.window().as_str()),
            period: period.map(|period| PeriodBody::new(period, &zone)),
            totals: totals.into(),
            rows: rows.into_iter().map(row).collect(),
            groups: groups.into_iter().map(group).collect(),
            kinds: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_prices_are_exact_dollars_for_a_million_tokens() {
        let rates = Rates { input: Some(150_000), output: Some(600_000), cached: Some(75_001), ..Rates::default() };
        let text = serde_json::to_string(&UnitPricesBody::from(rates)).unwrap();
        let start = r#"{"input":0.15,"cached":0.075001,"cache_write":null,"#;
        assert!(text.starts_with(start) && text.contains(r#""output":0.6,"#), "{text}");
    }
}
