//! Tollgate.
#[cfg(feature = "gateway")]
pub mod adapters;
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod demo;
pub mod domain;
#[cfg(feature = "gateway")]
pub mod edge;
#[cfg(feature = "gateway")]
pub mod metering;
pub mod ports;
pub mod providers;
#[cfg(feature = "gateway")]
pub mod telemetry;
