//! Signals to stop: the first hands over, the second aborts. All others that would end a process end nothing.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::{self, Instant};
use crate::control::Control;
use crate::{logging, supervisor};

/// So long after the first signal to stop, another one is the same wish, told twice: `timeout` of a shell signals the process
/// and then its group, and a terminal's Ctrl-C reaches the parent that passes it on.
const ONE_WISH: Duration = Duration::from_secs(1);
/// Exit code of an abort by a second signal.
const ABORTED: i32 = 1;

/// Signals whose default is to end the process and that mean nothing to us: a timer, a pipe or a limit of the process, a
/// power supply, an operator who takes us for another daemon. Each is handled, not ignored: what is ignored would be so in
/// the programs that we start, too.
///
/// Those of a fault in the program itself (`SIGSEGV`, `SIGABRT`, …) end it, as they must.
const MEANINGLESS: &[i32] = &[
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// The signals that we heed, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which is to die on the spot.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> io::Result<Self> {
        for number in MEANINGLESS.iter().copied().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            // The handler stays for good, whoever listens.
            drop(signal(SignalKind::from_raw(number))?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Heeds them for good.
    pub async fn heed(mut self, control: Control) {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP: nothing to do; certificates and passwords are read again by themselves");
                    continue;
                }
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
            }
            let now = clock::now();
            if let Some(first) = first {
                if now.since(first) < ONE_WISH {
                    tracing::info!("a second signal within {ONE_WISH:?} of the first changes nothing");
                    continue;
                }
                tracing::warn!("a second signal: aborting; the lease ends by its TTL");
                logging::flush();
                #[allow(clippy::disallowed_methods, reason = "an abort is what the second signal asks for")]
                std::process::exit(ABORTED);
            }
            first = Some(now);
            tracing::info!(
                "stopping: handing over, then giving the lease up; a second signal after {ONE_WISH:?} aborts"
            );
            supervisor::stopping();
            control.shutdown();
        }
    }
}
