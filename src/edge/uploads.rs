//! Resumable uploads: their addresses lead back to the gateway, signed.
//!
//! May use: `domain`, `providers`, `metering`. Gemini answers the begin of a resumable upload with an address of its own,
//! to which the client sends the pieces, most clients without any key. So the address is written anew: it has the
//! gateway's origin, and a parameter that names who began the upload and until when it may be used, signed together with
//! the rest of the address. A piece without a key is let in by that signature and nothing else.
//!
//! The signing key is derived from the provider's key, the tenant's own where it has one, by HMAC-SHA256. So every node that can carry an upload on can check
//! its address, also after a restart, and nobody learns it from the ledger, which has neither. A new key of the provider
//! ends the addresses that were given out under the old one. What a client sees of all this is 256 bits of an HMAC.

use http::header::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use secrecy::ExposeSecret;

use crate::domain::refusal::Refusal;
use crate::providers::{Endpoint, Provider};

use super::auth::{self, Presented};
use super::exchange::{Asked, Fate, Gate, headers_of};
use super::ticket::{Here, Ticket, is_piece, unsigned};

impl Gate {
    /// The line for uploads: a begin is like any other free call, a piece is whose its address says.
    pub(super) async fn line_of_upload(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        presented: Option<Presented>,
        (provider, endpoint): (&'static dyn Provider, Endpoint),
    ) -> Result<Fate, Refusal> {
        let attribution = auth::attribution(headers_of(session));
        let caller = match &presented {
            Some(presented) => Some(self.caller(session, asked, presented, attribution).await?),
            None => None,
        };
        let live = asked.live;
        let origin = live.origin_of(provider, &endpoint.path)?;
        let ticket = if is_piece(headers_of(session), asked.query.as_deref()) {
            // Whose it says to be decides by which key it was signed; whether it was, the signature tells.
            let claimed = Ticket::claimed(asked.query.as_deref())?;
            let account = self.identities.account(&claimed.tenant);
            let secret = origin.key_of(provider, account.as_deref())?.expose_secret();
            let ticket = Ticket::read(secret, &endpoint.path, asked.query.as_deref(), self.meter.now())?;
            let account = self.identities.holder(&ticket.tenant, ticket.key.as_ref()).await?;
            match caller {
                Some(caller) if caller.account.tenant.id != account.tenant.id => return Err(Refusal::BadUpload),
                Some(_) => {}
                None => self.let_in(asked, &account)?,
            }
            asked.query = asked.query.as_deref().and_then(unsigned);
            ticket
        } else {
            let caller = caller.ok_or(Refusal::BadUpload)?;
            Ticket::new(caller.account.tenant.id.clone(), caller.key.map(|key| key.id.clone()), self.meter.now())
        };
        let touches = self.may_touch(asked, provider, &endpoint).await?;
        refuse_large(headers_of(session), asked.length, live.settings.upload_limit)?;
        let here = Here::of(asked, headers_of(session), &endpoint, live.public_url.as_deref());
        let presented = presented.map(|presented| presented.secret).unwrap_or_default();
        let account = asked.account.clone();
        let secret = origin.key_of(provider, account.as_deref())?.expose_secret();
        let lead_back = |answer: &mut HeaderMap| ticket.lead_back(answer, secret, &here);
        self.pass_through(session, asked, &presented, (origin, &endpoint, &touches), lead_back).await
    }
}

impl Here {
    fn of(asked: &Asked<'_>, headers: &HeaderMap, endpoint: &Endpoint, public_url: Option<&str>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // Whoever sends a false one misleads itself: the answer goes back to it alone.
        let forwarded = text("x-forwarded-proto").map(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
        let is_tls = forwarded.unwrap_or(asked.peer.is_tls);
        let origin = match (public_url, asked.authority.as_deref().or_else(|| text("host"))) {
            (Some(url), _) => url.to_owned(),
            (None, Some(host)) => format!("{}://{host}", if is_tls { "https" } else { "http" }),
            (None, None) => String::new(),
        };
        Self { origin, prefix: asked.path.strip_suffix(endpoint.path.as_str()).unwrap_or_default().to_owned() }
    }
}

/// Refuses an upload that is larger than one may be, as soon as it says so: at its begin, or by where a piece ends.
fn refuse_large(headers: &HeaderMap, length: Option<u64>, limit: u64) -> Result<(), Refusal> {
    let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let whole = number("x-goog-upload-header-content-length").unwrap_or(0);
    let end = number("x-goog-upload-offset").unwrap_or(0).saturating_add(length.unwrap_or(0));
    if whole.max(end) > limit { Err(Refusal::BodyTooLarge { limit }) } else { Ok(()) }
}
