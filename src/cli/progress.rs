//! How far a long command is, for people at a terminal.
//!
//! May use: nothing of ours.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Progress on a terminal, on one line that is written over.
pub(super) struct Progress {
    shown: bool,
    told: Instant,
}

impl Progress {
    /// Between two lines.
    const EVERY: Duration = Duration::from_millis(200);

    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), told: Instant::now() }
    }

    pub(super) fn tell(&mut self, done: u64, of: u64) {
        if self.shown && self.told.elapsed() >= Self::EVERY {
            self.told = Instant::now();
            // Nobody misses a line of progress.
            write!(io::stderr(), "\r{done} of {of} events").unwrap_or_default();
        }
    }

    pub(super) fn end(&self) {
        if self.shown {
            write!(io::stderr(), "\r\x1b[K").unwrap_or_default();
        }
    }
}
