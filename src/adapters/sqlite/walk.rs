//! The whole ledger shown as it stands at one instant, and SQLite's own check of its file.
//!
//! May use: `domain`, `ports`. One reading transaction from the first row to the last: in WAL mode that is a view which
//! stands still while others write, without a copy. It keeps the write-ahead log from being cut back for as long as it
//! lasts, so it must end.

use futures_util::future::join;
use sqlx::{AssertSqlSafe, Sqlite, SqlitePool};

use super::{SqliteLedger, store_error};
use crate::adapters::sql::walk;
use crate::ports::StoreError;
use crate::ports::usage::Entry;

/// Findings of SQLite's own check that are told; a torn file has one for every page.
const DAMAGES_MAX: u32 = 100;

impl SqliteLedger {
    /// What [`crate::ports::usage::UsageStore::walk`] promises. SQLite checks its file on a connection of its own in the
    /// meantime: that check is as long as all the rest, and knows nothing of instants.
    pub(super) async fn walk_all(&self, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        let (found, shown) = join(damages(&self.readers), self.walk_rows(see)).await;
        found?.into_iter().for_each(|damage| see(Entry::Damage(damage)));
        shown
    }

    async fn walk_rows(&self, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        let mut view = self.readers.begin().await.map_err(store_error)?;
        walk::walk::<Sqlite>(&mut view, see).await?;
        view.rollback().await.map_err(store_error)
    }
}

/// What SQLite finds wrong with its file: pages, and indexes that do not hold what their tables do.
async fn damages(readers: &SqlitePool) -> Result<Vec<String>, StoreError> {
    let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(format!("PRAGMA integrity_check({DAMAGES_MAX})")));
    let found = found.fetch_all(readers).await.map_err(store_error)?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}
