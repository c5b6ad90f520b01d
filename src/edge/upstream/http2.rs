//! Connections of HTTP/2 to a provider, shared by the calls of a worker.
//!
//! Unlike one of HTTP/1.1, such a connection cannot be driven by the exchange that uses it, since others use it too: a task
//! of the same worker drives it. What the provider says it did not take up (a refused stream, a stream behind the last one
//! of a GOAWAY) was not sent, and is sent again; RFC 9113, 8.7, promises that nothing was done with it.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::{Attempt, Outgoing, Place, SendError, Socket, awaited};

/// Calls on one connection at once; more open another. Both providers allow as many.
const CALLS_MAX: usize = 100;

/// What of an answer may lie here unread: a client that reads slowly holds up its own stream.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// And of all answers together: no less, or slow clients would hold up the streams of others.
const CONNECTION_WINDOW_BYTES: u32 = 100 * STREAM_WINDOW_BYTES;

/// A connection with calls that says nothing is asked whether it is there, and dropped when it does not answer: all new
/// calls would go to it and wait.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection of HTTP/2, and how many calls it carries.
struct Shared {
    sender: SendRequest<Outgoing>,
    calls: Arc<AtomicUsize>,
    last_used: Instant,
}

/// What this worker knows of a place that may speak HTTP/2.
struct Known {
    place: Weak<Place>,
    connections: Vec<Shared>,
    /// Whether it does, once a handshake told.
    speaks: Option<bool>,
    /// Held by the one that connects: the others wait and share what it gets.
    turn: Arc<Mutex<()>>,
}

thread_local! {
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// A place on a connection.
pub(super) struct Shares {
    sender: SendRequest<Outgoing>,
    slot: Slot,
}

/// Counts one call of a connection for as long as it lives.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn with_known<T>(place: &Arc<Place>, work: impl FnOnce(&mut Known) -> T) -> Option<T> {
    KNOWN.with_borrow_mut(|all| {
        // A place that no configuration has any more: its connections end with their calls.
        all.retain(|known| known.place.strong_count() > 0);
        let is_it = |known: &Known| std::ptr::eq(known.place.as_ptr(), Arc::as_ptr(place));
        let at = all.iter().position(is_it).unwrap_or_else(|| {
            let place = Arc::downgrade(place);
            all.push(Known { place, connections: Vec::new(), speaks: None, turn: Arc::default() });
            all.len() - 1
        });
        all.get_mut(at).map(work)
    })
}

/// A place on a connection that is open. One that lay unused for `pooled` is closed instead.
pub(super) fn pick(place: &Arc<Place>, pooled: Duration) -> Option<Shares> {
    with_known(place, |known| {
        known.connections.retain(|shared| {
            let is_stale = shared.calls.load(Ordering::Relaxed) == 0 && shared.last_used.elapsed() >= pooled;
            !is_stale && !shared.sender.is_closed()
        });
        let has_room = |shared: &&mut Shared| shared.calls.load(Ordering::Relaxed) < CALLS_MAX;
        known.connections.iter_mut().find(has_room).map(share)
    })
    .flatten()
}

fn share(shared: &mut Shared) -> Shares {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    shared.last_used = Instant::now();
    Shares { sender: shared.sender.clone(), slot: Slot(shared.calls.clone()) }
}

/// Whose turn it is to connect. `None` where calls cannot share what they connect to.
pub(super) fn turn(place: &Arc<Place>) -> Option<Arc<Mutex<()>>> {
    with_known(place, |known| (known.speaks == Some(true)).then(|| known.turn.clone())).flatten()
}

/// Keeps in mind what a handshake told.
pub(super) fn told(place: &Arc<Place>, speaks: bool) {
    with_known(place, |known| known.speaks = Some(speaks));
}

/// Makes a connection over a socket on which HTTP/2 was agreed, has it driven and takes a place on it.
pub(super) async fn connect(place: &Arc<Place>, socket: Socket) -> io::Result<Shares> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "A connection to a provider ended.");
        }
    });
    let mut shared = Shared { sender, calls: Arc::default(), last_used: Instant::now() };
    let shares = share(&mut shared);
    with_known(place, |known| known.connections.push(shared));
    Ok(shares)
}

/// Sends a request that has the form of HTTP/1.1 and waits for the head of its answer.
pub(super) async fn exchange(
    place: &Arc<Place>,
    Shares { mut sender, slot }: Shares,
    request: Request<Outgoing>,
    first_byte: Duration,
) -> Result<(Response<Incoming>, Slot), Attempt> {
    let (mut head, body) = request.into_parts();
    let as_it_came = head.clone();
    // What streams is gone when it is known that it was not taken up.
    let kept = body.again();
    let unsent = |body| Err(Attempt::Unsent(Box::new(Request::from_parts(as_it_came, body))));
    let failed = || Attempt::Failed(SendError::Unreachable);
    head.uri = absolute(&head.uri, &head.headers).ok_or_else(failed)?;
    head.headers.remove(header::HOST);
    let moved = body.moved();
    let sent = std::pin::pin!(sender.try_send_request(Request::from_parts(head, body)));
    let error = match awaited(first_byte, moved, sent).await {
        Some(Ok(response)) => return Ok((response, slot)),
        Some(Err(mut error)) => {
            forget(place, &slot);
            if let Some(untouched) = error.take_message() {
                return unsent(untouched.into_body());
            }
            error.into_error()
        }
        None => return Err(Attempt::Failed(SendError::Timeout)),
    };
    match kept {
        Some(body) if was_not_taken_up(&error) => unsent(body),
        _ => Err(failed()),
    }
}

/// No further call goes to a connection on which one failed; those that are on it go on.
fn forget(place: &Arc<Place>, slot: &Slot) {
    with_known(place, |known| known.connections.retain(|shared| !Arc::ptr_eq(&shared.calls, &slot.0)));
}

fn absolute(target: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let authority = headers.get(header::HOST)?.to_str().ok()?;
    let path_and_query = target.path_and_query()?.as_str();
    Uri::builder().scheme("https").authority(authority).path_and_query(path_and_query).build().ok()
}

/// Whether the provider said so. It says of streams up to the last of its GOAWAY how they ended, so an error by GOAWAY is one
/// of a stream behind it.
fn was_not_taken_up(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (is_refused || error.is_go_away());
        }
        source = cause.source();
    }
    false
}
