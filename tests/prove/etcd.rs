//! The model of etcd: linearizable keys, leases, transactions and watch events. Time and faults are the caller's.
//!
//! It judges the very conditions that the real edge sends (`election::txn`), and applies the effects that `docs/safety.md` names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Hlc, Instant, Wall};
use crate::edge::{Known, Request, nanos};
use crate::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput};
use crate::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, MemberId, RaftTerm, Revision};
use crate::election::mutant::{self, Mutant};
use crate::election::record::{Cause, Cell, ControlRecord, GenerationRecord, Header, Holder, OwnKey};
use crate::election::txn::{Condition, ElectTxn, HandOverTxn};
use crate::reads::header_of;

/// etcd's election timeout, in nanoseconds: what a new leader adds to every lease.
pub const ELECTION_TIMEOUT: u64 = 1_000_000_000;

/// All that etcd holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Of the whole store.
    pub revision: i64,
    /// Of raft.
    pub term: u64,
    /// What each election has.
    pub elections: Vec<Keys>,
    /// By id.
    pub leases: BTreeMap<i64, Lease>,
    /// Lease ids and value stamps given out. They are random or of the writer's clock in truth, so no restore brings one back.
    pub given: u64,
}

/// The keys of one election.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Keys {
    /// `P/elections/NAME/…`, by suffix.
    pub queue: BTreeMap<String, Key>,
    /// `P/generations/NAME`.
    pub generation: Cell<GenerationRecord>,
    /// `P/control/NAME`.
    pub control: Cell<ControlRecord>,
    /// `P/history/NAME/…`: who was named for each generation.
    pub history: BTreeMap<Generation, Option<CandidateKey>>,
}

/// A candidate's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// `create_revision`.
    pub created: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
    /// Which daemon; `None` for a foreign client of the recipe.
    pub owner: Option<usize>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// When it expires, in nanoseconds of true time.
    pub expires: u64,
    /// As granted, in nanoseconds.
    pub ttl: u64,
}

/// What watchers are told. A batch belongs to one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Which election.
    pub election: ElectionIndex,
    /// What happened.
    pub change: Change,
    /// When.
    pub revision: Revision,
}

/// One change of a watched key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A candidate's key went.
    Deleted(String),
    /// The generation key changed.
    Generation(Cell<GenerationRecord>),
    /// The control key changed.
    Control(Cell<ControlRecord>),
}

/// Which member answers, where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Member {
    /// One that is up to date.
    #[default]
    Good,
    /// A leader that was deposed and does not know it: it goes on answering keep-alives, and renews nothing.
    Deposed,
    /// One that forwards keep-alives to that leader, and is up to date by the time of the confirming read.
    Forwarding,
    /// One that caught up by a snapshot: it answers rightly, and shows the term before. Reads do so until it has applied its next
    /// entry, a write only once.
    Lagging,
    /// The one that forwarded to the deposed leader, if it caught up by a snapshot since then.
    CaughtUp,
}

impl Event {
    /// As the watcher hears it.
    pub fn input(&self) -> Input {
        let revision = self.revision;
        let input = match &self.change {
            Change::Deleted(suffix) => ElectionInput::KeyDeleted { suffix: suffix.clone(), revision },
            Change::Generation(cell) => ElectionInput::GenerationChanged { cell: cell.clone(), revision },
            Change::Control(cell) => ElectionInput::ControlChanged { cell: cell.clone(), revision },
        };
        Input::Election(self.election, input)
    }
}

impl Store {
    /// An empty one.
    pub fn new(elections: usize) -> Self {
        Self { revision: 1, term: 2, elections: vec![Keys::default(); elections], leases: BTreeMap::new(), given: 0 }
    }

    /// Carries a request out and answers it. What watchers are to be told is added to `events`.
    pub fn serve(
        &mut self,
        now: u64,
        node: usize,
        sent_at: Instant,
        request: &Request,
        by: Member,
        events: &mut Vec<Event>,
    ) -> Input {
        let mut answer = self.answer(now, node, sent_at, request, by, events);
        if matches!(by, Member::Lagging | Member::CaughtUp)
            && let Some(header) = header_of(&mut answer)
        {
            header.raft_term.0 -= 1;
            header.member.0 += if by == Member::Lagging { 2 } else { 0 };
        }
        answer
    }

