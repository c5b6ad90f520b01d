//! Printing: a table or sentence for people, or JSON; and complaints and questions on stderr.
//!
//! May use: `domain` for what may stand on a line.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::domain::printable::{is_tricky, printable, printable_json};

use super::Failure;

/// Where a command's result goes, and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    /// JSON, or text for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `value` as JSON, or `text`. Either holds what clients and providers wrote, and is read in a terminal.
    pub fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.json {
            let text = serde_json::to_string_pretty(value).map_err(|error| Failure::from(error.to_string()))?;
            by_line(text, |line| printable_json(line).map_or(Cow::Borrowed(line), Cow::Owned))
        } else {
            by_line(text(), printable)
        };
        write_line(&text)
    }
}

/// The text with each of its lines made fit to be shown.
fn by_line(text: String, shown: impl Fn(&str) -> Cow<'_, str>) -> String {
    if text.contains(|c| c != '\n' && is_tricky(c)) {
        text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
    } else {
        text
    }
}

/// Writes one text and a line end to stdout.
pub(super) fn write_line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(format!("stdout cannot be written: {error}: check the disk or the pipe").into()),
        Ok(()) => Ok(()),
    }
}

/// Writes lines to stderr, each after the program's name.
pub(super) fn complain(lines: &[String]) {
    let mut stderr = io::stderr().lock();
    for line in lines {
        if writeln!(stderr, "tollgate: {}", by_line(line.clone(), printable)).is_err() {
            return;
        }
    }
}

/// Rows in columns as wide as their longest cell, under a head. Clients and providers name users and models, and the table is
/// read in a terminal: what it would obey is written out.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned())).collect();
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Asks at a terminal.
pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    let silent = |error: io::Error| Failure::from(format!("the terminal cannot be asked: {error}: say --yes"));
    if !io::stdin().is_terminal() {
        return Err("nobody can be asked here: look at the changes with --dry-run, then say --yes".to_owned().into());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ").map_err(silent)?;
    stderr.flush().map_err(silent)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(silent)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["id", "count"], &rows), "id      count\na       1\nlonger\n");
    }

    #[test]
    fn a_text_keeps_its_lines_and_loses_what_a_terminal_obeys() {
        assert_eq!(by_line("a\nb".to_owned(), printable), "a\nb");
        assert_eq!(by_line("a\u{1b}[2J\nb\r".to_owned(), printable), "a\\u{1b}[2J\nb\\r");
    }

    #[test]
    fn a_cell_commands_no_terminal_and_is_on_one_line() {
        let text = table(["MODEL"], &[["a\u{1b}[2J\u{9b}H\nb\u{2028}c".to_owned()]]);
        assert_eq!(text, "MODEL\na\\u{1b}[2J\\u{9b}H\\nb\\u{2028}c\n");
    }
}
