//! What providers charge beside tokens, as checked counts: time of audio, characters, images, searches.
//!
//! May use: nothing. Where a provider counts tokens for the same thing (audio of a chat, images of an image model), those are
//! charged and nothing is here.

/// More audio than this in one call is a lie or a bug: a week of it. Uploads end far below, sessions within an hour.
pub const AUDIO_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// More characters than these are spoken by no model: the longest text that one takes has some thousands.
pub const CHARACTERS_MAX: u64 = 10_000_000;

/// No call makes so many images or searches.
pub const COUNT_MAX: u64 = 100_000;

/// What one call used beside tokens. These are no parts of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quantities {
    /// Milliseconds of audio, in or out, that are charged by their length.
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

/// Quantities that cannot be true of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more audio, characters, images or searches than can be true")]
pub struct QuantitiesError;

impl Quantities {
    /// The name of each, in the order of [`Quantities::kinds`].
    pub const KINDS: [&str; 5] = ["audio_ms", "characters", "images", "web_searches", "file_searches"];

    /// Each, one after the other.
    pub fn kinds(&self) -> [u64; 5] {
        let Self { audio_ms, characters, images, web_searches, file_searches } = *self;
        [audio_ms, characters, images, web_searches, file_searches]
    }

    /// The quantities of which these are the kinds, in the order of [`Quantities::kinds`].
    pub fn from_kinds(kinds: [u64; 5]) -> Self {
        let [audio_ms, characters, images, web_searches, file_searches] = kinds;
        Self { audio_ms, characters, images, web_searches, file_searches }
    }

    /// Whether there is none of anything.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Both together, each for itself; `None` where one does not fit.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut kinds = self.kinds();
        for (kind, more) in kinds.iter_mut().zip(other.kinds()) {
            *kind = kind.checked_add(more)?;
        }
        Some(Self::from_kinds(kinds))
    }

    /// Refuses what cannot be true of one call.
    ///
    /// # Errors
    /// When one is above its bound.
    pub fn checked(self) -> Result<Self, QuantitiesError> {
        let bounds = [AUDIO_MS_MAX, CHARACTERS_MAX, COUNT_MAX, COUNT_MAX, COUNT_MAX];
        let is_true = self.kinds().iter().zip(bounds).all(|(kind, most)| *kind <= most);
        if is_true { Ok(self) } else { Err(QuantitiesError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_places() {
        let kinds = [1, 2, 3, 4, 5];
        let quantities = Quantities::from_kinds(kinds);
        assert_eq!((quantities.audio_ms, quantities.images, quantities.file_searches), (1, 3, 5));
        assert_eq!(quantities.kinds(), kinds);
        assert_eq!(quantities.plus(&quantities).map(|twice| twice.kinds()), Some(kinds.map(|kind| 2 * kind)));
        assert_eq!(quantities.plus(&Quantities { images: u64::MAX, ..Quantities::default() }), None);
        assert!(!quantities.is_nothing() && Quantities::default().is_nothing());
    }

    #[test]
    fn quantities_that_cannot_be_true_are_refused() {
        let most = Quantities::from_kinds([AUDIO_MS_MAX, CHARACTERS_MAX, COUNT_MAX, COUNT_MAX, COUNT_MAX]);
        assert_eq!(most.checked(), Ok(most));
        for at in 0..5 {
            let mut kinds = most.kinds();
            kinds[at] += 1;
            assert_eq!(Quantities::from_kinds(kinds).checked(), Err(QuantitiesError), "{}", Quantities::KINDS[at]);
        }
    }
}
