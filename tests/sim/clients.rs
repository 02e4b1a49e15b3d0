//! The clients of a daemon: they ask for tokens, hold promises, and write to the fenced store.

use super::invariants::fenced_store::Write;
use super::network::mix;
use super::node::true_span;
use super::plan::MS;
use super::world::{Due, World};
use crate::edge::nanos;
use crate::election::ids::ElectionIndex;

impl World<'_> {
    /// A client's question reaches daemon `n`, for each election. It left a while ago, and the answer takes as long again.
    pub(super) fn ask(&mut self, n: usize) {
        if !self.nodes[n].turns(self.now) {
            return;
        }
        let max_jump = self.max_jump();
        for election in self.elections() {
            let Some((token, guard)) = self.nodes[n].leads(election, self.now, max_jump) else { continue };
            let node = &mut self.nodes[n];
            let told = node.ledgers[election.0].give(node.clock.at(self.now), guard, &self.timing);
            self.stats.promises += 1;
            let bits = mix(self.plan.seed, 6, n as u64, self.stats.promises);
            let travel = (1 + bits % 40) * if bits >> 60 == 0 { 5 * MS } else { MS / 10 };
            // On the client's own clock, from when it was sent.
            let left = self.now.saturating_sub(travel);
            let until = left + true_span(node.client_ppm, nanos(told));
            // Nobody claims that a machine which cannot know of its pause keeps its promises.
            let until = if node.unaware.is_some() { 0 } else { until };
            let held = &mut node.held[election.0];
            held.promised = held.promised.max(until);
            let write = Write { n, election, token, until, given_up: held.given_up, leadership: held.leaderships };
            self.promised(n, election);
            self.use_token(write, bits >> 8, self.now + travel);
        }
    }

    /// Most write at once. Some stand still first, some writes are long on their way.
    fn use_token(&mut self, write: Write, bits: u64, answered: u64) {
        let late = match bits & 15 {
            0 => (bits >> 8) % 8_000 * MS,
            1..4 => (bits >> 8) % 600 * MS,
            4..10 => (bits >> 8) % 4 * MS,
            _ => return,
        };
        let from = answered.max(self.nodes[write.n].trouble.zombie);
        self.at(from + late, Due::Write(write));
    }

    /// Whether a promise given in this election still binds the others, and who gave it.
    pub(super) fn bound_by(&self, election: ElectionIndex, leader: usize) -> Option<usize> {
        (0..self.nodes.len()).find(|n| *n != leader && self.nodes[*n].held[election.0].promised > self.now)
    }
}
