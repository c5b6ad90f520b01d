//! Two ledgers compared: every row, the checksum of every table, the sums of every tenant and month.
//!
//! May use: `domain`, `ports`. Each side is of one instant.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;

use futures_util::future::join;
use ring::digest::{Context, SHA256};

use crate::metering::verify::{Differences, Kind};
use crate::ports::transfer::{Column, Row, Table, Transfer, Value, View};

use super::rows::{self, Rows};
use super::{Failure, Progress, Step};

/// Characters of a value that are told.
const TOLD_MAX: usize = 80;

/// What was found.
#[derive(Debug)]
pub struct Comparison {
    /// Both sides of each table, in the order of [`Table::ALL`].
    pub tables: BTreeMap<Table, Sides>,
    /// Tenants' months that were compared.
    pub tenant_months: u64,
    /// What is not equal: `expected` is the source, `found` the target.
    pub differences: Differences,
}

/// A table on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// The source.
    pub from: Side,
    /// The target.
    pub to: Side,
}

/// A table on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// How many rows it has.
    pub rows: u64,
    /// The SHA-256 of all of them in the order of their keys, each value as [`Value::encode`] has it.
    pub sha256: [u8; 32],
}

impl Comparison {
    /// Tables that are not equal.
    pub fn different(&self) -> impl Iterator<Item = Table> {
        self.tables.iter().filter(|(_, sides)| sides.from != sides.to).map(|(table, _)| *table)
    }

    /// Whether everything is equal.
    pub fn is_equal(&self) -> bool {
        self.different().next().is_none() && self.differences.total() == 0
    }
}

/// Compares all of two ledgers.
///
/// # Errors
/// When one does not answer.
pub async fn compare(from: &dyn Transfer, to: &dyn Transfer, progress: Progress<'_>) -> Result<Comparison, Failure> {
    let (mut ours, mut theirs) = (from.view().await.map_err(Failure::From)?, to.view().await.map_err(Failure::To)?);
    let mut of = 0;
    for table in Table::ALL {
        of += ours.count(table).await.map_err(Failure::From)?;
    }
    let mut comparison = Comparison { tables: BTreeMap::new(), tenant_months: 0, differences: Differences::default() };
    let mut done = 0;
    for table in Table::ALL {
        let mut tell = |rows: u64| {
            done += rows;
            progress(Step { doing: "compare", table, done: done.min(of), of });
        };
        tell(0);
        let sides = comparison.table(table, (ours.as_mut(), theirs.as_mut()), &mut tell).await?;
        comparison.tables.insert(table, sides);
    }
    ours.leave().await.map_err(Failure::From)?;
    theirs.leave().await.map_err(Failure::To)?;
    Ok(comparison)
}

impl Comparison {
    async fn table(
        &mut self,
        table: Table,
        (from, to): (&mut dyn View, &mut dyn View),
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Sides, Failure> {
        let (mut ours, mut theirs) = (Rows::behind(table, None), Rows::behind(table, None));
        let (mut our_sum, mut their_sum) = (Checksum::new(), Checksum::new());
        let mut months = (table == Table::UsageMonthly).then(Months::default);
        loop {
            let before = our_sum.rows;
            let (filled, filled_too) = join(ours.fill(from), theirs.fill(to)).await;
            filled.map_err(Failure::From)?;
            filled_too.map_err(Failure::To)?;
            while let Some(order) = next_pair(&ours, &theirs) {
                let row = if order == Ordering::Greater { None } else { ours.next() };
                let other = if order == Ordering::Less { None } else { theirs.next() };
                row.iter().for_each(|row| our_sum.add(row));
                other.iter().for_each(|row| their_sum.add(row));
                if let Some(months) = &mut months {
                    months.add(self, row.as_ref(), other.as_ref());
                }
                self.pair(table, row.as_ref(), other.as_ref());
            }
            tell(our_sum.rows.saturating_sub(before));
            if ours.is_over() && theirs.is_over() {
                break;
            }
        }
        if let Some(mut months) = months {
            months.end(self);
        }
        Ok(Sides { from: our_sum.side(), to: their_sum.side() })
    }

    fn pair(&mut self, table: Table, row: Option<&Row>, other: Option<&Row>) {
        match (row, other) {
            (Some(row), Some(other)) if row != other => {
                for ((column, value), found) in table.columns().iter().zip(&row.0).zip(&other.0) {
                    if value != found {
                        let values = (told(column, value), told(column, found));
                        self.differences.add(Kind::Copy, place(table, row), column.name, values);
                    }
                }
            }
            (Some(row), None) => self.differences.add(Kind::Copy, place(table, row), "row", ("one", "none")),
            (None, Some(row)) => self.differences.add(Kind::Copy, place(table, row), "row", ("none", "one")),
            _ => {}
        }
    }
}

/// Which row comes first, as far as that can be told from what is at hand.
fn next_pair(ours: &Rows, theirs: &Rows) -> Option<Ordering> {
    let is_known = |rows: &Rows| rows.peek().is_some() || rows.is_over();
    (is_known(ours) && is_known(theirs)).then(|| rows::order(ours, theirs)).flatten()
}

/// `usage_daily acme 2026-11-24 openai gpt-4o`
fn place(table: Table, row: &Row) -> String {
    let mut place = table.as_str().to_owned();
    for (column, value) in table.columns().iter().zip(row.key(table)) {
        // Writing to a string does not fail.
        write!(place, " {}", told(column, value)).unwrap_or_default();
    }
    place
}

/// A value for people: no control characters, which a name may have, and of bytes, which may be a hash or sealed, only
/// where they begin.
fn told(column: &Column, value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Null => "none".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Text(text) => text.chars().flat_map(char::escape_debug).take(TOLD_MAX).collect(),
        Value::Bytes(bytes) if column.name == "id" && bytes.len() == 16 => hex(bytes),
        Value::Bytes(bytes) => format!("{}… ({} bytes)", hex(bytes.get(..4).unwrap_or(bytes)), bytes.len()),
    }
}

