//! Tenant keys: `tg_live_` + 32 base62 characters + 6 base62 characters of their CRC32.
//!
//! The checksum lets a mistyped key be refused without a look-up, and lets a secret scanner tell a real key from noise.

use std::fmt;

use super::ids::{KeyId, TenantId};
use super::models::Models;
use super::time::Micros;

const PREFIX: &str = "tg_live_";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_CHARS: usize = 32;
const CHECK_CHARS: usize = 6;

/// The SHA-256 of a key: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// What is known of an issued key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its public id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The SHA-256 of the key.
    pub hash: KeyHash,
    /// Its last four characters, for people to tell keys apart.
    pub last4: String,
    /// Its display name.
    pub name: String,
    /// When it was issued.
    pub created_at: Micros,
    /// From when on it is refused; `None` for never.
    pub expires_at: Option<Micros>,
    /// When it was revoked.
    pub revoked_at: Option<Micros>,
    /// When it last made a call, to the minute.
    pub last_used_at: Option<Micros>,
    /// The models that it may use of those that its tenant's plan allows; `None`: all of them.
    pub models: Option<Models>,
}

impl Key {
    /// Whether the key gives access at `now`.
    pub fn is_live(&self, now: Micros) -> bool {
        self.revoked_at.is_none_or(|at| at > now) && self.expires_at.is_none_or(|at| at > now)
    }
}

/// Writes a new key out of 32 random bytes. The caller shows it once and keeps its hash.
pub fn mint(random: [u8; SECRET_CHARS]) -> String {
    // 256 is no multiple of 62: the first eight characters are 1/256 likelier. 32 of them still carry 190 bits.
    let secret: String =
        random.iter().filter_map(|b| BASE62.get(usize::from(*b) % 62)).map(|b| char::from(*b)).collect();
    let check = checksum(&secret);
    format!("{PREFIX}{secret}{check}")
}

/// Whether `text` has a key's form and its checksum fits. Says nothing of whether the key was ever issued.
pub fn is_well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    if rest.len() != SECRET_CHARS + CHECK_CHARS || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return false;
    }
    rest.split_at_checked(SECRET_CHARS).is_some_and(|(secret, check)| checksum(secret) == check)
}

/// Whether a key stands anywhere in `text`.
pub fn is_in(text: &str) -> bool {
    is_in_bytes(text.as_bytes())
}

/// Whether a key stands anywhere in `bytes`, text or not. Costs next to nothing where none begins.
pub fn is_in_bytes(bytes: &[u8]) -> bool {
    let length = PREFIX.len() + SECRET_CHARS + CHECK_CHARS;
    let found = memchr::memmem::find_iter(bytes, PREFIX).filter_map(|at| bytes.get(at..at.checked_add(length)?));
    found.filter_map(|found| std::str::from_utf8(found).ok()).any(is_well_formed)
}

/// The last four characters of a key.
pub fn last4(key: &str) -> String {
    key.get(key.len().saturating_sub(4)..).unwrap_or_default().to_owned()
}

fn checksum(secret: &str) -> String {
    let mut rest = crc32fast::hash(secret.as_bytes());
    let mut digits = [b'0'; CHECK_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = usize::try_from(rest % 62).ok().and_then(|at| BASE62.get(at)).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_key_is_well_formed_and_one_wrong_character_is_not() {
        let key = mint(std::array::from_fn(|at| u8::try_from(at * 7).unwrap()));
        assert_eq!(key.len(), 8 + 32 + 6);
        assert!(is_well_formed(&key));
        for at in 8..key.len() {
            let mut wrong = key.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_well_formed(std::str::from_utf8(&wrong).unwrap()), "{at}");
        }
        for text in [key.clone(), format!("tg_live_ {key}"), format!("a{key}b"), format!("ä tg_live_tg_live_{key}")] {
            assert!(is_in(&text), "{text}");
        }
        let (_, headless) = key.split_at(1);
        for text in ["", "tg_live_", headless, key.get(..45).unwrap(), "tg_live_ä"] {
            assert!(!is_in(text), "{text}");
        }
        for bad in ["", "tg_live_", "tg_test_abc", "sk-123"] {
            assert!(!is_well_formed(bad));
        }
    }
}
