//! The answer on its way from the provider to the client: relayed as it comes, read on the way, booked before its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use http::{HeaderMap, HeaderValue, StatusCode, header, response};
use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::time::{Duration, Instant, timeout_at};

use crate::domain::bound::Bound;
use crate::domain::settlement::Ending;
use crate::domain::tokens::Tokens;
use crate::metering::in_flight::InFlight;
use crate::providers::Shortener;

use super::client_stream::ClientStream;
use super::exchange::{Asked, Fate, Gate, Settings};
use super::headers;
use super::inflate::Inflate;
use super::ownership::Making;
use super::pace::Pace;
use super::upstream::{Answer, AnswerBody, Cut};
use super::watch::Watch;

/// What is there already is written at once, up to this size: one system call and one chunk for it.
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// How the meter sees the answer.
pub(super) enum Sight {
    /// As it passes.
    Plain,
    /// By a decoded side copy.
    Coded(Box<Inflate>),
    /// Not at all: a coding that was not asked for and is not known.
    Blind,
}

/// Who looks at the answer.
pub(super) enum Meters {
    /// The call that pays for it.
    Call(InFlight),
    /// Nobody pays for it, but it may tell of what is billed later.
    Later(Watch),
    /// Nobody.
    Nobody,
}

struct Relay<'a> {
    gate: &'a Gate,
    session: &'a mut ServerSession,
    /// How the client takes its answer.
    pace: Pace,
    /// Counts what its connection takes, where that is its alone.
    taken: Option<Arc<AtomicU64>>,
    /// Nothing but the end of the connection tells the client where the answer ends (RFC 9112, 6.3), so that whatever drops this
    /// before has to end it otherwise.
    ends_by_close: bool,
    in_flight: Option<InFlight>,
    /// Told behind the last byte, when this is dropped.
    watch: Option<Watch>,
    /// Notes the objects that the answer makes.
    making: Option<Making>,
    sight: Sight,
    /// Knows how the stream ends early, where it may have to.
    shortener: Option<Shortener>,
    out: Vec<Bytes>,
    /// The shortener has seen what is gathered.
    followed: bool,
    /// What came right behind the pieces that are being written.
    ahead: Option<Step>,
    /// Since when the client is gone.
    gone: Option<Instant>,
    drained_bytes: u64,
    /// How much of the body is still to come, where its head says how long it is.
    left: Option<u64>,
}

/// Relays `answer` and settles `in_flight`, whatever becomes of the client.
pub(super) async fn relay(
    gate: &Gate,
    session: &mut ServerSession,
    asked: &Asked<'_>,
    meters: Meters,
    answer: Answer,
) -> Fate {
    let (mut in_flight, watch) = match meters {
        Meters::Call(in_flight) => (Some(in_flight), None),
        Meters::Later(watch) => (None, Some(watch)),
        Meters::Nobody => (None, None),
    };
    let Answer { head, mut body } = answer;
    let settings = &asked.live.settings;
    body.end_by(Instant::now() + settings.stream_timeout);
    let status = head.status.as_u16();
    let sight = sight(&head);
    let takes_out = matches!(sight, Sight::Plain)
        && is_event_stream(&head)
        && in_flight.as_ref().is_some_and(InFlight::takes_out_usage);
    if let Some(in_flight) = &mut in_flight {
        let text = |name: header::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        in_flight.head(status, text(header::CONTENT_TYPE), text(headers::REQUEST_ID));
    }
    let drain = Drain::of(settings, in_flight.as_ref());
    let (gone, left) = (None, body_length(asked, &head));
    let is_shown = matches!(sight, Sight::Plain) && is_event_stream(&head) && left.is_none();
    let shortener = in_flight.as_ref().filter(|_| is_shown).and_then(InFlight::shortener);
    let out = Vec::new();
    let taken = client_of(session).map(ClientStream::taken_bytes);
    // Pingora's limit is one for a whole write, however much of it is taken.
    session.set_write_timeout(None);
    // What something is taken out of goes on without its length.
    let ends_by_close = taken.is_some() && (left.is_none() || takes_out) && !asked.chunks;
    if ends_by_close {
        session.set_keepalive(None);
    }
    let mut relay = Relay {
        gate,
        session,
        pace: Pace::new(settings.write_timeout, settings.rate_min),
        taken,
        ends_by_close,
        in_flight,
        watch,
        making: Making::of(gate, asked, &head),
        sight,
        shortener,
        out,
        followed: false,
        ahead: None,
        gone,
        drained_bytes: 0,
        left,
    };
    relay.break_off_by_reset(true);
    // The head may be all of it.
    relay.settle_if_complete().await;
    match client_head(gate, asked, &head, !takes_out) {
        Some(client_head) => relay.write_head(client_head).await,
        None => relay.gone = Some(Instant::now()),
    }
    relay.run(body, drain).await
}

