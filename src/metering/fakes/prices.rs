//! Price books in memory.

use std::sync::Arc;

use super::{FakeStore, Tables};
use crate::domain::audit::Change;
use crate::domain::time::Micros;
use crate::ports::prices::{ActiveBook, BookListing, KeptBook, PriceStore};
use crate::ports::tenants::{Act, Done};
use crate::ports::{BoxFuture, StoreError};

impl Tables {
    fn keep(&mut self, books: &[KeptBook], by: &str, at: Micros) {
        for book in books {
            let KeptBook { version, document: _, base } = book.clone();
            let listing = BookListing { version: version.clone(), base, added_at: at, added_by: by.to_owned() };
            self.books.entry(version).or_insert((book.clone(), listing));
        }
    }
}

impl PriceStore for FakeStore {
    fn price_book<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Option<KeptBook>, StoreError>> {
        self.answer(|tables| Ok(tables.books.get(version).map(|(book, _)| book.clone())))
    }

    fn price_books(&self) -> BoxFuture<'_, Result<Vec<BookListing>, StoreError>> {
        self.answer(|tables| Ok(tables.books.values().map(|(_, listing)| listing.clone()).collect()))
    }

    fn keep_price_books<'a>(
        &'a self,
        books: &'a [KeptBook],
        by: &'a str,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|tables| {
            tables.keep(books, by, at);
            Ok(())
        })
    }

    fn set_prices<'a>(
        &'a self,
        book: Option<&'a [KeptBook]>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let by = act.author.actor.as_str();
                tables.keep(book.unwrap_or_default(), by, act.at);
                let before = tables.prices.take().map(|active| active.version);
                let after = book.and_then(<[_]>::last).map(|book| book.version.clone());
                let active = |version: &Arc<str>| ActiveBook { version: version.clone(), since: act.at, by: by.into() };
                tables.prices = after.as_ref().map(active);
                Ok(((), (before != after).then(|| Change::prices_set(before.as_deref(), after.as_deref()))))
            })
        })
    }
}
