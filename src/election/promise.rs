//! The ledger of promises: until when callers were told that nobody else leads.

use std::time::Duration;

use super::guard::Guard;
use super::mutant::{self, Mutant};
use crate::clock::Instant;

/// The latest promise given in one election.
///
/// Invariant: no hand-over commits before `latest` has passed. It holds because a promise is entered before its answer
/// leaves, and because the ledger is read only after the loss of leadership was published, so that no later one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promises {
    latest: Instant,
}

impl Promises {
    /// Enters a promise made at `now`: valid for `most`, but never past the guard. Returns its length.
    ///
    /// The caller counts it from when it *sent* its request, so its promise ends before the one in the ledger.
    pub fn give(&mut self, now: Instant, guard: Guard, most: Duration) -> Duration {
        let valid = if mutant::on(Mutant::PromisePastGuard) { most } else { guard.remaining(now).min(most) };
        self.latest = self.latest.max(now + valid);
        valid
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
    use crate::timing::Timing;

    #[test]
    fn a_promise_never_outlives_the_guard_nor_a_later_shorter_one_the_ledger() {
        let timing = Timing::default();
        let guard = Guard::new(Instant::from_nanos(0), Duration::from_secs(10), &timing);
        let mut ledger = Promises::default();
        let near_the_end = guard.deadline().before(Duration::from_millis(300));
        assert_eq!(ledger.give(near_the_end, guard, Duration::from_secs(1)), Duration::from_millis(300));
        assert_eq!(ledger.latest(), guard.deadline());
        ledger.give(Instant::from_nanos(1), guard, Duration::from_secs(1));
        assert_eq!(ledger.latest(), guard.deadline(), "an earlier promise does not shorten the ledger");
        assert_eq!(ledger.give(guard.deadline(), guard, Duration::from_secs(1)), Duration::ZERO);
    }
}
