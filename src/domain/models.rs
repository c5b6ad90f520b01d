//! Lists of models that a plan or a key may use.
//!
//! May use: the patterns of `price`. A list is judged by the name that is asked for; what is answered may be another name of
//! the same model, and is what is priced.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::price::pattern::{PATTERN_BYTES_MAX, Pattern};

/// More than all providers have families of models.
const PATTERNS_MAX: usize = 100;

/// Longer names are no models of any list: it bounds the work of a comparison.
const NAME_BYTES_MAX: usize = 2 * PATTERN_BYTES_MAX;

/// The models that may be used: those whose name fits one of the patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Models(Box<[Pattern]>);

/// Why a text is no list of models.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// No pattern at all.
    #[error("names no model: leave it out to allow every model")]
    Empty,
    /// Too many patterns.
    #[error("has {0} patterns, which is more than {PATTERNS_MAX}: use * for families of models")]
    TooMany(usize),
    /// One that is none.
    #[error(
        "has a pattern that is none: write names of models in lower case, with * for anything and # for a digit, such as gpt-4o*"
    )]
    Pattern,
}

impl Models {
    /// The list of these patterns.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, ModelsError> {
        // A comma stands between patterns where a list is one text.
        let parsed = |text: &str| Pattern::parse(text).filter(|_| !text.contains(',')).ok_or(ModelsError::Pattern);
        let patterns = patterns.into_iter().map(parsed).collect::<Result<Box<[_]>, _>>()?;
        match patterns.len() {
            0 => Err(ModelsError::Empty),
            1..=PATTERNS_MAX => Ok(Self(patterns)),
            more => Err(ModelsError::TooMany(more)),
        }
    }

    /// The list that a text writes, with commas between its patterns.
    pub fn parse(text: &str) -> Result<Self, ModelsError> {
        if text.trim().is_empty() {
            return Err(ModelsError::Empty);
        }
        Self::of(text.split(',').map(str::trim))
    }

    /// The patterns as they are written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Pattern::as_str)
    }

    /// Whether this model may be used. Its name may say where it is, as `models/…` and `projects/…/models/…` do. No name
    /// is a model of a list that allows all and of no other.
    pub fn allow(&self, model: &str) -> bool {
        plain_name(model).is_some_and(|name| self.0.iter().any(|pattern| pattern.fits(&name)))
    }
}

/// The name of a model as patterns have it: without the collection or the path that it may stand in, in lower case. `None`
/// for one that is longer than any model's.
pub(super) fn plain_name(model: &str) -> Option<Cow<'_, str>> {
    if model.len() > NAME_BYTES_MAX {
        return None;
    }
    let is_path = model.contains('/');
    let name = if is_path { model.rsplit_once("/models/").map_or(model, |(_, name)| name) } else { model };
    let name = name.strip_prefix("models/").unwrap_or(name);
    // Mostly it is plain already.
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if is_lower { name.into() } else { name.to_ascii_lowercase().into() })
}

impl FromStr for Models {
    type Err = ModelsError;

    fn from_str(text: &str) -> Result<Self, ModelsError> {
        Self::parse(text)
    }
}

/// As [`Models::parse`] reads it.
impl fmt::Display for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.patterns().enumerate() {
            write!(f, "{}{pattern}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_fits_one_of_its_patterns() {
        let list = Models::parse("gpt-4o*,  gemini-2.#-flash , o3").unwrap();
        for name in [
            "gpt-4o",
            "gpt-4o-2024-08-06",
            "GPT-4o",
            "gemini-2.5-flash",
            "models/gemini-2.5-flash",
            "projects/p/locations/l/publishers/google/models/gemini-2.0-flash",
            "o3",
        ] {
            assert!(list.allow(name), "{name}");
        }
        let long = format!("gpt-4o{}", "x".repeat(NAME_BYTES_MAX));
        for name in ["", "gpt-4", "o3-pro", "ft:gpt-4o:acme::1", "gemini-2.5-pro", " gpt-4o", "gpt-4o/models/o1", &long]
        {
            assert!(!list.allow(name), "{name}");
        }
        assert!(Models::parse("*").unwrap().allow("") && Models::parse("*").unwrap().allow("anything"));
        assert_eq!(list.to_string(), "gpt-4o*, gemini-2.#-flash, o3");
        assert_eq!(Models::parse(&list.to_string()), Ok(list));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, error) in [
            ("", ModelsError::Empty),
            (" ", ModelsError::Empty),
            ("gpt-4o,", ModelsError::Pattern),
            ("GPT-4o", ModelsError::Pattern),
            ("gpt 4", ModelsError::Pattern),
        ] {
            assert_eq!(Models::parse(text), Err(error), "{text}");
        }
        assert_eq!(Models::of(["a,b"]), Err(ModelsError::Pattern));
        assert_eq!(Models::of([]), Err(ModelsError::Empty));
        assert_eq!(Models::parse(&["a"; PATTERNS_MAX + 1].join(",")), Err(ModelsError::TooMany(PATTERNS_MAX + 1)));
    }
}
