//! Whose the objects are that providers keep: noted when an answer makes one, asked before a request for one goes on.
//!
//! May use: `domain`, `ports`. All tenants share a provider's account, so the provider gives any of them any object whose id
//! it knows. The ledger knows who made which, and every node asks it; what a node noted or asked it remembers, within a bound.
//! A note waits for no client on its way: it is known here at once, and an answer ends only when the ledger has it, or after
//! [`NOTED_MAX`].
//!
//! Most names are the provider's choice and stay with what has them. Those that clients choose are another tenant's as soon as
//! that one makes an object of that name, which it can when the first is gone: they are not remembered here, and the ledger is
//! asked each time.
//!
//! While the ledger cannot be asked, whose an object is that is not remembered here cannot be known. Then a request for it is
//! refused: it could be anybody's. Everything else goes on.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{Made, ObjectName, OwnedObject, UnknownObjects};
use crate::domain::refusal::Refusal;
use crate::domain::time::{MICROS_PER_DAY, Micros};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::objects::ObjectStore;

/// Owners that are remembered, in each of two generations: 200 bytes each.
const KNOWN_MAX: usize = 32_768;

/// Notes that wait for the ledger. Beyond this it has been away for long; an object that is not noted is nobody's.
const WAITING_MAX: usize = 16_384;

/// Notes that are written in one transaction.
const BATCH_MAX: usize = 256;

/// The longest time that an answer's end waits for its notes.
pub const NOTED_MAX: Duration = Duration::from_secs(1);

/// The longest time that a request waits to hear whose its objects are.
const ASKED_MAX: Duration = Duration::from_secs(2);

/// Questions to the ledger at once: what a tenant asks for in vain leaves the ledger to others.
const ASKING_MAX: usize = 16;

/// Pauses between tries to write what the ledger does not take.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Notes of what providers drop by themselves are kept for so long. Responses are kept for 30 days, interactions for 55.
const KEPT_US: i64 = 90 * MICROS_PER_DAY;

/// How often such notes are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// After a panic, which a store may meet.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Knows whose objects are.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    asking: Semaphore,
    notes: mpsc::Sender<Note>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Note>>,
}

/// An object to be noted, and who waits for that.
struct Note {
    object: OwnedObject,
    noted: oneshot::Sender<()>,
}

/// What is noted and not yet in the ledger.
#[derive(Default)]
pub struct Noting(Vec<oneshot::Receiver<()>>);

impl Noting {
    /// Waits for all of it, and not for long.
    pub async fn done(&mut self) {
        let until = Instant::now() + NOTED_MAX;
        for noted in self.0.drain(..) {
            if tokio::time::timeout_at(until, noted).await.is_err() {
                debug!("An answer ends before the ledger knows whose its objects are.");
                return;
            }
        }
    }
}

/// Owners by object: those of late, and those of before.
#[derive(Default)]
struct Known {
    young: HashMap<(ProviderId, ObjectName), TenantId>,
    old: HashMap<(ProviderId, ObjectName), TenantId>,
}

impl Known {
    fn get(&self, object: &(ProviderId, ObjectName)) -> Option<&TenantId> {
        self.young.get(object).or_else(|| self.old.get(object))
    }

    fn put(&mut self, object: (ProviderId, ObjectName), owner: TenantId) {
        // Only the ledger knows whose such a name is by now.
        if object.1.may_change_hands() {
            return;
        }
        if self.young.len() >= KNOWN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(object, owner);
    }
}

