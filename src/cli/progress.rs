//! How far something long has come, on stderr: a bar on a terminal, a line now and then elsewhere.
//!
//! May use: nothing of ours.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is told where nobody looks at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Nothing: it takes seconds.
    Nothing,
    /// A line now and then.
    Lines,
}

/// How far something has come.
pub(super) struct Progress {
    is_terminal: bool,
    elsewhere: Elsewhere,
    told: Instant,
}

/// Between two looks of the bar.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How long the bar is.
const BAR_CELLS: u64 = 30;

impl Progress {
    pub(super) fn new(elsewhere: Elsewhere) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), elsewhere, told: Instant::now() }
    }

    /// It has come so far, with `things` such as events.
    pub(super) fn tell(&mut self, doing: &str, done: u64, of: u64, things: &str) {
        self.tell_line(|is_terminal| line(doing, done, of, things, is_terminal));
    }

    /// The same where nobody knows how many there are.
    pub(super) fn tell_of_many(&mut self, doing: &str, done: u64, things: &str) {
        self.tell_line(|_| format!("{doing}: {done} {things} so far"));
    }

    fn tell_line(&mut self, line: impl FnOnce(bool) -> String) {
        let every = if self.is_terminal { BAR_EVERY } else { LINE_EVERY };
        if self.told.elapsed() < every || !(self.is_terminal || self.elsewhere == Elsewhere::Lines) {
            return;
        }
        self.told = Instant::now();
        let line = line(self.is_terminal);
        // Nobody misses a line of progress.
        if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K{line}").unwrap_or_default();
        } else {
            writeln!(io::stderr(), "tollgate: {line}").unwrap_or_default();
        }
    }

    /// It is over: what is told next stands on a line of its own.
    pub(super) fn end(&self) {
        if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K").unwrap_or_default();
        }
    }
}

fn line(doing: &str, done: u64, of: u64, things: &str, has_bar: bool) -> String {
    let part = |of_all: u64| done.min(of).saturating_mul(of_all).checked_div(of).unwrap_or(of_all);
    let bar = if has_bar {
        let cells = |count: u64, cell: &str| cell.repeat(usize::try_from(count).unwrap_or(0));
        let full = part(BAR_CELLS);
        format!(" [{}{}]", cells(full, "#"), cells(BAR_CELLS.saturating_sub(full), "."))
    } else {
        String::new()
    };
    format!("{doing}{bar} {} %, {done} of {of} {things}", part(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(line("copy", 0, 8, "rows", true), format!("copy [{}] 0 %, 0 of 8 rows", ".".repeat(30)));
        let half = format!("copy [{}{}] 50 %, 4 of 8 rows", "#".repeat(15), ".".repeat(15));
        assert_eq!(line("copy", 4, 8, "rows", true), half);
        assert_eq!(line("copy", 8, 8, "rows", false), "copy 100 %, 8 of 8 rows");
        assert_eq!(line("copy", 0, 0, "rows", false), "copy 100 %, 0 of 0 rows");
    }
}
