//! A session: a websocket between a client and a provider, relayed message by message and metered turn by turn.
//!
//! The bytes that go on are those that came, whole messages at a time: what a client sends has to be admitted before any
//! of it goes on, and a turn has to be booked before the client has the last of it. Both directions are bounded: nothing
//! is read from one side while the other has not taken what came before.
//!
//! | what happens | what becomes of the session |
//! |---|---|
//! | the plan is used up, or the model is not allowed | messages of the client go no further; turns that run end; 1008 |
//! | a message names an object that is another tenant's | the same |
//! | the key is revoked, or the tenant suspended | the same, also where nobody says anything |
//! | the tenant's own key for the provider is set, exchanged or removed | the same, with 1013: opened again it has the right key |
//! | counters or journal cannot take a turn | the same, with 1013 |
//! | a message is over `listen.session_message_limit`, or no frame | 1009 or 1002 |
//! | the client leaves while a turn runs | the provider is read on to the end of it, as a stream is |
//! | one side breaks off | the other side sees a break |
//! | the drain limit is over | 1001 |

use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

use crate::domain::bound::Bound;
use crate::domain::ids::TenantId;
use crate::domain::object::UnknownObjects;
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::in_flight::Caller;
use crate::metering::turns::{self, Turns};
use crate::providers::{Endpoint, Provider};

use super::auth::Presented;
use super::body::{Budget, Reserved};
use super::client_stream::ClientStream;
use super::crowd::Inside;
use super::exchange::{Asked, Fate, Gate, Origin, Settings, headers_of, refusal_of};
use super::frames::{self, Broken, Found, code};
use super::handshake;
use super::headers::{self, Coding};
use super::listener::Phase;
use super::relay::Meters;
use super::upstream::{Opened, Outgoing, Switched};

use side::{Side, read, write};

mod side;

/// A session that is over on one side has so long for the other's close frame.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// Turns that run when a session has to stop may take so long to end: models speak faster than they are heard.
const STOP_TIME: Duration = Duration::from_secs(60);

/// Messages up to this size are not counted in the budget of buffers: each connection has about as much anyway. Room for
/// longer ones is not kept.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// A session whose handshake is over.
pub struct Opening {
    provider: Switched,
    turns: Turns,
    place: Option<Inside<TenantId>>,
    settings: Settings,
    idle: Duration,
    budget: Budget,
}

/// A session on its own: the exchange that began it is over.
pub struct Session {
    client: Side<ClientStream>,
    provider: Side<Switched>,
    turns: Turns,
    gate: Arc<Gate>,
    /// Its place among the requests of its tenant.
    place: Option<Inside<TenantId>>,
    settings: Settings,
    idle: Duration,
    /// How long it may last.
    ends: Instant,
    budget: Budget,
    /// Payloads that have to be unmasked or joined to be read.
    scratch: Vec<u8>,
    stage: Stage,
    /// Whether the provider was the last to be read.
    heard_provider: bool,
}

/// How far a session is.
enum Stage {
    /// Both sides talk.
    Open,
    /// Nothing of the client goes on; turns that run may end until then. This is what it is told at the end.
    Stops { until: Instant, code: u16, reason: String },
    /// The client is gone; the provider is read on until then. These bytes are its last word.
    Left { until: Instant, bytes: u64, last: Bytes },
    /// A close frame went on: the rest is not about turns.
    Closes { until: Instant, ending: Ending },
}

/// How a session ends.
enum End {
    /// Both sides know, or are to see a break.
    Over(Ending),
    /// Both sides are told this code, for this reason.
    Told(Ending, u16, String),
}

/// What comes next.
enum Next {
    ClientRead(io::Result<usize>),
    ClientWritten(io::Result<()>),
    ProviderRead(io::Result<usize>),
    ProviderWritten(io::Result<()>),
    Due,
    Cut,
}

