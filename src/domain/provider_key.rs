//! A tenant's own key for a provider, as it is kept: encrypted, with what people tell it by.

use std::fmt;
use std::str::FromStr;

use super::ids::{ProviderId, TenantId};
use super::time::Micros;

/// Which master key sealed something: 8 bytes that follow from the key and tell nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MasterId([u8; 8]);

/// No id of a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a master key has 16 hexadecimal digits")]
pub struct MasterIdError;

impl MasterId {
    /// The id of these bytes.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MasterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for MasterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MasterId {
    type Err = MasterIdError;

    fn from_str(text: &str) -> Result<Self, MasterIdError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(MasterIdError);
        }
        u64::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| MasterIdError)
    }
}

/// A key of a tenant's own, sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// For which provider.
    pub provider: ProviderId,
    /// Its last four characters, for people to tell keys apart.
    pub last4: String,
    /// The master key that sealed it.
    pub master: MasterId,
    /// What only that one opens.
    pub sealed: Vec<u8>,
    /// When it was set. Sealing it anew leaves this as it is.
    pub set_at: Micros,
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, provider, last4, master, sealed: _, set_at } = self;
        write!(f, "SealedKey({tenant}, {provider}, ..{last4}, by {master}, at {set_at})")
    }
}

/// The characters of a key that is taken: no provider has shorter ones, of which the last four would be a good part.
pub const PROVIDER_KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=512;

/// Whether a text can be a provider's key: visible ASCII, as it stands in a header.
pub fn can_be_key(text: &str) -> bool {
    PROVIDER_KEY_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = MasterId::from_bytes([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0001", "00010203FCFDFEFF", "+0010203fcfdfeff", "00010203fcfdfeff0"] {
            assert_eq!(bad.parse::<MasterId>(), Err(MasterIdError), "{bad}");
        }
    }

    #[test]
    fn a_key_is_visible_and_neither_short_nor_long() {
        for (text, can) in [
            ("sk-0123456789abc", true),
            ("sk-0123456789ab", false),
            ("sk-0123456789 abc", false),
            ("sk-0123456789äbcdef", false),
            ("sk-0123456789\nabcdef", false),
        ] {
            assert_eq!(can_be_key(text), can, "{text}");
        }
        assert!(can_be_key(&"k".repeat(512)) && !can_be_key(&"k".repeat(513)));
    }
}
