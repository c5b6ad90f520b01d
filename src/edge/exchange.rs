//! The life of one request, as one visible line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{self, HeaderMap};
use http::{Method, Request, Uri, Version};
use pingora_core::protocols::http::ServerSession;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::ids::ProviderId;
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::deferred::Deferred;
use crate::metering::identity::{Identities, Identity};
use crate::metering::in_flight::{Caller, InFlight, LimitStanding};
use crate::metering::meter::{self, Meter};
use crate::metering::rates::RateRoom;
use crate::metering::snapshot::Account;
use crate::providers::{self, CredentialPlace, Endpoint, Kind, Provider};

use super::auth::{self, Attribution, Presented};
use super::body::{self, Budget};
use super::headers::{self, Coding};
use super::relay::Meters;
use super::upstream::{Answer, Outgoing, SendError, Upstream};
use super::{answer, relay, session, streamed, uploads};

/// Everything that requests share.
pub struct Gate {
    /// Admits and settles.
    pub meter: Arc<Meter>,
    /// Bills what is finished later.
    pub deferred: Arc<Deferred>,
    /// Knows whose a credential is.
    pub identities: Arc<Identities>,
    /// The routes that the gateway answers itself.
    pub local: axum::Router,
    /// What a reload replaces. Loaded once for each request, which keeps what it began with.
    pub live: ArcSwap<Live>,
    /// No new requests.
    pub draining: Arc<AtomicBool>,
}

/// What a reload replaces, as one value.
pub struct Live {
    /// The providers that are on.
    pub origins: Vec<Origin>,
    /// Bytes for request bodies.
    pub budget: Budget,
    /// Limits of size and time.
    pub settings: Settings,
    /// The origin that clients see, where it is not the one they name (`listen.public_url`).
    pub public_url: Option<String>,
    /// What the gateway shows to clients over TLS; `None` where it listens in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// One provider that is on: where it is and what opens it.
pub struct Origin {
    /// Which provider.
    pub provider: ProviderId,
    /// Whether it serves the Vertex paths, or the provider's own.
    pub vertex: bool,
    /// How it is reached.
    pub upstream: Upstream,
    /// The provider's own key.
    pub key: SecretString,
}

/// Limits towards clients.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The largest JSON body, in bytes.
    pub body_limit: u64,
    /// The largest body that is streamed, in bytes.
    pub upload_limit: u64,
    /// The largest message of a session, in bytes.
    pub session_message_limit: u64,
    /// For a whole request head.
    pub header_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
    /// For one write to a client that does not read.
    pub write_timeout: Duration,
    /// Whether HTTP/2 is spoken in the clear with clients that begin with it.
    pub h2c: bool,
    /// Between two requests on one connection.
    pub keepalive_timeout: Duration,
    /// How long a provider is read on after the client left a stream.
    pub drain_timeout: Duration,
    /// How many bytes it is read on for.
    pub drain_bytes: u64,
    /// How long the answer to a client that left a plain call is awaited.
    pub first_byte_timeout: Duration,
    /// The first pause between two questions for what a provider finishes later.
    pub poll_interval: Duration,
}

/// What becomes of the client's connection.
pub enum Fate {
    /// The answer is whole: the connection may carry another request.
    Reuse,
    /// The connection is over.
    Close,
    /// It is that of a session from here on.
    Session(Box<session::Opening>),
}

/// What is known of a request so far, also for the answer if it is refused.
pub struct Asked<'a> {
    /// Under which settings it is served, from its head to the end of its answer.
    pub live: &'a Live,
    /// Whether the client came over TLS.
    pub is_tls: bool,
    /// The method.
    pub method: Method,
    /// The path as it was sent, without the query.
    pub path: String,
    /// The query as it was sent.
    pub query: Option<String>,
    /// The host and port that the client named in HTTP/2, where that is no header.
    pub authority: Option<String>,
    /// HTTP/1.0 knows no chunks, HTTP/2 needs none.
    pub chunks: bool,
    /// `Content-Length`, which pingora has checked.
    pub length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// In whose words a refusal is told.
    pub dialect: &'static dyn Provider,
    /// Who calls, once that is known.
    pub account: Option<Arc<Account>>,
    /// The event's id, once there is one.
    pub id: Option<String>,
    /// The caller's limits, once they were asked.
    pub limits: Vec<LimitStanding>,
    /// Rates a minute of the tenant, where the call took from them.
    pub rates: Vec<RateRoom>,
}