impl Gate {
    /// The line for a session: identified and routed like a call; admitted are its turns.
    pub(super) async fn line_of_session(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        (caller, presented): (Caller, &Presented),
        (origin, provider, endpoint): (&Origin, &'static dyn Provider, Endpoint),
    ) -> Result<Fate, Refusal> {
        handshake::check(session)?;
        if asked.length != Some(0) {
            return Err(Refusal::BadRequest { reason: "a handshake with a body" });
        }
        let reader = provider.session(&endpoint, asked.query.as_deref())?;
        self.meter.could_admit(&caller, (provider, &endpoint), reader.model()).await?;
        self.know_limits(asked).await;
        asked.id = Some(self.meter.request_id());
        let client = headers_of(session);
        let mut out = headers::to_provider(client, &presented.secret, Coding::AsAsked);
        handshake::ask(client, &mut out);
        let request = self.request(asked, out, (origin, provider, &endpoint), Outgoing::Whole(None))?;
        match origin.upstream.open(request).await.map_err(|error| refusal_of(error).0)? {
            Opened::Answered(answer) => {
                Ok(self.relay(session, asked, Meters::Nobody, *answer, Reserved::default()).await)
            }
            Opened::Switched(head, provider_stream) => {
                let mut head = handshake::agreed(&head).ok_or(Refusal::Unreachable)?;
                let request_id = head.headers.get(&headers::REQUEST_ID).and_then(|id| id.to_str().ok()).map(Box::from);
                let id = asked.id.as_deref().unwrap_or_default();
                headers::add_ours(&mut head, id, (&asked.limits, &asked.rates), self.meter.now())
                    .ok_or(Refusal::Unreachable)?;
                // What answers before it left in the way may have to be taken first.
                let write = session.write_response_header(Box::new(head));
                let written = fast_timeout(asked.live.settings.write_timeout, write).await;
                if !matches!(written.inspect_err(|_| self.meter.cut(Bound::AnswerPace)), Ok(Ok(()))) {
                    return Ok(Fate::Close);
                }
                let secret = SecretString::from(presented.secret.as_str());
                let opening = turns::Opening { caller, secret, provider, endpoint, reader, request_id };
                Ok(Fate::Session(Box::new(Opening {
                    provider: provider_stream,
                    turns: Turns::new(self.meter.clone(), self.identities.clone(), opening),
                    place: asked.place.take(),
                    settings: asked.live.settings,
                    idle: origin.upstream.limits.idle,
                    budget: asked.live.budget.clone(),
                })))
            }
        }
    }
}

impl Session {
    /// The session that `opening` began, on the connections that are left of it. `ahead` came with the client's request.
    pub fn new(opening: Opening, client: ClientStream, ahead: Bytes, gate: Arc<Gate>) -> Self {
        let Opening { provider, turns, place, settings, idle, budget } = opening;
        let mut client = Side::new(client, frames::From::Client, &settings);
        client.held.extend_from_slice(&ahead);
        client.came = ahead.len();
        let provider = Side::new(provider, frames::From::Server, &settings);
        let (scratch, stage, ends) = (Vec::new(), Stage::Open, Instant::now() + settings.stream_timeout);
        let heard_provider = false;
        Self { client, provider, turns, gate, place, settings, idle, ends, budget, scratch, stage, heard_provider }
    }

    /// Relays until both sides are done, or the gateway is cut off.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        // What came with the request.
        let mut end = self.take_from_client().await;
        let end = loop {
            end = end.or_else(|| self.counts());
            if let Some(end) = end {
                break end;
            }
            let next = self.next(&mut phase).await;
            end = self.step(next).await;
        };
        self.over(end).await;
    }

