//! Tollgate.
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod demo;
pub mod domain;
pub mod ports;
pub mod providers;
#[cfg(feature = "gateway")]
pub mod telemetry;
