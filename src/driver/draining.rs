//! Drains: what they hold, and that nobody forgets them.

use std::time::Duration;

use super::Driver;
use crate::clock::{self, Instant, Wall};
use crate::control::{ControlError, Drain};
use crate::election::event::{Command, Input};
use crate::election::ids::ElectionIndex;

/// While a drain holds an election, nobody leads it: said so often.
const REMIND_EVERY: Duration = Duration::from_mins(1);

/// What the log said of the drain that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    began: Instant,
    at: Instant,
    /// Whether it held anything then.
    held: bool,
}

impl Driver {
    pub(super) fn drain(&mut self, longest: Option<Duration>) -> Drain {
        let now = clock::now();
        let until = now + longest.unwrap_or(self.parts.drain_timeout);
        self.handle(Input::Command(Command::Drain { until }));
        let held = self.held();
        // No promise follows, and none that was given is broken.
        let promised = held.iter().map(|e| self.parts.publisher.last_promise(*e)).max();
        let left = promised.map(|promised| promised.max(until).since(now));
        let at =
            |left: Duration| Wall(clock::wall().0.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
        Drain { held, hands_over_at: left.map(at) }
    }

    pub(super) fn undrain(&mut self) -> Result<(), ControlError> {
        if self.parts.core.drained_until().is_none() {
            let stopping = ControlError::Unavailable("the daemon is stopping, which is not taken back".to_owned());
            return Err(if self.parts.core.draining() { stopping } else { ControlError::NotDraining });
        }
        self.handle(Input::Command(Command::Undrain));
        tracing::info!("the drain is over: taking part again, after handing over what it still held");
        Ok(())
    }

    /// The elections that were led and are not handed over yet.
    fn held(&self) -> Vec<ElectionIndex> {
        let all = (0..self.parts.elections.len()).map(ElectionIndex);
        all.filter(|e| self.parts.core.standing(*e).leaving).collect()
    }

    /// Says that a drain began, that it still holds something, and that it holds nothing any more.
    pub(super) fn remind_of_drain(&mut self, now: Instant) {
        let Some(until) = self.parts.core.drained_until() else {
            self.drained = None;
            return;
        };
        let held = self.held();
        let due = match self.drained {
            None => true,
            Some(told) if held.is_empty() => told.held,
            Some(told) => now.since(told.at) >= REMIND_EVERY,
        };
        if !due {
            return;
        }
        let first = self.drained.is_none();
        let began = self.drained.map_or(now, |told| told.began);
        self.drained = Some(Told { began, at: now, held: !held.is_empty() });
        let names: Vec<_> = held.iter().map(|e| self.parts.elections[e.0].as_str()).collect();
        let names = names.join(", ");
        let seconds = |span: Duration| Duration::from_secs(span.as_secs());
        let (so_long, left) = (seconds(now.since(began)), seconds(until.since(now)));
        if names.is_empty() {
            tracing::info!("draining: this daemon takes part in no election until `tenure undrain` or a restart");
        } else if until <= now {
            tracing::info!("draining: {names} will be handed over as soon as the last promise has run out");
        } else if first {
            tracing::info!(
                "draining: nobody leads {names} until `tenure drained` or `tenure undrain` says so, this daemon is stopped, or {left:?} have passed"
            );
        } else {
            tracing::warn!(
                "draining for {so_long:?}: nobody leads {names} until `tenure drained` or `tenure undrain` says so, this daemon is stopped, or {left:?} have passed"
            );
        }
    }
}
