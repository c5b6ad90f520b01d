//! From the first request to the last: worker threads, signals, the drain.
//!
//! May use: everything.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::edge::exchange::Gate;
use crate::edge::listener::{self, Connections, Phase};

use super::{BootError, Parts};

pub(super) fn start_workers(
    config: &Config,
    gate: &Arc<Gate>,
    proxy: &TcpListener,
    connections: &Arc<Connections>,
    phase: &watch::Receiver<Phase>,
) -> Result<Vec<thread::JoinHandle<()>>, BootError> {
    let failed = |error: io::Error| BootError::Thread(error.to_string());
    (0..config.workers)
        .map(|number| {
            let (gate, listener) = (gate.clone(), proxy.try_clone().map_err(failed)?);
            let (connections, phase) = (connections.clone(), phase.clone());
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let work = move || {
                if let Err(error) = runtime.block_on(listener::serve(gate, listener, connections, phase)) {
                    error!(%error, "A worker could not accept.");
                }
            };
            thread::Builder::new().name(format!("tollgate-{number}")).spawn(work).map_err(failed)
        })
        .collect()
}

/// SIGTERM or SIGINT drains; a second one, or the drain limit, cuts.
pub(super) async fn run_until_ended(
    config: &Config,
    parts: &Parts,
    connections: &Connections,
    phase: &watch::Sender<Phase>,
) {
    ended_by_signal().await;
    info!(open = connections.open(), "Draining: no new calls; those in flight finish.");
    parts.gate.draining.store(true, Ordering::Relaxed);
    phase.send_replace(Phase::Draining);
    tokio::select! {
        () = connections.none_open() => {}
        () = tokio::time::sleep(config.shutdown_drain_limit) => warn!(open = connections.open(), "The drain limit is over: what is still open is cut."),
        () = ended_by_signal() => warn!(open = connections.open(), "Told to end at once: what is still open is cut."),
    }
    phase.send_replace(Phase::Cut);
}

async fn ended_by_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the default action of the signals ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
