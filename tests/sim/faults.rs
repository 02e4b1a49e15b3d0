//! The faults of a plan: how each begins, and how it ends.

use std::time::Duration;

use super::node::{Node, Trouble};
use super::plan::{Attack, FASTEST, Fault, Kind, LEADER, MS};
use super::world::{Due, World};
use crate::edge::Request;
use crate::election::event::{Command, Input, Output, Ticket};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::{Cell, HighWater};
use crate::etcd::{Change, ELECTION_TIMEOUT, Store};

/// How the word of the application follows a drain, and the stop both, where the plan names no time.
const SOON: u64 = 50 * MS;
/// A drain that waits for the application's word: longer than any plan, in ms.
const LONG: u32 = 600_000;
/// Nobody waits for the answer.
const TICKET: Ticket = Ticket(0);

impl World<'_> {
    /// A fault begins.
    pub(super) fn strike(&mut self, i: usize) {
        let fault = self.plan.faults[i];
        let election = ElectionIndex(usize::from(fault.election).min(self.plan.elections - 1));
        let n = self.target(&fault, election);
        self.stats.faults.0[fault.kind as usize] += 1;
        self.trace(|| format!("fault on n{n}: {fault}"));
        self.expect_fail_over(n, election, &fault);
        let until = self.now + u64::from(fault.span) * MS;
        match fault.kind {
            Kind::Elsewhere => {
                let trouble = &mut self.nodes[n].trouble;
                (trouble.elsewhere, trouble.lost_home) = (until, fault.arg > 0);
            }
            Kind::Pause | Kind::Freeze | Kind::Cut | Kind::Mute | Kind::Zombie | Kind::Lagging => {
                self.trouble(n, fault, until);
                if fault.kind == Kind::Lagging {
                    self.nodes[n].trouble.other = i as u64;
                }
            }
            Kind::Rate => {
                let ppm = |word: u32| i64::from(word % (2 * FASTEST.unsigned_abs())) - i64::from(FASTEST);
                let node = &mut self.nodes[n];
                node.clock.run_at(ppm(fault.span), self.now);
                node.client_ppm = ppm(fault.arg);
                // It wakes when its own clock says so.
                self.feed(n, Input::Tick);
            }
            Kind::Stale => self.become_stale(n, until),
            Kind::Jump => {
                self.nodes[n].clock.jump(u64::from(fault.span) * MS);
                // The driver finds out when it next turns.
                self.feed(n, Input::Tick);
            }
            Kind::Crash => self.crash(n, &fault),
            Kind::Resign => {
                let cooldown = Duration::from_millis(u64::from(fault.span.min(self.plan.ttl)));
                self.feed(n, Input::Command(Command::Resign { election, ticket: TICKET, cooldown, token: None }));
            }
            Kind::Undrain => {
                self.drain(n, fault.arg);
                self.at(until, Due::Heal(i));
            }
            Kind::LateDrained => self.late_drained(n, election),
            Kind::Drain => {
                self.drain(n, LONG);
                self.at(self.now + SOON + u64::from(fault.arg) * MS, Due::Heal(i));
            }
            Kind::Drained => self.drained(n, election),
            Kind::Shutdown => self.shut_down(n, until),
            Kind::EtcdLeader => self.store.change_leader(self.now, ELECTION_TIMEOUT),
            Kind::Deposed => {
                self.store.change_leader(self.now, ELECTION_TIMEOUT);
                let trouble = &mut self.nodes[n].trouble;
                (trouble.deposed, trouble.only) = (until, fault.arg > 0);
            }
            Kind::HoldAtElect
            | Kind::HoldAtHandOver
            | Kind::RaiseAtElect
            | Kind::JumpAtElect
            | Kind::DeleteAtElect
            | Kind::DeleteAtHandOver => {
                self.traps[election.0] = Some(i);
            }
            Kind::Snapshot => self.take_snapshot(),
            Kind::Restore => self.restore(),
            Kind::LoseGeneration => self.lose_generation(election, fault.arg > 0),
            Kind::Hold
            | Kind::BadControl
            | Kind::BadGeneration
            | Kind::Foreign
            | Kind::Raise
            | Kind::Delete
            | Kind::Revoke => self.by_hand(i, election, &fault),
        }
        if matches!(fault.kind, Kind::Crash | Kind::Hold | Kind::BadControl | Kind::BadGeneration | Kind::Foreign) {
            self.at(until, Due::Heal(i));
        }
    }

    fn target(&self, fault: &Fault, election: ElectionIndex) -> usize {
        let leads = |n: &usize| self.nodes[*n].leads(election, self.now, self.max_jump()).is_some();
        let daemons = self.plan.daemons;
        match fault.node {
            LEADER => (0..daemons).find(leads).unwrap_or(fault.at as usize % daemons),
            node => usize::from(node) % daemons,
        }
    }

    fn trouble(&mut self, n: usize, Fault { kind, arg, .. }: Fault, until: u64) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let trouble = &mut node.trouble;
        match kind {
            Kind::Cut => trouble.cut = until,
            Kind::Mute => trouble.mute = until,
            Kind::Zombie => trouble.zombie = until,
            Kind::Lagging => (trouble.lagging, trouble.first_write) = (until, true),
            _ => {
                trouble.paused = trouble.paused.max(until);
                let at = trouble.paused;
                node.unreached = node.unreached.max(at);
                if kind == Kind::Freeze && node.up {
                    if node.clock.frozen_since.is_none() {
                        (node.clock.frozen_since, node.clock.set_after) = (Some(now), arg);
                    }
                    // The clients' clock stands still as well: no promise on it can be kept, and none is claimed to be.
                    for held in &mut node.held {
                        (held.promised, held.given_up) = (0, held.given_up + 1);
                    }
                }
                (node.wake_at, node.wake_set) = (at, at);
                self.at(at, Due::Wake(n));
            }
        }
    }

    fn crash(&mut self, n: usize, fault: &Fault) {
        // Whoever forgets what etcd has lost cannot mint above it, and nobody claims so.
        if fault.arg > 0 && self.elections().all(|e| self.store.newest(e) >= self.tokens.highest(e)) {
            self.nodes[n].remembered = HighWater::default();
        }
        self.nodes[n].die();
    }

    fn drained(&mut self, n: usize, election: ElectionIndex) {
        if !self.nodes[n].turns(self.now) {
            return;
        }
        // By saying so the application gives its promises up.
        let held = &mut self.nodes[n].held[election.0];
        (held.promised, held.given_up) = (0, held.given_up + 1);
        self.feed(n, Input::Command(Command::Drained { election, ticket: TICKET, token: None }));
    }

    /// What is led is held for so many ms.
    fn drain(&mut self, n: usize, held: u32) {
        let until = self.nodes[n].clock.at(self.now) + Duration::from_millis(u64::from(held));
        self.feed(n, Input::Command(Command::Drain { until }));
    }

    /// Somebody repeats, late, what it said of an earlier leadership. It gives no promise of this one up.
    fn late_drained(&mut self, n: usize, election: ElectionIndex) {
        let (_, Generation(led)) = self.nodes[n].shown.roles[election.0];
        let token = Some(Generation(led.saturating_sub(1)));
        self.feed(n, Input::Command(Command::Drained { election, ticket: TICKET, token }));
    }

    fn shut_down(&mut self, n: usize, until: u64) {
        let clock = &self.nodes[n].clock;
        let deadline = clock.at(self.now) + Duration::from_nanos(until - self.now);
        if self.nodes[n].turns(self.now) {
            self.nodes[n].stop_by = Some(deadline);
            self.feed(n, Input::Command(Command::Shutdown { deadline }));
        }
    }

    /// What a person does to etcd's keys.
    fn by_hand(&mut self, i: usize, election: ElectionIndex, fault: &Fault) {
        let mut events = std::mem::take(&mut self.events);
        let store = &mut self.store;
        match fault.kind {
            Kind::Hold => store.control(election, true, &mut events),
            Kind::BadControl => store.corrupt_control(election, &mut events),
            Kind::BadGeneration => {
                if let Some(record) = store.keys(election).generation.value().cloned() {
                    self.tokens.put_aside(election, record);
                    store.corrupt_generation(election, &mut events);
                }
            }
            Kind::Foreign => store.queue_foreign(election, &foreign(i)),
            Kind::Raise => {
                let to = Generation(store.newest(election).0 + 1 + u64::from(fault.arg));
                store.raise_by_hand(election, to, &mut events);
            }
            Kind::Delete | Kind::Revoke => {
                let place = fault.arg as usize % self.plan.daemons;
                let at_place = queue_of(store, election).into_iter().nth(place);
                if let Some((suffix, lease)) = at_place.filter(|(_, lease)| *lease > 0) {
                    match fault.kind {
                        Kind::Delete => store.delete_by_hand(election, &suffix, &mut events),
                        _ => store.revoke(lease, &mut events),
                    }
                }
            }
            _ => {}
        }
        self.events = events;
        self.done_by_hand();
    }

    fn done_by_hand(&mut self) {
        for i in 0..self.events.len() {
            if let Change::Generation(cell) = self.events[i].change.clone() {
                self.raised_by_hand(self.events[i].election, &cell);
            }
        }
        self.announce();
    }

    /// A transaction is about to be carried out: does the plan do something the moment before?
    pub(super) fn spring(&mut self, n: usize, request: &Request) {
        let (election, at_elect, suffix) = match &request.output {
            Output::Elect { election, txn } => (*election, true, txn.lease.to_string()),
            Output::HandOver { election, txn } => match &txn.successor {
                Some(to) => (*election, false, to.entry.key.suffix.clone()),
                None => return,
            },
            _ => return,
        };
        let Some(i) = self.traps[election.0] else { return };
        let fault = self.plan.faults[i];
        if at_elect == matches!(fault.kind, Kind::DeleteAtHandOver | Kind::HoldAtHandOver) || self.calm {
            return;
        }
        self.traps[election.0] = None;
        self.trace(|| format!("sprung: {fault}"));
        let mut events = std::mem::take(&mut self.events);
        match fault.kind {
            Kind::HoldAtElect | Kind::HoldAtHandOver => {
                self.store.control(election, true, &mut events);
                self.at(self.now + u64::from(fault.span) * MS, Due::Heal(i));
            }
            Kind::JumpAtElect => {
                let by = self.max_jump() + u64::from(fault.span) * MS;
                self.nodes[n].clock.jump(by);
            }
            Kind::RaiseAtElect => {
                let to = self.store.newest(election).next();
                self.store.raise_by_hand(election, to, &mut events);
            }
            _ => self.store.delete_by_hand(election, &suffix, &mut events),
        }
        self.events = events;
        self.done_by_hand();
    }

    /// Nonsense is healed with what was put aside for it; a snapshot would bring it back later, with nobody to heal it.
    fn take_snapshot(&mut self) {
        let nonsense = |e: ElectionIndex| matches!(self.store.keys(e).generation, Cell::Corrupt { .. });
        if !self.elections().any(nonsense) {
            self.snapshot = Some(self.store.clone());
        }
    }

    /// Restores etcd from the last snapshot: leases come back with it, watches end. Only a history that every daemon remembers is
    /// lost: one that knows nothing of it cannot mint above it, and nobody claims so.
    fn restore(&mut self) {
        if !self.all_know() {
            return;
        }
        if let Some(old) = &self.snapshot {
            self.store = self.store.restored(old, self.now);
            self.trace(|| "restored".to_owned());
            self.nodes.iter_mut().for_each(Node::etcd_restored);
            self.forget_history();
        }
    }

    /// One election's generation goes back, and nothing else of etcd does. The same holds as of a restore.
    fn lose_generation(&mut self, election: ElectionIndex, older: bool) {
        if !self.all_know() || self.store.keys(election).generation.value().is_none() {
            return;
        }
        let record = self.snapshot.as_ref().and_then(|old| old.keys(election).generation.value().cloned());
        let mut events = std::mem::take(&mut self.events);
        self.store.heal_generation(election, record.filter(|_| older), &mut events);
        self.events = events;
        self.lose_history(election);
        self.announce();
    }

    fn all_know(&self) -> bool {
        let knows = |e: ElectionIndex| self.nodes.iter().all(|node| node.knows(e) >= self.tokens.highest(e));
        self.elections().all(knows)
    }

    /// A fault ends.
    pub(super) fn heal(&mut self, i: usize) {
        let fault = self.plan.faults[i];
        let election = ElectionIndex(usize::from(fault.election).min(self.plan.elections - 1));
        self.trace(|| format!("over: {fault}"));
        let mut events = std::mem::take(&mut self.events);
        match fault.kind {
            Kind::Crash => {
                for n in 0..self.nodes.len() {
                    if !self.nodes[n].up {
                        self.start(n);
                    }
                }
            }
            Kind::Drain => {
                for n in 0..self.nodes.len() {
                    if self.nodes[n].up && self.nodes[n].core.draining() {
                        self.elections().for_each(|e| self.drained(n, e));
                        self.shut_down(n, self.now + u64::from(fault.span) * MS);
                    }
                }
            }
            Kind::Undrain => {
                for n in 0..self.nodes.len() {
                    if self.nodes[n].up && self.nodes[n].core.drained_until().is_some() {
                        self.feed(n, Input::Command(Command::Undrain));
                    }
                }
            }
            Kind::Hold | Kind::HoldAtElect | Kind::HoldAtHandOver => self.store.control(election, false, &mut events),
            Kind::BadControl => self.store.clear_control(election, &mut events),
            Kind::BadGeneration => self.heal_generation(election, fault.arg > 0),
            Kind::Foreign => self.store.delete_by_hand(election, &foreign(i), &mut events),
            _ => {}
        }
        self.events.append(&mut events);
        self.done_by_hand();
    }

    /// Puts the last good record back; or deletes the key, which loses history as a restore does.
    fn heal_generation(&mut self, election: ElectionIndex, delete: bool) {
        let delete = delete && self.plan.attack == Attack::Restore && self.all_know();
        let Some(record) = self.tokens.take_back(election) else { return };
        if self.store.keys(election).generation.value().is_none() {
            let record = Some(record).filter(|_| !delete);
            if delete {
                self.lose_history(election);
            }
            self.store.heal_generation(election, record, &mut self.events);
        }
    }

    pub(super) fn start(&mut self, n: usize) {
        self.wake_machine(n);
        self.nodes[n].start(self.plan, &self.timing, self.now);
        self.feed(n, Input::Tick);
    }

    /// The storm is over: all is healed, and everybody runs.
    pub(super) fn become_calm(&mut self) {
        self.trace(|| "calm".to_owned());
        for i in 0..self.plan.faults.len() {
            if self.plan.faults[i].kind == Kind::BadGeneration {
                self.heal(i);
            }
        }
        self.calm = true;
        let mut events = std::mem::take(&mut self.events);
        for election in self.elections() {
            self.store.clear_control(election, &mut events);
            // Those too that a restore brought back.
            for (suffix, _) in queue_of(&self.store, election).iter().filter(|(_, lease)| *lease == 0) {
                self.store.delete_by_hand(election, suffix, &mut events);
            }
        }
        self.events = events;
        self.done_by_hand();
        for n in 0..self.nodes.len() {
            self.catch_up(n);
            self.nodes[n].trouble = Trouble::default();
            // What waited for a paused process may be a command to go.
            self.feed(n, Input::Tick);
            let node = &mut self.nodes[n];
            if node.up && node.core.draining() {
                node.die();
            }
            if !node.up {
                self.start(n);
            }
        }
    }
}

fn foreign(i: usize) -> String {
    format!("foreign-{i}")
}

/// The queue in its order: suffix and lease.
fn queue_of(store: &Store, election: ElectionIndex) -> Vec<(String, i64)> {
    let mut queue: Vec<_> = store.keys(election).queue.iter().collect();
    queue.sort_by_key(|(_, key)| key.created);
    queue.into_iter().map(|(suffix, key)| (suffix.clone(), key.lease)).collect()
}
