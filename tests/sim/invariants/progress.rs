//! Invariant 5: with a quorum reachable and one healthy candidate there is a leader within TTL, etcd's expiry overshoot and one
//! commit; after a graceful end within one commit, one watch delivery, and what is left of promises.
//!
//! In the quiet attack that is judged to the millisecond. After any storm a single leader must hold the newest token of every
//! election, within what the storm may have left behind: a dead leader's lease, the waits after a rewind and a raise, a grant's back-off.
//! And a stop ends by its deadline.

use std::time::Duration;

use crate::edge::nanos;
use crate::election::ids::ElectionIndex;
use crate::election::role::Role;
use crate::etcd::ELECTION_TIMEOUT;
use crate::sim::node::ELECTIONS;
use crate::sim::plan::{Attack, Fault, Kind, MS};
use crate::sim::world::{ASK_EVERY, World};
use crate::timing::EXPIRY_OVERSHOOT;

pub(in crate::sim) const NAME: &str = "progress";

/// A look, a commit and a watch delivery, at 4 ms a way each, and some.
const A_FEW_MESSAGES: u64 = 40 * MS;
/// The longest pause between two tries to get a lease.
const BACK_OFF: u64 = 5_000 * MS;

#[derive(Default)]
pub(in crate::sim) struct State {
    /// When somebody must lead again.
    due: [Option<u64>; ELECTIONS],
}

impl World<'_> {
    /// A fault is about to end a leadership of this daemon: by when must somebody else lead?
    pub(in crate::sim) fn expect_fail_over(&mut self, n: usize, election: ElectionIndex, fault: &Fault) {
        if self.plan.attack != Attack::Quiet {
            return;
        }
        for e in self.elections() {
            let leads = self.nodes[n].leads(e, self.now, self.max_jump()).is_some();
            let another = (0..self.nodes.len()).any(|m| m != n && self.nodes[m].shown.roles[e.0].0 == Role::Candidate);
            if !leads || !another {
                continue;
            }
            let node = &self.nodes[n];
            let promised = node.ledgers[e.0].latest().since(node.clock.at(self.now));
            let promised = self.now + node.clock.true_span(nanos(promised));
            // The model looks at leases at every event, and something happens every 80 ms at least.
            let worst = self.now + nanos(self.timing.worst_failover()) + ASK_EVERY;
            let end = match fault.kind {
                Kind::Resign if e == election => promised,
                Kind::Shutdown | Kind::Undrain => promised,
                Kind::Drained if e == election => self.now,
                Kind::Drain => self.now + 50 * MS,
                Kind::Crash | Kind::Cut => worst,
                _ => continue,
            };
            self.progress.due[e.0] = Some(end + A_FEW_MESSAGES);
        }
    }

    /// Somebody leads.
    pub(in crate::sim) fn recovered_in_time(&mut self, election: ElectionIndex) {
        if let Some(due) = self.progress.due[election.0].take().filter(|due| *due < self.now) {
            let late = (self.now - due) / MS;
            self.fail(NAME, || format!("election {} had no leader for {late} ms too long", election.0));
        }
    }

    /// Whether all has recovered after the storm. Fails when it should have by now.
    pub(in crate::sim) fn recovered(&mut self) -> bool {
        self.stops_end();
        if !self.calm {
            return false;
        }
        let since = self.now - u64::from(self.plan.storm) * MS;
        if self.elections().all(|e| self.has_its_leader(e)) {
            self.stats.slowest_ms = since / MS;
            return true;
        }
        let ttl = nanos(self.timing.ttl());
        // Two restores within a TTL look like two servers in turn.
        let divided = if self.stats.divided > 0 { 10 * ttl } else { 0 };
        let bound =
            divided + 3 * ttl + ELECTION_TIMEOUT + nanos(EXPIRY_OVERSHOOT + self.timing.vacancy_grace()) + BACK_OFF;
        if since > bound {
            self.fail(NAME, || format!("no single leader with the newest token {} ms after the storm", since / MS));
        }
        false
    }

    fn has_its_leader(&self, election: ElectionIndex) -> bool {
        let token = |n: &crate::sim::node::Node| n.leads(election, self.now, self.max_jump()).map(|(token, _)| token);
        let mut leaders = self.nodes.iter().filter_map(token);
        leaders.next().is_some_and(|token| token == self.store.newest(election)) && leaders.next().is_none()
    }

    fn stops_end(&mut self) {
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if let Some(by) = node.stop_by
                && node.up
                && node.trouble.paused + A_FEW_MESSAGES < self.now
                && node.clock.at(self.now) > by + Duration::from_nanos(A_FEW_MESSAGES)
            {
                self.fail(NAME, || format!("n{n} should have stopped"));
            }
        }
    }
}
