//! The ledger of promises: until when callers were told that nobody else leads.

use std::time::Duration;

use super::guard::Guard;
use super::mutant::{self, Mutant};
use crate::clock::Instant;
use crate::timing::Timing;

/// The latest promise given in one election.
///
/// Invariant: no hand-over commits before `latest` has passed. It holds because a promise is entered before its answer
/// leaves, and because the ledger is read only after the loss of leadership was published, so that no later one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promises {
    latest: Instant,
}

impl Promises {
    /// Enters a promise made at `now`: as long as `session.promise`, but never past the guard. Returns what the caller is told.
    ///
    /// The caller counts that from when it *sent* its request, and on a clock of its own, which may run slower than ours by the
    /// drift: so it is told less by as much, and its promise ends before the one in the ledger.
    pub fn give(&mut self, now: Instant, guard: Guard, timing: &Timing) -> Duration {
        let most = timing.promise();
        let valid = if mutant::on(Mutant::PromisePastGuard) { most } else { guard.remaining(now).min(most) };
        self.latest = self.latest.max(now + valid);
        if mutant::on(Mutant::PromiseWithoutDrift) { valid } else { timing.told(valid) }
    }

    /// When the last promise ends; in the past where none is outstanding.
    #[must_use]
    pub const fn latest(self) -> Instant {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_never_outlives_the_guard_nor_a_later_shorter_one_the_ledger() {
        let timing = Timing::default();
        let guard = Guard::new(Instant::from_nanos(0), Duration::from_secs(10), &timing);
        let mut ledger = Promises::default();
        let near_the_end = guard.deadline().before(Duration::from_millis(300));
        assert_eq!(ledger.give(near_the_end, guard, &timing), Duration::from_millis(297), "less the drift of 1 %");
        assert_eq!(ledger.latest(), guard.deadline(), "the ledger holds it whole");
        assert_eq!(ledger.give(Instant::from_nanos(1), guard, &timing), Duration::from_millis(990));
        assert_eq!(ledger.latest(), guard.deadline(), "an earlier promise does not shorten the ledger");
        assert_eq!(ledger.give(guard.deadline(), guard, &timing), Duration::ZERO);
    }
}
