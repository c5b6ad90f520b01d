//! Objects that a provider keeps: responses, files, batches, caches. All tenants share the provider's account, so whose one
//! is must be known here.

use std::fmt;
use std::sync::Arc;

use super::ids::{ProviderId, TenantId};
use super::time::Micros;

/// The name of an object: what a provider calls it wherever it is named, such as `resp_1` or `files/1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// Longer names are none: those of providers have up to 90 characters.
    pub const BYTES_MAX: usize = 200;

    /// The object of that name; `None` for what no provider calls one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/@".contains(&byte));
        is_one.then(|| Self(text.into()))
    }

    /// Whether clients choose such names, as Gemini lets them for its files: what has it today may be another's tomorrow.
    pub fn may_change_hands(&self) -> bool {
        self.0.starts_with("files/")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object that an answer made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub name: ObjectName,
    /// Whether the provider drops it by itself some time later. Others are kept until they are deleted.
    pub passes: bool,
    /// When the provider made it, where its client may have chosen its name: then who had that name before has it no more.
    pub chosen: Option<Micros>,
}

/// An object and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedObject {
    /// Who keeps it.
    pub provider: ProviderId,
    /// The object.
    pub made: Made,
    /// Through whose call it was made.
    pub tenant: TenantId,
}

/// What becomes of a request for an object of which nobody knows whose it is: made before the gateway knew, or past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownObjects {
    /// Refused, as one that is another tenant's.
    #[default]
    Refuse,
    /// Forwarded.
    Allow,
}

/// How far tenants that share a provider's account are kept apart in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolation {
    /// Objects of nobody.
    pub unknown: UnknownObjects,
    /// Whether a tenant may see lists of objects, which hold those of all tenants.
    pub lists: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["resp_0a1B", "file-abc", "files/x-1", "chatcmpl-1", "batches/b.2", "ft:gpt@1"] {
            assert_eq!(ObjectName::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(ObjectName::BYTES_MAX + 1);
        for bad in ["", " resp_1", "resp_1 ", "resp 1", "r\u{e9}sp", "resp_1?x", "a%2f", "a\\b", "a\nb", &long] {
            assert_eq!(ObjectName::parse(bad), None, "{bad:?}");
        }
    }
}
