//! Timing as a parsed type: whoever holds a [`Timing`] holds one whose inequalities are true.

use std::time::Duration;

use thiserror::Error;

/// etcd's smallest lease at its default election timeout (`minTTL` = 1.5 election timeouts, rounded up).
pub const TTL_FLOOR: Duration = Duration::from_secs(2);
/// The longest TTL: past 300 s etcd's lease checkpoints come into play, which we leave aside.
pub const TTL_CEILING: Duration = Duration::from_mins(5);
/// etcd looks for expired leases every 500 ms, so a key may outlive its lease by that much.
pub const EXPIRY_OVERSHOOT: Duration = Duration::from_millis(500);

/// What the configuration says about time, unchecked. Field meanings are those of the configuration's `session` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimingSpec {
    /// The lease's TTL that is asked of etcd; whole seconds.
    pub ttl: Duration,
    /// The greatest difference in rate between two clocks, in parts per million.
    pub drift_ppm: u32,
    /// Kept besides the drift.
    pub slack: Duration,
    /// The longest validity that one token answer promises.
    pub promise: Duration,
    /// A candidate's extra wait after a vacancy that no hand-over announced.
    pub vacancy_grace: Duration,
}

impl Default for TimingSpec {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            drift_ppm: 10_000,
            slack: Duration::from_millis(250),
            promise: Duration::from_secs(1),
            vacancy_grace: Duration::ZERO,
        }
    }
}

/// A relation that the settings break; each names the configuration key at fault in [`TimingError::key`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimingError {
    /// etcd counts leases in whole seconds and raises small ones.
    #[error("a lease lasts whole seconds, from 2s to 300s; {0:?} is none of them")]
    Ttl(Duration),
    /// A drift of 20 % would leave too little of any lease.
    #[error("a drift is at most 20%")]
    Drift,
    /// Two keep-alives must be able to fail before the guard ends.
    #[error(
        "no room for two lost keep-alives: 3/5 of the ttl ({need:?}) must be less than ttl x (1 - drift) - slack ({have:?}); accepted: a longer ttl or a smaller slack"
    )]
    NoRoom {
        /// Time that three keep-alive intervals take.
        need: Duration,
        /// Time from sending to the guard.
        have: Duration,
    },
    /// A promise cannot outlast the guard.
    #[error("a promise lasts from 1ms up to the guard ({have:?} with this ttl, drift and slack)")]
    Promise {
        /// Time from sending to the guard.
        have: Duration,
    },
    /// A grace that is too short for any purpose, or longer than any needs.
    #[error(
        "a vacancy grace is 0s, or from {} to {most:?}: it keeps promises from (promise + 2/5 ttl) / (1 - drift) = {for_promises:?} on, \
         and one leader as well from ttl / (1 - drift) = {for_one_leader:?} on; more than 2 x ttl only prolongs outages",
        format_args!("{:?}", (*for_promises).min(*for_one_leader))
    )]
    VacancyGrace {
        /// From here on it keeps promises.
        for_promises: Duration,
        /// From here on it keeps promises and one leader.
        for_one_leader: Duration,
        /// Twice the TTL.
        most: Duration,
    },
}

impl TimingError {
    /// The configuration key to change, below `session`.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Ttl(_) => "ttl",
            Self::Drift => "drift",
            Self::NoRoom { .. } => "slack",
            Self::Promise { .. } => "promise",
            Self::VacancyGrace { .. } => "vacancy_grace",
        }
    }
}

/// What a vacancy grace does not keep with the leases that etcd grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("session.vacancy_grace no longer keeps {what} with leases of this length: that takes {needed:?}")]
pub struct GraceLost {
    /// `promises` or `one leader`.
    pub what: &'static str,
    /// The least grace that would keep it.
    pub needed: Duration,
}

/// Checked timing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    spec: TimingSpec,
}

impl Default for Timing {
    fn default() -> Self {
        Self::new(TimingSpec::default()).expect("the defaults satisfy the relations")
    }
}

impl Timing {
    /// Checks every relation.
    ///
    /// # Errors
    /// All the relations that do not hold.
    pub fn new(spec: TimingSpec) -> Result<Self, Vec<TimingError>> {
        let mut errors = Vec::new();
        let whole = spec.ttl.subsec_nanos() == 0;
        if !whole || spec.ttl < TTL_FLOOR || spec.ttl > TTL_CEILING {
            errors.push(TimingError::Ttl(spec.ttl));
        }
        if spec.drift_ppm > 200_000 {
            errors.push(TimingError::Drift);
        }
        let timing = Self { spec };
        let have = timing.guard_span(spec.ttl);
        let need = timing.renew_every(spec.ttl) * 3;
        if errors.is_empty() {
            if need >= have {
                errors.push(TimingError::NoRoom { need, have });
            }
            if spec.promise > have || spec.promise < Duration::from_millis(1) {
                errors.push(TimingError::Promise { have });
            }
            let (for_promises, for_one_leader) =
                (timing.grace_for_promises(spec.ttl), timing.grace_for_one_leader(spec.ttl));
            let (least, most) = (for_promises.min(for_one_leader), timing.grace_most());
            if !spec.vacancy_grace.is_zero() && !(least..=most).contains(&spec.vacancy_grace) {
                errors.push(TimingError::VacancyGrace { for_promises, for_one_leader, most });
            }
        }
        if errors.is_empty() { Ok(timing) } else { Err(errors) }
    }

