//! Why a call costs what it costs, in documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::money::MoneyError;
use crate::domain::price::{Charge, Explanation, Priced};
use crate::domain::tokens::Tokens;

use super::Usd;

/// The body of `POST /admin/prices/preview`. Counts that are left out are 0.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// Who would be called.
    #[schema(example = "openai")]
    pub provider: String,
    /// The model, as requests or answers name it.
    #[schema(example = "gpt-4o-mini")]
    pub model: String,
    /// The tier that would serve it; `standard` where it is left out.
    #[schema(example = "standard")]
    pub service_tier: Option<String>,
    /// When the call would be admitted; now where it is left out.
    #[schema(example = "2026-11-24T10:00:00Z")]
    pub at: Option<String>,
    /// All input.
    #[serde(default)]
    #[schema(example = 1000)]
    pub prompt_tokens: u64,
    /// Input read from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Input written to the provider's cache.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Audio input.
    #[serde(default)]
    pub prompt_audio_tokens: u64,
    /// Image input.
    #[serde(default)]
    pub prompt_image_tokens: u64,
    /// Audio input read from the cache.
    #[serde(default)]
    pub cached_audio_tokens: u64,
    /// All output.
    #[serde(default)]
    #[schema(example = 200)]
    pub completion_tokens: u64,
    /// Audio output.
    #[serde(default)]
    pub completion_audio_tokens: u64,
    /// Image output.
    #[serde(default)]
    pub completion_image_tokens: u64,
}

impl Preview {
    /// The fields there are.
    pub const FIELDS: &[&str] = &[
        "provider",
        "model",
        "service_tier",
        "at",
        "prompt_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "prompt_audio_tokens",
        "prompt_image_tokens",
        "cached_audio_tokens",
        "completion_tokens",
        "completion_audio_tokens",
        "completion_image_tokens",
    ];

    /// The counts.
    pub fn tokens(&self) -> Tokens {
        Tokens {
            prompt: self.prompt_tokens,
            cached: self.cached_tokens,
            cache_write: self.cache_write_tokens,
            cache_write_long: 0,
            prompt_audio: self.prompt_audio_tokens,
            prompt_image: self.prompt_image_tokens,
            cached_audio: self.cached_audio_tokens,
            completion: self.completion_tokens,
            reasoning: 0,
            completion_audio: self.completion_audio_tokens,
            completion_image: self.completion_image_tokens,
        }
    }
}

/// What a call would cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewBody {
    /// The version of the price list.
    #[schema(example = "fa1f49b7e8e3")]
    pub price_version: String,
    /// The entry that the model's name found and the row that held; null where the model has no price.
    pub entry: Option<EntryBody>,
    /// Every token in exactly one line; kinds without tokens have none.
    pub lines: Vec<LineBody>,
    /// The sum of the lines; null where the model has no price.
    pub estimated_cost_usd: Option<Usd>,
    /// `priced`, `free`, `unpriced` or `incomplete`.
    #[schema(example = "priced")]
    pub priced: &'static str,
}

/// A row of a price list.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryBody {
    /// The entry's name.
    #[schema(example = "gpt-4o-mini")]
    pub model: String,
    /// The tier of the row; `standard` also where the asked tier has no prices.
    #[schema(example = "standard")]
    pub tier: &'static str,
    /// From when on it holds; null for always.
    pub from: Option<String>,
    /// It holds for inputs longer than this.
    pub above: u64,
}

/// One kind of token.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineBody {
    /// The kind, as price files name it.
    #[schema(example = "input")]
    pub kind: &'static str,
    /// How many.
    pub tokens: u64,
    /// Pico-dollars (1e-12 USD) each.
    pub picodollars_per_token: i64,
    /// What they cost.
    pub cost_usd: Usd,
}

impl PreviewBody {
    /// The document for an explanation.
    ///
    /// # Errors
    /// When the cost is beyond all that a ledger holds.
    pub fn new(price_version: &str, explained: Option<&Explanation<'_>>) -> Result<Self, MoneyError> {
        let unpriced = Charge { cost: None, priced: Priced::Unpriced };
        let Charge { cost, priced } = explained.map_or(unpriced, Explanation::charge);
        Ok(Self {
            price_version: price_version.to_owned(),
            entry: explained.map(EntryBody::from),
            lines: explained.map(LineBody::all).transpose()?.unwrap_or_default(),
            estimated_cost_usd: cost.map(Usd),
            priced: priced.as_str(),
        })
    }
}

impl From<&Explanation<'_>> for EntryBody {
    fn from(Explanation { model, row, .. }: &Explanation<'_>) -> Self {
        Self {
            model: model.name.to_string(),
            tier: row.tier.as_str(),
            from: row.from.map(|from| from.to_string()),
            above: row.above,
        }
    }
}

impl LineBody {
    /// The lines that have tokens.
    ///
    /// # Errors
    /// When one costs more than money counts.
    pub fn all(explained: &Explanation<'_>) -> Result<Vec<Self>, MoneyError> {
        let lines = explained.bill.lines.iter().filter(|line| line.tokens > 0);
        let body = |line: &crate::domain::price::rates::Line| {
            Ok(Self {
                kind: line.kind.as_str(),
                tokens: line.tokens,
                picodollars_per_token: line.pico_per_token,
                cost_usd: Usd(line.cost()?),
            })
        };
        lines.map(body).collect()
    }
}
