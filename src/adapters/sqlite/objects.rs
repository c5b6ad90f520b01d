//! Whose the objects are that providers keep, in SQLite.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`].

use sqlx::Sqlite;

use super::SqliteLedger;
use crate::adapters::sql::objects;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::objects::ObjectStore;
use crate::ports::{BoxFuture, StoreError};

impl ObjectStore for SqliteLedger {
    fn note_objects<'a>(&'a self, noted: &'a [OwnedObject], at: Micros) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            objects::note::<Sqlite>(&mut transaction, noted, at).await?;
            self.commit(transaction).await
        })
    }

    fn owners<'a>(
        &'a self,
        provider: &'a ProviderId,
        names: &'a [ObjectName],
    ) -> BoxFuture<'a, Result<Vec<(ObjectName, TenantId)>, StoreError>> {
        Box::pin(async move { objects::owners::<Sqlite>(&mut *self.reader().await?, provider, names).await })
    }

    fn drop_object<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a ObjectName,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            objects::drop::<Sqlite>(&mut transaction, provider, name, tenant).await?;
            self.commit(transaction).await
        })
    }

    fn forget_objects(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let forgotten = objects::forget::<Sqlite>(&mut transaction, before).await?;
            self.commit(transaction).await?;
            Ok(forgotten)
        })
    }
}
