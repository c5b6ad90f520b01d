//! Price books between the ledger, which keeps every one that was ever in force, and those who price by them.
//!
//! May use: `domain`, `ports`. How a book is written is the configuration's to know: [`Format`] brings it here.

use std::sync::Arc;

use crate::domain::price::PriceBook;
use crate::domain::price::tariff::{Pricing, Tariff, Version};
use crate::ports::StoreError;
use crate::ports::prices::{KeptBook, PriceStore};

/// How price books are read.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// An operator's file.
    pub parse: fn(&[u8]) -> Result<PriceBook, String>,
    /// A document that was kept, over the book that it lies over.
    pub read: fn(&str, Option<Arc<PriceBook>>) -> Result<PriceBook, String>,
}

/// Nothing is a price book: for those who have theirs from elsewhere.
impl Default for Format {
    fn default() -> Self {
        Self { parse: |_| Err(NOT_HERE.to_owned()), read: |_, _| Err(NOT_HERE.to_owned()) }
    }
}

const NOT_HERE: &str = "price books are not read here";

/// A book as it is kept: the one below it first.
pub fn kept(book: &PriceBook) -> Vec<KeptBook> {
    let one = |book: &PriceBook| KeptBook {
        version: book.version(),
        document: book.document().clone(),
        base: book.base().map(|base| base.version()),
    };
    book.base().map(|base| one(base)).into_iter().chain([one(book)]).collect()
}

/// The book of that version, if it is kept.
///
/// # Errors
/// [`StoreError::Corrupt`] where it, or the one below it, cannot be read: a newer program may have written it.
pub async fn find(
    store: &(impl PriceStore + ?Sized),
    version: &str,
    format: Format,
) -> Result<Option<PriceBook>, StoreError> {
    let unreadable = |why: String| StoreError::Corrupt(format!("the price book {version} cannot be read: {why}"));
    let Some(book) = store.price_book(version).await? else { return Ok(None) };
    let base = match &book.base {
        None => None,
        Some(base) => {
            let kept = store.price_book(base).await?;
            let kept = kept.ok_or_else(|| unreadable(format!("{base}, which it lies over, is not there")))?;
            Some(Arc::new((format.read)(&kept.document, None).map_err(unreadable)?))
        }
    };
    let read = (format.read)(&book.document, base).map_err(unreadable)?;
    if *read.version() == *version { Ok(Some(read)) } else { Err(unreadable("it was changed".to_owned())) }
}

/// What an event of that version was priced by; `None` where a book of it is not kept.
///
/// # Errors
/// As [`find`].
pub async fn tariff(
    store: &(impl PriceStore + ?Sized),
    version: &str,
    format: Format,
) -> Result<Option<Tariff>, StoreError> {
    let Some(Version { list, own, percent }) = Version::parse(version) else { return Ok(None) };
    let Some(list) = find(store, list, format).await?.map(Arc::new) else { return Ok(None) };
    let own = match own {
        None => None,
        Some(own) => match find(store, own, format).await? {
            Some(own) => Some(Arc::new(own)),
            None => return Ok(None),
        },
    };
    Ok(Some(Tariff::new(list, Pricing { percent, own })))
}
