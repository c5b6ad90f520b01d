//! What the system's signals tell the process.
//!
//! May use: everything.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::BootError;

/// SIGTERM, SIGINT and SIGHUP. Registered once and kept: a signal that comes while nobody waits is not lost, and one that
/// comes twice in between counts once, as signals do.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To end.
    End,
    /// To read the configuration again.
    Reload,
}

impl Signals {
    /// Takes the signals over from the system, whose own answer to each is to kill. To be called inside a runtime.
    pub(super) fn register() -> Result<Self, BootError> {
        let register = |kind| signal(kind).map_err(|error| BootError::Signals(error.to_string()));
        Ok(Self {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
            hang_up: register(SignalKind::hangup())?,
        })
    }

    /// The next signal. Dropping this future loses none.
    pub(super) async fn next(&mut self) -> Told {
        let Self { terminate, interrupt, hang_up } = self;
        // To end comes first: what is reloaded then would not be used.
        tokio::select! {
            biased;
            _ = terminate.recv() => Told::End,
            _ = interrupt.recv() => Told::End,
            _ = hang_up.recv() => Told::Reload,
        }
    }

    /// Waits until it is told to end, and leaves other signals for later.
    pub(super) async fn end(&mut self) {
        let Self { terminate, interrupt, hang_up: _ } = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
