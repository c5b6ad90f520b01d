//! What a provider says it charged, as checked counts.

/// More tokens than this in one call is a lie or a bug: no model reads or writes a tenth of it.
pub const TOKENS_PER_CALL_MAX: u64 = 10_000_000;

/// Tokens of one call. Every kind below `prompt` is a part of `prompt`, every kind below `completion` a part of
/// `completion`: kinds are subsets, never addends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// All input: prompt and tool use, cached or not.
    pub prompt: u64,
    /// Input read from the provider's cache.
    pub cached: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// The part of `cache_write` that the cache keeps for an hour or longer.
    pub cache_write_long: u64,
    /// Audio input.
    pub prompt_audio: u64,
    /// Image input.
    pub prompt_image: u64,
    /// Audio input read from the cache (a part of both `cached` and `prompt_audio`).
    pub cached_audio: u64,
    /// All output, thoughts included.
    pub completion: u64,
    /// Output spent on reasoning (thoughts).
    pub reasoning: u64,
    /// Audio output.
    pub completion_audio: u64,
    /// Image output.
    pub completion_image: u64,
}

/// Why reported counts cannot be booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// More than [`TOKENS_PER_CALL_MAX`], or than another bound.
    #[error("more tokens than can be true")]
    TooLarge,
    /// A part that is larger than what it is a part of.
    #[error("a kind of token that is larger than the whole it belongs to")]
    PartAboveWhole,
}

impl Tokens {
    /// The name of each kind, in the order of [`Tokens::kinds`].
    pub const KINDS: [&str; 11] = [
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
    ];

    /// Every kind, one after the other.
    pub fn kinds(&self) -> [u64; 11] {
        let Self {
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
        } = *self;
        [
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
        ]
    }

    /// The tokens of which these are the kinds, in the order of [`Tokens::kinds`].
    pub fn from_kinds(kinds: [u64; 11]) -> Self {
        let [
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
        ] = kinds;
        Self {
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
        }
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// Both together, kind by kind; `None` where a count does not fit.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut kinds = self.kinds();
        for (kind, more) in kinds.iter_mut().zip(other.kinds()) {
            *kind = kind.checked_add(more)?;
        }
        Some(Self::from_kinds(kinds))
    }

    /// Refuses counts that cannot be true of one call.
    pub fn checked(self) -> Result<Self, TokensError> {
        self.checked_up_to(TOKENS_PER_CALL_MAX)
    }

    /// Refuses counts that cannot be true of something that takes at most so many tokens.
    pub fn checked_up_to(self, most: u64) -> Result<Self, TokensError> {
        if self.total() > most {
            return Err(TokensError::TooLarge);
        }
        let parts = [
            (self.cached, self.prompt),
            (self.cache_write, self.prompt),
            (self.cache_write_long, self.cache_write),
            (self.prompt_audio, self.prompt),
            (self.prompt_image, self.prompt),
            (self.cached_audio, self.prompt_audio.min(self.cached)),
            (self.reasoning, self.completion),
            (self.completion_audio, self.completion),
            (self.completion_image, self.completion),
        ];
        if parts.iter().any(|(part, whole)| part > whole) { Err(TokensError::PartAboveWhole) } else { Ok(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_places() {
        let kinds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let tokens = Tokens::from_kinds(kinds);
        assert_eq!((tokens.prompt, tokens.completion, tokens.completion_image), (1, 8, 11));
        assert_eq!(tokens.kinds(), kinds);
        assert_eq!(tokens.plus(&tokens).map(|twice| twice.kinds()), Some(kinds.map(|kind| 2 * kind)));
        assert_eq!(tokens.plus(&Tokens { reasoning: u64::MAX, ..Tokens::default() }), None);
    }

    #[test]
    fn counts_that_cannot_be_true_are_refused() {
        let good = Tokens { prompt: 10, cached: 10, completion: 5, reasoning: 5, ..Tokens::default() };
        assert_eq!(good.checked(), Ok(good));
        assert_eq!(Tokens { cached: 11, ..good }.checked(), Err(TokensError::PartAboveWhole));
        let most = Tokens { prompt: TOKENS_PER_CALL_MAX - 5, ..good };
        assert_eq!(most.checked(), Ok(most));
        for large in [TOKENS_PER_CALL_MAX - 4, TOKENS_PER_CALL_MAX + 1, u64::MAX] {
            assert_eq!(Tokens { prompt: large, ..good }.checked(), Err(TokensError::TooLarge), "{large}");
            assert_eq!(Tokens { completion: large, ..good }.checked(), Err(TokensError::TooLarge), "{large}");
        }
    }
}
