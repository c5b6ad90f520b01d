//! Tollgate.
#[cfg(feature = "gateway")]
pub mod adapters;
pub mod domain;
#[cfg(feature = "gateway")]
pub mod metering;
pub mod ports;
pub mod providers;
