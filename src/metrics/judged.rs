//! What depends on the clock, or on what is seen from one snapshot to the next.

use std::time::Duration;

use super::families::Families;
use crate::clock::{Instant, Reading};
use crate::election::ids::{ElectionIndex, ElectionName, Generation};
use crate::election::role::Role;
use crate::snapshot::{ElectionView, Reader, Snapshot};

/// Who was last seen leading, and since when nobody is.
#[derive(Debug, Default)]
pub struct Presence {
    last: Option<Leader>,
    leaderless_since: Option<Instant>,
}

/// One leadership, told from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leader {
    Ours(Generation),
    Foreign,
}

/// What one look adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Time without a leader since the last look.
    pub leaderless: Duration,
    /// Whether another leadership began.
    pub changed: bool,
}

impl Presence {
    /// Takes note of a view. The first leader ever seen is no change.
    pub fn see(&mut self, view: &ElectionView, now: Instant) -> Seen {
        // etcd may still name us when we no longer act: that is nobody.
        let acting = view.leader.as_ref().filter(|_| !view.ours || view.role == Role::Leader);
        let leader = acting.map(|l| Leader::Ours(l.generation)).or(view.foreign.then_some(Leader::Foreign));
        let leaderless = self.leaderless_since.map_or(Duration::ZERO, |since| now.since(since));
        self.leaderless_since = leader.is_none().then_some(now);
        let changed = leader.is_some() && self.last.is_some() && self.last != leader;
        self.last = leader.or(self.last.take());
        Seen { leaderless, changed }
    }
}

/// Sets the gauges of one election.
pub fn judge(f: &Families, reader: &Reader, snapshot: &Snapshot, which: (ElectionIndex, &ElectionName), at: Reading) {
    let (e, name) = which;
    let label = [name.as_str()];
    let view = &snapshot.elections[e.0];
    // A daemon that drains does not lead, whatever the last snapshot said of the role.
    let leading = snapshot.leads_at(e, at).filter(|_| !snapshot.draining);
    let role = if leading.is_none() && view.role == Role::Leader { Role::Follower } else { view.role };
    f.is_leader.with_label_values(&label).set(i64::from(leading.is_some()));
    f.master_status.with_label_values(&label).set(i64::from(leading.is_some()));
    for each in Role::ALL {
        f.role.with_label_values(&[name.as_str(), each.as_str()]).set(i64::from(each == role));
    }
    let number = |generation: Generation| i64::try_from(generation.0).unwrap_or(i64::MAX);
    f.generation.with_label_values(&label).set(leading.map_or(0, |(generation, _)| number(generation)));
    f.observed_generation.with_label_values(&label).set(number(view.observed));
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    f.candidates.with_label_values(&label).set(count(view.candidates));
    f.queue_position.with_label_values(&label).set(view.queue_position.map_or(-1, count));
    let guard = leading.map(|(_, guard)| guard);
    let remaining = guard.map(|guard| guard.remaining(at.now)).unwrap_or_default();
    f.guard_remaining.with_label_values(&label).set(remaining.as_secs_f64());
    f.guard_deadline.with_label_values(&label).set(guard.map_or(0.0, |guard| unix_seconds(guard.deadline(), at)));
    f.promise_outstanding.with_label_values(&label).set(reader.promised(e, at.now).as_secs_f64());
}

/// A moment of the boot clock as Unix time, by the wall clock of `at`.
#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 bits of the 53")]
fn unix_seconds(moment: Instant, at: Reading) -> f64 {
    Duration::from_nanos(moment.as_nanos()).as_secs_f64() + at.offset_ms as f64 / 1000.0
}
