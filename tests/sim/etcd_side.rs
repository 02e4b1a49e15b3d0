//! What happens at etcd's end: requests arrive and are carried out, watchers are told, leases expire.

use super::network::{REQUESTS, kind, mix};
use super::node::{ELECTIONS, ELSEWHERE, ENDPOINTS, HOME, Node};
use super::plan::MS;
use super::world::{Due, World};
use crate::clock::Instant;
use crate::edge::Request;
use crate::election::event::{ElectionInput, Input, Output, SessionInput};
use crate::election::ids::ElectionIndex;
use crate::etcd::{Change, Event, Member};
use crate::reads::header_of;

/// What the edge waits before it gives a request up.
const GIVEN_UP_AFTER: u64 = 300 * MS;

/// A message that takes longer is late.
const SLOW: u64 = 10 * MS;

impl World<'_> {
    /// A request arrives at etcd: it is lost, or carried out; then the answer is lost, or travels back.
    pub(super) fn reach(&mut self, n: usize, run: u32, sent: (Instant, bool), count: u32, request: &Request) {
        let fate = self.plan.fate(n, kind(&request.output), count, self.calm);
        let name = (n * REQUESTS + kind(&request.output)) as u64;
        let endpoint = mix(self.plan.seed, 6, name, u64::from(count)) % ENDPOINTS;
        let trouble = self.nodes[n].trouble;
        let away = trouble.elsewhere > self.now && (trouble.lost_home || endpoint + 1 == ENDPOINTS);
        if away && trouble.cut <= self.now && !fate.lost {
            self.reach_elsewhere(n, run, (sent.0, fate.back), request);
            return;
        }
        let carried_out = match self.member(n, request).filter(|_| !fate.lost) {
            Some(by) => {
                self.spring(n, request);
                let answer = self.commit(n, sent, request, by);
                // A cluster's own answers count, whatever else was heard.
                let heeded = self.nodes[n].heeds(self.now, endpoint % (ENDPOINTS - 1), HOME);
                Some(answer).filter(|_| !fate.answer_lost && heeded)
            }
            None => None,
        };
        let (input, after) = match carried_out {
            Some(answer) => (answer, fate.back),
            None => (request.unanswered(), GIVEN_UP_AFTER),
        };
        if after > SLOW || fate.out > SLOW {
            self.nodes[n].unreached = self.nodes[n].unreached.max(self.now + after);
        }
        self.at(self.now + after, Due::Hear { n, run, input: Box::new(input) });
    }

    /// Another cluster carries the request out, and answers.
    fn reach_elsewhere(&mut self, n: usize, run: u32, (sent_at, back): (Instant, u64), request: &Request) {
        self.stats.foreign += 1;
        let answer = self.elsewhere.serve(self.now, n, sent_at, request, Member::Good, &mut Vec::new());
        let heeded = self.nodes[n].heeds(self.now, ENDPOINTS - 1, ELSEWHERE);
        // It does not reach its own etcd then.
        self.nodes[n].unreached = self.nodes[n].unreached.max(self.now + back);
        let input = if heeded { answer } else { request.unanswered() };
        self.at(self.now + back, Due::Hear { n, run, input: Box::new(input) });
    }

    /// Who answers; nobody where the daemon is cut off.
    fn member(&mut self, n: usize, request: &Request) -> Option<Member> {
        let (now, term) = (self.now, self.store.term);
        let node = &mut self.nodes[n];
        let trouble = &mut node.trouble;
        if trouble.cut > now {
            return None;
        }
        let deposed = trouble.deposed > now;
        match &request.output {
            Output::KeepAlive { elsewhere, round, .. } if deposed && (trouble.only || !elsewhere) => {
                let forwards = !trouble.only && round.0 % 2 == 0;
                return Some(if forwards { Member::Forwarding } else { Member::Deposed });
            }
            // Like the round's keep-alive, where that went to the deposed leader itself.
            Output::Confirm { round, .. }
                if deposed && request.asks_nobody() && node.deceived.is_some_and(|(_, r, _)| r == *round) =>
            {
                return Some(Member::Deposed);
            }
            // A leader without its quorum answers no linearizable read.
            _ if deposed && trouble.only => return None,
            _ => {}
        }
        if trouble.lagging <= now {
            return Some(Member::Good);
        }
        let first_write = trouble.first_write && !request.reads();
        trouble.first_write &= !first_write;
        Some(match &request.output {
            Output::Grant { .. } | Output::KeepAlive { .. } => Member::Good,
            // Within one round the member that forwarded to a deposed leader may catch up by a snapshot, and then confirm with the
            // term of that leader. Who knows of the newer term is not deceived; to others the protocol promises nothing here.
            Output::Confirm { lease, round, .. }
                if node.deceived.is_some_and(|(l, r, _)| (l, r) == (*lease, *round))
                    && round.0 % 2 == 0
                    && node.core.high_water().raft_term.0 >= term =>
            {
                Member::CaughtUp
            }
            _ if request.reads() || first_write => Member::Lagging,
            _ => Member::Good,
        })
    }

    /// Carries a request out, judges what it did, and tells who watches. `lost`: it was sent in a history that is no more.
    pub(super) fn commit(
        &mut self,
        n: usize,
        (sent_at, lost): (Instant, bool),
        request: &Request,
        by: Member,
    ) -> Input {
        let right = self.may_be_elected(request);
        let replayed = lost && self.replays(request);
        let mut events = std::mem::take(&mut self.events);
        let mut answer = self.store.serve(self.now, n, sent_at, request, by, &mut events);
        if let (Member::Deposed | Member::Forwarding, Input::Session(SessionInput::KeepAliveAnswered { ttl, .. })) =
            (by, &mut answer)
        {
            // From its memory: what this daemon's leases were granted with.
            *ttl = self.timing.ttl();
        }
        if by == Member::Lagging
            && let Some(header) = header_of(&mut answer)
        {
            header.member.0 += self.nodes[n].trouble.other;
        }
        self.earn(n, request, &answer, by);
        for event in &events {
            if let Change::Generation(cell) = &event.change {
                self.committed(event.election, cell, (right, replayed));
            }
            self.key_went(event, Some(n));
        }
        self.events = events;
        self.announce();
        answer
    }

    /// Tells whoever watches of what is in `events`, each after a delay of its own; a watch may break instead, or keep silent.
    pub(super) fn announce(&mut self) {
        let events = std::mem::take(&mut self.events);
        for event in events {
            for n in 0..self.nodes.len() {
                if self.nodes[n].watches(&event) {
                    self.deliver(n, &event);
                }
            }
            self.history.push(event);
        }
    }

    pub(super) fn deliver(&mut self, n: usize, event: &Event) {
        let delivery = self.plan.delivery(n, event.revision.0, self.calm);
        let node = &mut self.nodes[n];
        if delivery.broken || node.trouble.cut > self.now {
            self.break_watches(n);
            return;
        }
        if delivery.silent || node.trouble.mute > self.now || node.trouble.stale > self.now {
            return;
        }
        let mut at = self.now + delivery.after;
        if !matches!(event.change, Change::Deleted(_)) {
            at = at.max(node.heard_at + 1);
            node.heard_at = at;
        }
        let run = node.run;
        self.at(at, Due::Hear { n, run, input: Box::new(event.input()) });
    }

    /// The stream ends, and every election hears so once.
    pub(super) fn break_watches(&mut self, n: usize) {
        for election in self.elections() {
            if self.nodes[n].watching[election.0].take().is_some() {
                let (at, run) = (self.now + 10 * MS, self.nodes[n].run);
                let input = Input::Election(election, ElectionInput::WatchBroken);
                self.at(at, Due::Hear { n, run, input: Box::new(input) });
            }
        }
    }

    /// What is new in the plan is told from that revision on.
    pub(super) fn watch(&mut self, n: usize, election: ElectionIndex, suffixes: Vec<String>, from: i64) {
        let before = self.nodes[n].watching[election.0].replace(suffixes);
        let missed = self.history.iter().rev().take_while(|e| e.revision.0 >= from);
        let mut missed: Vec<_> = missed.filter(|e| e.election == election).cloned().collect();
        missed.reverse();
        for event in missed {
            let known = before.as_ref().is_some_and(|b| match &event.change {
                Change::Deleted(suffix) => b.contains(suffix),
                Change::Generation(_) | Change::Control(_) => true,
            });
            if !known && self.nodes[n].watches(&event) {
                self.deliver(n, &event);
            }
        }
    }

    /// Some of etcd's history is lost, if only of one key.
    pub(super) const fn lose_history(&mut self, election: ElectionIndex) {
        self.histories += 1;
        self.lost[election.0] = true;
    }

    /// Another history: no stream of the old one goes on.
    pub(super) fn forget_history(&mut self) {
        self.histories += 1;
        self.lost = [true; ELECTIONS];
        self.history.clear();
        for n in 0..self.nodes.len() {
            self.break_watches(n);
        }
    }

    /// etcd looks for expired leases now and then: every third is found late.
    pub(super) fn expire_leases(&mut self) {
        let seed = self.plan.seed;
        let late = |lease: i64| match mix(seed, 5, lease.unsigned_abs(), 0) {
            bits if bits % 3 == 0 => (bits >> 8) % (500 * MS),
            _ => 0,
        };
        if self.store.leases.values().any(|l| l.expires <= self.now) {
            let mut events = std::mem::take(&mut self.events);
            self.store.expire_late(self.now, late, &mut events);
            for event in &events {
                self.key_went(event, None);
            }
            self.events = events;
            self.announce();
        }
    }
}

impl Node {
    pub(super) fn watches(&self, event: &Event) -> bool {
        self.up
            && self.watching[event.election.0].as_ref().is_some_and(|suffixes| match &event.change {
                Change::Deleted(suffix) => suffixes.contains(suffix),
                Change::Generation(_) | Change::Control(_) => true,
            })
    }
}
