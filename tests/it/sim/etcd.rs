//! The model of etcd: linearizable keys, leases, transactions and watches, and what an operator may do to it.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure::clock::{Hlc, Instant, Wall};
use tenure::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput};
use tenure::election::ids::{CandidateKey, Generation, LeaseId, RaftTerm, Revision};
use tenure::election::record::{
    CandidateInfo, Cause, Cell, GenerationRecord, HandOverTxn, Header, Holder, OwnKey, Pulse, QueueEntry, View,
};

use super::node::Node;
use super::{E, ELECTION_TIMEOUT, MS, Request, TTL, What, World, nanos};

#[derive(Clone)]
pub(super) struct Store {
    pub(super) revision: i64,
    pub(super) term: u64,
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) generation: Cell<GenerationRecord>,
    pub(super) leases: BTreeMap<i64, u64>,
}

#[derive(Clone)]
pub(super) struct Key {
    pub(super) created: i64,
    pub(super) owner: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Deleted(String),
    Generation(Cell<GenerationRecord>),
}

impl World {
    #[allow(clippy::too_many_lines, reason = "one arm a request of the protocol")]
    pub(super) fn serve(&mut self, n: usize, sent_at: Instant, request: &Request) -> Input {
        let election = |input| Input::Election(E, input);
        let same_value = self.same_value(request);
        match &request.output {
            Output::Grant { ttl } => {
                let lease = self.rng.i64(1..i64::MAX);
                self.store.leases.insert(lease, self.now + nanos(*ttl));
                Input::Session(SessionInput::Granted { lease: LeaseId(lease), ttl: *ttl, header: self.header(sent_at) })
            }
            Output::KeepAlive { lease, round, elsewhere } => {
                let mut header = self.header(sent_at);
                let deposed = self.deposed_until > self.now && !elsewhere && self.rng.bool();
                let ttl = if deposed {
                    // It answers from memory, and renews nothing that counts.
                    header.raft_term = RaftTerm(self.store.term - 1);
                    TTL
                } else if let Some(expiry) = self.store.leases.get_mut(&lease.0) {
                    *expiry = (*expiry).max(self.now + nanos(TTL));
                    TTL
                } else {
                    Duration::ZERO
                };
                Input::Session(SessionInput::KeepAliveAnswered { lease: *lease, round: *round, ttl, header })
            }
            Output::Confirm { lease, round, elections } => {
                let created = self.store.keys.get(&lease.to_string()).map_or(0, |k| k.created);
                let keys = elections.iter().map(|e| OwnKey { election: *e, created: Revision(created) }).collect();
                let header = self.header(sent_at);
                Input::Session(SessionInput::Confirmed { lease: *lease, round: *round, header, keys })
            }
            Output::Revoke { lease } => {
                self.revoke(lease.0);
                Input::Session(SessionInput::Revoked { lease: *lease })
            }
            Output::Look { round, lease, .. } => {
                election(ElectionInput::Looked { round: *round, view: self.view(sent_at, *lease) })
            }
            Output::Feel { round, suffixes, .. } => election(ElectionInput::Felt {
                round: *round,
                pulse: Pulse {
                    header: self.header(sent_at),
                    generation: self.store.generation.modified(),
                    control: Revision(0),
                    keys: suffixes
                        .iter()
                        .map(|s| CandidateKey {
                            suffix: s.clone(),
                            created: Revision(self.store.keys.get(s).map_or(0, |k| k.created)),
                        })
                        .collect(),
                },
            }),
            Output::Queue { lease, .. } => {
                if !self.store.leases.contains_key(&lease.0) {
                    return Input::Session(SessionInput::LeaseUnknown { lease: *lease });
                }
                if !self.store.keys.contains_key(&lease.to_string()) {
                    self.store.revision += 1;
                    let key = Key { created: self.store.revision, owner: n };
                    self.store.keys.insert(lease.to_string(), key);
                }
                let created = Revision(self.store.keys[&lease.to_string()].created);
                election(ElectionInput::Queued { lease: *lease, created, header: self.header(sent_at) })
            }
            Output::Elect { txn, .. } => {
                let key = CandidateKey::of(txn.lease, txn.created);
                let mine = self.store.keys.get(&key.suffix).is_some_and(|k| k.created == txn.created.0);
                let first = self.store.keys.values().all(|k| k.created >= txn.created.0);
                let same = same_value && self.store.generation.modified() == txn.generation_modified;
                let outcome = if mine && first && same {
                    let holder = Holder { id: n.to_string(), url: String::new(), key: key.clone() };
                    let record = self.commit_generation(txn.generation, Some(holder), Cause::Elected);
                    self.announce_generation();
                    let queue = self.queue();
                    ElectOutcome::Won { header: self.header(sent_at), record, queue }
                } else {
                    ElectOutcome::Refused { view: self.view(sent_at, Some(txn.lease)) }
                };
                election(ElectionInput::ElectAnswered { key, outcome })
            }
            Output::HandOver { txn, .. } => {
                let exists =
                    |k: &CandidateKey| self.store.keys.get(&k.suffix).is_some_and(|s| s.created == k.created.0);
                let fits = exists(&txn.key)
                    && txn.successor.as_ref().is_none_or(|s| {
                        exists(&s.entry.key)
                            && s.skipped.iter().all(&exists)
                            && same_value
                            && self.store.generation.modified() == s.generation_modified
                    });
                let outcome = if fits { self.hand_over(sent_at, txn) } else { HandOverOutcome::Refused };
                election(ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome })
            }
            Output::Raise { at_least, modified, .. } => {
                // The edge reads first, and compares with the very value that it read.
                let lower = self.store.generation.value().is_none_or(|r| r.generation < *at_least);
                let raised = lower && self.store.generation.modified() == *modified;
                if raised {
                    self.commit_generation(*at_least, None, Cause::Raised);
                    self.announce_generation();
                }
                election(ElectionInput::RaiseAnswered { raised })
            }
            other => unreachable!("{other:?} is no request"),
        }
    }

    pub(super) fn hand_over(&mut self, sent_at: Instant, txn: &HandOverTxn) -> HandOverOutcome {
        let mut gone = vec![txn.key.suffix.clone()];
        self.store.revision += 1;
        let record = txn.successor.as_ref().map(|s| {
            gone.extend(s.skipped.iter().map(|k| k.suffix.clone()));
            self.store.revision -= 1;
            let holder = Holder { id: String::new(), url: String::new(), key: s.entry.key.clone() };
            self.commit_generation(s.generation, Some(holder), Cause::HandedOver)
        });
        for suffix in gone {
            self.store.keys.remove(&suffix);
            self.announce(&Event::Deleted(suffix));
        }
        if record.is_some() {
            self.announce_generation();
        }
        HandOverOutcome::Done { header: self.header(sent_at), record }
    }

    pub(super) fn commit_generation(
        &mut self,
        generation: Generation,
        holder: Option<Holder>,
        cause: Cause,
    ) -> GenerationRecord {
        let before = self.store.generation.value().map_or(Generation(0), |r| r.generation);
        assert!(generation > before, "seed {}: {generation} committed after {before}\n{}", self.seed, self.tail());
        self.store.revision += 1;
        let record = GenerationRecord {
            generation,
            term: 0,
            holder,
            cause,
            elected_at: Wall(self.stamps),
            hlc: Hlc::default(),
            leaderless_ms: 0,
        };
        self.stamps += 1;
        self.store.generation = Cell::Valid { value: record.clone(), modified: Revision(self.store.revision) };
        record
    }

    pub(super) fn announce_generation(&mut self) {
        self.announce(&Event::Generation(self.store.generation.clone()));
    }

    /// Tells whoever watches, each after a delay of its own; a watch may break instead.
    pub(super) fn announce(&mut self, event: &Event) {
        let revision = Revision(self.store.revision);
        for n in 0..self.nodes.len() {
            let watched = match event {
                Event::Deleted(suffix) => self.nodes[n].watching.contains(suffix),
                Event::Generation(_) => true,
            };
            let broken = !self.calm && (self.nodes[n].cut_until > self.now || self.rng.u8(..) < 8);
            let input = match event {
                _ if broken => ElectionInput::WatchBroken,
                Event::Deleted(suffix) => ElectionInput::KeyDeleted { suffix: suffix.clone(), revision },
                Event::Generation(cell) => ElectionInput::GenerationChanged { cell: cell.clone(), revision },
            };
            // A silent watch tells nothing at all.
            if watched && (self.calm || self.rng.u8(..) > 12) {
                let at = self.now + self.delay();
                self.later(at, What::Hear(n, self.nodes[n].epoch, Box::new(Input::Election(E, input))));
            }
        }
    }

    pub(super) fn queue(&self) -> Vec<QueueEntry> {
        let info = |owner: usize| CandidateInfo {
            id: owner.to_string(),
            url: String::new(),
            term: 0,
            priority: i32::try_from(owner % 2).unwrap_or(0),
            version: String::new(),
        };
        let mut queue: Vec<_> = self
            .store
            .keys
            .iter()
            .map(|(suffix, k)| QueueEntry {
                key: CandidateKey { suffix: suffix.clone(), created: Revision(k.created) },
                lease: i64::from_str_radix(suffix, 16).unwrap_or(0),
                candidate: Some(info(k.owner)),
            })
            .collect();
        queue.sort_by_key(|e| e.key.created);
        queue
    }

    pub(super) fn view(&self, sent_at: Instant, lease: Option<LeaseId>) -> View {
        let queue = self.queue();
        let own = lease.and_then(|l| queue.iter().position(|e| e.key.suffix == l.to_string()));
        View {
            header: self.header(sent_at),
            generation: self.store.generation.clone(),
            control: Cell::Absent,
            queued: queue.len(),
            own: own.map(|i| queue[i].key.clone()),
            ahead: own.filter(|i| *i > 0).map(|i| queue[i - 1].key.clone()),
            queue,
        }
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        self.store.leases.remove(&lease);
        let suffix = LeaseId(lease).to_string();
        if self.store.keys.remove(&suffix).is_some() {
            self.store.revision += 1;
            self.announce(&Event::Deleted(suffix));
        }
    }

    pub(super) fn expire_leases(&mut self) {
        let expired: Vec<_> = self.store.leases.iter().filter(|(_, at)| **at <= self.now).map(|(l, _)| *l).collect();
        for lease in expired {
            self.revoke(lease);
        }
    }

    pub(super) fn same_value(&self, request: &Request) -> bool {
        let present = self.store.generation.value().map(|r| r.elected_at);
        request.value.is_none_or(|value| present == Some(value))
    }

    pub(super) fn header(&self, sent_at: Instant) -> Header {
        Header { sent_at, revision: Revision(self.store.revision), raft_term: RaftTerm(self.store.term) }
    }

    /// A new etcd leader starts every lease afresh; the old one may not have noticed yet.
    pub(super) fn change_etcd_leader(&mut self) {
        self.store.term += 1;
        for expiry in self.store.leases.values_mut() {
            *expiry = self.now + nanos(TTL) + ELECTION_TIMEOUT;
        }
        self.deposed_until = self.now + self.rng.u64(0..6_000) * MS;
    }

    /// Takes a snapshot, or goes back to the last one: leases come back with it, watches end. Only a history that every
    /// daemon remembers is lost: one that knows nothing of it cannot mint above it, and nobody claims so.
    pub(super) fn restore(&mut self) {
        let newest = self.store.generation.value().map_or(Generation(0), |r| r.generation);
        let knows = |n: &Node| {
            let mark = if n.down { n.remembered.clone() } else { n.core.high_water() };
            mark.generations.first().is_some_and(|g| *g >= newest)
        };
        if !self.nodes.iter().all(knows) {
            return;
        }
        match self.snapshot.take() {
            None => self.snapshot = Some(self.store.clone()),
            Some(mut old) => {
                old.term = 2;
                for expiry in old.leases.values_mut() {
                    *expiry = self.now + nanos(TTL) + ELECTION_TIMEOUT;
                }
                self.store = old;
                for n in 0..self.nodes.len() {
                    let broken = Input::Election(E, ElectionInput::WatchBroken);
                    self.later(self.now + 10 * MS, What::Hear(n, self.nodes[n].epoch, Box::new(broken)));
                }
            }
        }
    }
}

