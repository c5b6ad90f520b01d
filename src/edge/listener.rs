//! Accepts clients, reads the heads of their requests, keeps their connections, and drains them at the end.
//!
//! Each worker is one thread with its own single-threaded runtime: a connection, its exchange and the provider
//! connections it uses never leave it, so the request path has no cross-thread wake-up. All workers accept from one
//! socket; the kernel hands a connection to whoever waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::domain::bound::Bound;
use crate::domain::network::Neighbour;
use crate::domain::refusal::Refusal;

use super::answer;
use super::client_stream::{ClientStream, Wire};
use super::crowd::{Crowd, Inside};
use super::exchange::{Fate, Gate, Live, Peer, Settings};
use super::http2;
use super::session::Session;

/// Connections that the kernel keeps while no worker accepts; more are refused by the kernel.
const BACKLOG: i32 = 4096;

/// So much that a client did not take yet lies in the kernel. Left to itself it is megabytes, and has to be free by a third
/// before it takes more: a client that reads steadily would look as if it took nothing for minutes.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// A pause after `accept` failed, which means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whoever is one too many is told so and read on for this long, as a client that meets a closed connection while it sends
/// never sees what it was told.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);

/// For so many at once; the next are closed at once.
const TURNED_AWAY_MAX: usize = 256;

/// And so much of each.
const TURNED_AWAY_BYTES: u64 = 64 * 1024;

/// What it is told, whatever it wants.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 117\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n\
    {\"error\":{\"message\":\"Too many connections. Try again shortly.\",\"type\":\"server_error\",\"code\":\"too_many_connections\"}}\n";

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
pub struct Connections {
    open: AtomicUsize,
    changed: tokio::sync::Notify,
    /// Those of each address that has a limit.
    of_address: Arc<Crowd<Neighbour>>,
    turned_away: Arc<Semaphore>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            changed: tokio::sync::Notify::new(),
            of_address: Arc::default(),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        }
    }
}

