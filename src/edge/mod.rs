//! HTTP on both sides: the proxy listener, the exchange with a provider, and the billing and admin routes.
//!
//! May use: `domain`, `providers`, `metering`.
//!
//! # The data path, and why it is built so
//!
//! Clients are served by pingora's HTTP session over a stream of our own; the exchange with the provider is ours, on
//! hyper's client, which it drives itself instead of spawning it. Decided by a prototype of each way, one core for the
//! proxy, the other for load and provider, all in one run of two rounds (2 cores, Linux, 2026-11-24):
//!
//! | way | µs a request | µs an event, 1,000 paced streams | KB a stream |
//! |---|--:|--:|--:|
//! | nginx, for comparison | 16.9 | 19.5 | 18 |
//! | pingora's `ProxyHttp` filters (nothing metered) | 32.7 | 22.7 | 170 |
//! | own exchange on pingora's client | 27.5 | 18.7 | 94 |
//! | own exchange on hyper's client, spawned | 20.4 | 19.4 | 63 |
//! | **own exchange on hyper's client, driven** | 20.5 | 19.3 | 61 |
//!
//! `ProxyHttp` was out before it was slow: it stops reading the provider when the client leaves, and the usage comes
//! last. pingora's client costs a watcher task for each request and 64 KB for each stream. A codec of our own might save
//! a few microseconds more, and would have to be hardened by us. Driving the connection inside the exchange (no task of
//! its own) costs the same for plain calls, and three quarters for saturated streams.
//!
//! The whole gateway, with credentials, quota, metering and a SQLite ledger on the same core, measured the same way on
//! the same day (median of three rounds): 40.7 µs a request beside 33.9 of the bare `ProxyHttp` proxy (1.20 ×), 27.3 µs a
//! paced event beside 25.8 (1.06 ×), 82 KB a stream beside 168. `cargo bench --bench proxy` shows the same gateway beside
//! a direct connection.
//!
//! | file | what |
//! |---|---|
//! | `listener` | accepts, reads heads, keeps connections, drains |
//! | `client_stream` | the bytes of one client connection, under pingora's session |
//! | `http2` | the calls of one connection of HTTP/2 |
//! | `tally` | frames of HTTP/2 that ask for nothing, counted |
//! | `socket` | a connection, plain or over TLS, to either side |
//! | `hygiene` | refuses heads and chunks that can be read in two ways, before the parser sees them |
//! | `exchange` | the life of one request, as one visible line |
//! | `streamed` | the same for bodies that stream: what is not billed, and forms |
//! | `uploads`, `ticket` | resumable uploads, whose addresses lead back here, and what these say, signed |
//! | `crowd` | how many connections an address has, and how many requests a tenant |
//! | `strangers` | addresses that present wrong credentials |
//! | `pace` | whether a client keeps up with its request and its answer |
//! | `auth`, `query` | the credential a request presents, and its query |
//! | `headers` | which headers and query go to the provider, which come back |
//! | `body` | reads request bodies, under a process-wide budget |
//! | `upstream` | the only place that speaks HTTP to a provider; HTTP/2 in a part of its own |
//! | `relay` | the answer, from provider to client, read on the way |
//! | `handshake` | how a session, which is a websocket, begins |
//! | `session` | the relay of a session, turn by turn |
//! | `frames` | finds the frames of a websocket in its bytes |
//! | `watch` | the same for answers that nobody pays for and that tell of what is billed later |
//! | `asking` | questions of the gateway's own to a provider |
//! | `inflate` | the metered side copy of a compressed answer |
//! | `answer` | what the gateway says itself |
//! | `api` | the billing, admin and health routes |

pub mod answer;
pub mod api;
pub mod asking;
pub mod auth;
pub mod body;
pub mod client_stream;
pub mod crowd;
pub mod exchange;
pub mod frames;
mod handshake;
pub mod headers;
mod http2;
pub mod hygiene;
pub mod inflate;
pub mod listener;
mod ownership;
pub mod pace;
mod query;
pub mod relay;
pub mod session;
pub mod socket;
pub mod strangers;
mod streamed;
mod tally;
mod ticket;
mod uploads;
pub mod upstream;
mod watch;

#[cfg(test)]
mod tests;
