//! Price books in SQLite.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`].

use sqlx::Sqlite;

use super::SqliteLedger;
use crate::adapters::sql::prices;
use crate::domain::time::Micros;
use crate::ports::prices::{BookListing, KeptBook, PriceStore};
use crate::ports::tenants::{Act, Done};
use crate::ports::{BoxFuture, StoreError};

impl PriceStore for SqliteLedger {
    fn price_book<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Option<KeptBook>, StoreError>> {
        Box::pin(async move { prices::book::<Sqlite>(&mut *self.reader().await?, version).await })
    }

    fn price_books(&self) -> BoxFuture<'_, Result<Vec<BookListing>, StoreError>> {
        Box::pin(async move { prices::books::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn keep_price_books<'a>(
        &'a self,
        books: &'a [KeptBook],
        by: &'a str,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            prices::keep::<Sqlite>(&mut transaction, books, by, at).await?;
            self.commit(transaction).await
        })
    }

    fn set_prices<'a>(
        &'a self,
        book: Option<&'a [KeptBook]>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = prices::set::<Sqlite>(&mut transaction, book, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }
}
