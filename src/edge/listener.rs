//! Accepts clients, reads the heads of their requests, keeps their connections, and drains them at the end.
//!
//! Each worker is one thread with its own single-threaded runtime: a connection, its exchange and the provider
//! connections it uses never leave it, so the request path has no cross-thread wake-up. All workers accept from one
//! socket; the kernel hands a connection to whoever waits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::domain::refusal::Refusal;

use super::answer;
use super::client_stream::{ClientStream, Wire};
use super::exchange::{Fate, Gate};
use super::session::Session;
use super::{http2, hygiene};

/// Connections that the kernel keeps while no worker accepts; more are refused by the kernel.
const BACKLOG: i32 = 4096;

/// pingora reads heads up to 1 MiB; no client needs more than this.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A pause after `accept` failed, which means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sessions that are cut have so long to tell both of their sides, a part of what the ledger has after the drain limit.
const SESSIONS_END: Duration = Duration::from_millis(300);

/// Where shutdown stands, as the listener and every connection see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Serving.
    #[default]
    Running,
    /// No new connections or requests; answers in flight finish.
    Draining,
    /// Everything still open is dropped.
    Cut,
}

/// Open connections of all workers.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    changed: tokio::sync::Notify,
}

impl Connections {
    fn enter(self: &Arc<Self>) -> Connected {
        self.open.fetch_add(1, Ordering::AcqRel);
        Connected(self.clone())
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub async fn none_open(&self) {
        loop {
            let changed = self.changed.notified();
            if self.open() == 0 {
                return;
            }
            changed.await;
        }
    }
}

struct Connected(Arc<Connections>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// Binds a listening socket.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until draining begins, then waits until this worker's connections are done or cut.
pub async fn serve(
    gate: Arc<Gate>,
    listener: std::net::TcpListener,
    connections: Arc<Connections>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut tasks = tokio::task::JoinSet::new();
    let mut sessions = tokio::task::JoinSet::new();
    let begin = |sessions: &mut tokio::task::JoinSet<()>, begun: Begun, phase: &watch::Receiver<Phase>| {
        let (session, connected, phase) = (begun.session, begun.connected, phase.clone());
        sessions.spawn(async move {
            session.run(phase).await;
            drop(connected);
        });
    };
    while *phase.borrow_and_update() == Phase::Running {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    let connected = connections.enter();
                    tasks.spawn(connection(gate.clone(), tcp, phase.clone(), connected));
                }
                Err(error) => {
                    warn!(%error, "A connection could not be accepted.");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            // A panic ends one connection; its calls are settled by their guards.
            Some(ended) = tasks.join_next() => {
                if let Ok(Some(begun)) = ended {
                    begin(&mut sessions, begun, &phase);
                }
            }
            Some(_ended) = sessions.join_next() => {}
            changed = phase.changed() => if changed.is_err() { break },
        }
    }
    drop(listener);
    while *phase.borrow_and_update() != Phase::Cut {
        if tasks.is_empty() && sessions.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                if let Ok(Some(begun)) = ended {
                    begin(&mut sessions, begun, &phase);
                }
            }
            Some(_ended) = sessions.join_next() => {}
            changed = phase.changed() => if changed.is_err() { break },
        }
    }
    tasks.shutdown().await;
    // Each tells both of its sides. What takes longer is dropped, and settles so.
    let told = async { while sessions.join_next().await.is_some() {} };
    timeout(SESSIONS_END, told).await.unwrap_or_default();
    sessions.shutdown().await;
    Ok(())
}

/// A connection that became a session.
struct Begun {
    session: Box<Session>,
    connected: Connected,
}

/// Serves the requests of one connection; gives the session that the last of them began.
async fn connection(
    gate: Arc<Gate>,
    tcp: TcpStream,
    mut phase: watch::Receiver<Phase>,
    connected: Connected,
) -> Option<Begun> {
    // Every event of a stream is a small write that must not wait for the next.
    if tcp.set_nodelay(true).is_err() {
        return None;
    }
    let wire = match gate.live.load().tls.clone() {
        None => Wire::Plain(tcp),
        // Boxed: what a plain connection keeps need not have room for it.
        Some(tls) => match Box::pin(encrypted(&gate, tls, tcp, &mut phase)).await {
            Some(wire) => wire,
            None => return None,
        },
    };
    let mut client = Box::new(ClientStream::new(wire));
    let mut ahead: Option<BytesMut> = None;
    if speaks_http2(&gate, &mut client, &mut phase).await {
        Box::pin(http2::serve(&gate, client, &mut phase)).await;
        return None;
    }
    loop {
        if ahead.is_none() && !next_request_begins(&gate, &mut client, &mut phase).await {
            client.say_end().await;
            return None;
        }
        match one_request(&gate, client, ahead.take()).await? {
            After::Request(back, pipelined) => (client, ahead) = (back, pipelined),
            After::Session(session) => return Some(Begun { session, connected }),
        }
    }
}

