//! One question over HTTP to a gateway that runs, and its answer.
//!
//! May use: nothing of ours. Spoken by hand over a plain socket: it needs no runtime and no client, and asks only
//! listeners of our own, which answer `connection: close` with a whole body and its end.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A gateway that is silent for longer is not well.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, as far as it was asked for.
    pub body: Vec<u8>,
}

/// Where a listener on all addresses can be reached from here.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Asks for `path` with a key, where one is needed; reads at most `bytes_max` of the answer.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub(super) fn get(address: SocketAddr, path: &str, key: Option<&str>, bytes_max: u64) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{key}connection: close\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(bytes_max).read_to_end(&mut bytes)?;
    answer(&bytes).ok_or_else(|| io::Error::other("no HTTP answer"))
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
