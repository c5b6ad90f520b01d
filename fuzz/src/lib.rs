//! What the fuzz targets run: each function takes any bytes, and asserts more than that nothing panics.
//!
//! Built without pingora. Pure files of the gateway that are not in its core are taken in by their path, so they prove that
//! they name nothing but `domain` and `providers`. `fuzz/run` runs all targets; `fuzz/README.md` says how to replay one.
#![allow(
    dead_code,
    missing_docs,
    unused_imports,
    clippy::all,
    reason = "whole files are taken in of which a target needs a part"
)]

pub use tollgate::{domain, ports, providers};

pub mod answers;
pub mod cells;
#[path = "../../src/config/mod.rs"]
mod config;
mod control;
pub mod door;
pub mod frames;
pub mod heads;
mod hygiene;
pub mod journal;
pub mod readers;
pub mod requests;
pub mod sessions;
pub mod settings;
