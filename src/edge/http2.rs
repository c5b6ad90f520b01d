//! One client connection of HTTP/2: its calls are each a call like any other, on the same line.
//!
//! pingora's session and the codec below it refuse what is malformed, bound heads, windows and resets, and keep at most
//! `listen.http2_streams` open. What a client resets is no longer one of those, but its call goes on, as that of any
//! client that leaves: so the calls are counted here, and one too many is refused unseen. A client that opens and resets
//! without end has then no more calls at the providers than one that behaves.
//!
//! What comes too often is told to go, with the reason ENHANCE_YOUR_CALM: requests in error (`listen.http2_resets`: what the
//! codec itself has to reset, too), and frames that ask for nothing (`tally`). One too many is no error: its client is within
//! what it was allowed, and cannot see which of the calls that it took back still have a place. Where there are too many of
//! those, it is asked to make another connection, on which there is room, and its streams on this one go on to their ends.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::Connection;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, Stream};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::domain::bound::Bound;

use super::answer;
use super::client_stream::{ClientStream, GOODBYE};
use super::exchange::{Fate, Gate, Live, Peer, Settings};
use super::hygiene;
use super::listener::Phase;
use super::tally::Purse;

/// So many bytes of a request body may be on their way before anybody reads them. All streams of a connection together have as
/// much: were it less, a few uploads that a provider does not take would hold up the bodies of all other calls.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// RFC 9113, 6.9.1.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// So many requests in error are forgotten each second.
const ERRORS_PER_SECOND: u64 = 1;

/// And so many that were one too many: a client tries them again, and each costs little.
const REFUSED_PER_SECOND: u64 = 50;

/// So many streams at least that were reset here are remembered for what was on its way on them, as by default.
const REMEMBERED_MIN: usize = 50;

/// So much of an answer waits for a client at most; beyond it the provider is read no further.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// RFC 9113, 7: nothing was done, so that the client may ask again.
const REFUSED_STREAM: u32 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Serves a connection whose client speaks HTTP/2, to its end and that of its calls.
pub(super) async fn serve(
    gate: &Arc<Gate>,
    mut client: Box<ClientStream>,
    peer: Peer,
    phase: &mut watch::Receiver<Phase>,
) {
    let live = gate.live.load_full();
    let flooded = client.watch_frames();
    let options = options(&live.settings);
    let greeting = fast_timeout(live.settings.header_timeout, handshake(client as Stream, Some(options)));
    let wire = tokio::select! {
        biased;
        greeted = greeting => match greeted {
            Ok(Ok(wire)) => wire,
            Ok(Err(_)) => return,
            Err(_) => return gate.meter.cut(Bound::HeadTime),
        },
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
    };
    Served::new(gate, peer, wire, &live.settings).run(phase, &flooded).await;
}

/// What a client was told about its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing.
    Nothing,
    /// To open no more streams on it.
    ToLeave,
    /// That it is over.
    Off,
}

/// A connection and its calls.
struct Served<'a> {
    gate: &'a Arc<Gate>,
    peer: Peer,
    wire: Connection<Stream, Bytes>,
    calls: JoinSet<()>,
    calls_max: u32,
    /// Requests that may be in error, and such as may find no place.
    errors: Purse,
    refused: Purse,
    told: Told,
    /// How long there may be no call.
    idle_until: Instant,
}

impl<'a> Served<'a> {
    fn new(gate: &'a Arc<Gate>, peer: Peer, wire: Connection<Stream, Bytes>, settings: &Settings) -> Self {
        let (now, errors_max) = (Instant::now(), u64::try_from(settings.http2_resets).unwrap_or(u64::MAX));
        // As many as may be on their way when it hears that it has to go.
        let refused_max = errors_max.max(settings.http2_streams.into());
        Self {
            gate,
            peer,
            wire,
            calls: JoinSet::new(),
            calls_max: settings.http2_streams,
            errors: Purse::new(errors_max, ERRORS_PER_SECOND, now),
            refused: Purse::new(refused_max, REFUSED_PER_SECOND, now),
            told: Told::Nothing,
            // The first request has as long as a head.
            idle_until: now + settings.keepalive_timeout.max(settings.header_timeout),
        }
    }

