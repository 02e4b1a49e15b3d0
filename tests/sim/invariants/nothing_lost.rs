//! Invariant 6: every generation has its history record; every role change of a daemon is reported, once and in order, and
//! says what readers see. And nobody speaks of a rewind where no history was lost: one election's generation is its own affair.
//!
//! Holds under every attack. A restore takes history records back along with their generations.

use crate::election::event::Transition;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::GenerationRecord;
use crate::election::role::Role;
use crate::sim::world::World;

const NAME: &str = "nothing_lost";

impl World<'_> {
    /// A generation was written.
    pub(in crate::sim) fn recorded(&mut self, election: ElectionIndex, record: &GenerationRecord) {
        let key = record.holder.as_ref().map(|h| h.key.clone());
        if self.store.keys(election).history.get(&record.generation) != Some(&key) {
            self.fail(NAME, || format!("{} has no history record", record.generation));
        }
    }

    /// A daemon reports a change of its role.
    pub(in crate::sim) fn transition(&mut self, n: usize, transition: &Transition) {
        let Transition { election, from, to, old_generation, new_generation, reason } = *transition;
        let node = &mut self.nodes[n];
        let audited = node.held[election.0].audited.replace((to, new_generation));
        let expected = audited.unwrap_or((Role::Follower, Generation(0)));
        let shown = node.shown.roles[election.0];
        if expected != (from, old_generation) {
            self.fail(NAME, || format!("n{n} reports {from:?} {old_generation} left, and said {expected:?} last"));
        }
        if from == Role::Leader && shown == (from, old_generation) {
            self.fail(NAME, || format!("n{n} reports {reason:?} while readers still see it lead"));
        }
    }

    /// A daemon says that history went backwards: of one election, or of all.
    pub(in crate::sim) fn says_rewound(&mut self, n: usize, election: Option<ElectionIndex>) {
        let lost = match election {
            Some(election) => self.lost[election.0],
            None => self.elections().all(|election| self.lost[election.0]),
        };
        if !lost {
            self.fail(NAME, || format!("n{n} speaks of a rewind of {election:?}, and nothing of that was lost"));
        }
    }

    /// All that follows from one input was carried out.
    pub(in crate::sim) fn audited(&mut self, n: usize) {
        for election in self.elections() {
            let node = &self.nodes[n];
            let said = node.held[election.0].audited.unwrap_or((Role::Follower, Generation(0)));
            let shown = node.shown.roles[election.0];
            if said != shown && node.up {
                self.fail(NAME, || format!("n{n} shows {shown:?}, and reported {said:?} last"));
            }
        }
    }

    /// A daemon has stopped, and says whether anything of it is left.
    pub(in crate::sim) fn stopped(&mut self, n: usize, clean: bool) {
        let key = |e: ElectionIndex| self.nodes[n].core.standing(e).key.map(|key| self.store.created(e, &key.suffix));
        if clean && self.elections().any(|e| key(e).is_some_and(|created| created > 0)) {
            self.fail(NAME, || format!("n{n} calls its stop clean, and has a key left"));
        }
        self.nodes[n].die();
    }
}
