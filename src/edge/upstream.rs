//! The only place that speaks HTTP to a provider: hyper's client, driven by the exchange that uses it.
//!
//! A connection belongs to one exchange at a time and lies in a pool of its worker thread between two. Its state machine
//! is polled by the exchange, so there is no task for each connection, no lock, and no wake-up across threads.
//! Retried is only what was not sent: hyper gives a request back untouched when its connection closed before it was
//! taken up, and anything later may have been charged.
//!
//! HTTP/2 is spoken where it is asked for and the provider agrees (`http2` below). It is off by default: calls of many
//! tenants then share a connection, and what breaks it, or one lost packet, meets them all, each of which is charged. It
//! saves handshakes where calls come in bursts.

mod http2;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pingora_timeout::fast_timeout::fast_timeout;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::client::TlsStream;

mod connect;
mod switched;

pub use connect::Failures;
pub use switched::{Opened, Switched};

/// The most that hyper buffers of one connection, and so the longest head it takes: a provider's may have many cookies.
/// The buffer begins at 8 KB and grows only while reads fill it, which the events of a stream do not.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// An unsent request meets a connection that just closed at most this often before a fresh one is made.
const STALE_CONNECTIONS_MAX: usize = 8;

/// Interim answers before the one that counts: more than one every three seconds of the longest usual wait. Each is read to be
/// thrown away, so without an end they would be work without an end.
const INTERIM_ANSWERS_MAX: u32 = 256;

/// Limits of time and number for one provider.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For DNS, TCP and TLS together.
    pub connect: Duration,
    /// To the head of the answer, from the first byte of the request or the last one of it that moved.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// An idle connection is not used again after this; providers close theirs after about a minute.
    pub pooled: Duration,
    /// Idle connections for each worker.
    pub idle_connections_max: usize,
}

/// One provider's origin.
pub struct Upstream {
    /// Where it is.
    pub place: Arc<Place>,
    /// Its limits.
    pub limits: Limits,
}

/// Where an origin is. Each value has a pool of connections of its own, so an unchanged place is to be kept, not remade.
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The `Host` header.
    pub authority: HeaderValue,
    /// TLS with the roots to verify by; `None` for plain HTTP.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Whether HTTP/2 is asked for in the handshake.
    pub http2: bool,
    /// Stands for the roots: a place that is verified by others is another one.
    pub trust: [u8; 32],
    /// What the log was told of connections that could not be made.
    pub failures: Failures,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// No connection, or it broke before the head.
    Unreachable,
    /// No head in time.
    Timeout,
}

/// Why an answer that has begun does not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The provider broke off, by FIN or RST.
    BrokeOff,
    /// No further piece in time.
    TimedOut,
    /// It lasted longer than an answer may.
    TookTooLong,
}

/// The body of a request to a provider.
pub enum Outgoing {
    /// All of it.
    Whole(Option<Bytes>),
    /// All of it, in parts.
    Parts(VecDeque<Bytes>),
    /// Piece by piece.
    Streamed {
        /// The first piece, where that is known already.
        begin: Option<Bytes>,
        /// Where the others come from.
        pieces: mpsc::Receiver<Piece>,
        /// How much is still to come, in bytes; `None` when the client did not say.
        left: Option<u64>,
        /// When bytes of it went out.
        moved: Arc<Moved>,
    },
}

/// When a body last moved.
#[derive(Debug)]
pub struct Moved {
    began: Instant,
    last_ms: AtomicU64,
}

impl Default for Moved {
    fn default() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Moved {
    fn now(&self) {
        self.last_ms.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// A part of a body that streams. Without an end after the last it has broken off.
pub enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// Nothing follows.
    End,
}

impl Outgoing {
    /// The same again, which what streams cannot be.
    fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Parts(parts) => Some(Self::Parts(parts.clone())),
            Self::Streamed { .. } => None,
        }
    }

