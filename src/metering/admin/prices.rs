//! Administration of prices: which book is in force for all gateways, and which there were.

use crate::domain::price::PriceBook;
use crate::ports::prices::ActiveBook;

pub use crate::ports::prices::BookListing;

use super::super::price_books::{find, kept};
use super::{Admin, AdminError, Order};

/// The prices in force, why these, and what else there is.
#[derive(Debug, Clone)]
pub struct PricesView {
    /// The version of the book in force.
    pub version: String,
    /// Who put it in force for all gateways, and when; `None`: it is that of the configuration.
    pub active: Option<ActiveBook>,
    /// The version of the configuration's book.
    pub configured: String,
    /// The books that are kept, newest first.
    pub kept: Vec<BookListing>,
}

impl Admin {
    /// Reads a price file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_prices(&self, file: &[u8]) -> Result<PriceBook, String> {
        (self.snapshots.format().parse)(file)
    }

    /// Puts a book in force for all gateways of the ledger; `None`: each has that of its own configuration again. What is
    /// in force already changes nothing.
    pub async fn set_prices(&self, order: Order<'_, ()>, book: Option<&PriceBook>) -> Result<(), AdminError> {
        self.recall(&order).await?;
        let books = book.map(kept);
        let act = order.act(&(), self.clock.now())?;
        let done = self.store.set_prices(books.as_deref(), &act).await?;
        self.done_now(&order, done).await
    }

    /// The prices in force, and the books that are kept.
    pub async fn prices(&self) -> Result<PricesView, AdminError> {
        self.snapshots.refresh(&*self.store).await?;
        let kept = self.store.price_books().await?;
        let snapshot = self.snapshots.load();
        let (version, configured) = (snapshot.prices.version(), snapshot.configured.version());
        let active = snapshot.active.clone();
        Ok(PricesView { version: version.to_string(), active, configured: configured.to_string(), kept })
    }

    /// A book that is kept.
    pub async fn price_book(&self, version: &str) -> Result<Option<PriceBook>, AdminError> {
        Ok(find(&*self.store, version, self.snapshots.format()).await?)
    }
}
