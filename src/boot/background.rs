//! The tasks beside the workers: the recorder, the refresher of the snapshot, the admin listener. Started here, joined here.
//!
//! May use: everything.

use std::net::TcpListener;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::edge::listener::Phase;
use crate::ports::journal::Journal;

use super::{BootError, Parts};

/// Tenants and keys that another process changed are seen within this.
const REFRESH: Duration = Duration::from_secs(2);

/// After the last call is over, the ledger has so long to take what is left.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Tasks beside the workers.
pub(super) struct Background {
    recorder: Option<tokio::task::JoinHandle<()>>,
    admin: tokio::task::JoinHandle<()>,
    refresher: tokio::task::JoinHandle<()>,
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
        let (snapshots, ledger) = (parts.snapshots.clone(), parts.ledger.clone());
        Ok(Self {
            recorder: parts.recording.take(),
            admin: runtime.spawn(serve_admin(listener, parts.admin_router.clone(), phase)),
            refresher: runtime.spawn(async move {
                loop {
                    tokio::time::sleep(REFRESH).await;
                    if let Err(error) = snapshots.refresh(ledger.as_ref()).await {
                        warn!(%error, "Tenants and keys could not be read again; those known stay in force.");
                    }
                }
            }),
        })
    }

    /// Every call is settled: what is left goes to the ledger, then the ledger is closed.
    pub(super) async fn finish(self, parts: &Parts) -> Result<(), BootError> {
        parts.journal.close();
        if let Some(recorder) = self.recorder
            && timeout(FLUSH_MAX, recorder).await.is_err()
        {
            let events = parts.journal.backlog().events;
            warn!(
                events,
                "The ledger does not take what is left: it waits in the journal and is booked at the next start."
            );
        }
        parts.journal.stop();
        self.refresher.abort();
        self.admin.abort();
        if let Err(error) = parts.ledger.close().await {
            warn!(%error, "The ledger was not closed cleanly; nothing is lost.");
        }
        Ok(())
    }
}

async fn serve_admin(listener: tokio::net::TcpListener, router: axum::Router, mut phase: watch::Receiver<Phase>) {
    // Health and metrics answer while calls drain; the listener goes when they are cut or done.
    let ended = async move {
        // A sender that is gone means the end, too.
        phase.wait_for(|phase| *phase == Phase::Cut).await.map(drop).unwrap_or_default();
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
        error!(%error, "The admin listener ended.");
    }
}
