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
    /// Waiting longer than the TTL after a vacancy defeats its purpose.
    #[error("a vacancy grace longer than the ttl ({ttl:?}) only prolongs outages")]
    VacancyGrace {
        /// The configured TTL.
        ttl: Duration,
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
            if spec.vacancy_grace > spec.ttl {
                errors.push(TimingError::VacancyGrace { ttl: spec.ttl });
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
}
