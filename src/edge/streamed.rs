//! Requests whose body streams: what is not billed, and forms that are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{self, HeaderMap};
use pingora_core::protocols::http::ServerSession;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::domain::bound::Bound;
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::in_flight::Caller;
use crate::metering::meter;
use crate::ports::asking::Whose;
use crate::providers::objects::{Makes, Touches};
use crate::providers::{BodyRule, Endpoint, FormReader, Provider, Reads};

use super::auth::Presented;
use super::body;
use super::exchange::{Asked, Fate, Gate, Live, Origin, headers_of, refusal_of, unanswered};
use super::headers::{self, Coding};
use super::query::percent_decoded;
use super::relay::Meters;
use super::upstream::{Answer, Outgoing, Piece, SendError};
use super::watch::Watch;

/// Pieces of a streamed request body that wait for the provider: one on its way while the next is read.
const STREAMED_PIECES_MAX: usize = 1;

/// So much of a body is read before it is sent on: of a form until its model is known, which may stand behind a file, and of
/// what does not say how long it is, which has its length then if that was all.
const BEGIN_BYTES_MAX: usize = 64 * 1024;

/// Why a streamed request has no answer.
enum Stopped {
    /// Its body ended too early or is wrong.
    ByClient(Refusal),
    /// The provider gave none.
    ByProvider(SendError),
}

/// The reader for a request's form, if its endpoint takes one and it is one.
pub(super) fn form_of(session: &ServerSession, endpoint: &Endpoint) -> Option<FormReader> {
    let content_type = headers_of(session).get(header::CONTENT_TYPE)?.to_str().ok()?;
    (endpoint.body == BodyRule::Form).then(|| FormReader::new(content_type)).flatten()
}

impl Gate {
    /// Unbilled routes: the same way as the line without a meter, and without holding the body. `presented` is the
    /// client's credential; `change` may change the headers of the answer.
    pub(super) async fn pass_through(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        presented: &str,
        (origin, endpoint, touches): (&Origin, &Endpoint, &Touches),
        change: impl FnOnce(&mut HeaderMap),
    ) -> Result<Fate, Refusal> {
        self.know_limits(asked).await;
        asked.id = Some(self.meter.request_id());
        let Live { settings, .. } = asked.live;
        self.expect_body(session, asked, settings.upload_limit).await?;
        let target = (origin, asked.dialect, endpoint);
        // What tells of units or makes objects has to be read on its way.
        let is_read = endpoint.reads != Reads::Nothing || touches.makes != Makes::Nothing;
        if is_read {
            asked.dialect.is_readable(asked.query.as_deref())?;
        }
        if endpoint.reads == Reads::Cache {
            meter::may_store(asked.account.as_deref(), &asked.dialect.id())?;
        }
        if asked.method == Method::DELETE && endpoint.reads != Reads::Nothing {
            self.bill_before_it_goes(asked, &endpoint.path).await?;
        }
        let coding = if is_read { Coding::GzipIfAccepted } else { Coding::AsAsked };
        let out = headers::to_provider(headers_of(session), presented, coding);
        let limit = settings.upload_limit;
        let mut reserved = body::Reserved::default();
        let begin = match asked.length {
            _ if touches.refers => {
                let (begin, held) = self.read_names(session, asked, endpoint).await?;
                reserved = held;
                begin
            }
            Some(_) => Begin::default(),
            None => read_begin(session, asked, limit, |_| Ok(false)).await?,
        };
        let (length, begun) = (begin.length(asked.length), begin.count());
        let (sender, outgoing) = begin.outgoing(length);
        let request = self.request(asked, out, target, outgoing)?;
        let send = origin.upstream.send(request, || ());
        let answer = send_while_reading(session, asked, (&sender, begun, limit), |_| Ok(()), send).await;
        let mut answer = answer.map_err(|stopped| match stopped {
            Stopped::ByClient(refusal) => refusal,
            Stopped::ByProvider(error) => refusal_of(error).0,
        })?;
        if answer.head.status.is_success() {
            self.is_gone(asked, touches).await;
        }
        change(&mut answer.head.headers);
        let meters = self.meters(asked.dialect, endpoint, &answer);
        // The sender lives until the answer is through: an answer may come before the end of the request.
        let fate = self.relay(session, asked, meters, answer, reserved).await;
        drop(sender);
        Ok(fate)
    }

