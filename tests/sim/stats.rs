//! What happened in the schedules, so that one sees that the attack is not tame.

use std::fmt;
use std::ops::AddAssign;

use super::plan::Kind;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) schedules: u64,
    pub(super) events: u64,
    pub(super) leaderships: u64,
    pub(super) rewinds: u64,
    /// Rewinds within a TTL of another.
    pub(super) divided: u64,
    /// Answers of another cluster.
    pub(super) foreign: u64,
    pub(super) promises: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Writes that arrived within their promise.
    pub(super) within: u64,
    /// Machines that woke up from a pause which their clocks hid.
    pub(super) unaware: u64,
    /// The longest way from the calm to a leader of every election, in ms.
    pub(super) slowest_ms: u64,
    pub(super) faults: Counts,
}

/// One for each kind of fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts(pub(super) [u64; Kind::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        self.schedules += 1;
        self.events += other.events;
        self.leaderships += other.leaderships;
        self.rewinds += other.rewinds;
        self.divided += other.divided;
        self.foreign += other.foreign;
        self.promises += other.promises;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.within += other.within;
        self.unaware += other.unaware;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        for (mine, other) in self.faults.0.iter_mut().zip(other.faults.0) {
            *mine += other;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, events, leaderships, rewinds, divided, foreign, .. } = self;
        let Self { promises, accepted, refused, within, unaware, slowest_ms, faults, .. } = self;
        writeln!(f, "{schedules} schedules: {events} events, {leaderships} leaderships")?;
        writeln!(f, "{rewinds} rewinds noticed, {divided} soon after another; {foreign} answers of another cluster")?;
        writeln!(
            f,
            "{promises} promises; writes: {accepted} accepted, {refused} refused, {within} within their promise"
        )?;
        writeln!(f, "slowest recovery: {slowest_ms} ms; {unaware} pauses that no clock showed")?;
        let faults: Vec<_> = Kind::ALL.iter().zip(faults.0).map(|(kind, n)| format!("{n} {}", kind.word())).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
