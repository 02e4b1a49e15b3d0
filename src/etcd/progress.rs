//! Whether a watch keeps up. A member whose disk hangs goes on answering from memory: its watches look alive, and tell of nothing
//! that happens. So what a stream shows is held against what linearizable answers showed.

use std::time::Duration;

use super::watch_stream::End;
use crate::clock::Instant;
use crate::election::ids::Revision;

/// Answers in a row that show a member to be behind; one alone may have left just before it caught up.
const STRIKES: u32 = 2;

/// What one stream has shown, and what it owes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    shown: Revision,
    behind: Option<Behind>,
}

#[derive(Clone, Copy, Debug)]
struct Behind {
    /// A quorum has this revision, and the stream has not shown it.
    target: Revision,
    /// Since then, or since the last strike.
    since: Instant,
    strikes: u32,
}

impl Progress {
    /// A quorum is known to have `newest`.
    pub(super) fn expect(&mut self, newest: Revision, now: Instant) {
        // One target at a time: a store that others write to all the time must not move it away for ever.
        if self.behind.is_none() && newest > self.shown {
            self.behind = Some(Behind { target: newest, since: now, strikes: 0 });
        }
    }

    /// When to ask the stream, if it owes anything. `lag` is how far it may be behind.
    pub(super) fn ask_at(&self, lag: Duration) -> Option<Instant> {
        self.behind.map(|behind| behind.since + lag)
    }

    /// A message showed `revision`. `asked`: it came after a question for it.
    pub(super) fn heard(
        &mut self,
        revision: Revision,
        newest: Revision,
        asked: bool,
        lag: Duration,
        now: Instant,
    ) -> Result<(), End> {
        self.shown = self.shown.max(revision);
        let Some(behind) = &mut self.behind else {
            self.expect(newest, now);
            return Ok(());
        };
        if self.shown >= behind.target {
            self.behind = None;
            self.expect(newest, now);
        } else if asked && now.since(behind.since) >= lag {
            (behind.strikes, behind.since) = (behind.strikes + 1, now);
            if behind.strikes >= STRIKES {
                return Err(End::Stale { shown: self.shown, behind: behind.target });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn stale(result: &Result<(), End>) -> bool {
        matches!(result, Err(End::Stale { .. }))
    }

    #[test]
    fn a_stream_is_stale_at_the_second_answer_that_is_behind() {
        let mut progress = Progress::default();
        assert!(progress.heard(Revision(5), Revision(5), true, LAG, at(0)).is_ok());
        assert_eq!(progress.ask_at(LAG), None, "it owes nothing");
        progress.expect(Revision(6), at(100));
        assert_eq!(progress.ask_at(LAG), Some(at(1_100)));
        assert!(progress.heard(Revision(5), Revision(6), true, LAG, at(200)).is_ok(), "it has time to apply it");
        assert!(progress.heard(Revision(5), Revision(6), true, LAG, at(1_100)).is_ok());
        assert_eq!(progress.ask_at(LAG), Some(at(2_100)));
        assert!(stale(&progress.heard(Revision(5), Revision(6), true, LAG, at(2_100))));
    }

    #[test]
    fn a_stream_that_catches_up_is_not_stale_however_fast_others_write() {
        let mut progress = Progress::default();
        for step in 1..1_000_u64 {
            let newest = Revision(i64::try_from(step * 100).expect("small"));
            progress.expect(newest, at(step * 2_000));
            // Always somewhat behind the newest, never behind what was known two seconds before.
            let shown = Revision(newest.0 - 50);
            assert!(progress.heard(shown, newest, true, LAG, at(step * 2_000 + 1_500)).is_ok(), "step {step}");
        }
    }

    #[test]
    fn what_nobody_asked_for_is_no_strike() {
        let mut progress = Progress::default();
        progress.expect(Revision(6), at(0));
        for ms in (0..10_000).step_by(1_000) {
            assert!(progress.heard(Revision(5), Revision(6), false, LAG, at(ms)).is_ok());
        }
    }
}