/// The checksum of a table's rows.
struct Checksum {
    rows: u64,
    sha256: Context,
    bytes: Vec<u8>,
}

impl Checksum {
    fn new() -> Self {
        Self { rows: 0, sha256: Context::new(&SHA256), bytes: Vec::new() }
    }

    fn add(&mut self, row: &Row) {
        self.rows = self.rows.saturating_add(1);
        self.bytes.clear();
        row.0.iter().for_each(|value| value.encode(&mut self.bytes));
        self.sha256.update(&self.bytes);
    }

    fn side(self) -> Side {
        let mut sha256 = [0; 32];
        // Both have 32 bytes.
        sha256.iter_mut().zip(self.sha256.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Side { rows: self.rows, sha256 }
    }
}

/// The sums of a tenant and month over all providers and models, which stand one behind the other.
#[derive(Default)]
struct Months {
    /// Tenant and month.
    of: Option<[Value; 2]>,
    from: BTreeMap<&'static str, i128>,
    to: BTreeMap<&'static str, i128>,
}

impl Months {
    fn add(&mut self, comparison: &mut Comparison, row: Option<&Row>, other: Option<&Row>) {
        let Some([tenant, month, ..]) = row.or(other).map(|row| row.0.as_slice()) else { return };
        let is_same = self.of.as_ref().is_some_and(|[of, in_month]| (of, in_month) == (tenant, month));
        if !is_same {
            self.end(comparison);
            self.of = Some([tenant.clone(), month.clone()]);
        }
        for (sums, row) in [(&mut self.from, row), (&mut self.to, other)] {
            let values = row.into_iter().flat_map(|row| Table::UsageMonthly.columns().iter().zip(&row.0));
            for (column, value) in values {
                if let Value::Integer(integer) = value {
                    let sum = sums.entry(column.name).or_default();
                    *sum = sum.saturating_add(i128::from(*integer));
                }
            }
        }
    }

    fn end(&mut self, comparison: &mut Comparison) {
        let Some([tenant, month]) = self.of.take() else { return };
        comparison.tenant_months = comparison.tenant_months.saturating_add(1);
        let (from, to) = (std::mem::take(&mut self.from), std::mem::take(&mut self.to));
        let [tenant, month] =
            [&tenant, &month].map(|value| if let Value::Text(text) = value { text.as_str() } else { "" });
        for column in Table::UsageMonthly.columns() {
            let [ours, theirs] = [&from, &to].map(|sums| sums.get(column.name).copied().unwrap_or_default());
            if ours != theirs {
                let place = format!("{} {}: sum over all models", tenant.escape_debug(), month.escape_debug());
                let values = (ours.to_string(), theirs.to_string());
                comparison.differences.add(Kind::Copy, place, column.name, values);
            }
        }
    }
}
