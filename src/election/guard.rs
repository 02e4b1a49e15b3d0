//! The guard: how long this process may act as leader without hearing from anyone.

use std::time::Duration;

use super::mutant::{self, Mutant};
use crate::clock::Instant;
use crate::timing::Timing;

/// Proof that this process may act as leader, good until `deadline` and no longer.
///
/// Invariant: `deadline` is never later than etcd's own expiry of the lease. It holds because `sent_at` is read before the
/// request leaves, so etcd starts its TTL later than we start ours, and `drift` and `slack` pay for clocks of different rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    deadline: Instant,
}

impl Guard {
    /// The guard that a grant, or a *confirmed* renewal, earns: `sent_at + ttl * (1 - drift) - slack`.
    #[must_use]
    pub fn new(sent_at: Instant, granted: Duration, timing: &Timing) -> Self {
        let span = if mutant::on(Mutant::GuardWithoutMargin) {
            granted
        } else if mutant::on(Mutant::DriftIgnored) {
            granted.saturating_sub(timing.slack())
        } else {
            timing.guard_span(granted)
        };
        Self { deadline: sent_at + span }
    }

    /// Whether it holds at `now`. Judged when an answer is made, not by a timer.
    #[must_use]
    pub fn holds_at(self, now: Instant) -> bool {
        now < self.deadline || mutant::on(Mutant::GuardByTimer)
    }

    /// The moment past which it no longer holds.
    #[must_use]
    pub const fn deadline(self) -> Instant {
        self.deadline
    }

    /// What is left at `now`.
    #[must_use]
    pub const fn remaining(self, now: Instant) -> Duration {
        self.deadline.since(now)
    }

    /// The later of two: an answer to an earlier request never shortens a deadline already earned.
    #[must_use]
    pub fn extended_by(self, other: Self) -> Self {
        Self { deadline: self.deadline.max(other.deadline) }
    }
}