    /// What it was made from.
    #[must_use]
    pub const fn spec(&self) -> TimingSpec {
        self.spec
    }

    /// The TTL asked of etcd. What etcd grants counts, not this.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.spec.ttl
    }

    /// From sending to the guard, for a lease of `granted`: `granted x (1 - drift) - slack`.
    #[must_use]
    pub fn guard_span(&self, granted: Duration) -> Duration {
        // Where `Instant` ends, after 584 years: etcd's answer may hold any number, and the product must not overflow.
        let granted = granted.min(Duration::from_nanos(u64::MAX));
        let drift = granted * self.spec.drift_ppm / 1_000_000;
        granted.saturating_sub(drift).saturating_sub(self.spec.slack)
    }

    /// What a caller is told of a promise that lasts so long on our clock: `valid x (1 - drift)`, rounded down. It counts on a
    /// clock of its own.
    #[must_use]
    pub fn told(&self, valid: Duration) -> Duration {
        let nanos =
            valid.as_nanos().min(u128::from(u64::MAX)) * u128::from(1_000_000 - self.spec.drift_ppm) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Interval between keep-alives: a fifth of the granted TTL, which etcd counts in whole seconds.
    #[must_use]
    pub fn renew_every(&self, granted: Duration) -> Duration {
        granted.max(Duration::from_secs(1)) / 5
    }

    /// The most that one try of one request to one member may take, so that a member that hangs costs little.
    #[must_use]
    pub fn try_limit(&self) -> Duration {
        self.spec.ttl / 10
    }

    /// How long one member may keep silent before the next one is asked too.
    #[must_use]
    pub fn hedge_after(&self) -> Duration {
        self.try_limit().min(Duration::from_millis(200))
    }

    /// Kept besides the drift; also the jump of the wall clock that ends a guard.
    #[must_use]
    pub const fn slack(&self) -> Duration {
        self.spec.slack
    }

    /// The longest validity that one token answer promises.
    #[must_use]
    pub const fn promise(&self) -> Duration {
        self.spec.promise
    }

    /// A candidate's extra wait after a vacancy that no hand-over announced.
    #[must_use]
    pub const fn vacancy_grace(&self) -> Duration {
        self.spec.vacancy_grace
    }

    /// The least grace with which promises hold when somebody ends a leadership out of band, for a lease of `granted`, in whole
    /// milliseconds: `(promise + 2/5 granted) / (1 - drift)`.
    ///
    /// A leader that reaches etcd hears of it no later than by its next confirming read, TTL/5 after the last, or by the one
    /// after that, and promises until then. The grace runs on a candidate's clock.
    #[must_use]
    pub fn grace_for_promises(&self, granted: Duration) -> Duration {
        self.on_any_clock(self.spec.promise.saturating_add(self.renew_every(granted).saturating_mul(2)))
    }

    /// The least grace with which promises *and* invariant 1 hold then, whatever the old leader reaches, in whole milliseconds:
    /// `granted / (1 - drift)`. By then its guard has passed.
    #[must_use]
    pub fn grace_for_one_leader(&self, granted: Duration) -> Duration {
        self.on_any_clock(granted)
    }

    /// The longest grace that is accepted: more would only keep an election without a leader.
    #[must_use]
    pub fn grace_most(&self) -> Duration {
        self.ttl() * 2
    }

    /// Whether the configured grace keeps promises with leases of `granted`.
    #[must_use]
    pub fn grace_keeps_promises(&self, granted: Duration) -> bool {
        self.spec.vacancy_grace >= self.grace_for_promises(granted) || self.grace_keeps_one_leader(granted)
    }

    /// Whether the configured grace keeps promises and one leader with leases of `granted`.
    #[must_use]
    pub fn grace_keeps_one_leader(&self, granted: Duration) -> bool {
        self.spec.vacancy_grace >= self.grace_for_one_leader(granted)
    }

    /// What the configured grace keeps with leases of the TTL that is asked for, and no longer with leases of `granted`.
    #[must_use]
    pub fn grace_lost(&self, granted: Duration) -> Option<GraceLost> {
        let ttl = self.ttl();
        if self.grace_keeps_promises(ttl) && !self.grace_keeps_promises(granted) {
            let needed = self.grace_for_promises(granted).min(self.grace_for_one_leader(granted));
            Some(GraceLost { what: "promises", needed })
        } else if self.grace_keeps_one_leader(ttl) && !self.grace_keeps_one_leader(granted) {
            Some(GraceLost { what: "one leader", needed: self.grace_for_one_leader(granted) })
        } else {
            None
        }
    }

    /// How long a clock must count so that at least `span` has passed on every other: `span / (1 - drift)`, rounded up to
    /// whole milliseconds.
    fn on_any_clock(&self, span: Duration) -> Duration {
        // Bounded as in `guard_span`.
        let nanos = span.as_nanos().min(u128::from(u64::MAX));
        let rate = u128::from(1_000_000 - self.spec.drift_ppm);
        let millis = (nanos * 1_000_000).div_ceil(rate).div_ceil(1_000_000);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// How long an election may be without a leader after one dies at the worst moment, with etcd healthy: the TTL from its
    /// last renewal, etcd's expiry overshoot, and the grace. A commit comes on top.
    #[must_use]
    pub fn worst_failover(&self) -> Duration {
        self.spec.ttl + EXPIRY_OVERSHOOT + self.spec.vacancy_grace
    }

    /// How long after a lost keep-alive the loop may stand still before `/livez` fails: max(2 TTL, 30 s).
    #[must_use]
    pub fn stall_limit(&self) -> Duration {
        (self.spec.ttl * 2).max(Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ttl_ms: u64, slack_ms: u64, promise_ms: u64) -> TimingSpec {
        let ms = Duration::from_millis;
        TimingSpec { ttl: ms(ttl_ms), slack: ms(slack_ms), promise: ms(promise_ms), ..TimingSpec::default() }
    }

    #[test]
    fn the_guard_ends_before_the_lease_by_drift_and_slack() {
        assert_eq!(Timing::default().guard_span(Duration::from_secs(10)), Duration::from_millis(9_650));
        assert!(Timing::default().guard_span(Duration::MAX) < Duration::MAX, "whatever etcd says it granted");
    }

    #[test]
    fn broken_relations_are_refused_and_named() {
        let keys = |s| Timing::new(s).err().map(|e| e.iter().map(TimingError::key).collect::<Vec<_>>());
        assert_eq!(keys(spec(2_000, 250, 1_000)), None, "etcd's floor is accepted");
        assert_eq!(keys(spec(1_000, 250, 1_000)), Some(vec!["ttl"]));
        assert_eq!(keys(spec(2_500, 250, 1_000)), Some(vec!["ttl"]));
        assert_eq!(keys(spec(2_000, 1_000, 1_000)), Some(vec!["slack", "promise"]));
        assert_eq!(keys(spec(10_000, 250, 9_700)), Some(vec!["promise"]));
    }

    fn with_grace(ttl_ms: u64, promise_ms: u64, grace_ms: u64) -> Result<Timing, Vec<TimingError>> {
        let vacancy_grace = Duration::from_millis(grace_ms);
        Timing::new(TimingSpec { vacancy_grace, ..spec(ttl_ms, 250, promise_ms) })
    }

    #[test]
    fn a_grace_that_keeps_nothing_is_refused() {
        // TTL, promise, and the least grace: (promise + 2/5 ttl) / 0.99, or ttl / 0.99 where that is less.
        for (ttl, promise, least) in [(10_000, 1_000, 5_051), (2_000, 1_000, 1_819), (10_000, 9_000, 10_102)] {
            for good in [0, least, 2 * ttl] {
                assert!(with_grace(ttl, promise, good).is_ok_and(|t| t.grace_keeps_promises(t.ttl()) == (good > 0)));
            }
            for bad in [1, promise, least - 1, 2 * ttl + 1] {
                let keys = with_grace(ttl, promise, bad)
                    .expect_err("refused")
                    .iter()
                    .map(TimingError::key)
                    .collect::<Vec<_>>();
                assert_eq!(keys, ["vacancy_grace"], "{bad} with a ttl of {ttl}");
            }
        }
    }

    #[test]
    fn what_a_grace_keeps_is_judged_by_the_lease_that_was_granted() {
        let secs = Duration::from_secs;
        let lost = |grace, granted| {
            with_grace(5_000, 1_000, grace)
                .expect("good timing")
                .grace_lost(secs(granted))
                .map(|l| (l.what, l.needed.as_millis()))
        };
        assert_eq!(lost(0, 8), None, "it kept nothing");
        assert_eq!(lost(3_100, 5), None);
        assert_eq!(lost(3_100, 8), Some(("promises", 4_243)));
        assert_eq!(lost(5_051, 8), Some(("one leader", 8_081)), "promises it still keeps");
        assert_eq!(lost(9_000, 8), None);
        let timing = with_grace(5_000, 1_000, 9_000).expect("good timing");
        assert!(!timing.grace_keeps_promises(Duration::MAX), "whatever etcd says it granted");
    }
}
