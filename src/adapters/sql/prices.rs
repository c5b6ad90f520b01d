//! Price books: questions and changes.
//!
//! May use: `domain`, `ports`. Every change runs inside a transaction of its caller, as in [`super::changes`].

use super::cells::Columns;
use super::statement::Statement;
use super::{Dialect, audit};

use crate::domain::audit::Change;
use crate::domain::time::Micros;
use crate::ports::StoreError;
use crate::ports::prices::{ActiveBook, BOOKS_LISTED_MAX, BookListing, KeptBook};
use crate::ports::tenants::{Act, Done};

pub(in crate::adapters) async fn active<D: Dialect>(
    connection: &mut D::Connection,
) -> Result<Option<ActiveBook>, StoreError> {
    let text = "SELECT active_prices, active_prices_since, active_prices_by FROM meta";
    let found = D::rows(connection, Statement::new(text)).await.map_err(D::error)?;
    let row = found.first().ok_or_else(|| StoreError::Corrupt("the row of meta is missing".to_owned()))?;
    let mut columns = Columns::of(row);
    let Some(version) = columns.text_some()? else { return Ok(None) };
    Ok(Some(ActiveBook { version: version.into(), since: columns.instant()?, by: columns.owned()? }))
}

pub(in crate::adapters) async fn book<D: Dialect>(
    connection: &mut D::Connection,
    version: &str,
) -> Result<Option<KeptBook>, StoreError> {
    let find = Statement::new("SELECT version, document, base FROM price_books WHERE version = $1").bind(version);
    let found = D::rows(connection, find).await.map_err(D::error)?;
    let book = |row| {
        let mut columns = Columns::of(row);
        let (version, document) = (columns.text()?.into(), columns.text()?.into());
        Ok(KeptBook { version, document, base: columns.text_some()?.map(Into::into) })
    };
    found.first().map(book).transpose()
}

pub(in crate::adapters) async fn books<D: Dialect>(
    connection: &mut D::Connection,
) -> Result<Vec<BookListing>, StoreError> {
    let text = "SELECT version, base, added_at, added_by FROM price_books ORDER BY added_at DESC, version LIMIT $1";
    let question = Statement::new(text).bind(i64::from(BOOKS_LISTED_MAX));
    let found = D::rows(connection, question).await.map_err(D::error)?;
    let listing = |row| {
        let mut columns = Columns::of(row);
        let (version, base) = (columns.text()?.into(), columns.text_some()?.map(Into::into));
        Ok(BookListing { version, base, added_at: columns.instant()?, added_by: columns.owned()? })
    };
    found.iter().map(listing).collect()
}

pub(in crate::adapters) async fn keep<D: Dialect>(
    connection: &mut D::Connection,
    books: &[KeptBook],
    by: &str,
    at: Micros,
) -> Result<(), StoreError> {
    for KeptBook { version, document, base } in books {
        let text = "INSERT INTO price_books (version, document, base, added_at, added_by) \
                    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (version) DO NOTHING";
        let insert = Statement::new(text).bind(&**version).bind(&**document).bind(base.as_deref());
        D::run(connection, insert.bind(at.0).bind(by)).await.map_err(D::error)?;
    }
    Ok(())
}

pub(in crate::adapters) async fn set<D: Dialect>(
    connection: &mut D::Connection,
    book: Option<&[KeptBook]>,
    act: &Act,
) -> Result<Done<()>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let before = active::<D>(connection).await?.map(|active| active.version);
    let by = act.author.actor.as_str();
    keep::<D>(connection, book.unwrap_or_default(), by, act.at).await?;
    let after = book.and_then(<[_]>::last).map(|book| book.version.clone());
    let change = (before != after).then(|| Change::prices_set(before.as_deref(), after.as_deref()));
    if change.is_some() {
        let text = "UPDATE meta SET active_prices = $1, active_prices_since = $2, active_prices_by = $3";
        let (since, by) = (after.as_ref().map(|_| act.at.0), after.as_ref().map(|_| by));
        let update = Statement::new(text).bind(after.as_deref()).bind(since).bind(by);
        D::run(connection, update).await.map_err(D::error)?;
    }
    audit::finish::<D>(connection, act, change.as_ref()).await?;
    Ok(Done::Now(()))
}
