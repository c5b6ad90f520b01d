//! The business of the gateway as pure values: tenants, plans, periods, tokens, money, prices, events.
//!
//! May use: itself and value libraries (`jiff` for the calendar). No I/O, no clock, no async, no serde, no SQL:
//! time, ids and randomness come in as values, and wire and row formats are written where they are spoken.

pub mod audit;
pub mod bound;
pub mod budget;
pub mod counting;
pub mod event;
pub mod hold;
pub mod ids;
pub mod key;
pub mod limits;
pub mod models;
pub mod money;
pub mod network;
pub mod object;
pub mod plan;
pub mod price;
pub mod printable;
pub mod provider_key;
pub mod quantities;
pub mod rate;
pub mod redis_url;
pub mod refusal;
pub mod settlement;
pub mod tenant;
pub mod threshold;
pub mod time;
pub mod tokens;
pub mod unit;
pub mod zone;
