//! A ledger taken out of one store and put into another, row by row as it stands.
//!
//! May use: `domain`. Rows are neutral here: integers, texts and bytes in named columns, the same from every store, so that
//! one loop copies any table between any two stores, and what is equal is equal to the bit.

mod tables;

use super::{BoxFuture, StoreError};

pub use tables::{Column, Shape};

/// A table of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Every metered call.
    UsageEvents,
    /// Tenants.
    Tenants,
    /// Every plan a tenant was ever put on.
    TenantPlans,
    /// Keys of tenants.
    Keys,
    /// Keys of tenants' own for providers, sealed.
    ProviderKeys,
    /// Sums of days.
    UsageDaily,
    /// Sums of months.
    UsageMonthly,
    /// Sums of what counters count.
    UsageScopes,
    /// Thresholds that were crossed.
    ThresholdCrossings,
    /// Who changed what.
    AuditLog,
    /// What requests with an idempotency key were answered.
    IdempotencyRecords,
    /// What providers finish later, and what of it is billed.
    DeferredUnits,
    /// Whose the objects are that providers keep.
    ProviderObjects,
    /// What events were priced by.
    PriceBooks,
    /// What belongs to the ledger as a whole: its id, its revision, the hash of its admin key, which prices are in force.
    Meta,
}

/// A value of a row. In the order of keys: integers by size, texts and bytes by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// There is none.
    Null,
    /// A number; also a truth, which is 0 or 1.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes; also the id of an event, which has 16.
    Bytes(Vec<u8>),
}

/// A row: a value for each of [`Table::columns`]. The first ones are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

/// The key of a row.
pub type Key = Vec<Value>;

/// What makes the rows of a table up to `place` those of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows that are not there.
    pub new: Vec<Row>,
    /// Rows whose key is there and something else is different.
    pub changed: Vec<Row>,
    /// Keys that the source does not have.
    pub gone: Vec<Key>,
    /// The last key that was looked at.
    pub place: Key,
}

/// How a store stands before a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The ledger's id; `None` where there is no ledger yet.
    pub ledger_id: Option<String>,
    /// Whether there is any tenant, event, sum or the like.
    pub has_rows: bool,
    /// A copy into it that is not finished.
    pub unfinished: Option<Unfinished>,
}

/// A copy that was begun and not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The id of the ledger that is copied.
    pub ledger_id: String,
    /// Up to which key each table was copied; a table that is not named was not begun.
    pub places: Vec<(Table, Key)>,
}

/// One instant of a ledger.
pub trait View: Send {
    /// How many rows a table has.
    fn count(&mut self, table: Table) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Rows in the order of their keys: at most `rows_max`, from the first key behind `after` on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a value that is not of its column's kind.
    fn page<'a>(
        &'a mut self,
        table: Table,
        after: Option<&'a [Value]>,
        rows_max: u32,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>>;

    /// Ends it.
    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// A ledger that can be copied from and to. Its schema is up to date but for [`Self::standing`].
///
/// While a copy into a ledger is not finished, everything else that opens it is refused: it has a mark, which
/// [`Self::begin`] sets and [`Self::finish`] takes away. Both, and every batch with its place, are each one transaction, so
/// that a copy that was killed at any point is taken up there.
pub trait Transfer: Send + Sync {
    /// How it stands. Nothing is changed, and no schema is needed.
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreError>>;

    /// Everything as it is now, for as long as the view is kept.
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, StoreError>>;

    /// Sets the mark: from now on a copy of that ledger is not finished.
    fn begin<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Does a batch and notes its place.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a row that this store cannot hold.
    fn put<'a>(&'a self, table: Table, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Forgets the places of some tables: the next run looks at all of their rows.
    fn forget<'a>(&'a self, tables: &'a [Table]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Makes new rows be numbered behind those that are there, and takes the mark away. What was put is safe from then on,
    /// also from a power cut.
    fn finish(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl Batch {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }

    /// Rows that are written or removed.
    pub fn rows(&self) -> usize {
        [self.new.len(), self.changed.len(), self.gone.len()].iter().sum()
    }
}

impl Row {
    /// Its key.
    pub fn key(&self, table: Table) -> &[Value] {
        self.0.get(..table.key_columns()).unwrap_or(&self.0)
    }
}

impl Value {
    /// Adds the one form that a value has as bytes: what kind it is, and for texts and bytes how long, so that no two rows
    /// have the same form. Numbers are big-endian.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let mut long = |kind: u8, content: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&u64::try_from(content.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(content);
        };
        match self {
            Self::Text(text) => long(2, text.as_bytes()),
            Self::Bytes(content) => long(3, content),
            Self::Null => bytes.push(0),
            Self::Integer(integer) => {
                bytes.push(1);
                bytes.extend_from_slice(&integer.to_be_bytes());
            }
        }
    }

    /// Reads such a form off the front of `bytes`; `None` when it is none.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let kind = bytes.split_off_first()?;
        match kind {
            0 => Some(Self::Null),
            1 => Some(Self::Integer(i64::from_be_bytes(*take(bytes)?))),
            2 | 3 => {
                let length = usize::try_from(u64::from_be_bytes(*take(bytes)?)).ok()?;
                let content = bytes.split_off(..length)?.to_vec();
                if *kind == 3 { Some(Self::Bytes(content)) } else { String::from_utf8(content).ok().map(Self::Text) }
            }
            _ => None,
        }
    }
}

fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8; 8]> {
    bytes.split_off(..8)?.try_into().ok()
}

/// Values as bytes: see [`Value::encode`].
pub fn encoded(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| value.encode(&mut bytes));
    bytes
}

/// The values of such bytes; `None` when they are none.
pub fn decoded(mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(Value::decode(&mut bytes)?);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Vec<Value>> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
        ];
        proptest::collection::vec(value, 0..6)
    }

    proptest! {
        #[test]
        fn values_are_read_again_as_they_were(values in values()) {
            prop_assert_eq!(decoded(&encoded(&values)), Some(values));
        }

        #[test]
        fn bytes_that_are_no_values_are_none(values in values(), cut in 1_usize..9) {
            let bytes = encoded(&values);
            let left = bytes.len().saturating_sub(cut);
            let read = decoded(&bytes[..left]);
            prop_assert!(read.is_none_or(|read| values.starts_with(&read) && encoded(&read).len() == left));
        }
    }

    #[test]
    fn every_table_has_a_key_and_columns_of_its_own() {
        for table in Table::ALL {
            let mut names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            assert!((1..=names.len()).contains(&table.key_columns()), "{}", table.as_str());
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{}", table.as_str());
            assert_eq!(Table::parse(table.as_str()), Some(table));
        }
    }
}
