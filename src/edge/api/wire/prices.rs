//! Why a call costs what it costs, in documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::money::MoneyError;
use crate::domain::price::changes::{PriceChange, Said};
use crate::domain::price::rates::Line;
use crate::domain::price::{Charge, Explanation, PriceBook, Priced};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;
use crate::metering::admin::prices::{BookListing, PricesView};

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
    /// The part of it that the cache keeps for an hour or longer.
    #[serde(default)]
    pub cache_write_long_tokens: u64,
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
    /// Milliseconds of audio that are charged by their length.
    #[serde(default)]
    pub audio_ms: u64,
    /// Characters that are spoken.
    #[serde(default)]
    pub characters: u64,
    /// Images that are made.
    #[serde(default)]
    pub images: u64,
    /// Searches of the web.
    #[serde(default)]
    pub web_searches: u64,
    /// Searches of files.
    #[serde(default)]
    pub file_searches: u64,
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
        "cache_write_long_tokens",
        "prompt_audio_tokens",
        "prompt_image_tokens",
        "cached_audio_tokens",
        "completion_tokens",
        "completion_audio_tokens",
        "completion_image_tokens",
        "audio_ms",
        "characters",
        "images",
        "web_searches",
        "file_searches",
    ];

    /// The quantities.
    pub fn quantities(&self) -> Quantities {
        Quantities {
            audio_ms: self.audio_ms,
            characters: self.characters,
            images: self.images,
            web_searches: self.web_searches,
            file_searches: self.file_searches,
        }
    }

    /// The counts.
    pub fn tokens(&self) -> Tokens {
        Tokens {
            prompt: self.prompt_tokens,
            cached: self.cached_tokens,
            cache_write: self.cache_write_tokens,
            cache_write_long: self.cache_write_long_tokens,
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
    /// Everything in exactly one line; kinds of which there is nothing have none.
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
    /// In whose list it stands: `built-in`, `correction` (of the built-in list) or `operator`.
    #[schema(example = "built-in")]
    pub list: &'static str,
    /// Where its prices are from, and of when they are.
    #[schema(example = "genai-prices 0.2.3, 2026-11")]
    pub source: Option<String>,
}

/// One kind of token, or of what is charged beside tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineBody {
    /// The kind, as price files name it.
    #[schema(example = "input")]
    pub kind: &'static str,
    /// What is counted: `token`, `millisecond`, `character`, `image`, `search` or `request`.
    #[schema(example = "token")]
    pub unit: &'static str,
    /// How many.
    pub quantity: u64,
    /// The price in pico-dollars (1e-12 USD), for `per` of them; null where there is none.
    pub picodollars: Option<i64>,
    /// For how many the price is: 1, and for milliseconds an hour of them.
    #[schema(example = 1)]
    pub per: u64,
    /// What they cost, rounded up to a whole pico-dollar; null where there is no price.
    pub cost_usd: Option<Usd>,
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
            list: model.origin.of(row.tier).0.as_str(),
            source: model.origin.of(row.tier).1.map(ToString::to_string),
        }
    }
}

impl LineBody {
    /// The lines that have something in them.
    ///
    /// # Errors
    /// When one costs more than money counts.
    pub fn all(explained: &Explanation<'_>) -> Result<Vec<Self>, MoneyError> {
        let lines = explained.bill.lines.iter().filter(|line| line.is_used());
        let body = |line: &Line| {
            let (unit, cost) = (line.kind.unit(), line.cost()?);
            Ok(Self {
                kind: line.kind.as_str(),
                unit: unit.as_str(),
                quantity: line.quantity,
                picodollars: line.pico,
                per: unit.per(),
                cost_usd: line.pico.map(|_| Usd(cost)),
            })
        };
        lines.map(body).collect()
    }
}

