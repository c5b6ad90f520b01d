//! Tollgate.
#[cfg(feature = "gateway")]
pub mod config;
pub mod domain;
pub mod ports;
pub mod providers;
