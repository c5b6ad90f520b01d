//! The life of one request, as one visible line.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{self, HeaderMap};
use http::{Method, Request, Uri, Version};
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::network::Networks;
use crate::domain::object::{Isolation, ObjectName};
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::deferred::Deferred;
use crate::metering::identity::{Identities, Identity};
use crate::metering::in_flight::{Caller, InFlight, LimitStanding};
use crate::metering::meter::{self, Meter};
use crate::metering::objects::Objects;
use crate::metering::rates::RateRoom;
use crate::metering::snapshot::Account;
use crate::metering::vault::OwnKey;
use crate::providers::objects::Makes;
use crate::providers::{self, CredentialPlace, Endpoint, Kind, Provider};

use super::auth::{self, Attribution, Presented};
use super::body::{self, Budget};
use super::crowd::{Crowd, Inside};
use super::headers::{self, Coding};
use super::pace::{Intake, Pace};
use super::relay::Meters;
use super::strangers::{Guest, Strangers};
use super::upstream::{Answer, Outgoing, SendError, Upstream};
use super::{answer, hygiene, query, relay, session, streamed, ticket};

/// So long a client of HTTP/2 that expects `100 Continue` may wait for it. Those that wait for a while send their body after a
/// second; others would wait for ever.
const EXPECTS_FOR: Duration = Duration::from_secs(3);

/// Everything that requests share.
pub struct Gate {
    /// Admits and settles.
    pub meter: Arc<Meter>,
    /// Bills what is finished later.
    pub deferred: Arc<Deferred>,
    /// Knows whose the objects are that providers keep.
    pub objects: Arc<Objects>,
    /// Knows whose a credential is.
    pub identities: Arc<Identities>,
    /// The routes that the gateway answers itself.
    pub local: axum::Router,
    /// Bytes for the bodies of those.
    pub local_budget: Budget,
    /// What a reload replaces. Loaded once for each request, which keeps what it began with.
    pub live: ArcSwap<Live>,
    /// No new requests.
    pub draining: Arc<AtomicBool>,
    /// How many requests each tenant has.
    pub crowd: Arc<Crowd<TenantId>>,
    /// Who presented wrong credentials.
    pub strangers: Arc<Strangers>,
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
    /// Where balancers stand, for which limits by address do not hold.
    pub balancers: Networks,
    /// What the gateway shows to clients over TLS; `None` where it listens in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The same of the admin listener.
    pub admin_tls: Option<Arc<rustls::ServerConfig>>,
}

/// One provider that is on: where it is and what opens it.
pub struct Origin {
    /// Which provider.
    pub provider: ProviderId,
    /// Whether it serves the Vertex paths, or the provider's own.
    pub vertex: bool,
    /// How it is reached.
    pub upstream: Upstream,
    /// The operator's key there; `None`: only tenants with a key of their own are served.
    pub key: Option<SecretString>,
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
    /// How far tenants that share a provider's account are kept apart in it.
    pub isolation: Isolation,
    /// Whether browsers are served for pages of this machine alone: where names are keys, any page knows one.
    pub pages_of_here: bool,
    /// Connections of all clients together.
    pub connections_max: u64,
    /// Connections of one address; 0 for no limit.
    pub connections_per_address: u64,
    /// Requests of one tenant at once; 0 for no limit.
    pub requests_per_tenant: u64,
    /// Wrong credentials of one address; 0 for no limit.
    pub failed_keys_per_minute: u64,
    /// The longest head, in bytes.
    pub head_limit: usize,
    /// The most headers.
    pub headers_max: usize,
    /// From the head of a request to the end of its body.
    pub request_timeout: Duration,
    /// Bytes a second that a client has to move while it is waited for; 0 for no limit.
    pub rate_min: u64,
    /// Requests of one connection of HTTP/2 at once.
    pub http2_streams: u32,
    /// Requests of one connection of HTTP/2 that may be in error.
    pub http2_resets: usize,
    /// How long an answer or a session may last.
    pub stream_timeout: Duration,
}

/// Who connected.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// From where.
    pub address: IpAddr,
    /// Whether over TLS.
    pub is_tls: bool,
}

impl Settings {
    /// How large a head may be.
    pub(super) fn heads(&self) -> hygiene::Limits {
        hygiene::Limits { head_bytes: self.head_limit, headers: self.headers_max }
    }
}

/// What becomes of the client's connection.
pub enum Fate {
    /// The answer is whole: the connection may carry another request.
    Reuse,
    /// The connection is over.
    Close,
    /// The connection is over once the client had the time to read its answer: it may still send.
    Linger,
    /// It is that of a session from here on.
    Session(Box<session::Opening>),
}