impl<'a> Asked<'a> {
    fn read(session: &mut ServerSession, live: &'a Live, is_tls: bool) -> Self {
        let has_body = session.is_http2() && !session.is_body_empty();
        let head = session.req_header();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
        let place = auth::place(&head.headers, query.as_deref());
        let expect = head
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let is_open = head.headers.contains_key(header::TRANSFER_ENCODING) || (has_body && length.is_none());
        let named = head.uri.authority().filter(|_| head.version == Version::HTTP_2);
        Self {
            live,
            is_tls,
            method: head.method.clone(),
            dialect: providers::dialect_of(&path, place),
            path,
            query,
            authority: named.map(ToString::to_string),
            chunks: head.version == Version::HTTP_11,
            length: if is_open { None } else { Some(length.unwrap_or(0)) },
            expects_continue: expect && head.version == Version::HTTP_11,
            account: None,
            id: None,
            limits: Vec::new(),
            rates: Vec::new(),
        }
    }
}

impl Live {
    pub(super) fn origin(&self, provider: &'static dyn Provider, endpoint: &Endpoint) -> Result<&Origin, Refusal> {
        self.origin_of(provider, &endpoint.path)
    }

    pub(super) fn origin_of(&self, provider: &'static dyn Provider, path: &str) -> Result<&Origin, Refusal> {
        let id = provider.id();
        let is_vertex = providers::is_vertex(path);
        let of_provider = || self.origins.iter().filter(|origin| origin.provider == id);
        of_provider()
            .find(|origin| origin.vertex == is_vertex)
            .or_else(|| of_provider().next())
            .ok_or_else(|| Refusal::ProviderOff { provider: id.to_string(), variable: provider.key_variable() })
    }
}

impl Gate {
    /// Serves the request whose head `session` has read; `is_tls` says whether it came over TLS.
    pub async fn serve(&self, session: &mut ServerSession, live: &Live, is_tls: bool) -> Fate {
        session.set_read_timeout(Some(live.settings.body_timeout));
        session.set_write_timeout(Some(live.settings.write_timeout));
        body::set_timeout_of_http2(session, live.settings.body_timeout);
        let mut asked = Asked::read(session, live, is_tls);
        match self.line(session, &mut asked).await {
            Ok(fate) => fate,
            Err(refusal) => answer::refuse(self, session, &mut asked, &refusal).await,
        }
    }