impl Objects {
    /// Over a store that knows them.
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        let (notes, waiting) = mpsc::channel(WAITING_MAX);
        let (known, asking) = (Mutex::default(), Semaphore::new(ASKING_MAX));
        Self { store, clock, known, asking, notes, waiting: tokio::sync::Mutex::new(waiting) }
    }

    /// Refuses a request of a tenant that names an object which is not its own.
    pub async fn check(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        names: Vec<ObjectName>,
        unknown: UnknownObjects,
    ) -> Result<(), Refusal> {
        let mut asked = Vec::new();
        for name in names {
            let object = (provider.clone(), name);
            match self.known.lock().get(&object) {
                Some(owner) if owner == tenant => {}
                Some(_) => return Err(of_nobody(&object.1)),
                None => asked.push(object.1),
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let owners = self.ask(provider, &asked).await?;
        for name in asked {
            match owners.iter().find(|(known, _)| *known == name) {
                Some((_, owner)) if owner == tenant => {}
                None if unknown == UnknownObjects::Allow => {}
                Some(_) | None => return Err(of_nobody(&name)),
            }
        }
        Ok(())
    }

    async fn ask(&self, provider: &ProviderId, names: &[ObjectName]) -> Result<Vec<(ObjectName, TenantId)>, Refusal> {
        let asked = async {
            let _one_of_few = self.asking.acquire().await;
            self.store.owners(provider, names).await
        };
        let owners = match timeout(ASKED_MAX, asked).await {
            Ok(Ok(owners)) => owners,
            Ok(Err(error)) => {
                warn!(%error, "The ledger cannot say whose an object of a provider is; the request is refused.");
                return Err(Refusal::ObjectsDown);
            }
            Err(_) => return Err(Refusal::ObjectsDown),
        };
        self.remember(provider, &owners);
        Ok(owners)
    }

    fn remember(&self, provider: &ProviderId, owners: &[(ObjectName, TenantId)]) {
        let mut known = self.known.lock();
        for (name, owner) in owners {
            known.put((provider.clone(), name.clone()), owner.clone());
        }
    }

    /// Notes objects that an answer to a tenant made; `noting` is told of what waits for the ledger. Known here at once.
    pub fn note(&self, tenant: &TenantId, provider: &ProviderId, made: Vec<Made>, noting: &mut Noting) {
        for made in made {
            let object = (provider.clone(), made.name.clone());
            {
                let mut known = self.known.lock();
                if known.get(&object).is_some() {
                    // It is noted already, or is another tenant's and stays so.
                    continue;
                }
                known.put(object, tenant.clone());
            }
            let (noted, is_noted) = oneshot::channel();
            let object = OwnedObject { provider: provider.clone(), made, tenant: tenant.clone() };
            match self.notes.try_send(Note { object, noted }) {
                Ok(()) => noting.0.push(is_noted),
                Err(_) => warn!(%tenant, "Whose an object is was not noted: the ledger has been away for too long."),
            }
        }
    }

    /// Forgets an object that its tenant deleted: its name may be another's from now on. Should the ledger be away, the note
    /// stays until there is a later object of that name.
    pub async fn freed(&self, tenant: &TenantId, provider: &ProviderId, name: &ObjectName) {
        match timeout(NOTED_MAX, self.store.drop_object(provider, name, tenant)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, %tenant, "Whose a deleted object was is not forgotten."),
            Err(_) => warn!(%tenant, "Whose a deleted object was is not forgotten in time."),
        }
    }

    /// Carries notes to the ledger, and forgets old ones. Runs for ever; a panic on the way loses what was being written.
    pub async fn run(&self) {
        let work = || async { tokio::join!(self.write(), self.forget()) };
        while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            error!("Noting of objects met a panic; it goes on.");
            sleep(AFTER_PANIC).await;
        }
    }

    async fn write(&self) {
        let mut waiting = self.waiting.lock().await;
        while let Some(first) = waiting.recv().await {
            let mut notes = vec![first];
            while notes.len() < BATCH_MAX {
                let Ok(note) = waiting.try_recv() else { break };
                notes.push(note);
            }
            let (objects, waiters): (Vec<_>, Vec<_>) = notes.into_iter().map(|note| (note.object, note.noted)).unzip();
            self.write_all(&objects).await;
            for waiter in waiters {
                // Who waited may have stopped to.
                waiter.send(()).unwrap_or_default();
            }
        }
    }

    async fn write_all(&self, objects: &[OwnedObject]) {
        let mut pause = PAUSE_FIRST;
        // No bound: what waits behind has one.
        while let Err(error) = self.try_write(objects).await {
            if !matches!(error, StoreError::Unavailable(_)) {
                error!(%error, objects = objects.len(), "The ledger refuses to note whose objects are; they are nobody's.");
                return;
            }
            debug!(%error, "Whose objects are is not noted yet; it is tried again.");
            sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn try_write(&self, objects: &[OwnedObject]) -> Result<(), StoreError> {
        self.store.note_objects(objects, self.clock.now()).await?;
        // Who was first stays, also where that was on another node.
        let mut providers: Vec<&ProviderId> = objects.iter().map(|object| &object.provider).collect();
        providers.sort();
        providers.dedup();
        for provider in providers {
            let of_provider = objects.iter().filter(|object| object.provider == *provider);
            let names: Vec<ObjectName> = of_provider.map(|object| object.made.name.clone()).collect();
            self.remember(provider, &self.store.owners(provider, &names).await?);
        }
        Ok(())
    }

    async fn forget(&self) {
        loop {
            sleep(FORGET_EVERY).await;
            let before = Micros(self.clock.now().0.saturating_sub(KEPT_US));
            loop {
                match self.store.forget_objects(before).await {
                    Ok(0) => break,
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) => {
                        debug!(%error, "Notes of objects that are gone were not forgotten; it is tried again.");
                        break;
                    }
                }
            }
        }
    }
}

fn of_nobody(name: &ObjectName) -> Refusal {
    Refusal::UnknownObject { name: name.as_str().into() }
}

#[cfg(test)]
mod tests;
