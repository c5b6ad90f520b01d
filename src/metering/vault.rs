//! Tenants' own keys for providers, encrypted at rest.
//!
//! May use: `domain`, `ports`. A key is sealed with ChaCha20-Poly1305 (RFC 8439) under a master key of the operator, which
//! is in no ledger. Sealed with it is what it belongs to: the tenant, the provider, the instant at which it was set and the
//! master key, so that a row that is copied to another tenant, another provider or an older place opens nothing. The nonce
//! is random: with 96 bits, four billion seals under one master key leave a chance of one in 2^33 that two are the same,
//! and a ledger has some thousands.
//!
//! Several master keys may be given. The first seals, each opens what it sealed: it is known by an id that is derived from
//! it and tells nothing of it. So a master key is exchanged without a pause: add the new one in front on every gateway,
//! seal everything anew (`tollgate secrets rotate`), take the old one away.
//!
//! In memory tenants' keys are wrapped: they do not print, and are overwritten when they are dropped. Of a master key the
//! cipher has a copy of its own, made once for as long as it is given; nothing else is made of it later.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::domain::time::Micros;

/// What ids of master keys are made for: a key is never used for two things.
const PURPOSE_OF_ID: &[u8] = b"tollgate id of a master key 1";

/// What is sealed, and how: another form would have another name.
const FORM: &[u8] = b"tollgate provider key 1";

/// One master key.
#[derive(Clone)]
struct MasterKey {
    id: MasterId,
    cipher: Arc<LessSafeKey>,
}

/// All master keys, the one that seals first.
#[derive(Debug, Clone, Default)]
pub struct Vault {
    keys: Vec<MasterKey>,
}

/// Why a key is not sealed or not opened. Says nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no master key.
    #[error("this gateway has no master key to seal keys with: set secrets.key (TOLLGATE_SECRETS_KEY)")]
    NoMasterKey,
    /// It was sealed with a master key that is not among those given.
    #[error("it is sealed with master key {0}, which is not given")]
    OtherMasterKey(MasterId),
    /// It is to be given up as lost, and is not.
    #[error("master key {0} is given here (secrets.key) and opens its keys: it is not lost")]
    NotLost(MasterId),
    /// It was changed, or belongs elsewhere.
    #[error("it was changed since it was sealed, or belongs to another tenant or provider")]
    Broken,
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
}

/// A key of a tenant's own as the request path has it.
#[derive(Debug, Clone)]
pub enum OwnKey {
    /// As the provider takes it.
    Open(SecretString),
    /// It cannot be opened here: calls are refused, since under the operator's key another would pay for them.
    Locked,
}

/// The keys of one tenant's own, by provider. Few: one for each provider there is.
#[derive(Debug, Clone, Default)]
pub struct OwnKeys(Arc<[(ProviderId, OwnKey)]>);

impl OwnKeys {
    /// The one for a provider; `None`: the operator's is used.
    pub fn get(&self, provider: &ProviderId) -> Option<&OwnKey> {
        self.0.iter().find(|(of, _)| of == provider).map(|(_, key)| key)
    }

    /// Whether calls to a provider go out with the same key by these and by `others`. One that cannot be opened is no key.
    pub fn is_same(&self, others: &Self, provider: &ProviderId) -> bool {
        match (self.get(provider), others.get(provider)) {
            (None, None) => true,
            (Some(OwnKey::Open(one)), Some(OwnKey::Open(other))) => one.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

impl FromIterator<(ProviderId, OwnKey)> for OwnKeys {
    fn from_iter<T: IntoIterator<Item = (ProviderId, OwnKey)>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// The master key of these bytes. The cipher takes any of them.
    fn new(key: &SecretBox<[u8; 32]>) -> Option<Self> {
        let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key.expose_secret()), PURPOSE_OF_ID);
        let mut id = [0; 8];
        id.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, key.expose_secret()).ok()?;
        Some(Self { id: MasterId::from_bytes(id), cipher: Arc::new(LessSafeKey::new(cipher)) })
    }
}