/// How far a provider is read on for the meter alone.
#[derive(Clone, Copy)]
struct Drain {
    time: Duration,
    bytes: u64,
}

impl Drain {
    fn of(settings: &Settings, in_flight: Option<&InFlight>) -> Self {
        match in_flight {
            None => Self { time: Duration::ZERO, bytes: 0 },
            Some(call) if call.is_stream() => Self { time: settings.drain_timeout, bytes: settings.drain_bytes },
            Some(_) => Self { time: settings.first_byte_timeout, bytes: settings.drain_bytes },
        }
    }
}

impl Relay<'_> {
    async fn run(mut self, mut body: AnswerBody, drain: Drain) -> Fate {
        loop {
            let step = match self.ahead.take() {
                Some(step) => step,
                None => self.gather(&mut body, drain).await,
            };
            match step {
                Step::Pieces => {
                    self.settle_if_complete().await;
                    if self.left == Some(0) || self.in_flight.is_none() {
                        self.noted().await;
                    }
                    if self.is_used_up().await
                        && let Some(last) = self.shortened()
                    {
                        // The provider is stopped first, as above.
                        drop(body);
                        return self.end_short(last).await;
                    }
                    self.write().await;
                }
                Step::End => return self.end(body.take_trailers()).await,
                Step::Cut(cut) => return self.cut(cut).await,
                Step::Capped => {
                    // The provider is stopped before anything is counted: it is read, and paid, no further.
                    drop(body);
                    self.settle_with(Ending::DrainCapped).await;
                    return Fate::Close;
                }
            }
            if self.gone.is_some() && self.in_flight.is_none() {
                return Fate::Close;
            }
        }
    }

    /// Waits for the next piece and takes with it what is there already.
    async fn gather(&mut self, body: &mut AnswerBody, drain: Drain) -> Step {
        let first = match self.gone {
            None => body.next().await,
            Some(_) if self.drained_bytes > drain.bytes => return Step::Capped,
            Some(since) => match timeout_at(since + drain.time, body.next()).await {
                Ok(piece) => piece,
                Err(_) => return Step::Capped,
            },
        };
        let mut bytes = match self.take(first) {
            Ok(bytes) => bytes,
            Err(step) => return step,
        };
        while bytes < GATHER_BYTES_MAX {
            let Some(piece) = body.try_next().await else { break };
            match self.take(piece) {
                Ok(more) => bytes += more,
                // Met once: what came before it is written first.
                Err(step) => {
                    self.ahead = Some(step);
                    break;
                }
            }
        }
        Step::Pieces
    }

    /// Shows a piece to the meter and puts what the client is to get of it into `out`. Gives its size.
    fn take(&mut self, piece: Result<Option<Bytes>, Cut>) -> Result<usize, Step> {
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => return Err(Step::End),
            Err(cut) => return Err(Step::Cut(cut)),
        };
        let bytes = piece.len();
        let length = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.left = self.left.map(|left| left.saturating_sub(length));
        if self.gone.is_some() {
            self.drained_bytes = self.drained_bytes.saturating_add(length);
        }
        let Self { in_flight, watch, making, sight, out, .. } = self;
        let mut look_beside = |decoded: &[u8]| {
            if let Some(watch) = watch {
                watch.look(decoded);
            }
            if let Some(making) = making {
                making.look(decoded);
            }
        };
        match (in_flight, sight) {
            (in_flight, Sight::Plain) => {
                look_beside(&piece);
                match in_flight {
                    Some(in_flight) => in_flight.pass(piece, out),
                    None => out.push(piece),
                }
            }
            (in_flight, Sight::Coded(inflate)) => {
                inflate.feed(&piece, |inflated| {
                    look_beside(inflated);
                    if let Some(in_flight) = in_flight {
                        in_flight.look(inflated);
                    }
                });
                out.push(piece);
            }
            (_, Sight::Blind) => out.push(piece),
        }
        Ok(bytes)
    }

    /// Whether the answer is longer than what its call holds, and nothing is left for more.
    async fn is_used_up(&mut self) -> bool {
        if self.shortener.is_none() || self.gone.is_some() {
            return false;
        }
        match &mut self.in_flight {
            Some(in_flight) if in_flight.is_over_hold() => !in_flight.may_go_on().await,
            _ => false,
        }
    }

    /// The last bytes of the provider's in a stream that ends here; `None`, and all stays as it was, where no event ends in what is gathered.
    fn shortened(&mut self) -> Option<BytesMut> {
        let was_between = self.shortener.as_ref()?.is_between_events();
        let gathered = join(&mut self.out);
        let shortener = self.shortener.as_mut()?;
        let whole = shortener.follow(&gathered);
        if whole == 0 && !was_between {
            // It was followed already, so it must not be followed again when it is written.
            self.out.push(gathered);
            self.followed = true;
            return None;
        }
        gathered.get(..whole).map(BytesMut::from)
    }

    /// The end of a stream that is used up: booked before its last bytes go out, as every answer.
    async fn end_short(mut self, mut last: BytesMut) -> Fate {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.cut();
        }
        let booked = self.settle_with(Ending::DrainCapped).await;
        if let Some(shortener) = self.shortener.take() {
            last.extend_from_slice(&shortener.ending(&booked));
        }
        // What is gathered and held back of the provider's is behind the end.
        self.out = vec![last.freeze()];
        self.write().await;
        self.is_over()
    }

    /// The answer came to its end.
    fn is_over(&self) -> Fate {
        if self.gone.is_some() {
            return Fate::Close;
        }
        self.break_off_by_reset(false);
        Fate::Reuse
    }

    fn break_off_by_reset(&self, resets: bool) {
        if let Some(client) = client_of(self.session).filter(|_| self.ends_by_close) {
            client.break_off_by_reset(resets);
        }
    }

    /// A complete answer is booked before its last bytes go out: a client that has them has paid. What is no answer of a
    /// model, such as an error, does not say where it ends; its length does.
    async fn settle_if_complete(&mut self) {
        if self.left == Some(0) || self.in_flight.as_ref().is_some_and(InFlight::is_complete) {
            self.settle_whole().await;
        }
    }

    /// A client may have left while everything still fitted into its socket: no write failed then.
    async fn settle_whole(&mut self) {
        if self.in_flight.is_some() {
            let client_left = self.gone.is_some() || has_left(self.session).await;
            self.settle_with(if client_left { Ending::ClientLeft } else { Ending::Whole }).await;
        }
    }

    /// Whoever has the whole answer may use what it made, on any node.
    async fn noted(&mut self) {
        if let Some(making) = &mut self.making {
            making.noted().await;
        }
    }

    /// Gives the tokens that are booked; none where nobody pays.
    async fn settle_with(&mut self, ending: Ending) -> Tokens {
        // What the reader holds back is the client's, and only the reader has it.
        let Some(mut in_flight) = self.in_flight.take() else { return Tokens::default() };
        in_flight.flush(&mut self.out);
        in_flight.settle(ending).await
    }

    /// Trailers go on in HTTP/2 alone: pingora writes none in HTTP/1.1, where whoever passes a message on may drop them.
    async fn end(mut self, trailers: Option<HeaderMap>) -> Fate {
        self.settle_whole().await;
        self.noted().await;
        self.write().await;
        let trailers = trailers.filter(|_| self.session.is_http2() && self.gone.is_none());
        if let Some(trailers) = trailers.map(headers::trailers_to_client).filter(|trailers| !trailers.is_empty()) {
            let written = fast_timeout(self.pace.wait_max(0), self.session.write_response_trailers(trailers)).await;
            self.took(written.ok());
        }
        self.is_over()
    }

    /// The client gets what came and sees the break: its answer must not look complete.
    async fn cut(mut self, cut: Cut) -> Fate {
        let ending = match cut {
            Cut::BrokeOff => Ending::BrokeOff,
            Cut::TimedOut => Ending::TimedOut,
            Cut::TookTooLong => {
                self.gate.meter.cut(Bound::StreamTime);
                Ending::TimedOut
            }
        };
        self.settle_with(ending).await;
        self.write().await;
        Fate::Close
    }

    async fn write_head(&mut self, head: ResponseHeader) {
        // What an answer before it left in the way may have to be taken first.
        let written = fast_timeout(self.pace.wait_max(0), self.session.write_response_header(Box::new(head))).await;
        self.took(written.ok());
    }

    /// Writes what is gathered. A failure only means that nobody listens any more: the provider is read on.
    async fn write(&mut self) {
        let mut bytes = join(&mut self.out);
        if let Some(shortener) = self.shortener.as_mut().filter(|_| !std::mem::take(&mut self.followed)) {
            shortener.follow(&bytes);
        }
        if self.taken.is_some() {
            return self.write_piece(bytes).await;
        }
        // What a client of HTTP/2 takes is seen when all of a piece is taken.
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.pace.piece_max()));
            self.write_piece(piece).await;
        }
    }

    async fn write_piece(&mut self, bytes: Bytes) {
        if self.gone.is_some() || bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let written = {
            let Self { session, pace, taken, .. } = self;
            let moved = || taken.as_ref().map_or(0, |taken| taken.load(Ordering::Relaxed));
            let before = moved();
            let mut write = pin!(session.write_response_body(bytes, false));
            match poll!(write.as_mut()) {
                // Mostly: no clock is read then.
                Poll::Ready(written) => {
                    pace.waited(Duration::ZERO, length);
                    Some(written)
                }
                Poll::Pending if taken.is_some() => {
                    let at_once = moved().wrapping_sub(before);
                    pace.waited(Duration::ZERO, usize::try_from(at_once).unwrap_or(usize::MAX));
                    pace.keep_up(moved, write).await
                }
                Poll::Pending => {
                    let began = Instant::now();
                    let written = fast_timeout(pace.wait_max(length), write).await.ok();
                    pace.waited(began.elapsed(), length);
                    written
                }
            }
        };
        self.took(written);
    }

    /// A client that did not take what was written counts as gone. `None`: not in time.
    fn took(&mut self, written: Option<pingora_core::Result<()>>) {
        let is_late = match &written {
            Some(Ok(())) => return,
            Some(Err(error)) => *error.etype() == ErrorType::WriteTimedout,
            None => true,
        };
        if is_late {
            self.gate.meter.cut(Bound::AnswerPace);
        }
        self.gone = Some(Instant::now());
    }
}