/// One price that is not the same in two price books.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeBody {
    /// Who sells it.
    #[schema(example = "openai")]
    pub provider: String,
    /// A name that the model is called by.
    #[schema(example = "gpt-4o-mini")]
    pub model: String,
    /// The service tier.
    #[schema(example = "standard")]
    pub tier: &'static str,
    /// From when on it holds; null for always.
    pub from: Option<String>,
    /// It holds for inputs longer than this.
    pub above: u64,
    /// What is sold.
    #[schema(example = "input")]
    pub kind: &'static str,
    /// What is counted of it: `token`, `millisecond`, `character`, `image`, `search` or `request`.
    #[schema(example = "token")]
    pub unit: &'static str,
    /// For how many the prices are: 1, and for milliseconds an hour of them.
    #[schema(example = 1)]
    pub per: u64,
    /// Pico-dollars for so many in the book in force; null where there is no such price.
    pub before: Option<i64>,
    /// Pico-dollars for so many in the other book; null where there is no such price.
    pub after: Option<i64>,
    /// Whether the price in force could not be verified: costs by it are `incomplete`.
    pub before_unverified: bool,
    /// Whether the other price could not be verified.
    pub after_unverified: bool,
    /// In whose list the price in force stands, and where it is from.
    pub before_source: Option<String>,
    /// In whose list the other price stands, and where it is from.
    pub after_source: Option<String>,
}

/// What another price book changes.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateBody {
    /// The version that was in force.
    #[schema(example = "fa1f49b7e8e3")]
    pub before: String,
    /// The version of the other book.
    #[schema(example = "0a1b2c3d4e5f")]
    pub after: String,
    /// Whether the other book is in force now.
    pub in_force: bool,
    /// Every price that differs.
    pub changes: Vec<ChangeBody>,
}

/// A price book that the ledger has.
#[derive(Debug, Serialize, ToSchema)]
pub struct BookBody {
    /// Its version.
    #[schema(example = "0a1b2c3d4e5f")]
    pub version: String,
    /// The version of the book that it lies over.
    #[schema(example = "fa1f49b7e8e3")]
    pub base: Option<String>,
    /// Since when it is kept.
    pub added_at: String,
    /// Who put it there: `gateway`, `admin` or `cli`.
    #[schema(example = "gateway")]
    pub added_by: String,
}

/// Since when a book is in force for all gateways, and by whom.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActiveBody {
    /// Since when.
    pub since: String,
    /// By whom: `admin` or `cli`.
    #[schema(example = "admin")]
    pub by: String,
}

/// The prices in force, and the books there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct PricesBody {
    /// The version in force.
    #[schema(example = "0a1b2c3d4e5f")]
    pub version: String,
    /// Who put it in force for all gateways; null where it is that of the configuration.
    pub active: Option<ActiveBody>,
    /// The version of this gateway's configuration.
    #[schema(example = "fa1f49b7e8e3")]
    pub configured: String,
    /// Every book that was ever in force, newest first.
    pub books: Vec<BookBody>,
}

impl From<PriceChange> for ChangeBody {
    fn from(change: PriceChange) -> Self {
        let PriceChange { provider, name, tier, from, above, kind, before, after } = change;
        let source = |said: &Option<Said>| said.as_ref().map(|said| said.origin.told(tier));
        let unverified = |said: &Option<Said>| said.as_ref().is_some_and(|said| said.is_unverified);
        let price = |said: &Option<Said>| said.as_ref().map(|said| said.pico);
        Self {
            provider,
            model: name,
            tier: tier.as_str(),
            from: from.map(|from| from.to_string()),
            above,
            kind: kind.as_str(),
            unit: kind.unit().as_str(),
            per: kind.unit().per(),
            before: price(&before),
            after: price(&after),
            before_unverified: unverified(&before),
            after_unverified: unverified(&after),
            before_source: source(&before),
            after_source: source(&after),
        }
    }
}

impl UpdateBody {
    /// What differs between two books; nothing is done yet.
    pub fn new(before: &PriceBook, after: &PriceBook, changes: Vec<PriceChange>) -> Self {
        Self {
            before: before.version().to_string(),
            after: after.version().to_string(),
            in_force: false,
            changes: changes.into_iter().map(ChangeBody::from).collect(),
        }
    }
}

impl From<PricesView> for PricesBody {
    fn from(view: PricesView) -> Self {
        let PricesView { version, active, configured, kept } = view;
        let active = active.map(|active| ActiveBody { since: active.since.to_string(), by: active.by });
        let book = |book: BookListing| BookBody {
            version: book.version.to_string(),
            base: book.base.map(|base| base.to_string()),
            added_at: book.added_at.to_string(),
            added_by: book.added_by,
        };
        Self { version, active, configured, books: kept.into_iter().map(book).collect() }
    }
}
