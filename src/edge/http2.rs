//! One client connection of HTTP/2: its calls are each a call like any other, on the same line.
//!
//! pingora's session and the codec below it refuse what is malformed, bound heads, windows and resets, and keep at most
//! [`STREAMS_MAX`] streams open. What a client resets is no longer one of those, but its call goes on, as that of any
//! client that leaves: so the calls are counted here, and one too many is refused unseen. A client that opens and resets
//! without end has then no more calls at the providers than one that behaves.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, Stream};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::answer;
use super::client_stream::ClientStream;
use super::exchange::{Fate, Gate, Live};
use super::hygiene;
use super::listener::Phase;

/// Calls of one connection at once. RFC 9113, 6.5.2, advises no fewer.
const STREAMS_MAX: u32 = 100;

/// So many bytes of a request body may be on their way before anybody reads them: of one stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// So much of an answer waits for a client at most; beyond it the provider is read no further.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Streams of one connection that were malformed or too many. After that it is no client that means well.
const REFUSED_MAX: u32 = 100;

/// A client that was told to go has so long to say that it heard, if it has no answer to wait for.
const GOODBYE: Duration = Duration::from_secs(1);

/// RFC 9113, 7: nothing was done, so that the client may ask again.
const REFUSED_STREAM: u32 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Serves a connection whose client speaks HTTP/2, to its end and that of its calls.
pub(super) async fn serve(gate: &Arc<Gate>, client: Box<ClientStream>, phase: &mut watch::Receiver<Phase>) {
    let (live, is_tls) = (gate.live.load_full(), client.is_tls());
    let greeting = fast_timeout(live.settings.header_timeout, handshake(client as Stream, Some(options())));
    let mut wire = tokio::select! {
        biased;
        greeted = greeting => match greeted {
            Ok(Ok(wire)) => wire,
            Ok(Err(_)) | Err(_) => return,
        },
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
    };
    let digest = Arc::<Digest>::default();
    let mut calls = JoinSet::new();
    let mut refused = 0;
    // The first request has as long as a head.
    let mut idle_until = Instant::now() + live.settings.keepalive_timeout.max(live.settings.header_timeout);
    let mut ending = false;
    loop {
        tokio::select! {
            accepted = HttpSession::from_h2_conn(&mut wire, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(mut session))) => {
                    if calls.len() < STREAMS_MAX as usize {
                        calls.spawn(call(gate.clone(), ServerSession::new_http2(session), is_tls));
                    } else {
                        session.shutdown_with_reason(REFUSED_STREAM.into());
                        refused += 1;
                    }
                }
                Ok(Some(H2Accept::Rejected)) => refused += 1,
                Ok(None) | Err(_) => break,
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
            // The last bytes of an answer may lie here when its call is over.
            () = sleep_until(idle_until), if calls.is_empty() => {
                if ending {
                    break;
                }
                ending = true;
                wire.graceful_shutdown();
                idle_until = Instant::now() + GOODBYE;
            }
        }
        if refused >= REFUSED_MAX && !ending {
            ending = true;
            wire.abrupt_shutdown(ENHANCE_YOUR_CALM.into());
        }
    }
    drop(wire);
    // Whose client is gone goes on to its usage, on the drain's terms.
    while calls.join_next().await.is_some() {}
}

fn options() -> H2Options {
    let mut options = default_h2_options();
    // The longest head is pingora's own: 64 KiB.
    options
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
    options
}

async fn call(gate: Arc<Gate>, mut session: ServerSession, is_tls: bool) {
    let live: Arc<Live> = gate.live.load_full();
    let head = session.req_header();
    if let Err(refusal) = hygiene::check_http2(&head.method, head.uri.path(), &head.headers) {
        answer::reject_head(&mut session, &refusal).await;
        return;
    }
    // Dropped without its end, a stream is reset when what was written of it is sent: its client sees the break.
    if matches!(gate.serve(&mut session, &live, is_tls).await, Fate::Reuse) {
        session.finish().await.map(drop).unwrap_or_default();
    }
}