    fn moved(&self) -> Option<Arc<Moved>> {
        match self {
            Self::Whole(_) | Self::Parts(_) => None,
            Self::Streamed { moved, .. } => Some(moved.clone()),
        }
    }
}

fn count(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Waits for the head of an answer for at most `first_byte`, counted anew from each byte of the body that moves to the
/// provider. How slow a client may be and how long its body may take is the edge's to say, and it does.
async fn awaited<T>(
    first_byte: Duration,
    moved: Option<Arc<Moved>>,
    mut head: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut left = first_byte;
    loop {
        if let Ok(head) = fast_timeout(left, head.as_mut()).await {
            return Some(head);
        }
        left = first_byte.saturating_sub(moved.as_ref()?.last().elapsed());
        if left.is_zero() {
            return None;
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Parts(parts) => Poll::Ready(parts.pop_front().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { left: Some(0), .. } => Poll::Ready(None),
            Self::Streamed { begin, pieces, left, moved } => match begin.take() {
                Some(bytes) => Poll::Ready(Some(Piece::Bytes(bytes))),
                None => pieces.poll_recv(cx),
            }
            .map(|piece| match (piece, &mut *left) {
                (Some(Piece::Bytes(bytes)), left) => {
                    let length = count(&bytes);
                    *left = left.map(|left| left.saturating_sub(length));
                    moved.now();
                    Some(Ok(Frame::data(bytes)))
                }
                (Some(Piece::End), None) => {
                    *left = Some(0);
                    None
                }
                // The client broke off: the request must not look complete.
                (Some(Piece::End) | None, _) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Parts(parts) => parts.is_empty(),
            _ => matches!(self, Self::Whole(None) | Self::Streamed { left: Some(0), .. }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match self {
            Self::Whole(bytes) => Some(bytes.as_ref().map_or(0, count)),
            Self::Parts(parts) => Some(parts.iter().map(count).sum()),
            Self::Streamed { left, .. } => *left,
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer that has begun.
pub struct Answer {
    /// Status and headers.
    pub head: response::Parts,
    /// What follows.
    pub body: AnswerBody,
}

/// The rest of an answer. Dropping it before its end closes the connection, which stops the provider.
pub struct AnswerBody {
    /// What drives it, if that is not a task of its own.
    connection: Option<Connection>,
    _slot: Option<http2::Slot>,
    incoming: Incoming,
    place: Arc<Place>,
    idle_connections_max: usize,
    idle: Duration,
    last_piece: Instant,
    /// When it is cut, whatever still comes.
    until: Option<Instant>,
    /// What follows the last piece, where there is anything.
    trailers: Option<HeaderMap>,
    /// Made when a piece is waited for: a plain answer is mostly there with its head.
    alarm: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

struct Connection {
    sender: SendRequest<Outgoing>,
    /// Interim answers to the request that it is on.
    interim: Arc<AtomicU32>,
    driver: Pin<Box<http1::Connection<TokioIo<Socket>, Outgoing>>>,
    closed: bool,
    idle_since: Instant,
}

type Socket = super::socket::Socket<TlsStream<TcpStream>>;

/// Idle connections to one place, the freshest last.
struct Pool {
    place: Weak<Place>,
    idle: VecDeque<Connection>,
}

thread_local! {
    /// This worker's pools: one for each place that is in use, so three at most and those that a reload just ended.
    static POOLS: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
}

/// A connection that was just made.
enum Fresh {
    Own(Connection),
    Shared(http2::Shares),
}

impl Upstream {
    /// Sends a request and waits for the head of its answer. `sending` is called just before the first byte may go out.
    pub async fn send(&self, mut request: Request<Outgoing>, mut sending: impl FnMut()) -> Result<Answer, SendError> {
        for _ in 0..STALE_CONNECTIONS_MAX {
            let Some(fresh) = self.shared().or_else(|| self.pooled().map(Fresh::Own)) else { break };
            sending();
            match self.exchange(fresh, request).await {
                Ok(answer) => return not_switched(answer),
                Err(Attempt::Unsent(back)) => request = *back,
                Err(Attempt::Failed(error)) => return Err(error),
            }
        }
        let fresh = self.in_time(self.connect_in_turn()).await?;
        sending();
        match self.exchange(fresh, request).await {
            Ok(answer) => not_switched(answer),
            Err(Attempt::Unsent(_)) => Err(SendError::Unreachable),
            Err(Attempt::Failed(error)) => Err(error),
        }
    }

    fn pooled(&self) -> Option<Connection> {
        POOLS.with_borrow_mut(|pools| {
            // A place that no configuration has any more: its connections are closed.
            pools.retain(|pool| pool.place.strong_count() > 0);
            let pool = pools.iter_mut().find(|pool| pool.is_of(&self.place))?;
            while let Some(connection) = pool.idle.pop_back() {
                if connection.idle_since.elapsed() < self.limits.pooled {
                    return Some(connection);
                }
            }
            None
        })
    }

    fn shared(&self) -> Option<Fresh> {
        self.place.http2.then(|| http2::pick(&self.place, self.limits.pooled)).flatten().map(Fresh::Shared)
    }

    async fn exchange(&self, fresh: Fresh, mut request: Request<Outgoing>) -> Result<Answer, Attempt> {
        let mut connection = match fresh {
            Fresh::Own(connection) => connection,
            Fresh::Shared(shares) => {
                // Boxed: the exchange over a connection of its own need not have room for it.
                let exchange = Box::pin(http2::exchange(&self.place, shares, request, self.limits.first_byte));
                let (response, slot) = exchange.await?;
                return Ok(self.answer(None, Some(slot), response));
            }
        };
        let moved = request.body().moved();
        if !connection.is_ready().await {
            return Err(Attempt::Unsent(Box::new(request)));
        }
        let response = {
            let Connection { sender, interim, driver, closed, .. } = &mut connection;
            interim.store(0, Ordering::Relaxed);
            let counted = interim.clone();
            hyper::ext::on_informational(&mut request, move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let mut sent = std::pin::pin!(sender.try_send_request(request));
            let drive = poll_fn(|cx| {
                if let Poll::Ready(answer) = sent.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                if !*closed && driver.as_mut().poll(cx).is_ready() {
                    *closed = true;
                }
                match sent.as_mut().poll(cx) {
                    Poll::Pending if interim.load(Ordering::Relaxed) > INTERIM_ANSWERS_MAX => Poll::Ready(None),
                    answer => answer.map(Some),
                }
            });
            awaited(self.limits.first_byte, moved, std::pin::pin!(drive)).await
        };
        match response {
            Some(Some(Ok(response))) => Ok(self.answer(Some(connection), None, response)),
            // It answers nothing.
            Some(None) => Err(Attempt::Failed(SendError::Unreachable)),
            Some(Some(Err(mut error))) => Err(match error.take_message() {
                Some(request) => Attempt::Unsent(Box::new(request)),
                None => Attempt::Failed(SendError::Unreachable),
            }),
            None => Err(Attempt::Failed(SendError::Timeout)),
        }
    }

    fn answer(
        &self,
        connection: Option<Connection>,
        slot: Option<http2::Slot>,
        response: Response<Incoming>,
    ) -> Answer {
        let (mut head, incoming) = response.into_parts();
        tell_one_length(&mut head.headers, &incoming);
        let body = AnswerBody {
            connection,
            _slot: slot,
            incoming,
            place: self.place.clone(),
            idle_connections_max: self.limits.idle_connections_max,
            idle: self.limits.idle,
            last_piece: Instant::now(),
            until: None,
            trailers: None,
            alarm: None,
            ended: false,
        };
        Answer { head, body }
    }
}

/// Of two framings or lengths hyper reads by one, and so does everybody from here on: chunks before a length (RFC 9112,
/// 6.3), and of equal lengths one.
fn tell_one_length(headers: &mut HeaderMap, incoming: &Incoming) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_one = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(_), Some(_)) => false,
    };
    if !is_one {
        match incoming.size_hint().exact() {
            Some(length) => headers.insert(header::CONTENT_LENGTH, length.into()),
            None => headers.remove(header::CONTENT_LENGTH),
        };
    }
}

/// A connection of one exchange at a time.
async fn own(socket: Socket) -> io::Result<Connection> {
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    let (driver, idle_since) = (Box::pin(driver), Instant::now());
    Ok(Connection { sender, interim: Arc::default(), driver, closed: false, idle_since })
}

/// Nobody asked for another protocol, so one who switches to it answers nothing that anybody can read.
fn not_switched(answer: Answer) -> Result<Answer, SendError> {
    if answer.head.status == StatusCode::SWITCHING_PROTOCOLS { Err(SendError::Unreachable) } else { Ok(answer) }
}

enum Attempt {
    /// Nothing of it went out.
    Unsent(Box<Request<Outgoing>>),
    /// It may have been seen.
    Failed(SendError),
}

impl Pool {
    fn is_of(&self, place: &Arc<Place>) -> bool {
        std::ptr::eq(self.place.as_ptr(), Arc::as_ptr(place))
    }
}

impl Connection {
    /// Looks once whether the provider closed it while it was idle.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.closed = self.closed || self.driver.as_mut().poll(cx).is_ready();
            Poll::Ready(())
        })
        .await;
        !self.closed && self.sender.is_ready()
    }
}

impl AnswerBody {
    /// The next piece, as the provider cut it; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next piece if it is there already.
    pub async fn try_next(&mut self) -> Option<Result<Option<Bytes>, Cut>> {
        poll_fn(|cx| Poll::Ready(self.poll_piece(cx))).await
    }

    /// The trailers, at the end.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Whatever still comes, it is cut then.
    pub fn end_by(&mut self, until: Instant) {
        self.until = Some(until);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        if self.until.is_some_and(|until| until <= self.last_piece) && !self.ended {
            return Poll::Ready(Err(Cut::TookTooLong));
        }
        if let Some(piece) = self.poll_piece(cx) {
            // The clock is read for each piece, the timer is set anew only when it rings: a timer for each event of
            // a stream cost more than reading it.
            self.last_piece = Instant::now();
            return Poll::Ready(piece);
        }
        let silent = self.last_piece + self.idle;
        let (due, cut) = match self.until {
            Some(until) if until < silent => (until, Cut::TookTooLong),
            _ => (silent, Cut::TimedOut),
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while alarm.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(Err(cut));
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Option<Result<Option<Bytes>, Cut>> {
        loop {
            if self.ended {
                return Some(Ok(None));
            }
            let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
            if frame.is_pending() {
                self.drive(cx);
                frame = Pin::new(&mut self.incoming).poll_frame(cx);
            }
            match frame {
                Poll::Pending => return None,
                Poll::Ready(None) => {
                    self.ended = true;
                    self.give_back();
                }
                Poll::Ready(Some(Err(_))) => return Some(Err(Cut::BrokeOff)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Some(Ok(Some(piece))),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.closed = connection.closed || connection.driver.as_mut().poll(cx).is_ready();
        }
    }

    /// Puts the connection into this worker's pool, in the place of the stalest when it is full.
    fn give_back(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|connection| !connection.closed) else { return };
        connection.idle_since = Instant::now();
        POOLS.with_borrow_mut(|pools| {
            let at = pools.iter().position(|pool| pool.is_of(&self.place)).unwrap_or_else(|| {
                pools.push(Pool { place: Arc::downgrade(&self.place), idle: VecDeque::new() });
                pools.len() - 1
            });
            if let Some(pool) = pools.get_mut(at) {
                pool.idle.push_back(connection);
                if pool.idle.len() > self.idle_connections_max {
                    pool.idle.pop_front();
                }
            }
        });
    }
}
