//! Units: work that a provider finishes later than it answers, such as a response in the background or a batch.
//!
//! The call that began a unit is booked at once, with its chat and without tokens. What it used is booked when the provider
//! says so, as one more event, whose id follows from the first one's: see [`EventId::of_bill`].
//!
//! [`EventId::of_bill`]: super::ids::EventId::of_bill

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a unit: its path at the provider below the version, such as `responses/resp_1` or `batches/batch_1`.
///
/// It comes from outside and becomes a part of a path that the gateway asks for, so it is made of few characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitName(Arc<str>);

/// No name of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a unit's name is a path of names with a-z, A-Z, 0-9, '_', '-' and '.', at most 110 characters in all")]
pub struct UnitNameError;

impl UnitName {
    /// Longer names are none. Providers' own have up to 90 characters, and the journal sets room aside for so many.
    pub const BYTES_MAX: usize = 110;

    /// The unit `id` of a collection, such as `responses`; `None` where the id is none.
    pub fn of(collection: &str, id: &str) -> Option<Self> {
        // An id with a slash in it would lead out of its collection.
        let is_one = !id.contains('/');
        is_one.then(|| format!("{collection}/{id}").parse().ok()).flatten()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first of its names: what kind of unit it is.
    pub fn collection(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl FromStr for UnitName {
    type Err = UnitNameError;

    fn from_str(text: &str) -> Result<Self, UnitNameError> {
        let is_name = |name: &str| {
            // A name of dots alone is a step in a path.
            name.bytes().any(|byte| byte != b'.')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let is_path = text.contains('/') && text.split('/').all(is_name);
        if is_path && text.len() <= Self::BYTES_MAX { Ok(Self(text.into())) } else { Err(UnitNameError) }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the event of a call that began a unit knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name at the provider.
    pub name: UnitName,
    /// An estimate of the request's prompt, should the provider never say what it charged.
    pub prompt_tokens: u64,
    /// What the call's own answer delivered of its output, by an estimate: a stream may break off when most of it is there.
    pub delivered_tokens: u64,
    /// The most output that the request declared, if any.
    pub output_max: Option<u64>,
    /// Whether it was begun with the tenant's own key: only that account knows it.
    pub own_account: bool,
}

/// How a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitState {
    /// Not finished.
    Running,
    /// Finished.
    Done,
    /// It came to nothing.
    Failed,
    /// Ended before its end: cancelled or expired. What was done by then is charged.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_of_plain_names() {
        for good in ["responses/resp_0a", "threads/thread_1/runs/run_2", "batches/b-1.2"] {
            let name: UnitName = good.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (good, good));
        }
        let long = format!("batches/{}", "b".repeat(UnitName::BYTES_MAX));
        for bad in
            ["", "responses", "responses/", "/a", "a//b", "a/..", "a/./b", "a/b?c", "a/b c", "a/b%2f", "a/ä", &long]
        {
            assert_eq!(bad.parse::<UnitName>(), Err(UnitNameError), "{bad}");
        }
        assert_eq!(UnitName::of("batches", "b1").unwrap().collection(), "batches");
        assert_eq!(UnitName::of("responses", "../files/f"), None);
        assert_eq!(UnitName::of("responses", "resp_1/cancel"), None);
        assert_eq!(UnitName::of("responses", ""), None);
    }
}
