//! What clients may take of the gateway: connections, requests, time.
//!
//! May use: `domain`, `values`. 0 is no limit where that is said.

use std::time::Duration;

use crate::domain::network::Networks;

use super::{Reader, values};

/// Limits towards clients, beside those of sizes and silences in `Listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Connections of all clients together.
    pub connections_max: u64,
    /// Connections of one address; 0 for no limit.
    pub connections_per_address: u64,
    /// Whose addresses are those of balancers.
    pub balancers: Networks,
    /// Requests of one tenant at once; 0 for no limit.
    pub requests_per_tenant: u64,
    /// Wrong credentials of one address; 0 for no limit.
    pub failed_keys_per_minute: u64,
    /// The longest request head, in bytes.
    pub head_limit: u64,
    /// The most headers of a request.
    pub headers_max: u64,
    /// From the head of a request to the end of its body; above 0.
    pub request_timeout: Duration,
    /// Bytes a second that a client has to send and to take; 0 for no limit.
    pub rate_min: u64,
    /// Requests of one connection of HTTP/2 at once.
    pub http2_streams: u64,
    /// Requests of one connection of HTTP/2 that may be malformed or in error.
    pub http2_resets: u64,
    /// How long an answer or a session may last; above 0.
    pub stream_timeout: Duration,
}

impl Reader {
    pub(super) fn clients(&mut self) -> Option<Clients> {
        let connections_max = self.value("listen.connections_max", |text| values::count(text, 1..=1_000_000));
        let per_address = self.value("listen.connections_per_address", |text| values::count(text, 0..=1_000_000));
        let balancers = self.value("listen.balancers", Networks::parse);
        let per_tenant = self.value("listen.requests_per_tenant", |text| values::count(text, 0..=1_000_000));
        let failed_keys = self.value("listen.failed_keys_per_minute", |text| values::count(text, 0..=1_000_000));
        let head_limit = self.value("listen.head_limit", head_bytes);
        let headers_max = self.value("listen.headers_max", |text| values::count(text, 16..=HEADERS_MAX));
        let request_timeout = self.value("listen.request_timeout", values::positive_duration);
        let rate_min = self.value("listen.rate_min", values::bytes);
        let http2_streams = self.value("listen.http2_streams", |text| values::count(text, 1..=10_000));
        let http2_resets = self.value("listen.http2_resets", |text| values::count(text, 1..=10_000));
        let stream_timeout = self.value("upstream.stream_timeout", values::positive_duration);
        Some(Clients {
            connections_max: connections_max?,
            connections_per_address: per_address?,
            balancers: balancers?,
            requests_per_tenant: per_tenant?,
            failed_keys_per_minute: failed_keys?,
            head_limit: head_limit?,
            headers_max: headers_max?,
            request_timeout: request_timeout?,
            rate_min: rate_min?,
            http2_streams: http2_streams?,
            http2_resets: http2_resets?,
            stream_timeout: stream_timeout?,
        })
    }
}

/// The parser of HTTP/1.1 takes no more.
const HEADERS_MAX: u64 = 256;

/// A head of a client that means well has 8 KiB at most; more than the parser of HTTP/1.1 takes is no limit.
fn head_bytes(text: &str) -> Result<u64, String> {
    let bytes = values::bytes(text)?;
    let fits = ((8 << 10)..=(1 << 20)).contains(&bytes);
    fits.then_some(bytes).ok_or_else(|| "is not from 8KiB to 1MiB".into())
}
