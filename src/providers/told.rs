//! What an answer has told so far.
//!
//! May use: `domain`.

use serde_json::value::RawValue;

use crate::domain::price::ServiceTier;
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;

use super::json;
use super::prompt::BYTES_PER_TOKEN;
use super::text::OutputText;
use super::usage::{Reported, Unbelievable, tier_named};
use super::{Reading, ToldUnit};

/// Longer names of models are no names.
const MODEL_BYTES_MAX: usize = 256;

/// What an answer has told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    tokens: Option<Tokens>,
    /// A usage object without any token was there: true of a blocked prompt, else a lie.
    nothing_used: bool,
    /// What was charged beside tokens.
    pub(super) quantities: Quantities,
    /// All that is charged is in `quantities`: no token is.
    by_quantity: bool,
    /// Something was charged that no count says.
    pub(super) uncounted: bool,
    /// A message was too long to be read, and none after it said what was charged.
    pub(super) unread: bool,
    /// Bytes of the answer that were counted and not read.
    pub(super) unread_bytes: u64,
    /// The last usage object could not be believed, or did not add up.
    distrusted: bool,
    pub(super) model: Option<String>,
    /// The token by which the answer can be gone on with.
    pub(super) continuation: Option<Box<str>>,
    tier: ServiceTier,
    pub(super) output: OutputText,
    /// The unit that the answer is about.
    pub(super) unit: Option<Box<ToldUnit>>,
}

impl Told {
    /// Takes a usage object. The last whole one replaces what was there: objects are never merged or summed. One that
    /// cannot be believed takes away what was there, too, since that was said before the end; one that says that nothing
    /// was used replaces nothing, but casts doubt on it.
    pub(super) fn used(&mut self, usage: Result<Reported, Unbelievable>) {
        let Ok(Reported { tokens, adds_up, tier, audio_ms }) = usage else {
            (self.tokens, self.by_quantity) = (None, false);
            self.quantities.audio_ms = 0;
            self.distrusted = true;
            return;
        };
        self.unread = false;
        self.tier = tier.unwrap_or(self.tier);
        self.quantities.audio_ms = audio_ms.unwrap_or(0);
        self.by_quantity = audio_ms.is_some();
        if self.by_quantity {
            self.tokens = Some(tokens);
            self.distrusted = false;
        } else if tokens.total() == 0 && adds_up {
            self.nothing_used = true;
            self.distrusted |= self.tokens.is_some();
        } else {
            self.tokens = Some(tokens).filter(|tokens| tokens.total() > 0);
            self.distrusted = !adds_up;
        }
    }

    /// Takes what was charged instead of tokens, by an answer that says nothing of them.
    pub(super) fn charged(&mut self, quantities: Quantities) {
        if self.tokens.is_none() && !self.distrusted && !quantities.is_nothing() {
            self.quantities = quantities;
            (self.tokens, self.by_quantity) = (Some(Tokens::default()), true);
        }
    }

    /// Whether the text of the answer can still matter: for an estimate, or to contradict that there was none.
    pub(super) fn needs_text(&self) -> bool {
        !self.by_quantity && self.tokens.is_none_or(|tokens| tokens.completion == 0)
    }

    /// About how many tokens of output there were so far: as reported on the way, or by the bytes of text.
    pub(super) fn delivered_tokens(&self) -> u64 {
        let reported = self.tokens.map_or(0, |tokens| tokens.completion);
        reported.max(self.output.bytes.div_ceil(BYTES_PER_TOKEN))
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

    /// All of it. `nothing_is_possible`: an answer without any text may have used no token at all. `text_is_output`: one
    /// with text may not have used no output.
    pub(super) fn reading(&mut self, nothing_is_possible: bool, text_is_output: bool) -> Reading {
        let Self {
            tokens,
            nothing_used,
            quantities,
            by_quantity,
            unread,
            uncounted,
            distrusted,
            model,
            continuation,
            tier,
            output,
            unit,
            ..
        } = std::mem::take(self);
        let (reported, has_text) = (tokens.is_some(), output.bytes > 0);
        let nothing = nothing_used && nothing_is_possible && !distrusted && !has_text;
        let tokens = tokens
            .filter(|tokens| tokens.completion > 0 || by_quantity || !(text_is_output && has_text))
            .or(nothing.then(Tokens::default));
        // More than can be true was charged, or nothing: it is not known.
        let (quantities, is_lie) = quantities.checked().map_or((Quantities::default(), true), |good| (good, false));
        Reading {
            unread,
            distrusted: distrusted || is_lie || unread || ((reported || nothing_used) && tokens.is_none()),
            quantities,
            uncounted: uncounted || is_lie || unread,
            tokens,
            model,
            continuation,
            tier,
            output: output.text,
            output_bytes: output.bytes,
            unit,
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MODEL_BYTES_MAX && name.chars().all(|c| !c.is_control())
}