    async fn next(&mut self, phase: &mut watch::Receiver<Phase>) -> Next {
        let due = self.due();
        let has_left = matches!(self.stage, Stage::Left { .. });
        let (client_writes, provider_writes) = (self.client.is_writing(), self.provider.is_writing());
        let Self { client, provider, heard_provider, .. } = self;
        let reads = async {
            let of_client = read(&mut client.read, &mut client.held);
            let of_provider = read(&mut provider.read, &mut provider.held);
            let (may_client, may_provider) = (!provider_writes && !has_left, !client_writes);
            // In turn, where both have something: neither waits for the other, and a client that left before the provider
            // went on is seen to have left.
            if *heard_provider {
                tokio::select! {
                    biased;
                    count = of_client, if may_client => Next::ClientRead(count),
                    count = of_provider, if may_provider => Next::ProviderRead(count),
                    else => pending().await,
                }
            } else {
                tokio::select! {
                    biased;
                    count = of_provider, if may_provider => Next::ProviderRead(count),
                    count = of_client, if may_client => Next::ClientRead(count),
                    else => pending().await,
                }
            }
        };
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => Next::Cut,
            () = sleep_until(due) => Next::Due,
            written = write(&mut client.write, &mut client.out, &mut client.unflushed), if client_writes => {
                Next::ClientWritten(written)
            }
            written = write(&mut provider.write, &mut provider.out, &mut provider.unflushed), if provider_writes => {
                Next::ProviderWritten(written)
            }
            read = reads => read,
        }
    }

    /// When something has to happen that no side does.
    fn due(&self) -> Instant {
        let (client, provider) = (&self.client, &self.provider);
        let idle = self.is_silent_at();
        let until = match self.stage {
            Stage::Open => Some(self.ends.min(Instant::now() + self.turns.watch_in())),
            Stage::Stops { until, .. } | Stage::Left { until, .. } | Stage::Closes { until, .. } => Some(until),
        };
        let waits = [client.is_stuck_at(), provider.is_stuck_at(), until];
        waits.into_iter().flatten().fold(idle, Instant::min)
    }

    /// When neither side was heard for too long.
    fn is_silent_at(&self) -> Instant {
        self.client.heard.max(self.provider.heard) + self.idle
    }

    async fn step(&mut self, next: Next) -> Option<End> {
        let now = Instant::now();
        match next {
            Next::ClientRead(Ok(count)) if count > 0 => {
                self.client.heard = now;
                self.client.came = self.client.held.len();
                self.heard_provider = false;
                self.take_from_client().await
            }
            Next::ClientRead(_) => self.client_is_gone(),
            Next::ClientWritten(Ok(())) => {
                self.client.wrote(now);
                if matches!(self.stage, Stage::Left { .. }) && !self.client.is_writing() {
                    // It was answered, and need not wait for the end of its turn.
                    self.client.finish().await;
                }
                None
            }
            Next::ClientWritten(Err(_)) => {
                self.client.give_up();
                self.client_is_gone()
            }
            Next::ProviderRead(Ok(count)) if count > 0 => {
                self.provider.heard = now;
                self.provider.came = self.provider.held.len();
                self.heard_provider = true;
                self.take_from_provider(count).await
            }
            Next::ProviderRead(_) => Some(End::Over(match self.stage {
                Stage::Left { .. } => Ending::ClientLeft,
                Stage::Closes { ending, .. } => ending,
                Stage::Open | Stage::Stops { .. } => Ending::BrokeOff,
            })),
            Next::ProviderWritten(written) => {
                self.provider.wrote(now);
                if written.is_err() {
                    // What it said before is still there to be read, and then its end.
                    self.provider.give_up();
                }
                None
            }
            Next::Due => self.is_due(now).await,
            Next::Cut => Some(End::Told(Ending::Dropped, code::GOING_AWAY, "The gateway is shutting down.".into())),
        }
    }

    async fn is_due(&mut self, now: Instant) -> Option<End> {
        let is_silent = self.is_silent_at() <= now || self.provider.is_stuck_at().is_some_and(|stuck| stuck <= now);
        match &mut self.stage {
            Stage::Stops { until, code, reason } if *until <= now => {
                Some(End::Told(Ending::TimedOut, *code, std::mem::take(reason)))
            }
            Stage::Left { until, .. } if *until <= now => Some(End::Over(Ending::DrainCapped)),
            Stage::Closes { until, ending } if *until <= now => Some(End::Over(*ending)),
            Stage::Open if self.ends <= now => {
                self.gate.meter.cut(Bound::StreamTime);
                self.stops_because(code::GOING_AWAY, "The session lasted as long as one may.".into())
            }
            _ if self.client.is_stuck_at().is_some_and(|stuck| stuck <= now) => {
                self.gate.meter.cut(Bound::AnswerPace);
                self.client.give_up();
                self.client_is_gone()
            }
            _ if is_silent => Some(End::Over(Ending::TimedOut)),
            // Nobody has to say anything for that, and who says nothing goes on to be silent.
            Stage::Open => match self.turns.watch().await {
                Ok(()) => None,
                Err(refusal) => self.stops(&refusal),
            },
            _ => None,
        }
    }

    /// Counts what both directions hold by now.
    fn counts(&mut self) -> Option<End> {
        let Self { client, provider, budget, .. } = self;
        client.let_go();
        provider.let_go();
        let of_client = client.reserve(provider, 0, budget).map_err(|refusal| is_full(Ending::ClientLeft, &refusal));
        let of_provider = provider.reserve(client, 0, budget).map_err(|refusal| is_full(Ending::BrokeOff, &refusal));
        of_client.and(of_provider).err()
    }

    /// Takes what the client sent as far as it is whole.
    async fn take_from_client(&mut self) -> Option<End> {
        loop {
            match self.client.frames.next(&self.client.held) {
                Ok(None) => break,
                Ok(Some(Found::Control(end))) => self.provider.put(self.client.held.split_to(end)),
                Ok(Some(Found::Message(end))) => {
                    if !matches!(self.stage, Stage::Open) {
                        self.client.held.advance(end);
                        continue;
                    }
                    // Unmasked it is there twice.
                    if let Err(refusal) = self.client.reserve(&self.provider, end, &self.budget) {
                        return Some(is_full(Ending::ClientLeft, &refusal));
                    }
                    let message = self.client.held.split_to(end);
                    let payload = frames::payload(&message, &mut self.scratch);
                    let unknown = self.settings.isolation.unknown;
                    let named = self.turns.named(payload);
                    let admitted = match are_its_own(&self.gate, named, unknown).await {
                        Ok(()) => self.turns.client(payload).await,
                        Err(refusal) => Err(refusal),
                    };
                    match admitted {
                        Ok(()) => self.provider.put(message),
                        Err(refusal) => {
                            if let Some(end) = self.stops(&refusal) {
                                return Some(end);
                            }
                        }
                    }
                    self.scratch.clear();
                    self.scratch.shrink_to(UNCOUNTED_BYTES);
                }
                Ok(Some(Found::Close(start, end))) => {
                    self.client.held.advance(start);
                    let close = self.client.held.split_to(end - start);
                    return self.client_closes(close);
                }
                Err(broken) => return Some(is_broken(broken, Ending::ClientLeft)),
            }
        }
        None
    }

    /// Takes what the provider sent as far as it is whole.
    async fn take_from_provider(&mut self, count: usize) -> Option<End> {
        loop {
            let has_left = matches!(self.stage, Stage::Left { .. });
            match self.provider.frames.next(&self.provider.held) {
                Ok(None) => break,
                Ok(Some(Found::Control(end))) => {
                    let control = self.provider.held.split_to(end);
                    if !has_left {
                        self.client.put(control);
                    }
                }
                Ok(Some(Found::Message(end))) => {
                    let copied = if frames::is_read_in_place(&self.provider.held) { 0 } else { end };
                    if let Err(refusal) = self.provider.reserve(&self.client, copied, &self.budget) {
                        return Some(is_full(Ending::BrokeOff, &refusal));
                    }
                    let message = self.provider.held.split_to(end);
                    let payload = frames::payload(&message, &mut self.scratch);
                    if let Err(refusal) = self.turns.server(payload, has_left).await {
                        self.gate.meter.refused(&refusal);
                        return Some(End::Told(Ending::Dropped, code_of(&refusal), refusal.to_string()));
                    }
                    self.scratch.clear();
                    self.scratch.shrink_to(UNCOUNTED_BYTES);
                    if !has_left {
                        self.client.put(message);
                    }
                    if let Some(refusal) = self.turns.used_up().filter(|_| matches!(self.stage, Stage::Open))
                        && let Some(end) = self.stops(&refusal)
                    {
                        return Some(end);
                    }
                }
                Ok(Some(Found::Close(start, end))) => {
                    self.provider.held.advance(start);
                    let close = self.provider.held.split_to(end - start);
                    return self.provider_closes(close);
                }
                Err(broken) => return Some(is_broken(broken, Ending::BrokeOff)),
            }
        }
        let is_awaited = self.turns.are_awaited();
        match &mut self.stage {
            Stage::Stops { code, reason, .. } if !is_awaited => {
                return Some(End::Told(Ending::Whole, *code, std::mem::take(reason)));
            }
            Stage::Left { last, .. } if !is_awaited => {
                let last = BytesMut::from(std::mem::take(last));
                self.provider.put(last);
                return Some(End::Over(Ending::ClientLeft));
            }
            Stage::Left { bytes, .. } => match bytes.checked_sub(u64::try_from(count).unwrap_or(u64::MAX)) {
                Some(left) => *bytes = left,
                None => return Some(End::Over(Ending::DrainCapped)),
            },
            _ => {}
        }
        None
    }

    /// Nothing of the client goes on any more; what runs may end.
    fn stops(&mut self, refusal: &Refusal) -> Option<End> {
        self.gate.meter.refused(refusal);
        self.stops_because(code_of(refusal), refusal.to_string())
    }

    fn stops_because(&mut self, code: u16, reason: String) -> Option<End> {
        if !self.turns.are_awaited() {
            return Some(End::Told(Ending::Whole, code, reason));
        }
        self.stage = Stage::Stops { until: Instant::now() + STOP_TIME, code, reason };
        None
    }

    /// The client says that it is done. It is answered at once where the provider is to be read on.
    fn client_closes(&mut self, close: BytesMut) -> Option<End> {
        if !matches!(self.stage, Stage::Closes { .. }) && self.is_read_on() {
            let answer = frames::close_answer(frames::From::Server, frames::payload(&close, &mut self.scratch));
            self.client.put(BytesMut::from(&*answer));
            self.leaves(close.freeze());
            return None;
        }
        self.provider.put(close);
        if !matches!(self.stage, Stage::Closes { .. }) {
            self.stage = Stage::Closes { until: Instant::now() + CLOSE_TIME, ending: Ending::ClientLeft };
        }
        None
    }

    fn provider_closes(&mut self, close: BytesMut) -> Option<End> {
        if matches!(self.stage, Stage::Left { .. }) {
            return Some(End::Over(Ending::ClientLeft));
        }
        self.client.put(close);
        if !matches!(self.stage, Stage::Closes { .. }) {
            let ending = if self.turns.are_awaited() { Ending::BrokeOff } else { Ending::Whole };
            self.stage = Stage::Closes { until: Instant::now() + CLOSE_TIME, ending };
        }
        None
    }

    fn client_is_gone(&mut self) -> Option<End> {
        match self.stage {
            Stage::Left { .. } => None,
            Stage::Closes { ending, .. } => Some(End::Over(ending)),
            Stage::Open | Stage::Stops { .. } if self.is_read_on() => {
                self.leaves(Bytes::new());
                None
            }
            Stage::Open | Stage::Stops { .. } => Some(End::Over(Ending::ClientLeft)),
        }
    }

    /// Whether the provider is at work on what the client will be charged for, and is to be heard to its end.
    fn is_read_on(&self) -> bool {
        self.turns.are_awaited() && !self.settings.drain_timeout.is_zero()
    }

    fn leaves(&mut self, last: Bytes) {
        let (until, bytes) = (Instant::now() + self.settings.drain_timeout, self.settings.drain_bytes);
        self.stage = Stage::Left { until, bytes, last };
    }

    async fn over(self, end: End) {
        let Self { mut client, mut provider, turns, place, .. } = self;
        let (ending, is_told) = match end {
            End::Over(ending) => (ending, false),
            End::Told(ending, code, reason) => {
                client.put(BytesMut::from(&*frames::close(frames::From::Server, code, &reason)));
                provider.put(BytesMut::from(&*frames::close(frames::From::Client, code::GOING_AWAY, "")));
                (ending, true)
            }
        };
        // The provider is stopped before anything is counted.
        tokio::join!(client.finish(), provider.finish());
        drop(provider);
        client.reserved = Reserved::default();
        turns.end(ending).await;
        drop(place);
        if is_told {
            client.linger().await;
        }
    }
}

/// Refuses a message that names an object which is not the client's.
async fn are_its_own(
    gate: &Gate,
    named: Result<Option<turns::Named>, Refusal>,
    unknown: UnknownObjects,
) -> Result<(), Refusal> {
    match named? {
        Some(turns::Named { tenant, provider, names }) => gate.objects.check(&tenant, &provider, names, unknown).await,
        None => Ok(()),
    }
}

fn is_broken(broken: Broken, ending: Ending) -> End {
    let (code, reason) = match broken {
        Broken::Protocol => (code::PROTOCOL_ERROR, "The frames are not those of RFC 6455 without extensions."),
        Broken::TooLong => (code::TOO_LONG, "A message is over the limit of this gateway."),
    };
    End::Told(ending, code, reason.to_owned())
}

fn is_full(ending: Ending, refusal: &Refusal) -> End {
    End::Told(ending, code_of(refusal), refusal.to_string())
}

/// How a websocket says what a status says.
fn code_of(refusal: &Refusal) -> u16 {
    if refusal.status() == 503 { code::TRY_AGAIN } else { code::POLICY }
}
