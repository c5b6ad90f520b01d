//! A request that is done once: what its idempotency key is remembered by, and how its answer is kept.
//!
//! May use: `ports`. The same request with the same key gets the same answer for 24 hours, and the answer to a new key of
//! a tenant holds that key, which must be nowhere at rest. Three ways were weighed:
//!
//! - Leaving the secret out of later answers is safe, but a client whose connection broke has then a key in the ledger
//!   that nobody knows, and the answers are not the same.
//! - Deriving each tenant's key from the request makes every key of a tenant only as good as what it is derived from, for
//!   as long as the key lives.
//! - Keeping the answer encrypted, under a key that is nowhere at rest either. This is done here.
//!
//! The encryption key comes from the caller's credential and the idempotency key together, by HMAC-SHA256. The ledger has
//! neither: of the admin key at most its SHA-256, of the idempotency key its SHA-256 (in the audit log). So whoever takes
//! the ledger must also know the admin key, at least 32 characters, and the idempotency key. Whoever takes the file of a
//! generated admin key as well can issue keys anyway, and still lacks the other. Once a record is dropped, nobody can
//! compute what it held. The cipher is ChaCha20-Poly1305 (RFC 8439) with a random nonce, since a key that is used again
//! after 24 hours seals another answer; what the answer belongs to is authenticated with it.
//!
//! An idempotency key belongs to one credential and one route with its path: the same text of another caller, or on
//! another path, is another key. A new admin key therefore begins anew.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};

use crate::ports::StoreError;
use crate::ports::tenants::{Answered, Digest, Memory};

use super::admin::{AdminError, fill_random};

/// One request with an idempotency key. It holds what its answers are encrypted with, and is gone with the request.
pub struct Once {
    id: Digest,
    key_sha256: Digest,
    request: Digest,
    cipher: LessSafeKey,
}

/// An answer as it was given: opaque here, and unprinted, since it may hold a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept(pub Vec<u8>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}

impl Once {
    /// The request that `credential` made to `route` with `idempotency_key`; `body` is what it asks for, in one form.
    ///
    /// # Errors
    /// [`AdminError::Randomness`] when the cipher takes no key, which it always does.
    pub fn new(credential: &str, route: &str, idempotency_key: &str, body: &[u8]) -> Result<Self, AdminError> {
        let caller = hmac::Key::new(HMAC_SHA256, credential.as_bytes());
        let mut context = hmac::Context::with_key(&caller);
        // Each part with its length, so that no two different requests run together to the same text.
        for part in [route.as_bytes(), idempotency_key.as_bytes()] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(part);
        }
        let root = hmac::Key::new(HMAC_SHA256, context.sign().as_ref());
        let derive = |label: &[u8], of: &[u8]| {
            let mut context = hmac::Context::with_key(&root);
            context.update(label);
            context.update(of);
            to_32(context.sign().as_ref())
        };
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, &derive(b"answer", b""));
        let cipher = cipher.map_err(|_| AdminError::Randomness("no key for the cipher".to_owned()))?;
        Ok(Self {
            id: Digest(derive(b"record", b"")),
            key_sha256: Digest(to_32(digest(&SHA256, idempotency_key.as_bytes()).as_ref())),
            request: Digest(derive(b"request", body)),
            cipher: LessSafeKey::new(cipher),
        })
    }

    /// What the request is found by.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// What a store keeps of the request and its answer.
    ///
    /// # Errors
    /// [`AdminError::Randomness`] when the system gives no random bytes.
    pub fn memory(&self, answer: Vec<u8>) -> Result<Memory, AdminError> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        let mut sealed = answer;
        let about = Aad::from(self.about());
        let done = self.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), about, &mut sealed);
        done.map_err(|_| AdminError::Randomness("the cipher refused the answer".to_owned()))?;
        sealed.extend_from_slice(&nonce);
        let answered = Answered { request: self.request, sealed };
        Ok(Memory { id: self.id, key_sha256: self.key_sha256, answered })
    }

    /// The answer that was given to this request before.
    ///
    /// # Errors
    /// [`AdminError::KeyReused`] when it was given to another request; [`AdminError::Store`] when it is not readable.
    pub fn open(&self, answered: Answered) -> Result<Kept, AdminError> {
        let Answered { request, mut sealed } = answered;
        if request != self.request {
            return Err(AdminError::KeyReused);
        }
        let unreadable = || StoreError::Corrupt("the answer that is kept for an idempotency key".to_owned());
        let at = sealed.len().checked_sub(NONCE_LEN).ok_or_else(unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed.split_off(at)).map_err(|_| unreadable())?;
        let opened = self.cipher.open_in_place(nonce, Aad::from(self.about()), &mut sealed);
        Ok(Kept(opened.map_err(|_| unreadable())?.to_vec()))
    }

    fn about(&self) -> Vec<u8> {
        [self.id.0, self.request.0].concat()
    }
}

/// The 32 bytes of a SHA-256.
fn to_32(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(credential: &str, route: &str, key: &str, body: &str) -> Once {
        Once::new(credential, route, key, body.as_bytes()).unwrap()
    }

    fn first() -> Once {
        once("admin key", "POST /a", "one", "{}")
    }

    #[test]
    fn an_answer_is_opened_by_the_same_request_only() {
        let memory = first().memory(b"tg_live_secret".to_vec()).unwrap();
        assert_eq!(first().open(memory.answered.clone()), Ok(Kept(b"tg_live_secret".to_vec())));
        let other_body = once("admin key", "POST /a", "one", "{ }");
        assert_eq!(other_body.open(memory.answered.clone()), Err(AdminError::KeyReused));
        for (credential, route, key) in
            [("Admin key", "POST /a", "one"), ("admin key", "POST /b", "one"), ("admin key", "POST /a", "two")]
        {
            let other = once(credential, route, key, "{}");
            assert_ne!(other.id(), first().id());
            let planted = Answered { request: other.request, ..memory.answered.clone() };
            assert!(matches!(other.open(planted), Err(AdminError::Store(_))), "{credential} {route} {key}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(once("c", "ab", "c", "").id(), once("c", "a", "bc", "").id());
    }

    #[test]
    fn what_is_kept_holds_neither_the_answer_nor_the_key_and_any_changed_bit_is_noticed() {
        let kept = |answer: &str| first().memory(answer.as_bytes().to_vec()).unwrap().answered.sealed;
        let sealed = kept("tg_live_secret");
        assert!(!sealed.windows(6).any(|window| b"tg_live_secret".windows(6).any(|part| part == window)));
        assert_ne!(sealed, kept("tg_live_secret"), "each has its own nonce");
        for at in 0..sealed.len() {
            let mut wrong = sealed.clone();
            wrong[at] ^= 1;
            let opened = first().open(Answered { request: first().request, sealed: wrong });
            assert!(matches!(opened, Err(AdminError::Store(_))), "{at}");
        }
        for length in 0..sealed.len() {
            let cut = Answered { request: first().request, sealed: sealed[..length].to_vec() };
            assert!(matches!(first().open(cut), Err(AdminError::Store(_))), "{length}");
        }
        assert_eq!(format!("{:?}", Kept(b"secret".to_vec())), "Kept(..)");
    }
}
