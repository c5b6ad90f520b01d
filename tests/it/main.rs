//! End to end: the real binary between scripted providers and clients that speak HTTP by hand.
//!
//! One test binary, as each link of the gateway's dependencies takes long; one module for each theme.
#![cfg(feature = "gateway")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::type_complexity,
    reason = "a test that meets something unexpected has failed, and a table of cases is easiest read as tuples"
)]

mod admin_key;
mod admin_tls;
mod balancer;
mod billing;
mod budgets;
mod calls;
mod client_tls;
mod clocks;
mod conformance;
mod continuations;
mod copy;
mod crash;
mod credentials;
mod deferred;
mod deferred_losses;
mod disk;
mod endings;
mod estimates;
mod flips;
mod floods;
mod forms;
mod framing;
mod hostile;
mod http2;
mod idempotency;
mod isolation;
mod ledger_speed;
mod lies;
mod lifetime;
mod locked;
mod log_lines;
mod matrix;
mod memory;
mod message_ends;
mod models;
mod nodes;
mod objects;
mod postgres;
mod price_oracle;
mod prices;
mod provider_keys;
mod quota;
mod rates;
mod recovery;
mod refusals;
mod routes;
mod scrub;
mod sessions;
mod shared_ledger;
mod signals;
mod simulation;
mod soak;
mod support;
mod tapes;
mod thresholds;
mod tidy;
mod tls;
mod uploads;
mod upstream_http2;
mod verify;
mod watching;