impl Vault {
    /// One with these master keys.
    pub fn new(keys: impl IntoIterator<Item = Arc<SecretBox<[u8; 32]>>>) -> Self {
        Self { keys: keys.into_iter().filter_map(|key| MasterKey::new(&key)).collect() }
    }

    /// Whether one of this id is there.
    pub fn has(&self, id: MasterId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// The master keys that it lacks to open all of these.
    pub fn missing(&self, sealed: &[SealedKey]) -> BTreeSet<MasterId> {
        sealed.iter().map(|key| key.master).filter(|id| !self.has(*id)).collect()
    }

    /// The master key that seals.
    pub fn first(&self) -> Option<MasterId> {
        self.keys.first().map(|key| key.id)
    }

    /// Seals a tenant's key for a provider, set at `set_at`.
    ///
    /// # Errors
    /// When there is no master key, or no randomness.
    pub fn seal(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        set_at: Micros,
        key: &SecretString,
    ) -> Result<SealedKey, VaultError> {
        let master = self.keys.first().ok_or(VaultError::NoMasterKey)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Randomness)?;
        let plain = key.expose_secret();
        // With room for the tag and the nonce: a buffer that grew would leave the key where it was.
        let mut sealed = Vec::with_capacity(plain.len().saturating_add(CHACHA20_POLY1305.tag_len() + NONCE_LEN));
        sealed.extend_from_slice(plain.as_bytes());
        let about = about(tenant, provider, set_at, master.id);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        if master.cipher.seal_in_place_append_tag(nonce_used, Aad::from(about), &mut sealed).is_err() {
            sealed.zeroize();
            return Err(VaultError::Randomness);
        }
        sealed.extend_from_slice(&nonce);
        Ok(SealedKey {
            tenant: tenant.clone(),
            provider: provider.clone(),
            last4: crate::domain::key::last4(plain),
            master: master.id,
            sealed,
            set_at,
        })
    }

    /// Opens what [`Self::seal`] sealed.
    ///
    /// # Errors
    /// When none of the master keys sealed it, or it is not as it was sealed.
    pub fn open(&self, key: &SealedKey) -> Result<SecretString, VaultError> {
        let SealedKey { tenant, provider, last4: _, master, sealed, set_at } = key;
        let master = self.keys.iter().find(|known| known.id == *master).ok_or(VaultError::OtherMasterKey(*master))?;
        let at = sealed.len().checked_sub(NONCE_LEN).ok_or(VaultError::Broken)?;
        let (sealed, nonce) = sealed.split_at_checked(at).ok_or(VaultError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Broken)?;
        let mut opened = sealed.to_vec();
        let about = about(tenant, provider, *set_at, master.id);
        let plain = master.cipher.open_in_place(nonce, Aad::from(about), &mut opened);
        let plain = plain.ok().and_then(|plain| std::str::from_utf8(plain).ok()).map(SecretString::from);
        opened.zeroize();
        plain.ok_or(VaultError::Broken)
    }

    /// The same for the request path.
    pub fn own_key(&self, key: &SealedKey) -> OwnKey {
        self.open(key).map_or(OwnKey::Locked, OwnKey::Open)
    }

    /// The same key sealed under the first master key; `None` where it is already.
    ///
    /// # Errors
    /// When it cannot be opened, or not be sealed.
    pub fn reseal(&self, key: &SealedKey) -> Result<Option<SealedKey>, VaultError> {
        if self.first() == Some(key.master) {
            return Ok(None);
        }
        let plain = self.open(key)?;
        self.seal(&key.tenant, &key.provider, key.set_at, &plain).map(Some)
    }
}