    /// Reads a whole body that may name objects, and refuses it if one of them is not the tenant's.
    async fn read_names(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        endpoint: &Endpoint,
    ) -> Result<(Begin, body::Reserved), Refusal> {
        let said = headers::says_json(headers_of(session));
        if said == Err(Refusal::EncodedBody) {
            return Err(Refusal::EncodedBody);
        }
        let live = asked.live;
        let whole = body::read_whole(session, asked, (&live.budget, live.settings.body_limit)).await?;
        if !whole.bytes.is_empty() {
            said?;
            let named = asked.dialect.references(endpoint, None, &whole.bytes)?;
            self.may_name(asked, asked.dialect, named).await?;
        }
        Ok((Begin { bytes: whole.bytes, ended: true }, whole.reserved))
    }

    /// What is deleted may not be billed yet. Its name is its path behind the version, as the provider reads that.
    async fn bill_before_it_goes(&self, asked: &Asked<'_>, path: &str) -> Result<(), Refusal> {
        let decoded = percent_decoded(path);
        let name = decoded.trim_start_matches('/').split_once('/').and_then(|(_, name)| name.parse().ok());
        // The provider may know by another spelling what nobody finds here.
        let Some(name) = name else {
            return Err(Refusal::BadRequest {
                reason: "the name of what is to be deleted is none that a provider gives",
            });
        };
        let Some(account) = &asked.account else { return Err(Refusal::NoKey) };
        let provider = asked.dialect.id();
        let own_account = account.has_own_key(&provider);
        let whose = Whose { tenant: &account.tenant.id, own_account };
        self.deferred.before_it_goes(self, whose, (&provider, &name)).await
    }

    /// Who looks at an answer that nobody pays for.
    fn meters(&self, provider: &'static dyn Provider, endpoint: &Endpoint, answer: &Answer) -> Meters {
        Watch::of(&self.deferred, provider, endpoint, &answer.head).map_or(Meters::Nobody, Meters::Later)
    }

    /// The line for a form: what admission needs is read from its begin, the rest streams and is looked at on its way.
    pub(super) async fn line_of_form(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        (caller, presented): (Caller, &Presented),
        (origin, provider, endpoint): (&Origin, &'static dyn Provider, Endpoint),
        mut form: FormReader,
    ) -> Result<Fate, Refusal> {
        let Live { settings, .. } = asked.live;
        let limit = settings.upload_limit;
        self.expect_body(session, asked, limit).await?;
        let knows_length = asked.length.is_some();
        let begin = read_begin(session, asked, limit, |piece| {
            form.feed(piece)?;
            Ok(knows_length && form.is_known())
        })
        .await?;
        let (length, begun) = (begin.length(asked.length), begin.count());
        let is_whole = length == Some(begun);
        if is_whole {
            form.finish()?;
        }
        if is_whole && form.model().is_none() && endpoint.reads == Reads::Transcript {
            return Err(Refusal::BadJson { reason: "model is missing" });
        }
        // One that goes on without saying how long counts as the largest that was ever held.
        let call = form.call(length.unwrap_or(settings.body_limit));
        let out = headers::to_provider(headers_of(session), &presented.secret, Coding::GzipIfAccepted);
        let (sender, outgoing) = begin.outgoing(length);
        let request = self.request(asked, out, (origin, provider, &endpoint), outgoing)?;
        let mut in_flight = self.meter.admit(caller, provider, endpoint, call).await?;
        asked.id = in_flight.id().map(|id| id.to_string());
        (asked.limits, asked.rates) = (in_flight.limits().to_vec(), in_flight.rates());
        self.know_limits(asked).await;
        let send = origin.upstream.send(request, || in_flight.sending());
        let mut sent = begun;
        let see = |piece: Option<&[u8]>| {
            // Without a length the end goes out behind the last piece, with one it is that piece.
            let Some(piece) = piece else { return form.finish() };
            sent = sent.saturating_add(count(piece));
            form.feed(piece)?;
            if length == Some(sent) { form.finish() } else { Ok(()) }
        };
        let answer = send_while_reading(session, asked, (&sender, begun, limit), see, send).await;
        in_flight.asks_for(form.model());
        if length.is_none() {
            in_flight.asked_with(form.call(sent).prompt);
        }
        match answer {
            Ok(answer) => {
                let meters = Meters::Call(in_flight);
                let fate = self.relay(session, asked, meters, answer, body::Reserved::default()).await;
                drop(sender);
                Ok(fate)
            }
            Err(Stopped::ByProvider(error)) => Err(unanswered(in_flight, error).await),
            Err(Stopped::ByClient(refusal)) => {
                // No provider answers, and so none bills, a request that broke off.
                in_flight.settle_unanswered(Ending::BrokeOff, refusal.status()).await;
                Err(refusal)
            }
        }
    }
}

/// The begin of a body that streams.
#[derive(Default)]
struct Begin {
    bytes: Bytes,
    /// Whether that was all of it.
    ended: bool,
}

impl Begin {
    fn count(&self) -> u64 {
        count(&self.bytes)
    }

