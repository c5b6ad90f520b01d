//! One client connection of HTTP/2: its calls are each a call like any other, on the same line.
//!
//! pingora's session and the codec below it refuse what is malformed, bound heads, windows and resets, and keep at most
//! `listen.http2_streams` open. What a client resets is no longer one of those, but its call goes on, as that of any
//! client that leaves: so the calls are counted here, and one too many is refused unseen. A client that opens and resets
//! without end has then no more calls at the providers than one that behaves.
//!
//! What comes too often is told to go, with the reason ENHANCE_YOUR_CALM: requests in error (`listen.http2_resets`: what the
//! codec itself has to reset, too), and frames that ask for nothing (`tally`).

use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, Stream};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::domain::bound::Bound;

use super::answer;
use super::client_stream::{ClientStream, GOODBYE};
use super::exchange::{Fate, Gate, Live, Peer, Settings};
use super::hygiene;
use super::listener::Phase;

/// So many bytes of a request body may be on their way before anybody reads them: of one stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

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
    let mut wire = tokio::select! {
        biased;
        greeted = greeting => match greeted {
            Ok(Ok(wire)) => wire,
            Ok(Err(_)) => return,
            Err(_) => return gate.meter.cut(Bound::HeadTime),
        },
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
    };
    let digest = Arc::<Digest>::default();
    let mut calls = JoinSet::new();
    let streams_max = usize::try_from(live.settings.http2_streams).unwrap_or(usize::MAX);
    let mut refused = 0;
    // The first request has as long as a head.
    let mut idle_until = Instant::now() + live.settings.keepalive_timeout.max(live.settings.header_timeout);
    let (mut ending, mut is_flooded) = (false, false);
    loop {
        tokio::select! {
            accepted = HttpSession::from_h2_conn(&mut wire, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(mut session))) => {
                    if calls.len() < streams_max {
                        calls.spawn(call(gate.clone(), ServerSession::new_http2(session), peer));
                    } else {
                        session.shutdown_with_reason(REFUSED_STREAM.into());
                        refused += 1;
                    }
                }
                Ok(Some(H2Accept::Rejected)) => refused += 1,
                Ok(None) => break,
                Err(error) => break broke(gate, ending, &error),
            },
            // A panic ended one call, which was settled by its guard.
            Some(_ended) = calls.join_next() => {
                let settings = gate.live.load().settings;
                idle_until = Instant::now() + if ending { settings.write_timeout } else { settings.keepalive_timeout };
            }
            _ = phase.wait_for(|phase| *phase != Phase::Running), if !ending => {
                ending = true;
                wire.graceful_shutdown();
                idle_until = Instant::now() + GOODBYE;
            }
            () = flooded.notified(), if !is_flooded => {
                (is_flooded, ending) = (true, true);
                idle_until = turn_out(gate, &mut wire, Bound::Http2Frames);
            }
            // The last bytes of an answer may lie here when its call is over.
            () = sleep_until(idle_until), if calls.is_empty() => {
                if ending {
                    break;
                }
                gate.meter.cut(Bound::Idle);
                ending = true;
                wire.graceful_shutdown();
                idle_until = Instant::now() + GOODBYE;
            }
        }
        if refused >= live.settings.http2_resets && !ending {
            ending = true;
            idle_until = turn_out(gate, &mut wire, Bound::Http2Resets);
        }
    }
    drop(wire);
    // Whose client is gone goes on to its usage, on the drain's terms.
    while calls.join_next().await.is_some() {}
}

/// Tells a client to go that does too much; gives until when it may hear that.
fn turn_out(gate: &Gate, wire: &mut h2::server::Connection<Stream, Bytes>, bound: Bound) -> Instant {
    gate.meter.cut(bound);
    wire.abrupt_shutdown(ENHANCE_YOUR_CALM.into());
    Instant::now() + GOODBYE
}

/// The connection is over. Where the codec itself told its client to go, as too much of it was in error, that counts.
fn broke(gate: &Gate, ending: bool, error: &pingora_core::Error) {
    let cause = error.cause.as_deref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_calmed = |error: &h2::Error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    if !ending && cause.is_some_and(is_calmed) {
        gate.meter.cut(Bound::Http2Resets);
    }
}

fn options(settings: &Settings) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(settings.head_limit).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.http2_streams)
        .max_local_error_reset_streams(Some(settings.http2_resets))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
    options
}

async fn call(gate: Arc<Gate>, mut session: ServerSession, peer: Peer) {
    let live: Arc<Live> = gate.live.load_full();
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