/// What is known of a request so far, also for the answer if it is refused.
pub struct Asked<'a> {
    /// Who connected.
    pub peer: Peer,
    /// How its body has to come.
    pub intake: Intake,
    /// Its place among the requests of its tenant, once that is known.
    pub place: Option<Inside<TenantId>>,
    /// Under which settings it is served, from its head to the end of its answer.
    pub live: &'a Live,
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
    /// Which objects of the provider the answer makes.
    pub makes: Makes,
    /// The object that the path names: an answer that tells of it has not made it.
    pub below: Option<ObjectName>,
    /// The event's id, once there is one.
    pub id: Option<String>,
    /// The caller's limits, once they were asked.
    pub limits: Vec<LimitStanding>,
    /// Rates a minute of the tenant, where the call took from them.
    pub rates: Vec<RateRoom>,
}

impl<'a> Asked<'a> {
    fn read(session: &mut ServerSession, live: &'a Live, peer: Peer) -> Self {
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
        let settings = &live.settings;
        let pace = Pace::new(settings.body_timeout, settings.rate_min);
        Self {
            peer,
            intake: Intake { pace, until: Instant::now() + settings.request_timeout, begins_by: None },
            place: None,
            live,
            method: head.method.clone(),
            dialect: providers::dialect_of(&path, place),
            path,
            query,
            authority: named.map(ToString::to_string),
            chunks: head.version == Version::HTTP_11,
            length: if is_open { None } else { Some(length.unwrap_or(0)) },
            expects_continue: expect && matches!(head.version, Version::HTTP_11 | Version::HTTP_2),
            account: None,
            makes: Makes::Nothing,
            below: None,
            id: None,
            limits: Vec::new(),
            rates: Vec::new(),
        }
    }
}

impl Live {
    /// Whose a request of `peer` is, by its address where that can be told.
    pub fn guest(&self, peer: Peer, headers: &HeaderMap) -> Guest {
        let forwarded = headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default());
        let from = self.balancers.client(peer.address, forwarded);
        Guest { from, per_minute: self.settings.failed_keys_per_minute }
    }

    /// Refuses what a browser sends for a page of elsewhere, where that is a danger.
    pub fn knows_page(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.settings.pages_of_here {
            return Ok(());
        }
        let ours = self.public_url.as_deref().and_then(|url| url.parse::<Uri>().ok());
        auth::is_of_here(headers).and_then(|()| auth::is_host_of_here(uri, headers, ours.as_ref().and_then(Uri::host)))
    }

    /// Where an endpoint is, if this account has a key for it.
    pub(super) fn origin(
        &self,
        provider: &'static dyn Provider,
        endpoint: &Endpoint,
        account: Option<&Account>,
    ) -> Result<&Origin, Refusal> {
        let origin = self.origin_of(provider, &endpoint.path)?;
        origin.key_of(provider, account).map(|_| origin)
    }

    pub(super) fn origin_of(&self, provider: &'static dyn Provider, path: &str) -> Result<&Origin, Refusal> {
        let id = provider.id();
        let is_vertex = providers::is_vertex(path);
        let of_provider = || self.origins.iter().filter(|origin| origin.provider == id);
        of_provider()
            .find(|origin| origin.vertex == is_vertex)
            .or_else(|| of_provider().next())
            .ok_or_else(|| provider_off(provider))
    }
}

impl Origin {
    /// The key that an account's calls go out with: its own where it has one, else the operator's.
    pub(super) fn key_of<'a>(
        &'a self,
        provider: &'static dyn Provider,
        account: Option<&'a Account>,
    ) -> Result<&'a SecretString, Refusal> {
        match account.and_then(|account| account.own_keys.get(&self.provider)) {
            Some(OwnKey::Open(key)) => Ok(key),
            // Under the operator's key another would pay for it.
            Some(OwnKey::Locked) => Err(Refusal::ProviderKeyLocked { provider: self.provider.to_string() }),
            None => self.key.as_ref().ok_or_else(|| provider_off(provider)),
        }
    }
}

fn provider_off(provider: &'static dyn Provider) -> Refusal {
    Refusal::ProviderOff { provider: provider.id().to_string(), variable: provider.key_variable() }
}

impl Gate {
    /// Serves the request of `peer` whose head `session` has read.
    pub async fn serve(&self, session: &mut ServerSession, live: &Live, peer: Peer) -> Fate {
        session.set_read_timeout(Some(live.settings.body_timeout));
        session.set_write_timeout(Some(live.settings.write_timeout));
        let mut asked = Asked::read(session, live, peer);
        match self.line(session, &mut asked).await {
            Ok(fate) => fate,
            Err(refusal) => answer::refuse(self, session, &mut asked, &refusal).await,
        }
    }

