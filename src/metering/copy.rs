//! A ledger copied into another store, and both compared when it is done.
//!
//! May use: `domain`, `ports`. One loop for every table: rows of both sides are merged in the order of their keys, and what
//! is not the same in the target is put there in batches, each with its place. So a first copy, one that goes on, and one
//! that makes up for what has changed are the same. Memory holds a page of each side and a batch.

pub mod compare;
mod rows;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use futures_util::future::join;

use crate::ports::StoreError;
use crate::ports::transfer::{Batch, Key, Standing, Table, Transfer, View};

use self::compare::Comparison;
use self::rows::Rows;

/// Rows in a batch: each is a transaction, which the disk has to confirm, and is held in memory. Not a multiple of a page in
/// unit tests.
const BATCH_ROWS_MAX: usize = if cfg!(test) { 4 } else { 4_000 };

/// Why a copy does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target has rows of another ledger.
    #[error("has another ledger in it: name an empty one in --to, or a file that does not exist yet")]
    OtherLedger,
    /// The target has an unfinished copy of another ledger.
    #[error(
        "has an unfinished copy of another ledger in it: finish that one with the same --from again, or name an empty one in --to"
    )]
    OtherCopy,
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It copies into an empty ledger.
    Begin,
    /// It takes up a copy that was not finished.
    TakeUp,
    /// The copy was finished before: it only compares.
    Compare,
}

/// Which side a store failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The source.
    From(StoreError),
    /// The target.
    To(StoreError),
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// `copy` or `compare`.
    pub doing: &'static str,
    /// The table that it is at.
    pub table: Table,
    /// Rows that are done, of all tables together.
    pub done: u64,
    /// Rows that there are to do.
    pub of: u64,
}

/// Told now and then how far it is.
pub type Progress<'a> = &'a mut (dyn FnMut(Step) + Send);

/// What became of a copy.
#[derive(Debug)]
pub struct Report {
    /// Rows of each table that were written or removed in this run.
    pub written: BTreeMap<Table, u64>,
    /// Both sides, compared.
    pub comparison: Comparison,
}

/// What a run has to do with a target that stands so, or why it may not. The source is a whole ledger.
///
/// # Errors
/// When it may not.
pub fn course(from: &Standing, to: &Standing) -> Result<Course, Refusal> {
    match &to.unfinished {
        Some(copy) if Some(&copy.ledger_id) == from.ledger_id.as_ref() => Ok(Course::TakeUp),
        Some(_) => Err(Refusal::OtherCopy),
        None if to.ledger_id.is_some() && to.ledger_id == from.ledger_id => Ok(Course::Compare),
        None if to.has_rows => Err(Refusal::OtherLedger),
        None => Ok(Course::Begin),
    }
}

/// Copies what there is to copy, and compares. Equal sides are a finished copy; where they are not, as when the source
/// has changed meanwhile, a next run looks at all rows of the tables that differ.
///
/// # Errors
/// When a store does not answer, or the target cannot hold a row. The next run goes on behind the last batch.
pub async fn copy(
    from: &dyn Transfer,
    to: &dyn Transfer,
    course: Course,
    progress: Progress<'_>,
) -> Result<Report, Failure> {
    let mut written = BTreeMap::new();
    if course != Course::Compare {
        written = bring_over(from, to, course, progress).await?;
    }
    let comparison = compare::compare(from, to, progress).await?;
    if course != Course::Compare {
        let different: Vec<Table> = comparison.different().collect();
        let settled = if different.is_empty() { to.finish().await } else { to.forget(&different).await };
        settled.map_err(Failure::To)?;
    }
    Ok(Report { written, comparison })
}

async fn bring_over(
    from: &dyn Transfer,
    to: &dyn Transfer,
    course: Course,
    progress: Progress<'_>,
) -> Result<BTreeMap<Table, u64>, Failure> {
    let mut view = from.view().await.map_err(Failure::From)?;
    if course == Course::Begin {
        let source = from.standing().await.map_err(Failure::From)?;
        to.begin(&source.ledger_id.unwrap_or_default()).await.map_err(Failure::To)?;
    }
    let standing = to.standing().await.map_err(Failure::To)?;
    let mut places: BTreeMap<Table, Key> = standing.unfinished.unwrap_or_default().places.into_iter().collect();
    let (mut done, mut of) = (0, 0);
    let mut there = to.view().await.map_err(Failure::To)?;
    for table in Table::ALL {
        let rows = view.count(table).await.map_err(Failure::From)?;
        of += rows;
        if places.contains_key(&table) {
            done += there.count(table).await.map_err(Failure::To)?.min(rows);
        }
    }
    there.leave().await.map_err(Failure::To)?;
    let mut written = BTreeMap::new();
    for table in Table::ALL {
        let mut tell = |rows: u64| {
            done += rows;
            progress(Step { doing: "copy", table, done: done.min(of), of });
        };
        tell(0);
        let mut merge = Merge { table, to, source: Rows::behind(table, places.remove(&table)), written: 0 };
        merge.run(view.as_mut(), &mut tell).await?;
        written.insert(table, merge.written);
    }
    view.leave().await.map_err(Failure::From)?;
    Ok(written)
}

/// One table on its way.
struct Merge<'a> {
    table: Table,
    to: &'a dyn Transfer,
    source: Rows,
    written: u64,
}

impl Merge<'_> {
    async fn run(&mut self, view: &mut dyn View, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), Failure> {
        let mut target = Rows::behind(self.table, self.source.place().cloned());
        self.source.fill(view).await.map_err(Failure::From)?;
        loop {
            let (batch, seen) = self.batch(&mut target).await?;
            let is_over = self.source.is_over() && target.is_over();
            // The source is read while the target writes.
            let write = async { if batch.is_empty() { Ok(()) } else { self.to.put(self.table, &batch).await } };
            let (put, filled) = join(write, self.source.fill(view)).await;
            put.map_err(Failure::To)?;
            filled.map_err(Failure::From)?;
            self.written = self.written.saturating_add(u64::try_from(batch.rows()).unwrap_or(u64::MAX));
            tell(seen);
            if is_over {
                return Ok(());
            }
        }
    }

    /// What is to be done, as far as rows of the source are at hand; and how many of them it is about.
    async fn batch(&mut self, target: &mut Rows) -> Result<(Batch, u64), Failure> {
        let mut batch = Batch::default();
        let mut seen: u64 = 0;
        while batch.rows() < BATCH_ROWS_MAX && (self.source.peek().is_some() || self.source.is_over()) {
            if target.peek().is_none() && !target.is_over() {
                // Of this moment: nobody else writes there, and a long look would keep the log of a file from being cut.
                let mut view = self.to.view().await.map_err(Failure::To)?;
                target.fill(view.as_mut()).await.map_err(Failure::To)?;
                view.leave().await.map_err(Failure::To)?;
            }
            let Some(order) = rows::order(&self.source, target) else { break };
            let ours = if order == Ordering::Greater { None } else { self.source.next() };
            let theirs = if order == Ordering::Less { None } else { target.next() };
            seen = seen.saturating_add(u64::from(ours.is_some()));
            if let Some(row) = ours.as_ref().or(theirs.as_ref()) {
                batch.place = row.key(self.table).to_vec();
            }
            match (ours, theirs) {
                (Some(ours), None) => batch.new.push(ours),
                (Some(ours), Some(theirs)) if ours != theirs => batch.changed.push(ours),
                (None, Some(theirs)) => batch.gone.push(theirs.key(self.table).to_vec()),
                _ => {}
            }
        }
        Ok((batch, seen))
    }
}
