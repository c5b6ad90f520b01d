//! Single values on their way into rows and out of them.
//!
//! May use: `domain`, `ports`. Five kinds of value are all that rows of ours are made of.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use crate::domain::ids::EventId;
use crate::domain::quantities::Quantities;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;

/// A value for a row.
#[derive(Debug, Clone)]
pub(in crate::adapters) enum Cell<'a> {
    Integer(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Bytes(Option<Cow<'a, [u8]>>),
    Truth(Option<bool>),
    Id(Option<EventId>),
    /// A list, where a dialect has such.
    Ids(Vec<EventId>),
    /// A list, where a dialect has such.
    Texts(Vec<&'a str>),
}

/// A row of an answer. `None` is NULL.
pub(in crate::adapters) trait Cells {
    fn integer(&self, at: usize) -> Result<Option<i64>, StoreError>;
    fn text(&self, at: usize) -> Result<Option<&str>, StoreError>;
    /// A text as it stands, also where it is none: a flipped bit is to be shown, not to end the reading.
    fn any_text(&self, at: usize) -> Result<Option<Cow<'_, str>>, StoreError>;
    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError>;
    fn truth(&self, at: usize) -> Result<Option<bool>, StoreError>;
    /// The bytes of an event's id; sixteen, unless the ledger is damaged.
    fn id(&self, at: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError>;
}

/// Reads the columns of a row one after the other.
pub(in crate::adapters) struct Columns<'r, R> {
    row: &'r R,
    next: usize,
}

impl From<i64> for Cell<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(Some(integer))
    }
}

impl From<Option<i64>> for Cell<'_> {
    fn from(integer: Option<i64>) -> Self {
        Self::Integer(integer)
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl<'a> From<Option<&'a str>> for Cell<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text.map(Cow::Borrowed))
    }
}

impl Cell<'_> {
    /// What a value is written as, or NULL.
    pub(in crate::adapters) fn text_some(value: Option<&impl Display>) -> Self {
        Self::Text(value.map(|value| Cow::Owned(value.to_string())))
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(Some(Cow::Owned(text)))
    }
}

impl<'a> From<&'a [u8]> for Cell<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Some(Cow::Borrowed(bytes)))
    }
}

impl<'a> From<Option<&'a [u8]>> for Cell<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        Self::Bytes(bytes.map(Cow::Borrowed))
    }
}

impl From<bool> for Cell<'_> {
    fn from(truth: bool) -> Self {
        Self::Truth(Some(truth))
    }
}

impl From<Option<bool>> for Cell<'_> {
    fn from(truth: Option<bool>) -> Self {
        Self::Truth(truth)
    }
}

impl From<EventId> for Cell<'_> {
    fn from(id: EventId) -> Self {
        Self::Id(Some(id))
    }
}

impl From<Option<EventId>> for Cell<'_> {
    fn from(id: Option<EventId>) -> Self {
        Self::Id(id)
    }
}

impl<'r, R: Cells> Columns<'r, R> {
    pub(in crate::adapters) fn of(row: &'r R) -> Self {
        Self { row, next: 0 }
    }

    fn place(&mut self) -> usize {
        let at = self.next;
        self.next = at.saturating_add(1);
        at
    }

    /// Whether the next column, a text, is NULL; it is still to be read.
    pub(in crate::adapters) fn is_null(&self) -> Result<bool, StoreError> {
        Ok(self.row.text(self.next)?.is_none())
    }

    pub(in crate::adapters) fn integer(&mut self) -> Result<i64, StoreError> {
        there(self.integer_some()?)
    }

    pub(in crate::adapters) fn integer_some(&mut self) -> Result<Option<i64>, StoreError> {
        let at = self.place();
        self.row.integer(at)
    }