    /// Refuses what is not even looked at.
    fn takes(&self, session: &ServerSession, live: &Live) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        live.knows_page(&session.req_header().uri, headers_of(session))
    }

    /// Route, identify, read, admit, send, relay. Nothing goes to a provider before `admit` returned.
    async fn line(&self, session: &mut ServerSession, asked: &mut Asked<'_>) -> Result<Fate, Refusal> {
        self.takes(session, asked.live)?;
        if answer::is_local(&asked.path) {
            return answer::local(self, session, asked).await;
        }
        let presented = match auth::presented(headers_of(session), asked.query.as_deref()) {
            Err(Refusal::NoKey) if ticket::is_signed(asked.query.as_deref()) => None,
            presented => Some(presented?),
        };
        let place = presented.as_ref().map_or(CredentialPlace::None, |presented| presented.place);
        let (provider, endpoint) =
            providers::route(&asked.method, &asked.path, place).map_err(|refusal| match refusal {
                // Said apart: it may be a base URL that ends in a slash.
                Refusal::UnknownRoute if !providers::is_plain(&asked.path) => Refusal::BadRequest {
                    reason: "a path with an empty or dotted segment, or with a percent-encoding that hides one",
                },
                refusal => refusal,
            })?;
        asked.dialect = provider;
        if providers::is_upload(&endpoint.path) {
            // Boxed, as forms are.
            return Box::pin(self.line_of_upload(session, asked, presented, (provider, endpoint))).await;
        }
        let presented = presented.ok_or(Refusal::NoKey)?;
        let attribution = auth::attribution(headers_of(session));
        let caller = self.caller(session, asked, &presented, attribution).await?;
        let live = asked.live;
        let origin = live.origin(provider, &endpoint, asked.account.as_deref())?;
        let touches = self.may_touch(asked, provider, &endpoint).await?;
        if endpoint.kind == Kind::Unbilled {
            // What counts the tokens of a model is free, and the model's own answer.
            endpoint.model.as_deref().map_or(Ok(()), |model| meter::may_use(&caller, model))?;
            let secret = &presented.secret;
            return self.pass_through(session, asked, secret, (origin, &endpoint, &touches), |_| ()).await;
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
        headers::says_json(headers_of(session))?;
        self.expect_body(session, asked, live.settings.body_limit).await?;
        let whole = body::read_whole(session, asked, (&live.budget, live.settings.body_limit)).await?;
        let call = provider.call(&endpoint, asked.query.as_deref(), &whole.bytes)?;
        asked.makes = asked.makes.of(call.stored);
        self.may_name(asked, provider, provider.references(&endpoint, Some(&call), &whole.bytes)?).await?;
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
        session: &ServerSession,
        asked: &mut Asked<'_>,
        presented: &Presented,
        attribution: Result<Attribution, Refusal>,
    ) -> Result<Caller, Refusal> {
        let guest = || asked.live.guest(asked.peer, headers_of(session));
        let found = self.strangers.identity(&self.identities, &presented.secret, guest).await?;
        let Identity::Tenant(account, key) = found else { return Err(Refusal::AdminKeyOnProxy) };
        self.let_in(asked, &account)?;
        let Attribution { user_id, kb_id } = attribution?;
        Ok(Caller { account, key, user_id, kb_id })
    }

    /// Takes a place among the requests of the account's tenant.
    pub(super) fn let_in(&self, asked: &mut Asked<'_>, account: &Arc<Account>) -> Result<(), Refusal> {
        asked.account = Some(account.clone());
        let (tenant, limit) = (&account.tenant.id, asked.live.settings.requests_per_tenant);
        if limit > 0 {
            let place = self.crowd.enter(tenant, limit);
            asked.place = Some(place.ok_or_else(|| Refusal::Crowded { tenant: tenant.clone(), limit })?);
        }
        Ok(())
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

    /// Refuses a body that is too large by its own account; asks for it where the client waits for that and can be told.
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
        if session.is_http2() {
            // pingora's session has no words before the answer.
            asked.intake.begins_by = Some(Instant::now() + EXPECTS_FOR);
            return Ok(());
        }
        asked.expects_continue = false;
        // It is no answer before the end of the request, after which pingora would close the connection.
        session.set_close_on_response_before_downstream_finish(false);
        let told = fast_timeout(asked.live.settings.write_timeout, session.write_continue_response()).await;
        session.set_close_on_response_before_downstream_finish(true);
        told.is_ok_and(|told| told.is_ok()).then_some(()).ok_or(Refusal::BodyIncomplete)
    }

    pub(super) fn request(
        &self,
        asked: &Asked<'_>,
        mut out: HeaderMap,
        (origin, provider, endpoint): (&Origin, &'static dyn Provider, &Endpoint),
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Refusal> {
        let query = asked.query.as_deref().and_then(query::query_to_provider);
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
        let key = origin.key_of(provider, asked.account.as_deref())?;
        let (name, value) = headers::credential(form, key.expose_secret()).ok_or_else(|| provider_off(provider))?;
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
