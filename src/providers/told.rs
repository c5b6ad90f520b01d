//! What an answer has told so far.
//!
//! May use: `domain`.

use serde_json::value::RawValue;

use crate::domain::price::ServiceTier;
use crate::domain::tokens::Tokens;

use super::Reading;
use super::json;
use super::text::OutputText;
use super::usage::{Unbelievable, tier_named};

/// Longer names of models are no names.
const MODEL_BYTES_MAX: usize = 256;

/// What an answer has told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    tokens: Option<Tokens>,
    /// A usage object without any token was there: true of a blocked prompt, else a lie.
    nothing_used: bool,
    distrusted: bool,
    pub(super) model: Option<String>,
    tier: ServiceTier,
    pub(super) output: OutputText,
}

impl Told {
    /// Takes a usage object. The last whole one replaces what was there: objects are never merged or summed. One that
    /// cannot be believed, or says that nothing was used, replaces nothing.
    pub(super) fn used(&mut self, usage: Result<Tokens, Unbelievable>) {
        match usage {
            Ok(tokens) if tokens.total() == 0 => self.nothing_used = true,
            Ok(tokens) => {
                self.tokens = Some(tokens);
                self.distrusted = false;
            }
            Err(Unbelievable) => self.distrusted = true,
        }
    }

    /// Whether counts are still missing.
    pub(super) fn lacks_tokens(&self) -> bool {
        self.tokens.is_none()
    }

    /// Takes the name of the model that answers; Google's resource names without their collection.
    pub(super) fn answered_by(&mut self, raw: &RawValue) {
        let Some(name) = json::text(raw) else { return };
        let name = name.strip_prefix("models/").unwrap_or(&name);
        if is_name(name) && self.model.as_deref() != Some(name) {
            self.model = Some(name.to_owned());
        }
    }

    /// Takes the name of the service tier.
    pub(super) fn served_at(&mut self, raw: &RawValue) {
        if let Some(name) = json::text(raw) {
            self.tier = tier_named(&name, self.tier);
        }
    }

    /// Takes the service tier.
    pub(super) fn served(&mut self, tier: ServiceTier) {
        self.tier = tier;
    }

    /// All of it. `nothing_is_possible`: an answer without any text may have used no token at all.
    pub(super) fn reading(&mut self, nothing_is_possible: bool) -> Reading {
        let Self { tokens, nothing_used, distrusted, model, tier, output } = std::mem::take(self);
        let nothing = nothing_used && nothing_is_possible && !distrusted && output.bytes == 0;
        let tokens = tokens.or(nothing.then(Tokens::default));
        Reading {
            distrusted: distrusted || (nothing_used && tokens.is_none()),
            tokens,
            model,
            tier,
            output: output.text,
            output_bytes: output.bytes,
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MODEL_BYTES_MAX && name.chars().all(|c| !c.is_control())
}