    async fn run(mut self, phase: &mut watch::Receiver<Phase>, flooded: &Notify) {
        let digest = Arc::<Digest>::default();
        loop {
            tokio::select! {
                accepted = HttpSession::from_h2_conn(&mut self.wire, digest.clone()) => match accepted {
                    Ok(Some(H2Accept::Session(session))) => self.accept(session),
                    Ok(Some(H2Accept::Rejected)) => {
                        if !self.errors.pay(1, Instant::now()) {
                            self.turn_out(Bound::Http2Resets);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => break self.broke(&error),
                },
                // A panic ended one call, which was settled by its guard.
                Some(_ended) = self.calls.join_next() => {
                    let settings = self.gate.live.load().settings;
                    let may_idle = self.told == Told::Nothing;
                    let idle = if may_idle { settings.keepalive_timeout } else { settings.write_timeout };
                    self.idle_until = Instant::now() + idle;
                }
                _ = phase.wait_for(|phase| *phase != Phase::Running), if self.told == Told::Nothing => self.bid_leave(),
                () = flooded.notified() => self.turn_out(Bound::Http2Frames),
                // The last bytes of an answer may lie here when its call is over.
                () = sleep_until(self.idle_until), if self.calls.is_empty() => {
                    if self.told != Told::Nothing {
                        break;
                    }
                    self.gate.meter.cut(Bound::Idle);
                    self.bid_leave();
                }
            }
        }
        let Self { wire, mut calls, .. } = self;
        drop(wire);
        // Whose client is gone goes on to its usage, on the drain's terms.
        while calls.join_next().await.is_some() {}
    }

    fn accept(&mut self, mut session: HttpSession) {
        // A client may know of the end of a call before this does.
        while self.calls.try_join_next().is_some() {}
        if u32::try_from(self.calls.len()).is_ok_and(|calls| calls < self.calls_max) {
            self.calls.spawn(call(self.gate.clone(), ServerSession::new_http2(session), self.peer));
            return;
        }
        session.shutdown_with_reason(REFUSED_STREAM.into());
        if self.refused.pay(1, Instant::now()) {
            return;
        }
        if self.told == Told::Nothing {
            self.gate.meter.cut(Bound::Http2Resets);
            self.bid_leave();
            self.refused.fill();
        } else {
            self.turn_out(Bound::Http2Resets);
        }
    }

    /// Asks the client to open no more streams here; those that it has go on.
    fn bid_leave(&mut self) {
        self.told = Told::ToLeave;
        self.wire.graceful_shutdown();
        self.idle_until = Instant::now() + GOODBYE;
    }

    /// Tells a client to go that does too much; it has a while to hear that.
    fn turn_out(&mut self, bound: Bound) {
        if self.told == Told::Off {
            return;
        }
        self.told = Told::Off;
        self.gate.meter.cut(bound);
        self.wire.abrupt_shutdown(ENHANCE_YOUR_CALM.into());
        self.idle_until = Instant::now() + GOODBYE;
    }

    /// The connection is over. Where the codec itself told its client to go, as too much of it was in error, that counts.
    fn broke(&self, error: &pingora_core::Error) {
        let cause = error.cause.as_deref().and_then(|cause| cause.downcast_ref::<h2::Error>());
        let is_calmed = |error: &h2::Error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        if self.told == Told::Nothing && cause.is_some_and(is_calmed) {
            self.gate.meter.cut(Bound::Http2Resets);
        }
    }
}

fn options(settings: &Settings) -> H2Options {
    let mut options = default_h2_options();
    let window = STREAM_WINDOW_BYTES.saturating_mul(settings.http2_streams).min(WINDOW_BYTES_MAX);
    let streams = usize::try_from(settings.http2_streams).unwrap_or(usize::MAX);
    options
        .max_header_list_size(u32::try_from(settings.head_limit).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.http2_streams)
        .max_local_error_reset_streams(Some(settings.http2_resets))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(window)
        .max_concurrent_reset_streams(streams.max(REMEMBERED_MIN))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
    options
}

async fn call(gate: Arc<Gate>, mut session: ServerSession, peer: Peer) {
    let live: Arc<Live> = gate.live.load_full();
    session.set_write_timeout(Some(live.settings.write_timeout));
    let head = session.req_header();
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if let Err(refusal) = hygiene::check_http2(&head.method, target, &head.headers, live.settings.heads()) {
        answer::reject_head(&gate, &mut session, &refusal).await;
        return;
    }
    // Dropped without its end, a stream is reset when what was written of it is sent: its client sees the break.
    if matches!(gate.serve(&mut session, &live, peer).await, Fate::Reuse) {
        session.finish().await.map(drop).unwrap_or_default();
    }
}
