//! Invariant 1: no two daemons' guards for one election are valid at the same instant. And who is elected may be: at the
//! commit it heads the queue with a key that stands, nothing is paused, and every value can be read.
//!
//! Judged at every event, from what readers would be told: of paused processes too, not of machines that stand still.
//! Not out of band, unless `vacancy_grace` is large enough: whoever deletes a leader's key or revokes its lease by hand "ends a
//! leadership before its guard". Not of a machine that cannot know that it was paused (`unaware.rs`). After a
//! restore it holds, because "a survivor that sees a rewind waits one TTL before it queues again", and nobody is elected over what
//! survivors raised before that; but for the pause, which is compared by its revision alone, and that may come again.

use crate::edge::Request;
use crate::election::event::Output;
use crate::election::ids::ElectionIndex;
use crate::election::record::Cell;
use crate::etcd::Key;
use crate::sim::plan::Attack;
use crate::sim::world::World;

const NAME: &str = "one_leader";

impl World<'_> {
    pub(in crate::sim) fn one_leader(&mut self) {
        if self.plan.attack == Attack::OutOfBand && !self.timing.grace_keeps_one_leader(self.timing.ttl()) {
            return;
        }
        let max_jump = self.max_jump();
        for election in self.elections() {
            let leads = |n: &usize| self.nodes[*n].leads(election, self.now, max_jump).is_some();
            let mut leaders = (0..self.nodes.len()).filter(leads).filter(|n| self.nodes[*n].unaware.is_none());
            if let (Some(a), Some(b)) = (leaders.next(), leaders.next()) {
                let token = |n: usize| self.nodes[n].shown.roles[election.0].1;
                let text = format!("n{a} leads with {}, and n{b} with {}", token(a), token(b));
                self.fail(NAME, || text);
                return;
            }
        }
    }

    /// Whether this transaction may mint a generation now, judged apart from its own conditions.
    pub(in crate::sim) fn may_be_elected(&self, request: &Request) -> bool {
        let stands = |election: ElectionIndex, suffix: &str, created: i64| {
            self.store.keys(election).queue.get(suffix).is_some_and(|key| key.created == created)
        };
        match &request.output {
            Output::Elect { election, txn } => {
                let keys = self.store.keys(*election);
                let first = |key: &Key| key.created >= txn.created.0;
                let paused = self.on_hold(*election);
                let readable = !matches!(keys.generation, Cell::Corrupt { .. });
                let suffix = txn.lease.to_string();
                stands(*election, &suffix, txn.created.0) && keys.queue.values().all(first) && !paused && readable
            }
            Output::HandOver { election, txn } => txn.successor.as_ref().is_none_or(|to| {
                let next = &to.entry.key;
                let skipped = to.skipped.iter().all(|key| stands(*election, &key.suffix, key.created.0));
                let leader = stands(*election, &txn.key.suffix, txn.key.created.0);
                !self.on_hold(*election) && leader && skipped && stands(*election, &next.suffix, next.created.0)
            }),
            _ => true,
        }
    }

    /// Whether the control key lets nobody be named. It is compared by its revision alone, which may come again with a restore.
    fn on_hold(&self, election: ElectionIndex) -> bool {
        let paused = match &self.store.keys(election).control {
            Cell::Absent => false,
            Cell::Valid { value, .. } => value.paused,
            Cell::Corrupt { .. } => true,
        };
        paused && self.plan.attack != Attack::Restore
    }

    pub(in crate::sim) fn wrongly_elected(&mut self, election: ElectionIndex) {
        self.fail(NAME, || format!("election {}: a generation was minted for who may not be elected", election.0));
    }
}
