//! Identifiers, each parsed once at the door.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not an identifier of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A tenant id outside `[a-z0-9_-]{1,64}`, or one that could be mistaken for a key.
    #[error("a tenant id has 1 to 64 characters out of a-z, 0-9, '_' and '-', and does not begin with 'tg_' or 'sk-'")]
    Tenant,
    /// A plan name outside `[a-z0-9_-]{1,64}`.
    #[error("a plan name has 1 to 64 characters out of a-z, 0-9, '_' and '-'")]
    Plan,
    /// Not a hyphenated UUID.
    #[error("an event id is a UUID such as 0193f5f0-0000-7000-8000-000000000000")]
    Event,
    /// A key id outside `key_` + 16 lower-case hex digits.
    #[error("a key id looks like key_0123456789abcdef")]
    Key,
}

fn is_slug(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// A tenant: `[a-z0-9_-]{1,64}`, never something that looks like a key.
    TenantId
}

text_id! {
    /// The name of a plan: `[a-z0-9_-]{1,64}`.
    PlanName
}

text_id! {
    /// The public name of a key (`key_` + 16 hex digits). It is not the key and gives no access.
    KeyId
}

impl FromStr for TenantId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_slug(text) && !text.starts_with("tg_") && !text.starts_with("sk-") {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Tenant)
        }
    }
}

impl FromStr for PlanName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_slug(text) { Ok(Self(text.into())) } else { Err(IdError::Plan) }
    }
}

impl PlanName {
    /// The plan of tenants that dev mode creates.
    pub fn starter() -> Self {
        Self("starter".into())
    }
}

impl KeyId {
    /// A key id out of 64 random bits.
    pub fn from_random(random: u64) -> Self {
        Self(format!("key_{random:016x}").into())
    }
}

impl FromStr for KeyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = text.strip_prefix("key_").ok_or(IdError::Key)?;
        if hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Key)
        }
    }
}

/// A provider by its short name (`openai`, `gemini`). Every new value comes from the provider's own file; an owned one
/// only from a ledger row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderId(Cow<'static, str>);

impl ProviderId {
    /// A provider named in code.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// A provider as a ledger row names it.
    pub fn from_row(name: String) -> Self {
        Self(Cow::Owned(name))
    }

    /// The short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one metered call: a UUIDv7 (RFC 9562), made at admission and unique for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

impl EventId {
    /// A UUIDv7 from the time in Unix milliseconds and 74 random bits (RFC 9562, 5.7).
    pub fn new(unix_ms: u64, random: u128) -> Self {
        let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
        let rand_a = ((random >> 62) & 0x0fff) << 64;
        let rand_b = random & 0x3fff_ffff_ffff_ffff;
        Self(time | (0x7 << 76) | rand_a | (0b10 << 62) | rand_b)
    }

    /// The id of the event that bills what this one deferred. It follows from this one alone, so that whoever writes the
    /// bill, how often and on how many nodes, writes the same event. Time, version and variant stay as they are.
    #[must_use]
    pub fn of_bill(self) -> Self {
        Self(self.0 ^ BILL_BITS)
    }

    /// The id of the row that corrects this one. It follows from this one alone, so that there is one such row, whoever writes
    /// it, how often and by whatever prices. Where an event was corrected before, its newest correction is what is corrected:
    /// so prices may also go back to what they were. Time, version and variant stay.
    #[must_use]
    pub fn of_correction(self) -> Self {
        // FNV-1a, and the finish of SplitMix64 so that every bit hangs on every byte. Ids need be apart, not secret.
        let bytes = self.to_bytes().into_iter();
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let hash = u128::from(hash ^ (hash >> 31));
        Self((self.0 & !RANDOM_BITS) | (hash & RANDOM_BITS))
    }

    /// The id as its 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id from its 16 bytes, most significant first.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// The random bits behind the variant.
const RANDOM_BITS: u128 = 0x3fff_ffff_ffff_ffff;

/// Among the random bits of an event's id, those that tell a bill from what it bills.
const BILL_BITS: u128 = 0x2b1b_de9e_44ed_b111;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            id >> 96,
            (id >> 80) & 0xffff,
            (id >> 64) & 0xffff,
            (id >> 48) & 0xffff,
            id & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hyphens_right =
            text.len() == 36 && text.bytes().enumerate().all(|(at, b)| (b == b'-') == matches!(at, 8 | 13 | 18 | 23));
        if !hyphens_right || text.contains('+') {
            return Err(IdError::Event);
        }
        u128::from_str_radix(&text.replace('-', ""), 16).map(Self).map_err(|_| IdError::Event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_is_a_slug_that_is_no_key() {
        for (text, good) in [
            ("acme", true),
            ("a", true),
            ("", false),
            ("Acme", false),
            ("tg_live_x", false),
            ("sk-proj", false),
            ("a b", false),
        ] {
            assert_eq!(text.parse::<TenantId>().is_ok(), good, "{text}");
        }
        assert!("a".repeat(64).parse::<TenantId>().is_ok());
        assert!("a".repeat(65).parse::<TenantId>().is_err());
    }

    #[test]
    fn the_id_of_a_correction_follows_from_what_it_corrects() {
        let ids = [EventId::new(1_764_000_000_123, 1), EventId::new(1_764_000_000_123, 2)];
        let mut all: Vec<EventId> = ids.to_vec();
        for id in ids {
            let correction = id.of_correction();
            assert_eq!(correction, id.of_correction());
            assert_eq!(correction.to_bytes()[..8], id.to_bytes()[..8], "time and version stay");
            assert_eq!(correction.to_bytes()[8] >> 6, 0b10, "the variant stays");
            // From one list of prices to another, back, and there again: each is another row.
            all.extend([correction, correction.of_correction(), correction.of_correction().of_correction()]);
        }
        let many = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), many);
    }

    #[test]
    fn an_event_id_is_a_uuid_v7_and_survives_text() {
        let id = EventId::new(1_764_000_000_123, u128::MAX);
        let text = id.to_string();
        assert_eq!(text.as_bytes()[14], b'7');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(text.parse::<EventId>(), Ok(id));
        assert_eq!(EventId::from_bytes(id.to_bytes()), id);
        assert!("0193f5f0-0000-7000-8000-00000000000".parse::<EventId>().is_err());
        assert!("+193f5f0-0000-7000-8000-000000000000".parse::<EventId>().is_err());
    }

    #[test]
    fn the_id_of_a_bill_is_another_one_of_the_same_time() {
        for id in [EventId::new(1_764_000_000_123, 0), EventId::new(1_764_000_000_123, u128::MAX)] {
            let bill = id.of_bill();
            assert_ne!(bill, id);
            assert_eq!(bill.to_bytes()[..8], id.to_bytes()[..8]);
            assert!(matches!(bill.to_string().as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{bill}");
            assert_eq!(bill.of_bill(), id);
        }
    }

    #[test]
    fn event_ids_sort_by_time() {
        assert!(EventId::new(1, u128::MAX) < EventId::new(2, 0));
    }
}
