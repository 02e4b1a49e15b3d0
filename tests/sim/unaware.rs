//! A virtual machine that was paused with all of its clocks, and cannot know.
//!
//! Where nothing sets its wall clock right (kvm-clock, QEMU's default), it takes its guard for as good as before. What is not
//! promised (`docs/safety.md`) begins when it wakes up, and ends when the first renewal *sent after that* is confirmed or
//! refused, or the wall clock jumps, and at the latest with its guard. Until then it does not count as a leader, and what it
//! promises binds nobody; that the storage refuses its writes is judged all the same.

use super::plan::MS;
use super::world::World;
use crate::clock::Instant;
use crate::election::event::{Input, Round, SessionInput};
use crate::election::ids::LeaseId;

/// What an input may say to such a machine.
pub(super) enum Heard {
    /// A grant that was sent then.
    Granted(Instant),
    /// A renewal was confirmed.
    Confirmed(LeaseId, Round),
    Jump,
    Other,
}

impl Heard {
    pub(super) const fn of(input: &Input) -> Self {
        match input {
            Input::Session(SessionInput::Granted { header, .. }) => Self::Granted(header.sent_at),
            Input::Session(SessionInput::Confirmed { lease, round, .. }) => Self::Confirmed(*lease, *round),
            Input::Session(SessionInput::ClockJumped) => Self::Jump,
            _ => Self::Other,
        }
    }
}

impl World<'_> {
    /// Daemon `n` wakes up, and its clocks hide the pause.
    pub(super) fn at_a_loss(&mut self, n: usize) {
        let woke = self.nodes[n].clock.at(self.now);
        self.nodes[n].unaware = Some(woke);
        self.stats.unaware += 1;
    }

    /// Daemon `n` has heard something, and by it its guard `grew` or not.
    pub(super) fn comes_to_know(&mut self, n: usize, heard: &Heard, grew: bool) {
        let node = &mut self.nodes[n];
        let Some(woke) = node.unaware else { return };
        let sent_since = |lease: LeaseId, round: Round| {
            let renewal = node.renewals.iter().flatten().find(|(l, r, _)| (*l, *r) == (lease, round));
            renewal.is_some_and(|(_, _, sent_at)| *sent_at >= woke)
        };
        let knows = match heard {
            Heard::Granted(sent_at) => *sent_at >= woke,
            Heard::Confirmed(lease, round) => grew && sent_since(*lease, *round),
            Heard::Jump => true,
            Heard::Other => false,
        };
        if knows || node.core.session().is_none() {
            node.unaware = None;
        }
    }

    /// Whether daemon `n` reached etcd without trouble during the last lease.
    pub(super) fn reaches_etcd(&self, n: usize) -> bool {
        let lease = u64::from(self.plan.ttl) * MS;
        let unreached = self.nodes[n].unreached;
        self.nodes[n].up && (unreached == 0 || unreached + lease < self.now)
    }
}