    /// Route, identify, read, admit, send, relay. Nothing goes to a provider before `admit` returned.
    async fn line(&self, session: &mut ServerSession, asked: &mut Asked<'_>) -> Result<Fate, Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        if answer::is_local(&asked.path) {
            return answer::local(self, session, asked).await;
        }
        let presented = match auth::presented(headers_of(session), asked.query.as_deref()) {
            Err(Refusal::NoKey) if uploads::is_signed(asked.query.as_deref()) => None,
            presented => Some(presented?),
        };
        let place = presented.as_ref().map_or(CredentialPlace::None, |presented| presented.place);
        let (provider, endpoint) = providers::route(&asked.method, &asked.path, place)?;
        asked.dialect = provider;
        if providers::is_upload(&endpoint.path) {
            // Boxed, as forms are.
            return Box::pin(self.line_of_upload(session, asked, presented, (provider, endpoint))).await;
        }
        let presented = presented.ok_or(Refusal::NoKey)?;
        let attribution = auth::attribution(headers_of(session));
        let caller = self.caller(asked, &presented, attribution).await?;
        let live = asked.live;
        let origin = live.origin(provider, &endpoint)?;
        if endpoint.kind == Kind::Unbilled {
            // What counts the tokens of a model is free, and the model's own answer.
            endpoint.model.as_deref().map_or(Ok(()), |model| meter::may_use(&caller, model))?;
            return self.pass_through(session, asked, &presented.secret, (origin, &endpoint), |_| ()).await;
        }
        if endpoint.reads.is_session() {
            let (by, target) = ((caller, &presented), (origin, provider, endpoint));
            // Boxed, as forms are.
            return Box::pin(self.line_of_session(session, asked, by, target)).await;
        }
        if headers_of(session).contains_key(header::CONTENT_ENCODING) {
            return Err(Refusal::EncodedBody);
        }
        if let Some(form) = streamed::form_of(session, &endpoint) {
            let (by, target) = ((caller, &presented), (origin, provider, endpoint));
            // Boxed: few requests are forms, and the line of the others need not have room for it.
            return Box::pin(self.line_of_form(session, asked, by, target, form)).await;
        }
        self.expect_body(session, asked, live.settings.body_limit).await?;
        let whole = body::read_whole(session, asked.length, live.settings.body_limit, &live.budget).await?;
        let call = provider.call(&endpoint, asked.query.as_deref(), &whole.bytes)?;
        let coding = if call.edits.is_empty() { Coding::GzipIfAccepted } else { Coding::Identity };
        let out = headers::to_provider(headers_of(session), &presented.secret, coding);
        let mut request = self.request(asked, out, (origin, provider, &endpoint), Outgoing::Whole(None))?;
        let mut in_flight = self.meter.admit(caller, provider, endpoint, call).await?;
        let edits = in_flight.edits();
        *request.body_mut() = if edits.is_empty() {
            Outgoing::Whole(Some(whole.bytes))
        } else {
            Outgoing::Parts(providers::apply(&edits, &whole.bytes).into())
        };
        asked.id = in_flight.id().map(|id| id.to_string());
        (asked.limits, asked.rates) = (in_flight.limits().to_vec(), in_flight.rates());
        self.know_limits(asked).await;
        match origin.upstream.send(request, || in_flight.sending()).await {
            Ok(answer) => Ok(self.relay(session, asked, Meters::Call(in_flight), answer, whole.reserved).await),
            Err(error) => Err(unanswered(in_flight, error).await),
        }
    }

    /// `attribution` is judged only after the key: a stranger learns nothing of what else is wrong.
    pub(super) async fn caller(
        &self,
        asked: &mut Asked<'_>,
        presented: &Presented,
        attribution: Result<Attribution, Refusal>,
    ) -> Result<Caller, Refusal> {
        let Identity::Tenant(account, key) = self.identities.find(&presented.secret).await? else {
            return Err(Refusal::AdminKeyOnProxy);
        };
        asked.account = Some(account.clone());
        let Attribution { user_id, kb_id } = attribution?;
        Ok(Caller { account, key, user_id, kb_id })
    }

    /// Every answer to a limited tenant says how it stands, whatever it asked for.
    pub(super) async fn know_limits(&self, asked: &mut Asked<'_>) {
        if let Some(account) = asked.account.as_ref().filter(|_| asked.limits.is_empty()) {
            asked.limits = self.meter.standings(account).await;
        }
    }

    pub(super) async fn relay(
        &self,
        session: &mut ServerSession,
        asked: &Asked<'_>,
        meters: Meters,
        answer: Answer,
        reserved: body::Reserved,
    ) -> Fate {
        // The head is there, so the request was sent: a large body is no longer held. A small one is, for an estimate.
        let _kept = reserved.is_at_most(providers::KEPT_PROMPT_BYTES_MAX).then_some(reserved);
        // Boxed: the relay is the long part of a stream, and the rest of the line need not be kept for it.
        Box::pin(relay::relay(self, session, asked, meters, answer)).await
    }

    /// Refuses a body that is too large by its own account; asks for it where the client waits for that.
    pub(super) async fn expect_body(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        limit: u64,
    ) -> Result<(), Refusal> {
        if asked.length.is_some_and(|length| length > limit) {
            return Err(Refusal::BodyTooLarge { limit });
        }
        if !asked.expects_continue {
            return Ok(());
        }
        asked.expects_continue = false;
        session.write_continue_response().await.map_err(|_| Refusal::BodyIncomplete)
    }

    pub(super) fn request(
        &self,
        asked: &Asked<'_>,
        mut out: HeaderMap,
        (origin, provider, endpoint): (&Origin, &'static dyn Provider, &Endpoint),
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Refusal> {
        let query = asked.query.as_deref().and_then(headers::query_without_key);
        let target = match query {
            Some(query) => format!("{}?{query}", endpoint.path),
            None => endpoint.path.clone(),
        };
        let uri = Uri::try_from(target).map_err(|_| Refusal::BadRequest { reason: "the request target is no URI" })?;
        let mut request = Request::new(body);
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = uri;
        out.insert(header::HOST, origin.upstream.place.authority.clone());
        let form = provider.credential();
        let (name, value) = headers::credential(form, origin.key.expose_secret()).ok_or_else(|| {
            Refusal::ProviderOff { provider: provider.id().to_string(), variable: provider.key_variable() }
        })?;
        out.insert(name, value);
        *request.headers_mut() = out;
        Ok(request)
    }
}

/// The headers as the client sent them.
pub(super) fn headers_of(session: &ServerSession) -> &HeaderMap {
    &session.req_header().headers
}

pub(super) fn refusal_of(error: SendError) -> (Refusal, u16) {
    let refusal = match error {
        SendError::Unreachable => Refusal::Unreachable,
        SendError::Timeout => Refusal::UpstreamTimeout,
    };
    let status = refusal.status();
    (refusal, status)
}

/// Books a call without an answer; the chat is given back.
pub(super) async fn unanswered(in_flight: InFlight, error: SendError) -> Refusal {
    let (refusal, status) = refusal_of(error);
    let ending = match error {
        SendError::Unreachable => Ending::BrokeOff,
        SendError::Timeout => Ending::TimedOut,
    };
    in_flight.settle_unanswered(ending, status).await;
    refusal
}
