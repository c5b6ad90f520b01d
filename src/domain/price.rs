//! Prices and what a call costs by them.

use std::sync::Arc;

use super::money::PicoUsd;
use super::time::Micros;
use super::tokens::Tokens;

/// How far a cost can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priced {
    /// Every token has a price.
    Priced,
    /// The price is an explicit zero, or nothing was charged.
    Free,
    /// The model has no price: the cost is unknown, never 0.
    Unpriced,
    /// Some kind of token has no price of its own: the cost is a lower bound.
    Incomplete,
}

impl Priced {
    /// All of them, for parsers.
    pub const ALL: [Self; 4] = [Self::Priced, Self::Free, Self::Unpriced, Self::Incomplete];

    /// The name in rows and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Free => "free",
            Self::Unpriced => "unpriced",
            Self::Incomplete => "incomplete",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priced| priced.as_str() == text)
    }
}

/// The service tier a call was served at, as the provider's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// Cheaper and slower.
    Flex,
    /// Asynchronous batches.
    Batch,
    /// Dearer and faster.
    Priority,
}

impl ServiceTier {
    /// All of them, for parsers.
    pub const ALL: [Self; 4] = [Self::Standard, Self::Flex, Self::Batch, Self::Priority];

    /// The name in rows, answers and price files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Batch => "batch",
            Self::Priority => "priority",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text)
    }
}

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The cost; `None` exactly when `priced` is [`Priced::Unpriced`].
    pub cost: Option<PicoUsd>,
    /// How far it can be trusted.
    pub priced: Priced,
}

#[doc(hidden)]
#[derive(Debug, Default)]
pub struct PriceBook;
impl PriceBook {
    #[doc(hidden)]
    pub fn version(&self) -> Arc<str> {
        "".into()
    }
    #[doc(hidden)]
    pub fn charge(&self, _provider: &str, _model: &str, _tier: ServiceTier, _tokens: &Tokens, _at: Micros) -> Charge {
        Charge { cost: None, priced: Priced::Unpriced }
    }
}
