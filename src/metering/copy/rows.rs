//! The rows of one table, page by page.
//!
//! May use: `ports`.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::ports::StoreError;
use crate::ports::transfer::{Key, Row, Table, View};

/// Rows of a page: some four MiB of events. A page costs a question, and its rows are held in memory. In unit tests pages
/// are small enough for every edge of them to be met.
pub(super) const PAGE_ROWS_MAX: u32 = if cfg!(test) { 3 } else { 4_000 };

/// Rows of a table in the order of their keys.
pub(super) struct Rows {
    table: Table,
    page: VecDeque<Row>,
    /// Behind which key the next page begins.
    place: Option<Key>,
    is_at_end: bool,
}

impl Rows {
    /// Those behind `place`. None is at hand before [`Self::fill`].
    pub(super) fn behind(table: Table, place: Option<Key>) -> Self {
        Self { table, page: VecDeque::new(), place, is_at_end: false }
    }

    /// Behind which key the next page begins.
    pub(super) fn place(&self) -> Option<&Key> {
        self.place.as_ref()
    }

    /// Reads the next page when no row is at hand.
    pub(super) async fn fill(&mut self, view: &mut dyn View) -> Result<(), StoreError> {
        if !self.page.is_empty() || self.is_at_end {
            return Ok(());
        }
        self.page = view.page(self.table, self.place.as_deref(), PAGE_ROWS_MAX).await?.into();
        self.is_at_end = self.page.len() < usize::try_from(PAGE_ROWS_MAX).unwrap_or(usize::MAX);
        if let Some(last) = self.page.back() {
            self.place = Some(last.key(self.table).to_vec());
        }
        Ok(())
    }

    /// The next row that is at hand.
    pub(super) fn peek(&self) -> Option<&Row> {
        self.page.front()
    }

    /// The same, taken.
    pub(super) fn next(&mut self) -> Option<Row> {
        self.page.pop_front()
    }

    /// Whether there are no more rows.
    pub(super) fn is_over(&self) -> bool {
        self.page.is_empty() && self.is_at_end
    }
}

/// Which of the next two rows comes first: `Less` when it is that of `ours`, `None` when there are none.
pub(super) fn order(ours: &Rows, theirs: &Rows) -> Option<Ordering> {
    match (ours.peek(), theirs.peek()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(row), Some(other)) => Some(row.key(ours.table).cmp(other.key(theirs.table))),
    }
}
