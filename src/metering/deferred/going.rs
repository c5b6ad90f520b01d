//! Before something is deleted: nobody can say afterwards what it used, so it is billed first, or stays.
//!
//! May use: `domain`, `providers`, `ports`. Who deletes waits here in a place of its own: neither a long queue of answers nor
//! another tenant's large batch keeps it waiting.

use std::time::Duration;

use tokio::time::timeout;

use super::{Deferred, QUESTION_MAX, Standing};
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::refusal::Refusal;
use crate::domain::unit::UnitName;
use crate::ports::asking::{Ask, Whose};
use crate::ports::units::DeferredUnit;
use crate::providers;

/// How long a DELETE waits for the bill of what it deletes: its question, its results, and the ledger.
const GOING_MAX: Duration = Duration::from_secs(30);

/// Units that may be looked into for one DELETE. Runs of a thread are one after the other; of batches that wait for their
/// bill a tenant has dozens at most. Of more, the rest is for the next try.
const OPEN_MAX: u32 = 512;

/// What is said of one file, at most. More is no such answer.
const FILE_FACTS_BYTES_MAX: usize = 64 * 1024;

impl Deferred {
    /// `name` is about to be deleted in this account: a unit, a thread with its runs, a file that may be the results of a
    /// batch. Gives way once all that would go with it is billed.
    ///
    /// # Errors
    /// [`Refusal::StillRuns`] where it is not over, and [`Refusal::NotBilled`] where that cannot be learned or booked now.
    pub async fn before_it_goes(
        &self,
        ask: &dyn Ask,
        whose: Whose<'_>,
        (provider, name): (&ProviderId, &UnitName),
    ) -> Result<(), Refusal> {
        let billed = async {
            // The call that began it may have ended a moment ago.
            if !self.books.recorder.caught_up().await {
                return Err(not_billed(name));
            }
            if name.collection() == "files" {
                self.before_a_file_goes(ask, whose, (provider, name)).await
            } else {
                self.before_units_go(ask, whose, (provider, name)).await
            }
        };
        timeout(GOING_MAX, billed).await.unwrap_or_else(|_| Err(not_billed(name)))
    }

    async fn before_units_go(
        &self,
        ask: &dyn Ask,
        whose: Whose<'_>,
        (provider, name): (&ProviderId, &UnitName),
    ) -> Result<(), Refusal> {
        let open = self.open(provider, name.as_str(), None).await.ok_or_else(|| not_billed(name))?;
        for unit in open.iter().filter(|unit| is_there(unit, whose)) {
            match self.bill_now(ask, unit).await {
                Standing::Over(_) | Standing::Gone => {}
                Standing::Runs => return Err(Refusal::StillRuns { name: unit.name.as_str().into() }),
                Standing::Unsaid => return Err(not_billed(&unit.name)),
            }
        }
        if is_all(&open) { Ok(()) } else { Err(not_billed(name)) }
    }

    /// A batch that is over is billed by its file of results. One that runs has none yet.
    async fn before_a_file_goes(
        &self,
        ask: &dyn Ask,
        whose: Whose<'_>,
        (provider, file): (&ProviderId, &UnitName),
    ) -> Result<(), Refusal> {
        let open = self.open(provider, "batches", Some(whose.tenant)).await.ok_or_else(|| not_billed(file))?;
        let here = || open.iter().filter(|unit| is_there(unit, whose));
        if here().next().is_none() || !self.may_be_results(ask, whose, (provider, file)).await {
            return Ok(());
        }
        for unit in here() {
            if matches!(self.bill_now(ask, unit).await, Standing::Unsaid) {
                return Err(not_billed(file));
            }
        }
        if is_all(&open) { Ok(()) } else { Err(not_billed(file)) }
    }

    async fn open(&self, provider: &ProviderId, path: &str, tenant: Option<&TenantId>) -> Option<Vec<DeferredUnit>> {
        self.books.units.below(provider, path, tenant, OPEN_MAX).await.ok()
    }

    /// How a unit stands. It is over only if it is billed as well.
    async fn bill_now(&self, ask: &dyn Ask, unit: &DeferredUnit) -> Standing {
        let standing = self.standing(ask, unit).await;
        match standing {
            Standing::Over(reading) => {
                let is_billed = self.settle(ask, unit, Standing::Over(reading.clone())).await;
                if is_billed { Standing::Over(reading) } else { Standing::Unsaid }
            }
            // There is nothing left to delete.
            Standing::Gone => {
                self.settle(ask, unit, Standing::Gone).await;
                Standing::Gone
            }
            standing => standing,
        }
    }

    /// Whether a file may be the results of a batch. One that a client uploaded is not, nor one that is not there.
    async fn may_be_results(
        &self,
        ask: &dyn Ask,
        whose: Whose<'_>,
        (provider, file): (&ProviderId, &UnitName),
    ) -> bool {
        let known = providers::ALL.iter().find(|known| known.id() == *provider);
        let Some(question) = known.and_then(|known| known.file_question(file)) else { return false };
        let mut facts = Vec::new();
        let mut see = |piece: &[u8]| {
            facts.extend_from_slice(piece);
            facts.len() <= FILE_FACTS_BYTES_MAX
        };
        let status = timeout(QUESTION_MAX, ask.get(whose, provider, &question.target, &mut see)).await;
        match status {
            Ok(Ok(200)) => (question.may_be_results)(&facts),
            Ok(Ok(404 | 410)) => false,
            // Nobody can say.
            _ => true,
        }
    }
}

/// Whether a unit is in the account in which something is deleted.
fn is_there(unit: &DeferredUnit, whose: Whose<'_>) -> bool {
    unit.own_account == whose.own_account && (!unit.own_account || unit.tenant == *whose.tenant)
}

fn is_all(open: &[DeferredUnit]) -> bool {
    u32::try_from(open.len()).is_ok_and(|count| count < OPEN_MAX)
}

fn not_billed(name: &UnitName) -> Refusal {
    Refusal::NotBilled { name: name.as_str().into() }
}
