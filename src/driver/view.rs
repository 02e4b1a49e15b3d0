//! The core's standing and the driver's notes as readers see them.

use std::time::Duration;

use super::losses::Losses;
use crate::clock::{Hlc, Instant, Wall};
use crate::election::Standing;
use crate::election::ids::{CandidateKey, ElectionIndex, ElectionName, Generation};
use crate::election::role::Role;
use crate::snapshot::{ElectionView, LeaderView};

/// What the driver remembers of an election besides the core, for readers and metrics.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub since: Wall,
    pub hlc: Hlc,
    pub last_update: Option<Wall>,
    /// It has been in the queue, or has seen what it only observes.
    pub joined: bool,
    /// When the vacancy that an elect transaction fills was seen.
    pub vacant: Option<Instant>,
    /// When we stopped acting, until the hand-over has committed.
    pub left: Option<Instant>,
    pub trimmed: bool,
    /// The newest keys of ours, the last one first. etcd may name one that is gone.
    keys: Vec<CandidateKey>,
    pub losses: Losses,
}

/// Keys of ours that are remembered.
const KEYS: usize = 4;
impl Note {
    pub(super) fn new(since: Wall, hlc: Hlc) -> Self {
        Self {
            since,
            hlc,
            last_update: None,
            joined: false,
            vacant: None,
            left: None,
            trimmed: false,
            keys: Vec::new(),
            losses: Losses::default(),
        }
    }

    /// Takes note of the key that is ours now.
    pub(super) fn note_key(&mut self, key: Option<&CandidateKey>) {
        if let Some(key) = key.filter(|key| self.keys.first() != Some(key)) {
            self.keys.insert(0, key.clone());
            self.keys.truncate(KEYS);
        }
    }

    /// Whether a key is ours, or was.
    pub(super) fn is_ours(&self, key: &CandidateKey) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn join(&mut self, role: Role) {
        self.joined |= match role {
            Role::Leader | Role::Candidate => true,
            Role::Observer => self.last_update.is_some(),
            Role::Follower => false,
        };
    }
}

impl super::Driver {
    pub(super) fn election_rewound(&self, election: ElectionIndex, remembered: Generation, seen: Generation) {
        self.parts.metrics.rewound();
        tracing::error!(
            election = %self.parts.elections[election.0], %remembered, %seen,
            "the generation of this election went back, and the rest of etcd did not: its key was deleted or overwritten; \
             this election begins anew above what is remembered, the others go on"
        );
    }

    /// What etcd grants counts, and it may grant more than was asked: the grace may be too short then.
    pub(super) fn weigh_grace(&mut self, granted: Duration) {
        let lost = self.parts.timing.grace_lost(granted);
        if let Some(lost) = lost.filter(|_| self.grace_lost != lost) {
            tracing::warn!(ttl = ?self.parts.timing.ttl(), ?granted, "{lost}");
        }
        self.grace_lost = lost;
    }
}

/// One election for readers.
pub(super) fn view_of(name: &ElectionName, standing: &Standing<'_>, note: &Note) -> ElectionView {
    ElectionView {
        name: name.clone(),
        role: standing.role,
        own: standing.own,
        observed: standing.newest,
        term: standing.term,
        leader: standing.leader.map(|(record, holder)| LeaderView {
            id: holder.id.clone(),
            url: holder.url.clone(),
            generation: record.generation,
            elected_at: record.elected_at,
        }),
        ours: standing.leader.is_some_and(|(_, holder)| note.is_ours(&holder.key)),
        foreign: standing.foreign,
        paused: standing.paused,
        leaving: standing.leaving,
        reason: standing.reason,
        since: note.since,
        hlc: note.hlc,
        queue_position: standing.queue_position,
        candidates: standing.queued,
        observed_revision: standing.revision,
        last_update: note.last_update,
        version: 0,
    }
}
