//! From the first request to the last: worker threads, reloads, the drain.
//!
//! May use: everything.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::edge::exchange::Gate;
use crate::edge::listener::{self, Connections, Phase};

use super::reload::Reloader;
use super::signals::{Signals, Told};
use super::{BootError, Parts};

/// How often files are looked at. A change is in force at the second look that finds it, or at the third.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When all calls are over, the ledger is waited for no longer than this: the journal has what it does not take.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// After the drain limit, or when the gateway is to end at once, the ledger still has so long. The whole end then takes
/// less than two seconds more than the limit.
const FLUSH_GRACE: Duration = Duration::from_millis(1_500);

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
                // A token count whose call was cut is of no use to anyone: it is not waited for.
                runtime.shutdown_background();
            };
            thread::Builder::new().name(format!("tollgate-{number}")).spawn(work).map_err(failed)
        })
        .collect()
}

/// Serves until a signal tells the gateway to end. Without a reloader every signal does, and no file is looked at.
pub(super) async fn serve_and_reload(reloader: &mut Option<Reloader<'_>>, parts: &Parts, signals: &mut Signals) {
    let Some(reloader) = reloader else {
        signals.next().await;
        return;
    };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            biased;
            told = signals.next() => Some(told),
            _ = looks.tick() => None,
        };
        if told == Some(Told::End) {
            return;
        }
        let work = async {
            match told {
                Some(_) => reloader.reload(parts).await,
                None => reloader.look(parts).await,
            }
        };
        tokio::select! {
            () = work => {}
            () = signals.end() => return,
        }
    }
}

/// No more connections or calls; what is in flight finishes, calls whose client left too. What is still open at the
/// drain limit, or when a second signal comes, is cut. Gives until when the ledger may be waited for.
pub(super) async fn drain(
    config: &Config,
    parts: &Parts,
    connections: &Connections,
    phase: &watch::Sender<Phase>,
    signals: &mut Signals,
) -> Instant {
    info!(open = connections.open(), "Draining: no new calls; those in flight finish.");
    let limit = Instant::now() + config.shutdown_drain_limit;
    parts.gate.draining.store(true, Ordering::Relaxed);
    phase.send_replace(Phase::Draining);
    let is_hurried = loop {
        tokio::select! {
            () = connections.none_open() => break false,
            () = sleep_until(limit) => {
                warn!(open = connections.open(), "The drain limit is over: what is still open is cut.");
                break false;
            }
            told = signals.next() => match told {
                Told::End => {
                    warn!(open = connections.open(), "Told to end at once: what is still open is cut.");
                    break true;
                }
                Told::Reload => info!("The gateway is ending: the configuration is not read again."),
            }
        }
    };
    phase.send_replace(Phase::Cut);
    let now = Instant::now();
    let patient = if is_hurried { now } else { limit.clamp(now, now + FLUSH_MAX) };
    patient + FLUSH_GRACE
}
