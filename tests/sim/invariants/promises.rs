//! The promise rule: nobody leads within another daemon's promise, and none is given after the ledger was sealed.
//!
//! The first holds where invariant 1 does: out of band "ends a leadership before its guard and its promises", unless
//! `vacancy_grace` is large enough: for one leader, or for promises of a leader that reaches etcd. The second always.

use crate::election::ids::ElectionIndex;
use crate::sim::plan::Attack;
use crate::sim::world::World;

const NAME: &str = "promises";

impl World<'_> {
    /// Whether the promises of daemon `n` hold.
    pub(in crate::sim) fn promises_hold(&self, n: usize) -> bool {
        let (timing, ttl) = (&self.timing, self.timing.ttl());
        self.plan.attack != Attack::OutOfBand
            || timing.grace_keeps_one_leader(ttl)
            || (timing.grace_keeps_promises(ttl) && self.reaches_etcd(n))
    }

    /// A daemon has just given a promise.
    pub(in crate::sim) fn promised(&mut self, n: usize, election: ElectionIndex) {
        if self.nodes[n].held[election.0].sealed {
            self.fail(NAME, || format!("n{n} gave a promise after its ledger was read"));
        }
    }

    /// A daemon leads from now on, as readers see it.
    pub(in crate::sim) fn begins_to_lead(&mut self, n: usize, election: ElectionIndex) {
        let token = self.nodes[n].shown.roles[election.0].1;
        self.stats.leaderships += 1;
        let held = &mut self.nodes[n].held[election.0];
        (held.sealed, held.leaderships) = (false, held.leaderships + 1);
        self.begins_with_a_guard(n, election);
        self.leads_with(n, election, token);
        self.recovered_in_time(election);
        let other = self.bound_by(election, n).filter(|other| self.promises_hold(*other));
        if let Some(other) = other.filter(|_| self.nodes[n].unaware.is_none()) {
            self.fail(NAME, || format!("n{n} leads with {token} within a promise of n{other}"));
        }
    }
}
