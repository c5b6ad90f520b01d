//! Rows of a SQLite ledger on their way out and in.
//!
//! May use: `domain`, `ports`.

use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::usage::{execute, pieces, places};
use super::{SqliteLedger, store_error};
use crate::adapters::sql::transfer::{self, Movable, cells, names};
use crate::ports::transfer::{Batch, Row, Standing, Table, Transfer, Value, View};
use crate::ports::{BoxFuture, StoreError};

impl Movable for Sqlite {
    const BYTES: &'static str = "BLOB";
    const TABLES_NAMED: &'static str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1";
}

/// A reading transaction.
struct Snapshot(Transaction<'static, Sqlite>);

impl View for Snapshot {
    fn count(&mut self, table: Table) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(transfer::count::<Sqlite>(&mut self.0, table))
    }

    fn page<'a>(
        &'a mut self,
        table: Table,
        after: Option<&'a [Value]>,
        rows_max: u32,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(transfer::page::<Sqlite>(&mut self.0, table, after, rows_max))
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.0.rollback().await.map_err(store_error) })
    }
}

impl Transfer for SqliteLedger {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreError>> {
        Box::pin(async move { transfer::standing::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, StoreError>> {
        Box::pin(async move {
            let snapshot = self.readers.begin().await.map_err(store_error)?;
            Ok(Box::new(Snapshot(snapshot)) as Box<dyn View>)
        })
    }

    fn begin<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            transfer::set_mark::<Sqlite>(&mut transaction, ledger_id).await?;
            self.commit(transaction).await
        })
    }

    fn put<'a>(&'a self, table: Table, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            transfer::put_old::<Sqlite>(&mut transaction, table, batch).await?;
            for some in pieces(&batch.new) {
                insert(&mut transaction, table, some).await?;
            }
            self.commit(transaction).await
        })
    }

    fn forget<'a>(&'a self, tables: &'a [Table]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            for table in tables {
                transfer::forget::<Sqlite>(&mut transaction, *table).await?;
            }
            self.commit(transaction).await
        })
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // SQLite numbers new rows behind the last one by itself.
            let mut transaction = self.write().await?;
            transfer::take_mark::<Sqlite>(&mut transaction).await?;
            self.commit(transaction).await
        })
    }
}

async fn insert(connection: &mut SqliteConnection, table: Table, rows: &[Row]) -> Result<(), StoreError> {
    let columns = table.columns();
    let mut values = Vec::with_capacity(rows.len().saturating_mul(columns.len()));
    for row in rows {
        values.extend(cells(columns, &row.0)?);
    }
    let places = places(rows.len(), columns.len());
    // OR FAIL: a row that is refused ends the transaction anyway.
    let text = format!("INSERT OR FAIL INTO {} ({}) VALUES {places}", table.as_str(), names(columns));
    execute(connection, text, &values).await.map(|_| ())
}
