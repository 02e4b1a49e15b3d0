//! What this daemon knows of an election in etcd, and how fresh that is.

use super::event::WatchPlan;
use super::ids::{CandidateKey, Generation, Revision};
use super::record::{Cell, ControlRecord, GenerationRecord, Holder, QueueEntry, View};
use crate::clock::Instant;

/// The newest knowledge about one election. Informational: leadership rests on the guard and the transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// The generation key.
    pub(super) generation: Cell<GenerationRecord>,
    /// The control key.
    pub(super) control: Cell<ControlRecord>,
    /// Whether the record's holder still has the key that it won with.
    pub(super) holder_lives: bool,
    /// The head of the queue, where a foreign client leads.
    pub(super) foreign: Option<CandidateKey>,
    /// The queue as of the last full look.
    pub(super) queue: Vec<QueueEntry>,
    /// Its whole length.
    pub(super) queued: usize,
    /// The revision of the newest full look: events up to it are old news.
    pub(super) viewed: Revision,
    /// The newest revision that contributed.
    pub(super) revision: Revision,
    /// Since when nobody leads, where that is known.
    pub(super) vacant_since: Option<Instant>,
}

impl Seen {
    /// Replaces everything by a view.
    pub(super) fn replace(&mut self, now: Instant, view: &View) {
        self.generation.clone_from(&view.generation);
        self.control.clone_from(&view.control);
        self.queue.clone_from(&view.queue);
        self.queued = view.queued;
        self.revision = view.header.revision;
        self.viewed = view.header.revision;
        let head = self.queue.first();
        let holder = self.generation.value().and_then(|r| r.holder.as_ref());
        self.holder_lives = head.zip(holder).is_some_and(|(head, holder)| head.key == holder.key);
        self.foreign = head.filter(|h| h.candidate.is_none()).map(|h| h.key.clone());
        if self.holder_lives || self.foreign.is_some() {
            self.vacant_since = None;
        } else {
            self.vacant_since.get_or_insert(now);
        }
    }

    /// Whether what a read found can be of the history that is known: at one revision there is one record.
    pub(super) fn agrees(&self, read: &Cell<GenerationRecord>) -> bool {
        match (&self.generation, read) {
            (Cell::Valid { value: known, modified: at }, Cell::Valid { value: read, modified }) => {
                at != modified || known == read
            }
            (Cell::Absent | Cell::Valid { .. } | Cell::Corrupt { .. }, _) => true,
        }
    }

    /// Takes over a newer generation record. `false` when it is not newer.
    pub(super) fn replace_generation(&mut self, cell: Cell<GenerationRecord>, at: Revision, now: Instant) -> bool {
        if at <= self.generation.modified() || at <= self.viewed {
            return false;
        }
        self.generation = cell;
        self.revision = self.revision.max(at);
        self.holder_lives = self.generation.value().is_some_and(|r| r.holder.is_some());
        if self.holder_lives {
            (self.vacant_since, self.foreign) = (None, None);
        } else {
            self.vacant_since.get_or_insert(now);
        }
        true
    }

    /// A candidate's key was deleted. `true` when it was the leader's, ours or foreign: a vacancy.
    pub(super) fn key_deleted(&mut self, suffix: &str, at: Revision, now: Instant) -> bool {
        let gone = |key: &CandidateKey| key.suffix == suffix && key.created < at;
        let holder = self.generation.value().and_then(|r| r.holder.as_ref());
        let holder_gone = self.holder_lives && holder.is_some_and(|h| gone(&h.key));
        let foreign_gone = self.foreign.as_ref().is_some_and(gone);
        self.queue.retain(|e| !gone(&e.key));
        self.revision = self.revision.max(at);
        if holder_gone {
            self.holder_lives = false;
        }
        if foreign_gone {
            self.foreign = None;
        }
        if holder_gone || foreign_gone {
            self.vacant_since.get_or_insert(now);
        }
        holder_gone || foreign_gone
    }

    /// The newest generation; 0 before any.
    pub(super) fn newest(&self) -> Generation {
        self.generation.value().map_or(Generation::default(), |r| r.generation)
    }

    /// The holder whose key still stands.
    pub(super) fn leader(&self) -> Option<(&GenerationRecord, &Holder)> {
        let record = self.generation.value().filter(|_| self.holder_lives)?;
        record.holder.as_ref().map(|holder| (record, holder))
    }

    /// The record, if it names this very key.
    pub(super) fn names(&self, key: &CandidateKey) -> Option<&GenerationRecord> {
        self.generation.value().filter(|r| r.holder.as_ref().is_some_and(|h| h.key == *key))
    }

    /// Whether new elections are paused, or might be.
    pub(super) fn paused(&self) -> bool {
        match &self.control {
            Cell::Absent => false,
            Cell::Valid { value, .. } => value.paused,
            Cell::Corrupt { .. } => true,
        }
    }

    /// The keys whose deletion matters: the own one, the one ahead, and the leader's.
    pub(super) fn relied_on(&self, own: Option<&CandidateKey>, ahead: Option<&CandidateKey>) -> Vec<CandidateKey> {
        let leader = self.leader().map(|(_, holder)| &holder.key);
        let mut keys: Vec<_> = [own, ahead, leader, self.foreign.as_ref()].into_iter().flatten().cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The plan that watches those keys.
    pub(super) fn plan(keys: &[CandidateKey], from: Revision) -> WatchPlan {
        let mut suffixes: Vec<_> = keys.iter().map(|k| k.suffix.clone()).collect();
        suffixes.dedup();
        WatchPlan { suffixes, from }
    }
}