    fn answer(
        &mut self,
        now: u64,
        node: usize,
        sent_at: Instant,
        request: &Request,
        by: Member,
        events: &mut Vec<Event>,
    ) -> Input {
        match &request.output {
            Output::Grant { ttl } => self.grant(now, sent_at, *ttl),
            Output::KeepAlive { lease, round, .. } => {
                let mut header = self.header(sent_at);
                let ttl = if matches!(by, Member::Deposed | Member::Forwarding) {
                    header.raft_term = RaftTerm(self.term - 1);
                    header.member.0 += u64::from(by == Member::Deposed);
                    // It answers from its memory, as the grant was.
                    self.leases.get(&lease.0).map_or(Duration::from_secs(2), |l| Duration::from_nanos(l.ttl))
                } else {
                    self.renew(now, *lease)
                };
                Input::Session(SessionInput::KeepAliveAnswered { lease: *lease, round: *round, ttl, header })
            }
            Output::Confirm { lease, round, elections, .. } => {
                let created = |e: &ElectionIndex| Revision(self.created(*e, &lease.to_string()));
                let keys = elections.iter().map(|e| OwnKey { election: *e, created: created(e) }).collect();
                let mut header = self.header(sent_at);
                if by == Member::Deposed {
                    // Only what reads nothing is answered by it (`asks_nobody`): from its memory.
                    header.raft_term = RaftTerm(self.term - 1);
                    header.member.0 += 1;
                }
                Input::Session(SessionInput::Confirmed { lease: *lease, round: *round, header, keys })
            }
            Output::Revoke { lease } => {
                self.revoke(lease.0, events);
                Input::Session(SessionInput::Revoked { lease: *lease })
            }
            Output::Look { election, round, lease } => {
                let view = self.view(*election, sent_at, *lease);
                Input::Election(*election, ElectionInput::Looked { round: *round, view })
            }
            Output::Feel { election, round, suffixes } => {
                let pulse = self.pulse(*election, sent_at, suffixes);
                Input::Election(*election, ElectionInput::Felt { round: *round, pulse })
            }
            Output::Queue { election, lease } => self.enqueue(*election, node, sent_at, *lease),
            Output::Elect { election, txn } => {
                let outcome = self.elect(*election, node, sent_at, txn, request.known.as_ref(), events);
                let key = CandidateKey::of(txn.lease, txn.created);
                Input::Election(*election, ElectionInput::ElectAnswered { key, outcome })
            }
            Output::HandOver { election, txn } => {
                let outcome = self.hand_over(*election, sent_at, txn, request.known.as_ref(), events);
                Input::Election(*election, ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome })
            }
            Output::Raise { election, at_least, modified } => {
                let lower = self.keys(*election).generation.value().is_none_or(|r| r.generation < *at_least);
                let same = self.holds(*election, &Condition::GenerationUnchanged(*modified), request.known.as_ref());
                if lower && same {
                    self.revision += 1;
                    self.write_generation(*election, *at_least, None, Cause::Raised, events);
                }
                Input::Election(*election, ElectionInput::RaiseAnswered { raised: lower && same })
            }
            other => unreachable!("{other:?} is no request"),
        }
    }

    fn grant(&mut self, now: u64, sent_at: Instant, ttl: Duration) -> Input {
        self.given += 1;
        let lease = i64::try_from(self.given).expect("few");
        self.leases.insert(lease, Lease { expires: now + nanos(ttl), ttl: nanos(ttl) });
        Input::Session(SessionInput::Granted { lease: LeaseId(lease), ttl, header: self.header(sent_at) })
    }

    fn renew(&mut self, now: u64, lease: LeaseId) -> Duration {
        // One that has run out is not renewed any more, though its keys may stand until etcd gets to them.
        let lives = self.leases.get_mut(&lease.0).filter(|l| l.expires > now);
        let Some(lease) = lives else { return Duration::ZERO };
        lease.expires = lease.expires.max(now + lease.ttl);
        Duration::from_nanos(lease.ttl)
    }

    fn enqueue(&mut self, election: ElectionIndex, node: usize, sent_at: Instant, lease: LeaseId) -> Input {
        if !self.leases.contains_key(&lease.0) {
            return Input::Session(SessionInput::LeaseUnknown { lease });
        }
        let suffix = lease.to_string();
        if self.created(election, &suffix) == 0 {
            self.revision += 1;
            let key = Key { created: self.revision, lease: lease.0, owner: Some(node) };
            self.elections[election.0].queue.insert(suffix.clone(), key);
        }
        let created = Revision(self.created(election, &suffix));
        Input::Election(election, ElectionInput::Queued { lease, created, header: self.header(sent_at) })
    }

    /// Whether a transaction would commit now, by its conditions.
    pub fn admits(&self, election: ElectionIndex, conditions: &[Condition], known: Option<&Known>) -> bool {
        conditions.iter().all(|condition| self.holds(election, condition, known))
    }

    fn holds(&self, election: ElectionIndex, condition: &Condition, known: Option<&Known>) -> bool {
        let keys = self.keys(election);
        match condition {
            Condition::NobodyBefore(first) => keys.queue.values().all(|k| k.created >= first.0),
            Condition::Stands(key) => self.created(election, &key.suffix) == key.created.0,
            Condition::GenerationUnchanged(modified) => {
                let present = keys.generation.value().map(Known::of);
                let same_value = known.is_none_or(|known| present.as_ref() == Some(known));
                let same_number = known.map(|k| k.generation) == present.map(|p| p.generation);
                let same_revision = keys.generation.modified() == *modified;
                if mutant::on(Mutant::GenerationByValue) {
                    same_number
                } else {
                    same_revision && (same_value || mutant::on(Mutant::GenerationByRevision))
                }
            }
            Condition::ControlUnchanged(modified) => keys.control.modified() == *modified,
        }
    }

    fn elect(
        &mut self,
        election: ElectionIndex,
        node: usize,
        sent_at: Instant,
        txn: &ElectTxn,
        known: Option<&Known>,
        events: &mut Vec<Event>,
    ) -> ElectOutcome {
        if !self.admits(election, &txn.conditions(), known) {
            return ElectOutcome::Refused { view: self.view(election, sent_at, Some(txn.lease)), logged: true };
        }
        // The transaction puts the own key on its lease: without that, etcd refuses all of it.
        if !self.leases.contains_key(&txn.lease.0) {
            return ElectOutcome::Failed;
        }
        self.revision += 1;
        let (revision, suffix) = (self.revision, txn.lease.to_string());
        let created = || Key { created: revision, lease: txn.lease.0, owner: Some(node) };
        self.elections[election.0].queue.entry(suffix).or_insert_with(created);
        let key = CandidateKey::of(txn.lease, txn.created);
        let holder = Holder { id: node.to_string(), url: String::new(), key };
        let record = self.write_generation(election, txn.generation, Some(holder), Cause::Elected, events);
        ElectOutcome::Won { header: self.header(sent_at), record, queue: self.queue(election) }
    }

    fn hand_over(
        &mut self,
        election: ElectionIndex,
        sent_at: Instant,
        txn: &HandOverTxn,
        known: Option<&Known>,
        events: &mut Vec<Event>,
    ) -> HandOverOutcome {
        let lease = txn.successor.as_ref().map(|s| s.entry.lease);
        if !self.admits(election, &txn.conditions(), known) || lease.is_some_and(|l| !self.leases.contains_key(&l)) {
            return HandOverOutcome::Refused;
        }
        self.revision += 1;
        self.delete(election, &txn.key.suffix, events);
        let record = txn.successor.as_ref().map(|to| {
            for key in &to.skipped {
                self.delete(election, &key.suffix, events);
            }
            let (revision, entry) = (self.revision, &to.entry);
            let owner = entry.candidate.as_ref().and_then(|c| c.id.parse().ok());
            let created = || Key { created: revision, lease: entry.lease, owner };
            self.elections[election.0].queue.entry(entry.key.suffix.clone()).or_insert_with(created);
            let id = entry.candidate.as_ref().map(|c| c.id.clone()).unwrap_or_default();
            let holder = Holder { id, url: String::new(), key: entry.key.clone() };
            self.write_generation(election, to.generation, Some(holder), Cause::HandedOver, events)
        });
        HandOverOutcome::Done { header: self.header(sent_at), record }
    }

    /// Puts the generation and its history record at the present revision.
    pub(crate) fn write_generation(
        &mut self,
        election: ElectionIndex,
        generation: Generation,
        holder: Option<Holder>,
        cause: Cause,
        events: &mut Vec<Event>,
    ) -> GenerationRecord {
        self.given += 1;
        let elected_at = Wall(self.given);
        let key = holder.as_ref().map(|h| h.key.clone());
        let record =
            GenerationRecord { generation, term: 0, holder, cause, elected_at, hlc: Hlc::default(), leaderless_ms: 0 };
        let cell = Cell::Valid { value: record.clone(), modified: Revision(self.revision) };
        let keys = &mut self.elections[election.0];
        keys.generation = cell.clone();
        keys.history.insert(generation, key);
        events.push(Event { election, change: Change::Generation(cell), revision: Revision(self.revision) });
        record
    }

    /// Deletes a candidate's key at the present revision.
    pub(crate) fn delete(&mut self, election: ElectionIndex, suffix: &str, events: &mut Vec<Event>) {
        if self.elections[election.0].queue.remove(suffix).is_some() {
            let change = Change::Deleted(suffix.to_owned());
            events.push(Event { election, change, revision: Revision(self.revision) });
        }
    }

    /// Ends a lease and all keys on it, in one revision.
    pub fn revoke(&mut self, lease: i64, events: &mut Vec<Event>) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let on_it = |keys: &Keys| -> Vec<String> {
            keys.queue.iter().filter(|(_, k)| k.lease == lease).map(|(suffix, _)| suffix.clone()).collect()
        };
        let gone: Vec<_> = self.elections.iter().map(on_it).collect();
        self.revision += i64::from(gone.iter().any(|keys| !keys.is_empty()));
        for (i, suffixes) in gone.iter().enumerate() {
            for suffix in suffixes {
                self.delete(ElectionIndex(i), suffix, events);
            }
        }
    }

    /// Revokes what has expired by `now`.
    #[allow(dead_code, reason = "the model checker's: its leases expire on time")]
    pub fn expire(&mut self, now: u64, events: &mut Vec<Event>) {
        self.expire_late(now, |_| 0, events);
    }

    /// Revokes what expired so long ago: etcd looks for expired leases every now and then.
    pub fn expire_late(&mut self, now: u64, late: impl Fn(i64) -> u64, events: &mut Vec<Event>) {
        while let Some((&lease, _)) =
            self.leases.iter().find(|(id, l)| l.expires <= now && l.expires + late(**id) <= now)
        {
            self.revoke(lease, events);
        }
    }

    /// A new etcd leader starts every lease afresh, and adds its election timeout (`extra`).
    pub fn change_leader(&mut self, now: u64, extra: u64) {
        self.term += 1;
        for lease in self.leases.values_mut() {
            lease.expires = now + lease.ttl + extra;
        }
    }

    /// All members are restored from this older state: leases come back with it, and what was given out since stays unique.
    pub fn restored(&self, old: &Self, now: u64) -> Self {
        let mut new = Self { given: self.given, ..old.clone() };
        new.term = 2;
        for lease in new.leases.values_mut() {
            lease.expires = now + lease.ttl + ELECTION_TIMEOUT;
        }
        new
    }

    /// The header of an answer given now.
    pub fn header(&self, sent_at: Instant) -> Header {
        let (revision, raft_term) = (Revision(self.revision), RaftTerm(self.term));
        Header { sent_at, revision, raft_term, member: MemberId(1) }
    }

    /// The keys of an election.
    pub fn keys(&self, election: ElectionIndex) -> &Keys {
        &self.elections[election.0]
    }

    /// `create_revision` of a candidate's key; 0 where there is none.
    pub fn created(&self, election: ElectionIndex, suffix: &str) -> i64 {
        self.keys(election).queue.get(suffix).map_or(0, |k| k.created)
    }

    /// The newest generation; 0 before any.
    pub fn newest(&self, election: ElectionIndex) -> Generation {
        self.keys(election).generation.value().map_or(Generation(0), |r| r.generation)
    }
}