    /// How long the body is, if the client `said` or that is known by now.
    fn length(&self, said: Option<u64>) -> Option<u64> {
        said.or_else(|| self.ended.then(|| self.count()))
    }

    /// A body that begins so, and where the rest of it goes.
    fn outgoing(self, length: Option<u64>) -> (mpsc::Sender<Piece>, Outgoing) {
        let (sender, pieces) = mpsc::channel(STREAMED_PIECES_MAX);
        let is_whole = length == Some(self.count());
        let bytes = Some(self.bytes).filter(|bytes| !bytes.is_empty());
        let streamed = |begin| Outgoing::Streamed { begin, pieces, left: length, moved: Arc::default() };
        (sender, if is_whole { Outgoing::Whole(bytes) } else { streamed(bytes) })
    }
}

/// Reads a body of at most `limit` bytes until it is over, long, or shown a piece after which `enough` was seen.
async fn read_begin(
    session: &mut ServerSession,
    asked: &mut Asked<'_>,
    limit: u64,
    mut enough: impl FnMut(&[u8]) -> Result<bool, Refusal>,
) -> Result<Begin, Refusal> {
    let mut bytes = BytesMut::new();
    let ended = loop {
        if bytes.len() >= BEGIN_BYTES_MAX {
            break false;
        }
        let Some(piece) = body::read_piece(session, &mut asked.intake).await? else { break true };
        bytes.extend_from_slice(&piece);
        if count(&bytes) > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        if enough(&piece)? {
            break false;
        }
    };
    Ok(Begin { bytes: bytes.freeze(), ended })
}

/// Sends a request while its body still comes in, of which so much has `begun` to go and `limit` is the most; `see` is shown
/// each piece before it goes on, and at last that there is no other.
async fn send_while_reading(
    session: &mut ServerSession,
    asked: &mut Asked<'_>,
    (sender, begun, limit): (&mpsc::Sender<Piece>, u64, u64),
    mut see: impl FnMut(Option<&[u8]>) -> Result<(), Refusal>,
    send: impl Future<Output = Result<Answer, SendError>>,
) -> Result<Answer, Stopped> {
    let until = asked.intake.until;
    let pump = async {
        let mut left = limit.saturating_sub(begun);
        while let Some(piece) = body::read_piece(session, &mut asked.intake).await? {
            // One that said how long it is was measured before it came.
            left = left.checked_sub(count(&piece)).ok_or(Refusal::BodyTooLarge { limit })?;
            see(Some(&piece))?;
            if sender.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(());
            }
        }
        see(None)?;
        // Where the length was known, nobody waits for this.
        sender.send(Piece::End).await.unwrap_or_default();
        Ok::<(), Refusal>(())
    };
    let (mut send, mut pump) = (std::pin::pin!(send), std::pin::pin!(pump));
    // It is over then, whichever of both sides is slow.
    let mut over = std::pin::pin!(sleep_until(until));
    let mut reading = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut send => return answer.map_err(Stopped::ByProvider),
            read = &mut pump, if reading => {
                read.map_err(Stopped::ByClient)?;
                reading = false;
            }
            () = &mut over, if reading => return Err(Stopped::ByClient(Refusal::TooSlow(Bound::RequestTime))),
        }
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
