//! Leaderships that are lost again and again.

use std::time::Duration;

use super::Driver;
use crate::clock::Instant;
use crate::election::event::Transition;
use crate::election::role::{Reason, Role};

/// Leaderships lost in a row that are no accident any more.
const LOST_AGAIN: u32 = 3;
/// A leadership that lasted so many TTLs is none that was lost soon.
const LASTED_TTLS: u32 = 5;

/// Those of one election.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Leaderships in a row that were lost for want of renewals, each soon after it began.
    in_a_row: u32,
    led_since: Option<Instant>,
}

impl Losses {
    /// Takes note of a change of role. `Some(n)` when this is the n-th leadership in a row that was lost soon, for want of
    /// renewals, and it is time to say so.
    pub(super) fn note(&mut self, to: Role, reason: Reason, ttl: Duration, now: Instant) -> Option<u32> {
        if to == Role::Leader {
            self.led_since = Some(now);
            return None;
        }
        let since = self.led_since.take()?;
        if !matches!(reason, Reason::GuardExpired | Reason::LeaseLost) || now.since(since) >= ttl * LASTED_TTLS {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row += 1;
        self.in_a_row.is_multiple_of(LOST_AGAIN).then_some(self.in_a_row)
    }
}

impl Driver {
    /// A leadership that is lost again and again serves nobody, and no single line tells why.
    pub(super) fn note_loss(&mut self, transition: &Transition, now: Instant) {
        let ttl = self.parts.core.session().map_or(self.parts.timing.ttl(), |session| session.ttl);
        let Transition { election, to, reason, .. } = *transition;
        let Some(times) = self.notes[election.0].losses.note(to, reason, ttl, now) else { return };
        let why = self.parts.etcd.health().report().renewals;
        let why = why.map_or_else(|| "renewals succeed now".to_owned(), |reason| reason.text);
        tracing::warn!(
            election = %self.parts.elections[election.0], reason = why,
            "leadership was lost {times} times in a row, soon after it began, because the lease was not renewed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn lead(losses: &mut Losses, from: u64, until: u64, reason: Reason) -> Option<u32> {
        assert_eq!(losses.note(Role::Leader, Reason::Elected, TTL, at(from)), None);
        let said = losses.note(Role::Follower, reason, TTL, at(until));
        losses.note(Role::Candidate, Reason::Queued, TTL, at(until));
        said
    }

    #[test]
    fn the_third_leadership_lost_soon_is_said_and_every_third_after_it() {
        let mut losses = Losses::default();
        let said: Vec<_> = (0..7).map(|n| lead(&mut losses, n * 20, n * 20 + 9, Reason::GuardExpired)).collect();
        assert_eq!(said, [None, None, Some(3), None, None, Some(6), None]);
    }

    #[test]
    fn a_leadership_that_lasted_or_was_given_up_ends_the_row() {
        for (lasted, reason) in [(50, Reason::GuardExpired), (9, Reason::Resigned)] {
            let mut losses = Losses::default();
            for n in 0..2 {
                assert_eq!(lead(&mut losses, n * 20, n * 20 + 9, Reason::LeaseLost), None);
            }
            assert_eq!(lead(&mut losses, 100, 100 + lasted, reason), None, "{reason:?}");
            assert_eq!(lead(&mut losses, 200, 209, Reason::LeaseLost), None);
        }
    }
}