    pub(in crate::adapters) fn text(&mut self) -> Result<&'r str, StoreError> {
        there(self.text_some()?)
    }

    pub(in crate::adapters) fn text_some(&mut self) -> Result<Option<&'r str>, StoreError> {
        let at = self.place();
        self.row.text(at)
    }

    pub(in crate::adapters) fn owned(&mut self) -> Result<String, StoreError> {
        self.text().map(str::to_owned)
    }

    pub(in crate::adapters) fn owned_some(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.text_some()?.map(str::to_owned))
    }

    pub(in crate::adapters) fn any_text(&mut self) -> Result<String, StoreError> {
        there(self.any_text_some()?)
    }

    pub(in crate::adapters) fn any_text_some(&mut self) -> Result<Option<String>, StoreError> {
        let at = self.place();
        Ok(self.row.any_text(at)?.map(Cow::into_owned))
    }

    pub(in crate::adapters) fn truth(&mut self) -> Result<bool, StoreError> {
        there(self.truth_some()?)
    }

    pub(in crate::adapters) fn truth_some(&mut self) -> Result<Option<bool>, StoreError> {
        let at = self.place();
        self.row.truth(at)
    }

    pub(in crate::adapters) fn id(&mut self) -> Result<EventId, StoreError> {
        there(self.id_some()?)
    }

    pub(in crate::adapters) fn id_some(&mut self) -> Result<Option<EventId>, StoreError> {
        let at = self.place();
        let Some(bytes) = self.row.id(at)? else { return Ok(None) };
        let id = <[u8; 16]>::try_from(&*bytes).map_err(|_| unreadable("length", bytes.len()))?;
        Ok(Some(EventId::from_bytes(id)))
    }

    pub(in crate::adapters) fn id_bytes(&mut self) -> Result<Cow<'r, [u8]>, StoreError> {
        let at = self.place();
        there(self.row.id(at)?)
    }

    pub(in crate::adapters) fn blob(&mut self) -> Result<&'r [u8], StoreError> {
        let at = self.place();
        there(self.row.bytes(at)?)
    }

    pub(in crate::adapters) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        there(self.bytes_some()?)
    }

    pub(in crate::adapters) fn bytes_some<const N: usize>(&mut self) -> Result<Option<[u8; N]>, StoreError> {
        let at = self.place();
        let bytes = self.row.bytes(at)?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| unreadable("length", bytes.len()))).transpose()
    }

    pub(in crate::adapters) fn parse<T>(&mut self) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        parse(self.text()?)
    }

    pub(in crate::adapters) fn parse_some<T>(&mut self) -> Result<Option<T>, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text_some()?.map(parse).transpose()
    }

    pub(in crate::adapters) fn named<T>(&mut self, named: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let text = self.text()?;
        named(text).ok_or_else(|| unreadable("name", text))
    }

    pub(in crate::adapters) fn named_some<T>(
        &mut self,
        named: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let text = self.text_some()?;
        text.map(|text| named(text).ok_or_else(|| unreadable("name", text))).transpose()
    }

    pub(in crate::adapters) fn count(&mut self) -> Result<u64, StoreError> {
        there(self.count_some()?)
    }

    pub(in crate::adapters) fn count_some(&mut self) -> Result<Option<u64>, StoreError> {
        let count = self.integer_some()?;
        count.map(|count| u64::try_from(count).map_err(|_| unreadable("count", count))).transpose()
    }

    /// A sum that may be beyond 64 bits: such stand as text in an answer.
    pub(in crate::adapters) fn amount(&mut self) -> Result<i128, StoreError> {
        self.parse()
    }

    pub(in crate::adapters) fn instant(&mut self) -> Result<Micros, StoreError> {
        self.integer().map(Micros)
    }

    pub(in crate::adapters) fn instant_some(&mut self) -> Result<Option<Micros>, StoreError> {
        Ok(self.integer_some()?.map(Micros))
    }

    pub(in crate::adapters) fn tokens(&mut self) -> Result<Tokens, StoreError> {
        let mut kinds = Tokens::default().kinds();
        for kind in &mut kinds {
            *kind = self.count()?;
        }
        Ok(Tokens::from_kinds(kinds))
    }

    pub(in crate::adapters) fn quantities(&mut self) -> Result<Quantities, StoreError> {
        let mut kinds = Quantities::default().kinds();
        for kind in &mut kinds {
            *kind = self.count()?;
        }
        Ok(Quantities::from_kinds(kinds))
    }
}

fn there<T>(value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| unreadable("value", "NULL"))
}

fn parse<T>(text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| unreadable(&error.to_string(), text))
}

pub(in crate::adapters) fn unreadable(what: &str, value: impl Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {value}"))
}
