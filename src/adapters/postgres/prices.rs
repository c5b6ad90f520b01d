//! Price books in Postgres.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`].

use sqlx::Postgres;

use super::PostgresLedger;
use crate::adapters::sql::prices;
use crate::domain::time::Micros;
use crate::ports::prices::{BookListing, KeptBook, PriceStore};
use crate::ports::tenants::{Act, Done};
use crate::ports::{BoxFuture, StoreError};

impl PriceStore for PostgresLedger {
    fn price_book<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Option<KeptBook>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let book = prices::book::<Postgres>(&mut reader, version).await;
            reader.answer(book)
        })
    }

    fn price_books(&self) -> BoxFuture<'_, Result<Vec<BookListing>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let books = prices::books::<Postgres>(&mut reader).await;
            reader.answer(books)
        })
    }

    fn keep_price_books<'a>(
        &'a self,
        books: &'a [KeptBook],
        by: &'a str,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let kept = prices::keep::<Postgres>(&mut change, books, by, at).await;
            change.commit(kept).await
        })
    }

    fn set_prices<'a>(
        &'a self,
        book: Option<&'a [KeptBook]>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = prices::set::<Postgres>(&mut change, book, act).await;
            change.commit(done).await
        })
    }
}
