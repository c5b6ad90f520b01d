//! What fills the ports: counters in memory, the journal in files, the ledger in SQLite or Postgres, the system's clock.
//!
//! May use: `domain`, `ports`. Each adapter is one file (or folder); `boot` chooses among them, and the conformance
//! suite of its port runs against it.

pub mod file_journal;
pub mod memory_continuations;
pub mod memory_counters;
pub mod memory_rates;
pub mod memory_shared;
pub mod postgres;
pub mod redis_counters;
mod sql;
pub mod sqlite;
pub mod system_clock;
