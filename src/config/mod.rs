//! The configuration.

pub mod price_file;