/// What is authenticated beside the key. Each part with its length, so that no two run together to the same bytes.
fn about(tenant: &TenantId, provider: &ProviderId, set_at: Micros, master: MasterId) -> Vec<u8> {
    let (set_at, master) = (set_at.0.to_be_bytes(), master.to_string());
    let mut about = Vec::new();
    for part in [FORM, tenant.as_str().as_bytes(), provider.as_str().as_bytes(), &set_at, master.as_bytes()] {
        about.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        about.extend_from_slice(part);
    }
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-of-the-tenant-0123456789";

    fn vault(bytes: &[u8]) -> Vault {
        Vault::new(bytes.iter().map(|byte| Arc::new(SecretBox::new(Box::new([*byte; 32])))))
    }

    fn sealed(by: &Vault) -> SealedKey {
        by.seal(&"acme".parse().unwrap(), &ProviderId::new("openai"), Micros(7), &KEY.into()).unwrap()
    }

    fn opened(by: &Vault, key: &SealedKey) -> Result<String, VaultError> {
        by.open(key).map(|key| key.expose_secret().to_owned())
    }

    #[test]
    fn a_key_is_opened_by_the_master_key_that_sealed_it_wherever_that_stands() {
        let key = sealed(&vault(&[1]));
        assert_eq!((key.last4.as_str(), key.set_at), ("6789", Micros(7)));
        assert!(!key.sealed.windows(8).any(|part| KEY.as_bytes().windows(8).any(|plain| plain == part)));
        assert_eq!(opened(&vault(&[1]), &key), Ok(KEY.to_owned()));
        assert_eq!(opened(&vault(&[2, 1]), &key), Ok(KEY.to_owned()));
        assert_eq!(opened(&vault(&[2]), &key), Err(VaultError::OtherMasterKey(key.master)));
        assert_eq!(opened(&vault(&[]), &key), Err(VaultError::OtherMasterKey(key.master)));
        let no_key = vault(&[]).seal(&key.tenant, &key.provider, Micros(7), &KEY.into());
        assert_eq!(no_key, Err(VaultError::NoMasterKey));
        // The same key sealed twice is never the same bytes.
        assert_ne!(sealed(&vault(&[1])).sealed, key.sealed);
    }

    #[test]
    fn a_row_that_was_changed_or_moved_opens_nothing() {
        let vault = vault(&[1, 2]);
        let key = sealed(&vault);
        for at in 0..key.sealed.len() {
            let mut wrong = key.clone();
            wrong.sealed[at] ^= 1;
            assert_eq!(opened(&vault, &wrong), Err(VaultError::Broken), "byte {at}");
        }
        let second = vault.keys[1].id;
        for wrong in [
            SealedKey { tenant: "other".parse().unwrap(), ..key.clone() },
            SealedKey { provider: ProviderId::new("gemini"), ..key.clone() },
            SealedKey { set_at: Micros(6), ..key.clone() },
            SealedKey { master: second, ..key.clone() },
            SealedKey { sealed: key.sealed[..8].to_vec(), ..key.clone() },
            SealedKey { sealed: Vec::new(), ..key.clone() },
        ] {
            assert_eq!(opened(&vault, &wrong), Err(VaultError::Broken), "{wrong:?}");
        }
    }

    #[test]
    fn sealing_anew_changes_the_master_key_and_nothing_else() {
        let key = sealed(&vault(&[1]));
        let both = vault(&[2, 1]);
        let anew = both.reseal(&key).unwrap().unwrap();
        assert_eq!(Some(anew.master), both.first());
        assert_eq!((anew.set_at, &anew.last4, &anew.tenant), (key.set_at, &key.last4, &key.tenant));
        assert_eq!(opened(&vault(&[2]), &anew), Ok(KEY.to_owned()));
        assert_eq!(both.reseal(&anew), Ok(None), "it is done once");
        assert_eq!(vault(&[3]).reseal(&key), Err(VaultError::OtherMasterKey(key.master)));
    }

    #[test]
    fn nothing_here_prints_a_key() {
        let vault = vault(&[0x41]);
        let key = sealed(&vault);
        let text = format!("{vault:?} {key:?} {:?}", vault.own_key(&key));
        assert!(!text.contains(KEY) && !text.contains("AAAA") && !text.contains("65, 65"), "{text}");
    }
}
