//! The tasks beside the workers: the recorder, the refresher of the snapshot, the billing of what is finished later, the
//! admin listener. Started here, joined here.
//!
//! May use: everything.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::adapters::system_clock::SystemClock;
use crate::edge::listener::Phase;
use crate::metering::snapshot::Snapshots;
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;
use crate::ports::tenants::TenantStore;
use crate::ports::{BoxFuture, StoreError};

use super::counters::Counters;
use super::signals::Signals;
use super::{BootError, Parts, admin_listener};

/// Tenants and keys that another process changed are seen within this.
const REFRESH: Duration = Duration::from_secs(2);

/// How long is waited for the ledger to say which revision it has, which is one row. A connection that takes longer may be half
/// open: it is closed, and another is asked. As many tries as a pool has connections come soon after each other; then it is
/// the ledger that is slow, and is given more and more time.
const REVISION_MS: [u64; 8] = [500, 500, 500, 500, 1_000, 2_000, 4_000, 8_000];

/// The same for all that it has. A large ledger may take long to say that, and not less if it is asked again.
const ALL_MS: [u64; 4] = [2_000, 4_000, 8_000, 16_000];

/// To put a book into the ledger.
const KEEP_MAX: Duration = Duration::from_secs(16);

/// To close the ledger, which moves its own log into its file, and to sync the journal. The next start does both as well.
const CLOSE_MAX: Duration = Duration::from_millis(300);

/// Tasks beside the workers.
pub(super) struct Background {
    recorder: Option<tokio::task::JoinHandle<()>>,
    counters: Option<Counters>,
    maintainer: Option<thread::JoinHandle<()>>,
    claiming: Option<tokio::task::JoinHandle<()>>,
    admin: tokio::task::JoinHandle<()>,
    refresher: tokio::task::JoinHandle<()>,
    billing: tokio::task::JoinHandle<()>,
    noting: tokio::task::JoinHandle<()>,
}

impl Background {
    pub(super) fn start(
        runtime: &Runtime,
        parts: &mut Parts,
        admin: TcpListener,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, BootError> {
        let _entered = runtime.enter();
        let listener =
            tokio::net::TcpListener::from_std(admin).map_err(|error| BootError::Thread(error.to_string()))?;
        let (snapshots, ledger, clock) = (parts.snapshots.clone(), parts.ledger.tenants(), SystemClock::new());
        let (gate, admin_gate) = (parts.gate.clone(), parts.gate.clone());
        let objects = parts.gate.objects.clone();
        Ok(Self {
            recorder: parts.recording.take(),
            counters: parts.counters.take(),
            maintainer: parts.maintainer.take(),
            claiming: parts.claiming.take(),
            noting: runtime.spawn(async move { objects.run().await }),
            billing: runtime.spawn(async move {
                let interval = || gate.live.load().settings.poll_interval;
                gate.deferred.run(&*gate, &interval).await;
            }),
            admin: runtime.spawn(admin_listener::serve(listener, admin_gate, parts.admin_router.clone(), phase)),
            refresher: runtime.spawn(async move {
                loop {
                    tokio::time::sleep(REFRESH).await;
                    let before = snapshots.load().prices.version();
                    if let Err(error) = refresh(&snapshots, ledger.as_ref()).await {
                        warn!(%error, "Tenants and keys could not be read again; those known stay in force.");
                    }
                    let version = snapshots.load().prices.version();
                    if version != before {
                        info!(%version, %before, "Other prices are in force.");
                    }
                    let kept = timeout(KEEP_MAX, snapshots.keep_books(ledger.as_ref(), clock.now())).await;
                    if let Err(error) = kept.unwrap_or_else(|_| Err(silent())) {
                        warn!(%error, "The price book in force could not be put into the ledger yet.");
                    }
                }
            }),
        })
    }

    /// Every call is settled: what is left goes to the ledger, then the ledger is closed. What the ledger does not take by
    /// `until`, or before another signal to end, waits in the journal.
    pub(super) async fn finish(self, parts: &Parts, until: Instant, signals: &mut Signals) {
        // What it has not billed is due again at the next start.
        self.billing.abort();
        parts.journal.close();
        if let Some(mut recorder) = self.recorder {
            tokio::select! {
                ended = timeout_at(until, &mut recorder) => if let Ok(Err(error)) = ended {
                    error!(%error, "The recorder ended in a panic.");
                },
                () = signals.end() => {}
            }
            recorder.abort();
        }
        if let Some(counters) = self.counters {
            counters.leave().await;
        }
        parts.journal.stop();
        self.noting.abort();
        self.refresher.abort();
        self.admin.abort();
        // Files are left alone before the data directory is.
        let left = tokio::task::spawn_blocking(|| self.maintainer.map(thread::JoinHandle::join));
        let (left, closed) = tokio::join!(timeout(CLOSE_MAX, left), timeout(CLOSE_MAX, parts.ledger.close()));
        if left.is_err() {
            warn!("The journal's disk is busy: what waits in the journal may not be synced yet.");
        }
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "The ledger was not closed cleanly; nothing is lost."),
            Err(_) => warn!("The ledger is busy and was not closed cleanly; nothing is lost."),
        }
        if let Some(claiming) = self.claiming {
            claiming.abort();
        }
        let events = parts.journal.backlog().events;
        if events > 0 {
            warn!(events, "Events wait in the journal and are booked at the next start.");
        }
    }
}

/// Reads tenants and keys again if they changed.
async fn refresh(snapshots: &Snapshots, ledger: &dyn TenantStore) -> Result<(), StoreError> {
    let revision = answer(&REVISION_MS, || ledger.revision()).await?;
    if revision != snapshots.load().revision {
        answer(&ALL_MS, || Box::pin(snapshots.refresh(ledger))).await?;
    }
    Ok(())
}

/// What the ledger answers in one of these times, on one connection after the other.
async fn answer<'a, T>(
    times_ms: &[u64],
    ask: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    for time_ms in times_ms {
        if let Ok(answer) = timeout(Duration::from_millis(*time_ms), ask()).await {
            return answer;
        }
    }
    Err(silent())
}

fn silent() -> StoreError {
    StoreError::Unavailable("the ledger does not answer".to_owned())
}