/// Does the handshake, for which a client has as long as for a head.
async fn encrypted(
    gate: &Gate,
    tls: Arc<ServerConfig>,
    tcp: TcpStream,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Wire> {
    let handshake = fast_timeout(gate.live.load().settings.header_timeout, TlsAcceptor::from(tls).accept(tcp));
    let shaken = tokio::select! {
        biased;
        shaken = handshake => shaken.ok()?,
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return None,
    };
    // Not a line for each: whoever scans ports would fill the log.
    shaken
        .inspect_err(|error| debug!(%error, "A TLS handshake with a client failed."))
        .ok()
        .map(|tls| Wire::Tls(Box::new(tls)))
}

/// Over TLS it was agreed on; in the clear a client that knows begins with the preface, where that is allowed.
async fn speaks_http2(gate: &Gate, client: &mut ClientStream, phase: &mut watch::Receiver<Phase>) -> bool {
    if client.is_tls() || !gate.live.load().settings.h2c {
        return client.agreed_on_http2();
    }
    // One that closed or says nothing is met again where a request is waited for.
    next_request_begins(gate, client, phase).await
        && matches!(
            fast_timeout(gate.live.load().settings.header_timeout, client.begins_with_preface()).await,
            Ok(Ok(true))
        )
}

async fn next_request_begins(gate: &Gate, client: &mut ClientStream, phase: &mut watch::Receiver<Phase>) -> bool {
    let idle = fast_timeout(gate.live.load().settings.keepalive_timeout, client.wait_for_request());
    tokio::select! {
        biased;
        begun = idle => matches!(begun, Ok(Ok(true))),
        _ = phase.wait_for(|phase| *phase != Phase::Running) => false,
    }
}

/// What a connection carries after a request.
enum After {
    /// Another request, of which this was read already.
    Request(Box<ClientStream>, Option<BytesMut>),
    /// A session.
    Session(Box<Session>),
}

/// Serves one request; `None` when the connection is over.
async fn one_request(gate: &Arc<Gate>, client: Box<ClientStream>, ahead: Option<BytesMut>) -> Option<After> {
    let (live, is_tls) = (gate.live.load_full(), client.is_tls());
    let mut session = ServerSession::new_http1(client as Stream);
    session.set_pipelining_enabled(true);
    if let Some(ahead) = ahead {
        session.set_pipelined_prefix(ahead);
    }
    match fast_timeout(live.settings.header_timeout, session.read_request()).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) | Err(_) => return None,
        Ok(Err(error)) => {
            if *error.etype() == pingora_core::ErrorType::InvalidHTTPHeader {
                answer::reject_head(&mut session, &Refusal::BadRequest { reason: "malformed HTTP" }).await;
            }
            return None;
        }
    }
    if let Err(refusal) = check_head(&session) {
        answer::reject_head(&mut session, &refusal).await;
        return None;
    }
    match gate.serve(&mut session, &live, is_tls).await {
        Fate::Close => None,
        Fate::Reuse => {
            let (stream, pipelined) = session.finish().await.ok()??.into_parts();
            Some(After::Request(stream.into_any().downcast::<ClientStream>().ok()?, pipelined))
        }
        Fate::Session(opening) => {
            // A client in a hurry sends before it is answered; pingora has that already.
            let ahead = session.read_request_body().now_or_never().and_then(|read| read.ok().flatten());
            let ServerSession::H1(session) = session else { return None };
            let client = session.into_inner().into_any().downcast::<ClientStream>().ok()?;
            let session = Session::new(*opening, *client, ahead.unwrap_or_default(), gate.clone());
            Some(After::Session(Box::new(session)))
        }
    }
}

fn check_head(session: &ServerSession) -> Result<(), Refusal> {
    let raw = session.to_h1_raw();
    if raw.len() > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    hygiene::check(&raw, &session.req_header().method)
}
