//! Connections to a provider: made in time, verified, and told of in the log where that fails.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::{Fresh, Place, SendError, Socket, Upstream, http2, own};

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// A provider that thinks for minutes sends nothing: the kernel then asks whether it is still there, and keeps the way
/// through address translators open.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// The log is told of one place no oftener: every call that meets it would fill it.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// When the log was told last that a place cannot be reached.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Option<Instant>>);

impl Failures {
    /// The reason goes to no client: it tells of names, addresses and certificates around the gateway.
    fn tell(&self, place: &Place, reason: impl Display) {
        let mut told = self.0.lock();
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            warn!(host = place.host, port = place.port, %reason, "A provider could not be reached; this is told once a minute.");
        }
    }
}

impl Upstream {
    /// Waits for a connection for as long as one may take.
    pub(super) async fn in_time<T>(&self, connect: impl Future<Output = io::Result<T>>) -> Result<T, SendError> {
        let place = &self.place;
        match timeout(self.limits.connect, connect).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => {
                place.failures.tell(place, error);
                Err(SendError::Unreachable)
            }
            Err(_) => {
                place.failures.tell(place, "no connection within upstream.connect_timeout");
                Err(SendError::Timeout)
            }
        }
    }

    /// Connects; what can be shared is made by one, while the others wait for it.
    pub(super) async fn connect_in_turn(&self) -> io::Result<Fresh> {
        let turn = self.place.http2.then(|| http2::turn(&self.place)).flatten();
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        match self.shared() {
            Some(shared) => Ok(shared),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> io::Result<Fresh> {
        let place = &self.place;
        let (socket, agreed) = self.socket(place.http2).await?;
        if place.http2 && place.tls.is_some() {
            http2::told(place, agreed);
        }
        if agreed {
            return http2::connect(place, socket).await.map(Fresh::Shared);
        }
        own(socket).await.map(Fresh::Own)
    }

    /// A connection as far as TLS goes, and whether HTTP/2 was agreed on, which is only offered where `http2` says so.
    pub(super) async fn socket(&self, http2: bool) -> io::Result<(Socket, bool)> {
        let tcp = self.connect_tcp().await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER))?;
        let Some((config, name)) = &self.place.tls else { return Ok((Socket::Plain(tcp), false)) };
        let mut config = config.clone();
        if !http2 && !config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols.retain(|protocol| protocol != b"h2");
        }
        let tls = TlsConnector::from(config).connect(name.clone(), tcp).await?;
        let agreed = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Socket::Tls(Box::new(tls)), agreed))
    }

    /// Tries the host's addresses in turn, each for its share of the time: one family may lead nowhere.
    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let found = lookup_host((self.place.host.as_str(), self.place.port)).await?;
        let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
        let share = self.limits.connect / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }
}