/// What the edge reports when no answer came.
pub(super) fn failure(request: &Output) -> Input {
    let election = |input| Input::Election(E, input);
    match request {
        Output::Grant { .. } => Input::Session(SessionInput::GrantFailed),
        Output::KeepAlive { lease, round, .. } => {
            Input::Session(SessionInput::KeepAliveFailed { lease: *lease, round: *round })
        }
        Output::Confirm { lease, round, .. } => {
            Input::Session(SessionInput::ConfirmFailed { lease: *lease, round: *round })
        }
        Output::Revoke { lease } => Input::Session(SessionInput::RevokeFailed { lease: *lease }),
        Output::Look { round, .. } | Output::Feel { round, .. } => {
            election(ElectionInput::LookFailed { round: *round })
        }
        Output::Queue { lease, .. } => election(ElectionInput::QueueFailed { lease: *lease }),
        Output::Elect { txn, .. } => election(ElectionInput::ElectAnswered {
            key: CandidateKey::of(txn.lease, txn.created),
            outcome: ElectOutcome::Unknown,
        }),
        Output::HandOver { txn, .. } => {
            election(ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome: HandOverOutcome::Unknown })
        }
        Output::Raise { .. } => election(ElectionInput::RaiseAnswered { raised: false }),
        other => unreachable!("{other:?} is no request"),
    }
}
