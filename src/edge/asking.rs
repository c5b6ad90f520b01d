//! Questions of the gateway's own to a provider: how a unit stands, and its results.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};
use secrecy::ExposeSecret;

use crate::domain::ids::{ProviderId, TenantId};
use crate::ports::BoxFuture;
use crate::ports::asking::{Ask, AskError};
use crate::providers::{self, Provider};

use super::exchange::Gate;
use super::headers;
use super::upstream::Outgoing;

/// Asks the providers that are configured at that moment.
pub struct Asking {
    gate: Arc<Gate>,
}

impl Asking {
    /// One with the providers of `gate`.
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    async fn ask(
        &self,
        tenant: &TenantId,
        provider: &'static dyn Provider,
        target: &str,
        see: &mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> Result<u16, AskError> {
        let live = self.gate.live.load_full();
        let uri = Uri::try_from(target).map_err(|_| AskError::Off)?;
        let origin = live.origin_of(provider, uri.path()).map_err(|_| AskError::Off)?;
        // What a tenant began with its own key only that key can ask for.
        let account = self.gate.identities.account(tenant);
        let key = origin.key_of(provider, account.as_deref()).map_err(|_| AskError::Off)?;
        let (name, value) = headers::credential(provider.credential(), key.expose_secret()).ok_or(AskError::Off)?;
        let mut request = Request::new(Outgoing::Whole(None));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        let out = request.headers_mut();
        out.insert(header::HOST, origin.upstream.place.authority.clone());
        out.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        out.insert(name, value);
        let answer = origin.upstream.send(request, || ()).await.map_err(|_| AskError::NoAnswer)?;
        let (status, mut body) = (answer.head.status.as_u16(), answer.body);
        if status != 200 {
            return Ok(status);
        }
        while let Some(piece) = body.next().await.map_err(|_| AskError::NoAnswer)? {
            if !see(&piece) {
                return Err(AskError::TooLarge);
            }
        }
        Ok(status)
    }
}

impl Ask for Asking {
    fn get<'a>(
        &'a self,
        tenant: &'a TenantId,
        provider: &'a ProviderId,
        target: &'a str,
        see: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> BoxFuture<'a, Result<u16, AskError>> {
        Box::pin(async move {
            let known = providers::ALL.iter().find(|known| known.id() == *provider).copied().ok_or(AskError::Off)?;
            self.ask(tenant, known, target, see).await
        })
    }
}
