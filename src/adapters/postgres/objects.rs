//! Whose the objects are that providers keep, in Postgres.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`].

use sqlx::Postgres;

use super::PostgresLedger;
use super::session::Session;
use crate::adapters::sql::objects;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::objects::ObjectStore;
use crate::ports::{BoxFuture, StoreError};

impl ObjectStore for PostgresLedger {
    fn note_objects<'a>(&'a self, noted: &'a [OwnedObject], at: Micros) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut session = Session::of(&self.changer).await?;
            if noted.iter().all(|object| object.made.chosen.is_none()) {
                // One statement is the whole transaction.
                let done = objects::note::<Postgres>(&mut session, noted, at).await;
                return session.answer(done);
            }
            session.say("BEGIN").await?;
            let done = objects::note::<Postgres>(&mut session, noted, at).await;
            session.commit(done).await
        })
    }

    fn owners<'a>(
        &'a self,
        provider: &'a ProviderId,
        names: &'a [ObjectName],
    ) -> BoxFuture<'a, Result<Vec<(ObjectName, TenantId)>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let owners = objects::owners::<Postgres>(&mut reader, provider, names).await;
            reader.answer(owners)
        })
    }

    fn drop_object<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a ObjectName,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut session = Session::of(&self.changer).await?;
            let done = objects::drop::<Postgres>(&mut session, provider, name, tenant).await;
            session.answer(done)
        })
    }

    fn forget_objects(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut session = Session::of(&self.changer).await?;
            let forgotten = objects::forget::<Postgres>(&mut session, before).await;
            session.answer(forgotten)
        })
    }
}
