//! Units that wait for their bill, in Postgres.
//!
//! May use: `domain`, `ports`. Questions are those of [`crate::adapters::sql`]. Units are written by the statement that
//! appends their events.

use sqlx::Postgres;

use super::PostgresLedger;
use super::session::Session;
use crate::adapters::sql::units;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::time::Micros;
use crate::domain::unit::UnitName;
use crate::ports::units::{DeferredUnit, Pauses, UnitStore};
use crate::ports::{BoxFuture, StoreError};

impl UnitStore for PostgresLedger {
    fn waiting<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
    ) -> BoxFuture<'a, Result<Option<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let waiting = units::waiting::<Postgres>(&mut reader, provider, name).await;
            reader.answer(waiting)
        })
    }

    fn below<'a>(
        &'a self,
        provider: &'a ProviderId,
        path: &'a str,
        tenant: Option<&'a TenantId>,
        units_max: u32,
    ) -> BoxFuture<'a, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let open = units::below::<Postgres>(&mut reader, provider, path, tenant, units_max).await;
            reader.answer(open)
        })
    }

    fn claim(
        &self,
        now: Micros,
        pauses: Pauses,
        units_max: u32,
    ) -> BoxFuture<'_, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let due = units::is_any_due::<Postgres>(&mut reader, now).await;
            if !reader.answer(due)? {
                return Ok(Vec::new());
            }
            let mut session = Session::of(&self.changer).await?;
            let claimed = units::claim::<Postgres>(&mut session, now, pauses, units_max).await;
            session.answer(claimed)
        })
    }

    fn settled<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut session = Session::of(&self.changer).await?;
            let settled = units::settled::<Postgres>(&mut session, provider, name, at).await;
            session.answer(settled)
        })
    }

    fn forget(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut session = Session::of(&self.changer).await?;
            let forgotten = units::forget::<Postgres>(&mut session, before).await;
            session.answer(forgotten)
        })
    }
}
