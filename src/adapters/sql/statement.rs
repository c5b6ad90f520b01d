//! A statement and its values, in words that both dialects understand.
//!
//! May use: nothing beyond [`super`]. Placeholders are numbered (`$1`): both dialects know those, and a value may stand in
//! several places.

use std::fmt::Write;

use super::cells::Cell;

/// A statement on its way to a database. Its text is made of names in this program only; whatever comes from outside is a
/// value.
#[derive(Debug, Default)]
pub(in crate::adapters) struct Statement<'a> {
    pub(in crate::adapters) text: String,
    pub(in crate::adapters) cells: Vec<Cell<'a>>,
}

impl<'a> Statement<'a> {
    pub(in crate::adapters) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), cells: Vec::new() }
    }

    /// Goes on with `text`.
    pub(in crate::adapters) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Goes on with a placeholder, and notes its value.
    pub(in crate::adapters) fn push_bind(&mut self, cell: impl Into<Cell<'a>>) -> &mut Self {
        self.cells.push(cell.into());
        // Writing to a string does not fail.
        write!(self.text, "${}", self.cells.len()).unwrap_or_default();
        self
    }

    /// The value of the next placeholder, for a text that has all of them.
    pub(in crate::adapters) fn bind(mut self, cell: impl Into<Cell<'a>>) -> Self {
        self.cells.push(cell.into());
        self
    }

    /// The same for several.
    pub(in crate::adapters) fn bind_all(mut self, cells: Vec<Cell<'a>>) -> Self {
        self.cells.extend(cells);
        self
    }
}

/// `$1, $2, $3` for three values.
pub(in crate::adapters) fn places(values: usize) -> String {
    (1..=values).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ")
}
