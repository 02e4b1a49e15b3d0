//! What etcd holds, as the core sees it. How it is written there is `etcd::codec`'s affair.

use super::ids::{CandidateKey, ElectionIndex, Generation, MemberId, RaftTerm, Revision};
use crate::clock::{Hlc, Instant, Wall};

/// How a generation came to be. Public interface: history records carry [`Cause::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// By the elect transaction, after a vacancy.
    Elected,
    /// By the predecessor's hand-over.
    HandedOver,
    /// Lifted to a floor; nobody holds it.
    Raised,
}

impl Cause {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elected => "elected",
            Self::HandedOver => "handed_over",
            Self::Raised => "raised",
        }
    }
}

/// Who holds a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The candidate's id.
    pub id: String,
    /// Where it is reached; empty where it did not say.
    pub url: String,
    /// The very incarnation of its key that won.
    pub key: CandidateKey,
}

/// The value of `P/generations/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GenerationRecord {
    /// The fencing token.
    pub generation: Generation,
    /// The application's term at that election; 0 where it supplies none.
    pub term: u64,
    /// Who won; nobody where the generation was only raised.
    pub holder: Option<Holder>,
    /// How.
    pub cause: Cause,
    /// When, on the winner's (or predecessor's) wall clock: for people.
    pub elected_at: Wall,
    /// When, in causal order.
    pub hlc: Hlc,
    /// Milliseconds without a leader before it, as far as its writer saw.
    pub leaderless_ms: u64,
}

/// The value of a key that anyone with access to etcd may have written.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub enum Cell<T> {
    /// The key does not exist.
    #[default]
    Absent,
    /// A value that we understand.
    Valid {
        /// The value.
        value: T,
        /// The key's `mod_revision`.
        modified: Revision,
    },
    /// A value that we do not: nobody may lead on top of it.
    Corrupt {
        /// The key's `mod_revision`.
        modified: Revision,
    },
}

impl<T> Cell<T> {
    /// The `mod_revision` to compare with: 0 for a key that does not exist, which is etcd's own convention.
    #[must_use]
    pub const fn modified(&self) -> Revision {
        match self {
            Self::Absent => Revision(0),
            Self::Valid { modified, .. } | Self::Corrupt { modified } => *modified,
        }
    }

    /// The value, if it is there and understood.
    #[must_use]
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Valid { value, .. } => Some(value),
            Self::Absent | Self::Corrupt { .. } => None,
        }
    }
}

/// The value of `P/control/NAME`, as far as candidates heed it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct ControlRecord {
    /// No new leader is elected while this is set.
    pub paused: bool,
}

/// What a Tenure candidate says of itself in its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CandidateInfo {
    /// Its id.
    pub id: String,
    /// Where it is reached; empty where it did not say.
    pub url: String,
    /// The application's term; 0 where it supplies none.
    pub term: u64,
    /// Preferred at a hand-over when higher.
    pub priority: i32,
    /// Its Tenure version.
    pub version: String,
}

/// One key under `P/elections/NAME/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueEntry {
    /// The key.
    pub key: CandidateKey,
    /// The lease it hangs on; 0 for a foreign key without one.
    pub lease: i64,
    /// What it says of itself; `None` for a foreign client of etcd's election recipe.
    pub candidate: Option<CandidateInfo>,
}

/// The part of an answer of etcd that shows which history it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Read before the request left.
    pub sent_at: Instant,
    /// The store's revision.
    pub revision: Revision,
    /// The raft term of the member's last applied entry.
    pub raft_term: RaftTerm,
    /// Who answered.
    pub member: MemberId,
}

impl Header {
    /// Of a store that has not answered yet.
    pub(super) const fn unknown(now: Instant) -> Self {
        Self { sent_at: now, revision: Revision(0), raft_term: RaftTerm(0), member: MemberId(0) }
    }
}

/// Everything about one election at one revision, read in one linearizable transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Of the answer.
    pub header: Header,
    /// `P/generations/NAME`.
    pub generation: Cell<GenerationRecord>,
    /// `P/control/NAME`.
    pub control: Cell<ControlRecord>,
    /// The queue in order of `created`, at most [`QUEUE_LIMIT`] entries from its head.
    pub queue: Vec<QueueEntry>,
    /// How many keys the queue has in all.
    pub queued: usize,
    /// The own key, wherever in the queue; `None` where it does not exist or none was asked for.
    pub own: Option<CandidateKey>,
    /// The key just ahead of the own one; `None` where the own key is first or does not exist.
    pub ahead: Option<CandidateKey>,
}

/// The most entries of a queue that one look reads.
pub const QUEUE_LIMIT: usize = 128;

/// Modification and creation revisions of what a daemon relies on: a cheap linearizable look that costs etcd a few point
/// reads, whatever the length of the queue. 0 for a key that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pulse {
    /// Of the answer.
    pub header: Header,
    /// `mod_revision` of the generation key.
    pub generation: Revision,
    /// `mod_revision` of the control key.
    pub control: Revision,
    /// `create_revision` of each watched candidate key, by suffix, as [`Watch::keys`](super::event::WatchPlan) named them.
    pub keys: Vec<CandidateKey>,
}

/// The highest that linearizable reads ever showed: history that gets shorter than this was rewound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HighWater {
    /// The store's revision.
    pub revision: Revision,
    /// Its raft term.
    pub raft_term: RaftTerm,
    /// Per election, in the order of the configuration.
    pub generations: Vec<Generation>,
}

/// The own key of one election as the confirming read shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnKey {
    /// Which election.
    pub election: ElectionIndex,
    /// Its `create_revision`; 0 where it does not exist.
    pub created: Revision,
}
