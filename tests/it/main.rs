//! Integration tests in one binary, because linking it is what takes time.
#![cfg(feature = "gateway")]

#[cfg(test)]
mod conformance;
