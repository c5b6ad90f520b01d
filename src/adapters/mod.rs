//! What fills the ports: counters and journal in memory, the ledger in SQLite, the system's clock.
//!
//! May use: `domain`, `ports`. Each adapter is one file (or folder); `boot` chooses among them, and the conformance
//! suite of its port runs against it.

pub mod memory_counters;
pub mod memory_journal;
pub mod sqlite;
pub mod system_clock;