impl Connections {
    /// One more, of this address, if there may be.
    fn enter(self: &Arc<Self>, live: &Live, address: IpAddr) -> Result<Connected, Bound> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        let mut connected = Connected { connections: self.clone(), of_address: None };
        let Settings { connections_max, connections_per_address: per_address, .. } = live.settings;
        if u64::try_from(before).is_ok_and(|before| before >= connections_max) {
            return Err(Bound::Connections);
        }
        if per_address > 0 && !live.balancers.have(address) {
            let of_address = self.of_address.enter(&Neighbour::of(address), per_address);
            connected.of_address = Some(of_address.ok_or(Bound::ConnectionsPerAddress)?);
        }
        Ok(connected)
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

struct Connected {
    connections: Arc<Connections>,
    of_address: Option<Inside<Neighbour>>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::AcqRel);
        self.connections.changed.notify_waiters();
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
                Ok((tcp, from)) => {
                    let live = gate.live.load();
                    match connections.enter(&live, from.ip()) {
                        Ok(connected) => {
                            tasks.spawn(connection(gate.clone(), (tcp, from.ip()), phase.clone(), connected));
                        }
                        Err(bound) => {
                            gate.meter.cut(bound);
                            // Over TLS it could be told only behind a handshake, which is what costs.
                            let place = connections.turned_away.clone().try_acquire_owned().ok();
                            if let Some(place) = place.filter(|_| live.tls.is_none()) {
                                tasks.spawn(turn_away(tcp, place));
                            }
                        }
                    }
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
    (tcp, address): (TcpStream, IpAddr),
    mut phase: watch::Receiver<Phase>,
    connected: Connected,
) -> Option<Begun> {
    // Every event of a stream is a small write that must not wait for the next.
    if tcp.set_nodelay(true).is_err() || SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES_MAX).is_err() {
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
    let peer = Peer { address, is_tls: client.is_tls() };
    if speaks_http2(&gate, &mut client, &mut phase).await {
        Box::pin(http2::serve(&gate, client, peer, &mut phase)).await;
        return None;
    }
    loop {
        if !next_request_begins(&gate, &mut client, &mut phase).await {
            client.say_end().await;
            return None;
        }
        match one_request(&gate, client, peer).await? {
            After::Request(back) => client = back,
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
        shaken = handshake => shaken.inspect_err(|_| gate.meter.cut(Bound::HeadTime)).ok()?,
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
        begun = idle => matches!(begun.inspect_err(|_| gate.meter.cut(Bound::Idle)), Ok(Ok(true))),
        _ = phase.wait_for(|phase| *phase != Phase::Running) => false,
    }
}

/// What a connection carries after a request.
enum After {
    /// Another request.
    Request(Box<ClientStream>),
    /// A session.
    Session(Box<Session>),
}

/// Serves one request; `None` when the connection is over.
async fn one_request(gate: &Arc<Gate>, mut client: Box<ClientStream>, peer: Peer) -> Option<After> {
    let live = gate.live.load_full();
    let read = client.read_head(live.settings.heads(), &live.budget);
    let head = match fast_timeout(live.settings.header_timeout, read).await {
        Ok(head) => head?,
        Err(_) => Err(Refusal::TooSlow(Bound::HeadTime)),
    };
    if let Err(refusal) = head {
        // Boxed, as all that few requests need.
        Box::pin(answer::refuse_head(gate, &mut client, &refusal, live.settings.write_timeout)).await;
        return None;
    }
    let asks_for_upgrade = client.asks_for_upgrade();
    let mut session = ServerSession::new_http1(client as Stream);
    match session.read_request().await {
        Ok(true) if asks_for_upgrade => session.set_keepalive(None),
        Ok(true) => {}
        Ok(false) => return None,
        // What is good so far may still name one host in its target and another in its header.
        Err(_) => {
            let refusal = Refusal::BadRequest { reason: "malformed HTTP" };
            let mut client = client_of(session)?;
            Box::pin(answer::refuse_head(gate, &mut client, &refusal, live.settings.write_timeout)).await;
            return None;
        }
    }
    match gate.serve(&mut session, &live, peer).await {
        Fate::Close => None,
        Fate::Linger => {
            Box::pin(answer::linger(client_of(session)?)).await;
            None
        }
        Fate::Reuse => {
            let late = |_: &_| gate.meter.cut(Bound::AnswerPace);
            // The end of an answer may have to wait for a client, as the rest of it.
            let time = live.settings.write_timeout;
            // An answer may come before the end of its request: a client that is cut while it sends never reads it.
            if asks_for_upgrade || !session.is_body_done() {
                fast_timeout(time, session.finish_body()).await.inspect_err(late).ok()?.ok()?;
                Box::pin(answer::linger(client_of(session)?)).await;
                return None;
            }
            let (stream, _) = fast_timeout(time, session.finish()).await.inspect_err(late).ok()?.ok()??.into_parts();
            stream.into_any().downcast::<ClientStream>().ok().map(After::Request)
        }
        Fate::Session(opening) => {
            let mut client = client_of(session)?;
            // A client in a hurry sends before it is answered.
            let ahead = client.become_session();
            Some(After::Session(Box::new(Session::new(*opening, *client, ahead.into(), gate.clone()))))
        }
    }
}

/// The connection below a session of HTTP/1.
fn client_of(session: ServerSession) -> Option<Box<ClientStream>> {
    let ServerSession::H1(session) = session else { return None };
    session.into_inner().into_any().downcast::<ClientStream>().ok()
}

/// Tells one who is too many to come back, without reading what it wants.
async fn turn_away(mut tcp: TcpStream, _place: OwnedSemaphorePermit) -> Option<Begun> {
    let all = async {
        tcp.write_all(TURNED_AWAY).await?;
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(TURNED_AWAY_BYTES), &mut tokio::io::sink()).await
    };
    timeout(TURNED_AWAY_FOR, all).await.map(drop).unwrap_or_default();
    None
}
