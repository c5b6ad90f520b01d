//! The most tokens that one answer of a model may have.
//!
//! May use: the patterns of `price` and the names of `models`. What no line fits has no maximum here, and nobody may guess one.

use super::ids::ProviderId;
use super::models::plain_name;
use super::price::pattern::Pattern;

/// One line of a table of maxima.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLimit {
    /// Whose models these are; `None` for those of every provider.
    pub provider: Option<Box<str>>,
    /// Their names.
    pub models: Pattern,
    /// The most tokens of one answer.
    pub output_max: u64,
}

/// A table of maxima: of its lines the first that fits holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelLimits(Box<[OutputLimit]>);

impl ModelLimits {
    /// The table of these lines, the ones that beat others first.
    pub fn new(lines: impl IntoIterator<Item = OutputLimit>) -> Self {
        Self(lines.into_iter().collect())
    }

    /// The most tokens that one answer of `model` may have; `None` where that is not known. A fine-tuned model has the
    /// maximum of the model that it was made from.
    pub fn output_max(&self, provider: &ProviderId, model: &str) -> Option<u64> {
        let name = plain_name(model)?;
        let name = name.strip_prefix("ft:").unwrap_or(&name);
        let fits = |line: &&OutputLimit| {
            line.provider.as_ref().is_none_or(|whose| **whose == *provider.as_str()) && line.models.fits(name)
        };
        self.0.iter().find(fits).map(|line| line.output_max)
    }
}
