//! The work of the gateway between HTTP and storage: who calls, what is left, what was used, what is booked.
//!
//! May use: `domain`, `providers`, `ports`. Knows neither pingora nor SQL.

pub mod admin;
mod budget;
mod continued;
pub mod copy;
pub mod cost_lines;
pub mod deferred;
pub mod estimator;
#[cfg(test)]
pub(crate) mod fakes;
pub mod fresh;
pub mod identity;
pub mod in_flight;
mod look_ups;
pub mod meter;
pub mod node_counters;
pub mod objects;
pub mod once;
mod overrun;
pub mod price_books;
pub mod rates;
pub mod rebuild;
pub mod recorder;
pub mod reports;
pub mod rerate;
pub mod snapshot;
pub mod turns;
pub mod vault;
pub mod verify;
