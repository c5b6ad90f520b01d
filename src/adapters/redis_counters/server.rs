//! A server that stays connected: one host of a cluster, or whichever of several hosts is the master.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::domain::redis_url::RedisHost;

use super::live::{Away, Facts, Live};
use super::settings::Settings;

/// The pause after the first failure to connect; doubled with each one more.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause: a server that is back is found within half a second.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Once one master is found, others that say so too have this long to be compared with it.
const COMPARED_FOR: Duration = Duration::from_millis(100);

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A probe for so many looks: it finds dead connections that nobody uses, and keeps the server's clock known.
const LOOKS_A_PROBE: u32 = 16;

/// Dropping it closes the connection.
pub(super) struct Server {
    state: watch::Sender<State>,
    keeper: JoinHandle<()>,
}

#[derive(Clone)]
pub(super) enum State {
    /// For the first time, or anew after the connection broke. Whoever asks may wait.
    Connecting,
    Live(Arc<Live>),
    /// The last attempt failed. There will be others; nobody waits for them.
    Down(Away),
}

impl Server {
    /// Connects in the background, and again whenever the connection breaks.
    pub(super) fn start(settings: Arc<Settings>, hosts: Vec<RedisHost>, runtime: &Handle) -> Self {
        let state = watch::Sender::new(State::Connecting);
        let keeper = runtime.spawn(keep(settings, hosts, state.clone()));
        Self { state, keeper }
    }

    /// The connection, or why there is none.
    pub(super) async fn live(&self, wait: Duration) -> Result<Arc<Live>, Away> {
        let found = |state: &State| match state {
            State::Connecting => None,
            State::Live(live) => Some(Ok(Arc::clone(live))),
            State::Down(reason) => Some(Err(reason.clone())),
        };
        if let Some(known) = found(&self.state.borrow()) {
            return known;
        }
        let mut changes = self.state.subscribe();
        let known = tokio::time::timeout(wait, changes.wait_for(|state| found(state).is_some())).await;
        let not_yet = || Err(Away::Gone("Redis is being connected to".to_owned()));
        known.ok().and_then(Result::ok).and_then(|state| found(&state)).unwrap_or_else(not_yet)
    }

    /// Whether it is connected now.
    pub(super) fn is_live(&self) -> bool {
        matches!(*self.state.borrow(), State::Live(_))
    }

    /// This connection is of no use any more.
    pub(super) fn lost(&self, live: &Arc<Live>) {
        self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Live(current) if Arc::ptr_eq(current, live));
            if is_current {
                *state = State::Connecting;
            }
            is_current
        });
        live.lost.notify_one();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Until it is aborted.
async fn keep(settings: Arc<Settings>, hosts: Vec<RedisHost>, state: watch::Sender<State>) {
    let mut pause = PAUSE_MIN;
    let mut told = None;
    loop {
        match connect_any(&settings, &hosts).await {
            Ok(live) => {
                let live = Arc::new(live);
                info!(host = %live.host, "Redis is connected.");
                state.send_replace(State::Live(Arc::clone(&live)));
                (pause, told) = (PAUSE_MIN, None);
                until_lost(&live).await;
                warn!(host = %live.host, "The connection to Redis is lost.");
                state.send_replace(State::Connecting);
            }
            Err(reason) => {
                let (Away::Gone(text) | Away::Unfit(text)) = &reason;
                // The same reason is told once, not twice a second.
                if told.as_ref() != Some(text) {
                    warn!(reason = text, "Redis cannot be used.");
                    told = Some(text.clone());
                }
                state.send_replace(State::Down(reason));
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        }
    }
}

async fn until_lost(live: &Live) {
    let mut looks = 0_u32;
    loop {
        if tokio::time::timeout(LOOK_EVERY, live.lost.notified()).await.is_ok() || live.is_silent() {
            return;
        }
        looks = looks.wrapping_add(1);
        // A probe that fails is one that was not answered for so long that the connection counts as dead, or it broke.
        if looks.is_multiple_of(LOOKS_A_PROBE) && live.probe().await.is_err() {
            return;
        }
    }
}

/// The master among hosts. Where two say that they are, the one that has more of the stream of changes: every gateway
/// decides alike.
async fn connect_any(settings: &Arc<Settings>, hosts: &[RedisHost]) -> Result<Live, Away> {
    let attempts = hosts.iter().map(|host| Live::connect(Arc::clone(settings), host.clone()));
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut best: Option<(Facts, Live)> = None;
    let mut problem = None;
    loop {
        let next = if best.is_some() {
            tokio::time::timeout(COMPARED_FOR, attempts.next()).await.unwrap_or(None)
        } else {
            attempts.next().await
        };
        match next {
            None => break,
            Some(Ok(found)) => {
                if best.as_ref().is_none_or(|(known, _)| found.0.offset > known.offset) {
                    best = Some(found);
                }
            }
            // What an operator has to mend is told before what may pass.
            Some(Err(reason)) => {
                if problem.is_none() || matches!(reason, Away::Unfit(_)) {
                    problem = Some(reason);
                }
            }
        }
    }
    let none = || Away::Gone("no host of Redis is known".to_owned());
    best.map(|(_, live)| live).ok_or_else(|| problem.unwrap_or_else(none))
}