async fn has_left(session: &mut ServerSession) -> bool {
    if let Some(mut reset) = session.watch_h2_stream_close() {
        return poll_fn(|cx| Poll::Ready(Pin::new(&mut reset).poll(cx).is_ready())).await;
    }
    match client_of(session) {
        Some(client) => client.has_left().await,
        None => false,
    }
}

/// The connection of a client that speaks HTTP/1: nobody else's answer is on it.
fn client_of(session: &ServerSession) -> Option<&ClientStream> {
    session.stream().and_then(|stream| stream.as_any().downcast_ref::<ClientStream>())
}

enum Step {
    Pieces,
    End,
    Cut(Cut),
    Capped,
}

/// All pieces as one: a single piece is not copied.
fn join(out: &mut Vec<Bytes>) -> Bytes {
    match out.len() {
        0 => Bytes::new(),
        1 => out.pop().unwrap_or_default(),
        _ => {
            let mut all = BytesMut::with_capacity(out.iter().map(Bytes::len).sum());
            for piece in out.drain(..) {
                all.extend_from_slice(&piece);
            }
            all.freeze()
        }
    }
}

/// The provider's head with our headers, framed for this client.
fn client_head(gate: &Gate, asked: &Asked<'_>, head: &response::Parts, keep_length: bool) -> Option<ResponseHeader> {
    // RFC 9110, 8.6: a 204 has none.
    let mut out = headers::to_client(head, keep_length && head.status != StatusCode::NO_CONTENT)?;
    let id = asked.id.as_deref().unwrap_or_default();
    headers::add_ours(&mut out, id, (&asked.limits, &asked.rates), gate.meter.now())?;
    if !is_bodyless(asked, head) && !out.headers.contains_key(header::CONTENT_LENGTH) && asked.chunks {
        out.insert_header(header::TRANSFER_ENCODING, "chunked").ok()?;
    }
    Some(out)
}

fn is_bodyless(asked: &Asked<'_>, head: &response::Parts) -> bool {
    matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || asked.method == http::Method::HEAD
}

/// The length of an answer's body, where its head tells it.
fn body_length(asked: &Asked<'_>, head: &response::Parts) -> Option<u64> {
    if is_bodyless(asked, head) {
        return Some(0);
    }
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn is_event_stream(head: &response::Parts) -> bool {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

fn sight(head: &response::Parts) -> Sight {
    let mut codings = head.headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    match (codings.next(), codings.next()) {
        (None, _) => Sight::Plain,
        (Some(coding), None) if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") => Sight::Plain,
        (Some(coding), None) => Inflate::of(coding).map_or(Sight::Blind, |inflate| Sight::Coded(Box::new(inflate))),
        (Some(_), Some(_)) => Sight::Blind,
    }
}
