//! `tollgate health`: one question to a running gateway, for container health checks.
//!
//! May use: `config`. Spoken by hand over a plain socket: it needs no runtime and no client.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::config::Config;

use super::Failure;
use super::output::Output;

/// A gateway that needs longer for this is not well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Enough for the status line.
const HEAD_BYTES_MAX: u64 = 1_024;

/// What to ask.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// Asks the admin listener instead of the proxy listener.
    #[arg(long)]
    admin: bool,
    /// Asks whether it can serve (/readyz), not only whether it runs (/healthz).
    #[arg(long)]
    ready: bool,
}

/// Asks; an answer other than 200 is a failure.
pub(super) fn health(args: HealthArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let (key, address) =
        if args.admin { ("listen.admin", config.listen.admin) } else { ("listen.proxy", config.listen.proxy) };
    if address.port() == 0 {
        return Err(format!("{key} has port 0, so that nobody knows where it is: give it a port").into());
    }
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let status =
        ask(address, path).map_err(|error| format!("http://{address}{path}: {error}: is the gateway running?"))?;
    if status != 200 {
        return Err(format!("http://{address}{path} answers {status}: look into the gateway's log").into());
    }
    output.print(&json!({"ok": true, "address": address.to_string(), "status": status}), || {
        format!("http://{address}{path} answers 200.")
    })
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

fn ask(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    stream.take(HEAD_BYTES_MAX).read_to_end(&mut head)?;
    status_of(&head).ok_or_else(|| std::io::Error::other("no HTTP answer"))
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
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:8080".parse().unwrap()).to_string(), "127.0.0.1:8080");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
