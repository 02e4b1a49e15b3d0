//! Signals to stop: the first drains, the second aborts.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::Control;
use crate::supervisor;

/// Exit code of an abort by a second signal.
const ABORTED: i32 = 1;

/// The signals that we heed, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which is to die on the spot.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Heeds them for good.
    pub async fn heed(mut self, control: Control) {
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP: nothing to do; certificates and passwords are read again by themselves");
                    continue;
                }
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if std::mem::replace(&mut stopping, true) {
                tracing::warn!("a second signal: aborting; the lease ends by its TTL");
                #[allow(clippy::disallowed_methods, reason = "an abort is what the second signal asks for")]
                std::process::exit(ABORTED);
            }
            tracing::info!("stopping: handing over, then giving the lease up; a second signal aborts");
            supervisor::stopping();
            control.shutdown();
        }
    }
}
