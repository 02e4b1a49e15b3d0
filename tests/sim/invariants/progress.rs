//! Invariant 5: with a quorum reachable and one healthy candidate there is a leader within TTL, etcd's expiry overshoot and one
//! commit; after a graceful end within one commit, one watch delivery, and what is left of promises.
//!
//! In the quiet attack that is judged to the millisecond, with watches that are stale besides: these take as long as the edge needs
//! to find out. After any storm a single leader must hold the newest token of every election, within what the faults of the storm
//! may have left behind and no more: a dead leader's lease, the waits after a rewind and a raise, a pause that grew. And a stop
//! ends by its deadline.

use std::time::Duration;

use crate::edge::nanos;
use crate::election::ids::ElectionIndex;
use crate::election::role::Role;
use crate::etcd::ELECTION_TIMEOUT;
use crate::sim::node::ELECTIONS;
use crate::sim::plan::{Attack, Fault, Kind, MS};
use crate::sim::world::{ASK_EVERY, World};

pub(in crate::sim) const NAME: &str = "progress";

/// A look, a commit and a watch delivery, at 4 ms a way each, and some.
const A_FEW_MESSAGES: u64 = 40 * MS;
/// The longest pause between two reads (`src/election/pause.rs`).
const READ_PAUSE: u64 = 1_000 * MS;
/// The longest pause between two tries of the same thing (ditto).
const LONGEST_PAUSE: u64 = 5_000 * MS;

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
                // Its stop waits so long; where that is no time for a commit it ends like a crash.
                Kind::Drain if u64::from(fault.span) * MS < A_FEW_MESSAGES => worst,
                Kind::Drain => self.now + 50 * MS,
                Kind::Crash | Kind::Cut => worst,
                _ => continue,
            };
            self.progress.due[e.0] = Some(end + A_FEW_MESSAGES + self.what_a_stale_watch_takes());
        }
    }

    /// A confirming read, one a TTL/5, shows that there is more than the watch has told; two probes later it moves. A read that is
    /// under way when the watch ends counts for nothing, and the next one passes its pause (seed 114828).
    fn what_a_stale_watch_takes(&self) -> u64 {
        let stale = self.nodes.iter().any(|node| node.trouble.stale > self.now);
        let ttl = self.timing.ttl();
        if stale { nanos(self.timing.renew_every(ttl)) + 2 * self.lag() + READ_PAUSE + A_FEW_MESSAGES } else { 0 }
    }

    /// Within what there must be a leader after the storm: the promised bound, and what the faults themselves take.
    fn bound(&self) -> u64 {
        let ttl = nanos(self.timing.ttl());
        let had = |kinds: &[Kind]| self.plan.faults.iter().any(|fault| kinds.contains(&fault.kind));
        let net = &self.plan.net;
        let worst = nanos(self.timing.worst_failover()) + ASK_EVERY + A_FEW_MESSAGES;
        // Each new leader of etcd starts every lease afresh.
        let etcd = had(&[Kind::EtcdLeader, Kind::Deposed, Kind::Restore]);
        // A floor that somebody raised is elected over after one TTL; and who sees a rewind keeps out of the queue for one.
        let raised = had(&[Kind::Raise, Kind::RaiseAtElect]) || self.plan.attack == Attack::Restore;
        let rewound = self.plan.attack == Attack::Restore;
        // What no watch told is found by the read once a TTL.
        let untold = net.silent > 0 || had(&[Kind::Mute]);
        // Whatever was tried again and again waits longer each time.
        let paced = self.plan.attack != Attack::Quiet;
        // Two restores within a TTL look like two servers in turn.
        let divided = self.stats.divided > 0;
        worst
            + u64::from(divided) * 10 * ttl
            + u64::from(etcd) * ELECTION_TIMEOUT
            + (u64::from(raised) + u64::from(rewound) + u64::from(untold)) * ttl
            + u64::from(paced) * LONGEST_PAUSE
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
        if since > self.bound() {
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
