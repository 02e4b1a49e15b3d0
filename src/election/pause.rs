//! Pauses that grow: how soon the core does one thing once more, whatever etcd answers and whoever interferes.

use std::time::Duration;

use super::mutant::{self, Mutant};
use crate::clock::Instant;

/// What has gone well for so long is over: a pause that grew before begins at nothing again. A success by itself ends nothing,
/// since what succeeds and is lost at once, again and again, is the very loop that pauses are for.
pub const LASTING: Duration = Duration::from_secs(10);

/// A lease is asked for.
pub(super) const GRANT: Pacing = Pacing::new(1, 200, 5_000);
/// The own key is put.
pub(super) const QUEUE: Pacing = Pacing::new(1, 200, 5_000);
/// The elect transaction is sent. Losing a race costs nothing, so that the next try is made at once.
pub(super) const ELECT: Pacing = Pacing::new(3, 100, 2_000);
/// The hand-over transaction is sent.
pub(super) const HAND_OVER: Pacing = Pacing::new(2, 250, 2_000);
/// A generation is raised.
pub(super) const RAISE: Pacing = Pacing::new(1, 500, 5_000);
/// A read that something other than the period asked for.
pub(super) const READ: Pacing = Pacing::new(8, 50, 1_000);
/// Other keys are watched.
pub(super) const WATCH: Pacing = Pacing::new(8, 50, 1_000);

/// How one thing is paced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacing {
    /// So many tries in a row need no pause between them.
    free: u32,
    /// The first pause. Each is twice the one before,
    floor: Duration,
    /// and none is longer than this.
    ceiling: Duration,
}

impl Pacing {
    const fn new(free: u32, floor_ms: u64, ceiling_ms: u64) -> Self {
        let (floor, ceiling) = (Duration::from_millis(floor_ms), Duration::from_millis(ceiling_ms));
        Self { free, floor, ceiling }
    }

    /// The pause after so many tries in a row.
    fn after(self, tries: u32) -> Duration {
        match tries.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(doublings) => self.floor.saturating_mul(2_u32.saturating_pow(doublings)).min(self.ceiling),
        }
    }
}

/// A random number that comes in with each input, so that daemons that lost something together do not ask again together.
/// The core has no randomness of its own; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Jitter(pub u64);

impl Jitter {
    /// Another number for each election, made of the same one.
    #[must_use]
    pub const fn of(self, election: usize) -> Self {
        Self(self.0.wrapping_mul(2 * election as u64 + 1))
    }

    /// Between half of a pause and the whole of it.
    fn shorten(self, pause: Duration) -> Duration {
        let share = u32::try_from(self.0 >> 32).unwrap_or(u32::MAX);
        // A pause is seconds at the most.
        let cut = (pause.as_nanos() * u128::from(share)) >> 33;
        pause.saturating_sub(Duration::from_nanos(u64::try_from(cut).unwrap_or(u64::MAX)))
    }
}

/// Paces one thing that is done over and over.
///
/// Invariant: what is done only when [`Pause::over`] says so, and noted by [`Pause::begin`], is done a bounded number of times
/// in any span, whatever comes of it. The pause runs from one try to the next, so a try that took its time costs no further
/// wait; and it is nothing after a time in which no try was needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pause {
    /// Tries in a row.
    tries: u32,
    /// No further one before.
    until: Instant,
}

impl Pause {
    /// Whether the next try may be made.
    pub(super) fn over(self, now: Instant) -> bool {
        self.until() <= now
    }

    /// When it may.
    pub(super) fn until(self) -> Instant {
        if mutant::on(Mutant::NoPause) { Instant::default() } else { self.until }
    }

    /// A try is made now.
    pub(super) fn begin(&mut self, now: Instant, jitter: Jitter, pacing: Pacing) {
        if self.until + LASTING <= now {
            self.tries = 0;
        }
        self.tries = self.tries.saturating_add(1);
        self.until = now + jitter.shorten(pacing.after(self.tries));
    }

    /// The next try has another cause, which is paced by itself. Those after it wait as long as ever.
    pub(super) fn skip(&mut self, now: Instant) {
        self.until = self.until.min(now);
    }

    /// The try succeeded. That is not enough to forget those before.
    pub(super) fn succeeded(&mut self) {
        if mutant::on(Mutant::PauseEndedBySuccess) {
            *self = Self::default();
        }
    }
}

/// What one election does over and over, each paced by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pauses {
    pub(super) queue: Pause,
    pub(super) elect: Pause,
    pub(super) hand_over: Pause,
    pub(super) raise: Pause,
    pub(super) read: Pause,
    pub(super) watch: Pause,
}

impl Pauses {
    /// A person, or the application, asked for it: nobody makes that a loop but who asks.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Tries as often as the pause allows, and returns when.
    fn tries(pause: &mut Pause, from: u64, pacing: Pacing, jitter: Jitter) -> Vec<u64> {
        let mut now = at(from);
        let mut at = Vec::new();
        for _ in 0..8 {
            now = now.max(pause.until());
            at.push(now.as_nanos() / 1_000_000);
            pause.begin(now, jitter, pacing);
            pause.succeeded();
        }
        at
    }

    #[test]
    fn the_first_try_is_free_and_each_pause_is_twice_the_one_before_up_to_the_ceiling() {
        let mut pause = Pause::default();
        assert_eq!(tries(&mut pause, 3, GRANT, Jitter(0)), [3, 203, 603, 1_403, 3_003, 6_203, 11_203, 16_203]);
        assert_eq!(tries(&mut Pause::default(), 3, ELECT, Jitter(0)), [3, 3, 3, 103, 303, 703, 1_503, 3_103]);
    }

    #[test]
    fn only_success_that_lasts_ends_a_series() {
        let mut pause = Pause::default();
        let last = tries(&mut pause, 0, GRANT, Jitter(0)).pop().expect("tried");
        let until = pause.until();
        assert_eq!(until, at(last + 5_000));
        let mut soon = pause;
        soon.begin(at(last + 14_999), Jitter(0), GRANT);
        assert_eq!(soon.until(), at(last + 14_999 + 5_000));
        pause.begin(at(last + 15_000), Jitter(0), GRANT);
        assert_eq!(pause.until(), at(last + 15_200), "the first again");
    }

    #[test]
    fn jitter_takes_off_half_at_the_most_and_differs_between_elections() {
        let whole = Duration::from_secs(4);
        assert_eq!(Jitter(0).of(7).shorten(whole), whole);
        assert_eq!(Jitter(u64::MAX).shorten(whole).as_millis(), 2_000);
        let some = Jitter(0x1234_5678_9abc_def0);
        assert_ne!(some.of(0).shorten(whole), some.of(1).shorten(whole));
    }
}
