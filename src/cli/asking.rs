//! One question over HTTP to a gateway that runs, and its answer.
//!
//! May use: `boot`, `config`. Spoken by hand, plain or over TLS: it needs no runtime and no client, and asks only
//! listeners of our own, which answer `connection: close` with a whole body and its end. Over TLS it takes the certificate
//! that the configuration names and no other.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};

use crate::boot::tls;
use crate::config::Config;

use super::Failure;

/// A gateway that is silent for longer is not well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, as far as it was asked for.
    pub body: Vec<u8>,
}

/// One of the two listeners, as it can be reached from here.
pub(super) struct Listener {
    /// Where.
    pub address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Listener {
    /// Where apps connect.
    pub(super) fn proxy(config: &Config) -> Result<Self, Failure> {
        let tls = config.listen.tls.as_ref().map(tls::to_proxy).transpose()?;
        Self::at("listen.proxy", config.listen.proxy, tls)
    }

    /// Where admins connect.
    pub(super) fn admin(config: &Config) -> Result<Self, Failure> {
        let tls = config.listen.admin_tls.as_ref().map(tls::to_admin).transpose()?;
        Self::at("listen.admin", config.listen.admin, tls)
    }

    fn at(key: &str, address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self, Failure> {
        if address.port() == 0 {
            let line = format!("{key} has port 0, so that nobody knows where it is: name it with --set {key}=IP:PORT");
            return Err(line.into());
        }
        Ok(Self { address: reachable(address), tls })
    }

    /// The same, as an address of the web.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Asks for `path` with a key, where one is needed; reads at most `bytes_max` of the answer.
    ///
    /// # Errors
    /// When nobody answers, or not in HTTP.
    pub(super) fn get(&self, path: &str, key: Option<&str>, bytes_max: u64) -> io::Result<Answer> {
        let Self { address, tls } = self;
        let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{key}connection: close\r\n\r\n");
        match tls {
            None => exchange(stream, &head, bytes_max),
            Some(tls) => {
                let name = ServerName::IpAddress(address.ip().into());
                let session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(session, stream), &head, bytes_max).map_err(plainer)
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }
}

fn exchange(mut stream: impl Read + Write, head: &str, bytes_max: u64) -> io::Result<Answer> {
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(bytes_max).read_to_end(&mut bytes)?;
    answer(&bytes).ok_or_else(|| io::Error::other("no HTTP answer"))
}

/// The same error, in words that help.
fn plainer(error: io::Error) -> io::Error {
    let own = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match own {
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            io::Error::other("it shows another certificate than the one in the configuration")
        }
        _ => error,
    }
}

/// Where a listener on all addresses can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let status = status_of(bytes)?;
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end.saturating_add(4));
    Some(Answer { status, body: bytes.get(end..)?.to_owned() })
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_nothing_else() {
        for (head, status) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
            ("HTTP/1.0 503 x\r\n", Some(503)),
            ("HTTP/1.1 \r\n", None),
            ("hello", None),
            ("", None),
        ] {
            assert_eq!(status_of(head.as_bytes()), status, "{head}");
        }
    }

    #[test]
    fn the_body_is_what_comes_behind_the_head() {
        for (bytes, body) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\n{}", "{}"),
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\na: b", ""),
        ] {
            assert_eq!(answer(bytes.as_bytes()).unwrap().body, body.as_bytes(), "{bytes}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:8080".parse().unwrap()).to_string(), "127.0.0.1:8080");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
