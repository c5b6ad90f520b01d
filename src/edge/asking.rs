//! Questions of the gateway's own to a provider: how a unit stands, and its results.

use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};
use secrecy::ExposeSecret;

use crate::domain::ids::ProviderId;
use crate::ports::BoxFuture;
use crate::ports::asking::{Ask, AskError, Whose};
use crate::providers::{self, Provider};

use super::exchange::Gate;
use super::headers;
use super::upstream::Outgoing;

impl Gate {
    /// Asks a provider that is configured at that moment.
    async fn question(
        &self,
        whose: Whose<'_>,
        provider: &'static dyn Provider,
        target: &str,
        see: &mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> Result<u16, AskError> {
        let live = self.live.load_full();
        let uri = Uri::try_from(target).map_err(|_| AskError::Off)?;
        let origin = live.origin_of(provider, uri.path()).map_err(|_| AskError::Off)?;
        // What was begun with a tenant's own key only that key can ask for, and all else only the operator's.
        let account = self.identities.account(whose.tenant).filter(|_| whose.own_account);
        let is_own = account.as_ref().is_some_and(|account| account.has_own_key(&origin.provider));
        if whose.own_account && !is_own {
            return Err(AskError::Off);
        }
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

impl Ask for Gate {
    fn get<'a>(
        &'a self,
        whose: Whose<'a>,
        provider: &'a ProviderId,
        target: &'a str,
        see: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> BoxFuture<'a, Result<u16, AskError>> {
        Box::pin(async move {
            let known = providers::ALL.iter().find(|known| known.id() == *provider).copied().ok_or(AskError::Off)?;
            self.question(whose, known, target, see).await
        })
    }
}
