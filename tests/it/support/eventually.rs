//! Waiting for a condition: polled, capped, and with the last thing seen in the panic.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Generous: only a test that fails waits this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Short enough that a wait adds nothing one would notice, long enough not to load two cores.
const POLL: Duration = Duration::from_millis(5);

/// What one look at the system found: the thing waited for, or why not yet.
pub trait Verdict {
    /// What the wait returns.
    type Found;
    /// `Err` carries what was seen instead, for the panic message.
    fn verdict(self) -> Result<Self::Found, String>;
}

impl<T> Verdict for Option<T> {
    type Found = T;
    fn verdict(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Debug> Verdict for Result<T, E> {
    type Found = T;
    fn verdict(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

impl Verdict for bool {
    type Found = ();
    fn verdict(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "false".to_owned())
    }
}

/// Looks again and again until `look` finds what it looks for.
///
/// # Panics
/// After [`DEADLINE`], with `what` and the last thing seen.
pub async fn eventually<V: Verdict>(what: &str, look: impl AsyncFnMut() -> V) -> V::Found {
    eventually_within(what, DEADLINE, look).await
}

/// [`eventually`] with a deadline of its own. A look that hangs counts as not found.
pub async fn eventually_within<V: Verdict>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> V,
) -> V::Found {
    let start = Instant::now();
    let mut last = "no look ended".to_owned();
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(verdict) => match verdict.verdict() {
                Ok(found) => return found,
                Err(seen) => last = seen,
            },
            Err(_) => last.push_str("; then a look that did not end"),
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} for: {what}; last seen: {last}");
        tokio::time::sleep(POLL).await;
    }
}
