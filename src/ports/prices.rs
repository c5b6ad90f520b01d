//! Price books at rest: each that was ever in force, and which one is.

use std::sync::Arc;

use crate::domain::time::Micros;

use super::tenants::{Act, Done};
use super::{BoxFuture, StoreError};

/// Books in one list: more nobody reads.
pub const BOOKS_LISTED_MAX: u32 = 1_000;

/// A price book as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBook {
    /// Its version: two books of one version are one book.
    pub version: Arc<str>,
    /// What it is read from.
    pub document: Arc<str>,
    /// The version of the book that it lies over. That one lies over none.
    pub base: Option<Arc<str>>,
}

/// What is told of a price book that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookListing {
    /// Its version.
    pub version: Arc<str>,
    /// The version of the book that it lies over.
    pub base: Option<Arc<str>>,
    /// Since when it is kept.
    pub added_at: Micros,
    /// Who put it there: `gateway`, `admin` or `cli`.
    pub added_by: String,
}

/// The book that somebody put in force for all gateways of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveBook {
    /// Its version.
    pub version: Arc<str>,
    /// Since when.
    pub since: Micros,
    /// Who put it there: `admin` or `cli`.
    pub by: String,
}

/// The store of price books. They are never changed and never dropped: each prices events that are kept.
pub trait PriceStore: Send + Sync {
    /// The book of that version.
    fn price_book<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Option<KeptBook>, StoreError>>;

    /// The newest books, newest first: at most [`BOOKS_LISTED_MAX`].
    fn price_books(&self) -> BoxFuture<'_, Result<Vec<BookListing>, StoreError>>;

    /// Keeps books, those whose version is not there. The revision stays: nothing changes by it.
    fn keep_price_books<'a>(
        &'a self,
        books: &'a [KeptBook],
        by: &'a str,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Keeps a book, and the one below it, and puts it in force; `None`: each gateway has the prices of its own
    /// configuration again. It is a change as in [`super::tenants::TenantStore`]: one that changes nothing leaves no entry
    /// in the audit log.
    fn set_prices<'a>(
        &'a self,
        book: Option<&'a [KeptBook]>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>>;
}
