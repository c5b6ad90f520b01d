//! The two listening sockets.
//!
//! May use: everything.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::edge::listener;

use super::BootError;

/// Binds one of them, or says what to do about it.
pub(super) fn bind(key: &'static str, variable: &'static str, address: SocketAddr) -> Result<TcpListener, BootError> {
    listener::bind(address).map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE: choose a higher one"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose 127.0.0.1 or 0.0.0.0",
            _ => "choose another address",
        };
        let reason =
            if error.kind() == io::ErrorKind::AddrInUse { "the port is in use".into() } else { error.to_string() };
        BootError::Listen { key, variable, address, reason, fix }
    })
}

/// The address that was bound, which is another than asked for when that had port 0.
pub(super) fn address_of(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
