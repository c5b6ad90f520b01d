//! The admin listener: plain, or over TLS as the configuration in force says at each connection.
//!
//! May use: everything. Handshakes go on beside each other and beside the accepting, a bounded number of them and for a
//! bounded time, so that a client which stalls in one holds up nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use crate::edge::exchange::Gate;
use crate::edge::listener::Phase;
use crate::edge::socket::Socket;

/// Handshakes at once: few people administer, and a scan of ports must not cost more than this.
const HANDSHAKES_MAX: usize = 64;

/// A pause after `accept` failed, which means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Accepted = (Socket<TlsStream<TcpStream>>, SocketAddr);

struct AdminListener {
    tcp: TcpListener,
    gate: Arc<Gate>,
    handshakes: JoinSet<Option<Accepted>>,
}

/// Serves `router` until calls are cut or done: health and metrics answer while they drain.
pub(super) async fn serve(tcp: TcpListener, gate: Arc<Gate>, router: axum::Router, mut phase: watch::Receiver<Phase>) {
    let ended = async move {
        // A sender that is gone means the end, too.
        phase.wait_for(|phase| *phase == Phase::Cut).await.map(drop).unwrap_or_default();
    };
    let listener = AdminListener { tcp, gate, handshakes: JoinSet::new() };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
        error!(%error, "The admin listener ended.");
    }
}

impl Listener for AdminListener {
    type Io = Socket<TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                Some(shaken) = self.handshakes.join_next() => if let Ok(Some(accepted)) = shaken {
                    return accepted;
                },
                accepted = self.tcp.accept(), if has_room => match accepted {
                    Ok((tcp, from)) => {
                        let live = self.gate.live.load();
                        match live.admin_tls.clone() {
                            None => return (Socket::Plain(tcp), from),
                            Some(tls) => {
                                self.handshakes.spawn(shake(tls, live.settings.header_timeout, tcp, from));
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

/// Does a handshake, for which a client has as long as for a head.
async fn shake(tls: Arc<ServerConfig>, limit: Duration, tcp: TcpStream, from: SocketAddr) -> Option<Accepted> {
    match timeout(limit, TlsAcceptor::from(tls).accept(tcp)).await {
        Ok(Ok(tls)) => Some((Socket::Tls(Box::new(tls)), from)),
        Ok(Err(error)) => {
            debug!(%error, "A TLS handshake on the admin listener failed.");
            None
        }
        Err(_) => None,
    }
}
