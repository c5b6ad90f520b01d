//! The admin listener: plain, or over TLS as the configuration in force says at each connection.
//!
//! May use: everything. What a client may take is bounded here, as axum bounds none of it: connections in all and by address,
//! and the time in which it gets no answer. Handshakes go on beside each other and beside the accepting, for a bounded
//! time, so that a client which stalls in one holds up nobody else.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use crate::domain::bound::Bound;
use crate::domain::network::Neighbour;
use crate::edge::api;
use crate::edge::crowd::{Crowd, Inside};
use crate::edge::exchange::{Gate, Peer};
use crate::edge::listener::Phase;
use crate::edge::socket::Socket;
use crate::edge::strangers::Guest;

/// A pause after `accept` failed, which means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at once, those in a handshake included: few people administer, and a scan of ports must not cost more than
/// this. Beyond it nobody is accepted until one goes.
const CONNECTIONS_MAX: usize = 256;

/// Of one address, in a handshake or not, so that nobody has all of them.
const CONNECTIONS_PER_ADDRESS: u64 = 128;

/// An answer takes the ledger this long at most, however short idle connections are kept.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

type Accepted = (Held, SocketAddr);

/// Who is connected, for what is judged by address.
#[derive(Clone, Copy)]
struct Visitor(Peer);

/// A connection, its place among all of them, and the end of patience with it: a client that gets no answer for as long as
/// an idle one is kept is idle, or sends its request too slowly, or takes none of what it asked for.
pub struct Held {
    socket: Socket<TlsStream<TcpStream>>,
    patience: Duration,
    until: Pin<Box<Sleep>>,
    _place: Place,
}

/// A place among all connections, and among those of an address.
type Place = (OwnedSemaphorePermit, Inside<Neighbour>);

struct AdminListener {
    tcp: TcpListener,
    gate: Arc<Gate>,
    handshakes: JoinSet<Option<Accepted>>,
    places: Arc<Semaphore>,
    of_address: Arc<Crowd<Neighbour>>,
}

/// Serves `router` until calls are cut or done: health and metrics answer while they drain.
pub(super) async fn serve(tcp: TcpListener, gate: Arc<Gate>, router: axum::Router, mut phase: watch::Receiver<Phase>) {
    let ended = async move {
        // A sender that is gone means the end, too.
        phase.wait_for(|phase| *phase == Phase::Cut).await.map(drop).unwrap_or_default();
    };
    let router = router.layer(from_fn_with_state(gate.clone(), judge));
    let (places, of_address) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::default());
    let listener = AdminListener { tcp, gate, handshakes: JoinSet::new(), places, of_address };
    let service = router.into_make_service_with_connect_info::<Visitor>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(ended).await {
        error!(%error, "The admin listener ended.");
    }
}

/// Refuses pages of elsewhere, as the proxy listener does, and says whom wrong keys count for. Here that is whoever is
/// connected, a balancer too: nobody but an admin has business here, and whose address a header names must not be for others to
/// choose, or anybody near could lock an admin out.
async fn judge(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(Visitor(peer)): ConnectInfo<Visitor>,
    mut request: Request,
    next: Next,
) -> Response {
    let (known, per_minute) = {
        let live = gate.live.load();
        (live.knows_page(request.uri(), request.headers()), live.settings.failed_keys_per_minute)
    };
    if let Err(refusal) = known {
        return api::refused(refusal);
    }
    request.extensions_mut().insert(Guest { from: Some(Neighbour::of(peer.address)), per_minute });
    next.run(request).await
}

impl Connected<IncomingStream<'_, AdminListener>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, AdminListener>) -> Self {
        let is_tls = matches!(stream.io().socket, Socket::Tls(_));
        Self(Peer { address: stream.remote_addr().ip(), is_tls })
    }
}

impl AdminListener {
    fn place_for(&self, place: OwnedSemaphorePermit, from: SocketAddr) -> Option<Place> {
        match self.of_address.enter(&Neighbour::of(from.ip()), CONNECTIONS_PER_ADDRESS) {
            Some(of_address) => Some((place, of_address)),
            None => {
                self.gate.meter.cut(Bound::ConnectionsPerAddress);
                None
            }
        }
    }
}

impl Listener for AdminListener {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                Some(shaken) = self.handshakes.join_next() => if let Ok(Some(accepted)) = shaken {
                    return accepted;
                },
                accepted = accept(&self.tcp, &self.places) => match accepted {
                    Ok((place, tcp, from)) => {
                        let live = self.gate.live.load();
                        let Some(place) = self.place_for(place, from) else { continue };
                        let patience = live.settings.keepalive_timeout.max(PATIENCE_MIN);
                        match live.admin_tls.clone() {
                            None => return (Held::new(Socket::Plain(tcp), patience, place), from),
                            Some(tls) => {
                                let limit = live.settings.header_timeout;
                                self.handshakes.spawn(async move {
                                    let socket = shake(tls, limit, tcp).await?;
                                    Some((Held::new(socket, patience, place), from))
                                });
                            }
                        }
                    }
                    Err(error) => {
                        warn!(%error, "A connection to the admin listener could not be accepted.");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    tcp: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    // Closed by nobody.
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, from) = tcp.accept().await?;
    Ok((place, tcp, from))
}

impl Held {
    fn new(socket: Socket<TlsStream<TcpStream>>, patience: Duration, place: Place) -> Self {
        Self { socket, patience, until: Box::pin(sleep(patience)), _place: place }
    }

    /// What the socket says; an error where it says nothing for too long.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match said {
            Poll::Pending => self.until.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            said => said,
        }
    }

    fn was_answered(&mut self) {
        self.until.as_mut().reset(Instant::now() + self.patience);
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.in_time(cx, said)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.socket).poll_write(cx, buf);
        if said.is_ready() {
            self.was_answered();
        }
        self.in_time(cx, said)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.socket).poll_flush(cx);
        self.in_time(cx, said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.in_time(cx, said)
    }
}

/// Does a handshake, for which a client has as long as for a head.
async fn shake(tls: Arc<ServerConfig>, limit: Duration, tcp: TcpStream) -> Option<Socket<TlsStream<TcpStream>>> {
    match timeout(limit, TlsAcceptor::from(tls).accept(tcp)).await {
        Ok(Ok(tls)) => Some(Socket::Tls(Box::new(tls))),
        Ok(Err(error)) => {
            debug!(%error, "A TLS handshake on the admin listener failed.");
            None
        }
        Err(_) => None,
    }
}
