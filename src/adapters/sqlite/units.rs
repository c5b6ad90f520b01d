//! Units that wait for their bill, in SQLite.
//!
//! May use: `domain`, `ports`. Questions are those of [`crate::adapters::sql`].

use sqlx::{Sqlite, SqliteConnection};

use super::SqliteLedger;
use super::usage::{execute, places};
use crate::adapters::sql::units::{self, UNIT_COLUMNS};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::time::Micros;
use crate::domain::unit::UnitName;
use crate::ports::units::{DeferredUnit, Pauses, UnitStore};
use crate::ports::{BoxFuture, StoreError};

impl UnitStore for SqliteLedger {
    fn waiting<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
    ) -> BoxFuture<'a, Result<Option<DeferredUnit>, StoreError>> {
        Box::pin(async move { units::waiting::<Sqlite>(&mut *self.reader().await?, provider, name).await })
    }

    fn below<'a>(
        &'a self,
        provider: &'a ProviderId,
        path: &'a str,
        tenant: Option<&'a TenantId>,
        units_max: u32,
    ) -> BoxFuture<'a, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(
            async move { units::below::<Sqlite>(&mut *self.reader().await?, provider, path, tenant, units_max).await },
        )
    }

    fn claim(
        &self,
        now: Micros,
        pauses: Pauses,
        units_max: u32,
    ) -> BoxFuture<'_, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            if !units::is_any_due::<Sqlite>(&mut *self.reader().await?, now).await? {
                return Ok(Vec::new());
            }
            let mut transaction = self.write().await?;
            let claimed = units::claim::<Sqlite>(&mut transaction, now, pauses, units_max).await?;
            self.commit(transaction).await?;
            Ok(claimed)
        })
    }

    fn settled<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            units::settled::<Sqlite>(&mut transaction, provider, name, at).await?;
            self.commit(transaction).await
        })
    }

    fn forget(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let forgotten = units::forget::<Sqlite>(&mut transaction, before).await?;
            self.commit(transaction).await?;
            Ok(forgotten)
        })
    }
}

/// Writes the units that `events` deferred: few of them have one.
pub(super) async fn insert(connection: &mut SqliteConnection, events: &[&UsageEvent]) -> Result<(), StoreError> {
    for event in events {
        let Some(unit) = units::deferred(event) else { continue };
        let (columns, places) = (UNIT_COLUMNS.join(", "), places(1, UNIT_COLUMNS.len()));
        let text = format!(
            "INSERT OR FAIL INTO deferred_units ({columns}) VALUES {places} ON CONFLICT (provider, unit) DO NOTHING"
        );
        execute(connection, text, &units::unit_cells(event, unit)?).await?;
    }
    Ok(())
}
