//! What goes into the core and what comes out of it. Both are closed: every variant says when it occurs and what must follow.

use std::time::Duration;

pub use super::command::{Command, Reply, Ticket};
use super::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, Revision};
use super::record::{Cell, ControlRecord, GenerationRecord, Header, HighWater, OwnKey, Pulse, QueueEntry, View};
use super::role::{Reason, Role};
use super::txn::{ElectTxn, HandOverTxn};
use crate::clock::Instant;

/// Numbers the rounds of a repeated request, so that a late answer to an earlier round is known as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

/// An event for the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The moment that `poll_timeout` named has come. Any input does as well: time is looked at first, always.
    Tick,
    /// Something about the session that all elections share.
    Session(SessionInput),
    /// Something about one election.
    Election(ElectionIndex, ElectionInput),
    /// A command from an operator or the application.
    Command(Command),
}

/// About the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionInput {
    /// Answer to `Grant`. It went through raft, so it needs no confirmation.
    Granted {
        /// The new lease.
        lease: LeaseId,
        /// What etcd granted, which may be more than was asked.
        ttl: Duration,
        /// Of the answer; `sent_at` is when the grant left.
        header: Header,
    },
    /// `Grant` failed, or its outcome is unknown: that lease is left behind.
    GrantFailed,
    /// Answer to `KeepAlive`. On its own it proves nothing.
    KeepAliveAnswered {
        /// Which lease.
        lease: LeaseId,
        /// Which round.
        round: Round,
        /// Zero where etcd no longer knows the lease.
        ttl: Duration,
        /// Of the answer; `sent_at` is when this very request left.
        header: Header,
    },
    /// No member answered in time.
    KeepAliveFailed {
        /// Which lease.
        lease: LeaseId,
        /// Which round.
        round: Round,
    },
    /// Answer to `Confirm`: a linearizable read that left after the keep-alive was answered. It counts only from the member that
    /// answered that.
    Confirmed {
        /// Which lease.
        lease: LeaseId,
        /// Which round.
        round: Round,
        /// Of the read.
        header: Header,
        /// The own keys asked for.
        keys: Vec<OwnKey>,
    },
    /// The read failed.
    ConfirmFailed {
        /// Which lease.
        lease: LeaseId,
        /// Which round.
        round: Round,
    },
    /// etcd answered some request that it does not know this lease.
    LeaseUnknown {
        /// Which lease.
        lease: LeaseId,
    },
    /// Answer to `Revoke`: the lease and its keys are gone.
    Revoked {
        /// Which lease.
        lease: LeaseId,
    },
    /// `Revoke` failed: the lease ends by its TTL.
    RevokeFailed {
        /// Which lease.
        lease: LeaseId,
    },
    /// The wall clock moved against the boot clock by more than the slack.
    ClockJumped,
    /// Every endpoint answers as one other cluster, and has for long enough (`one_cluster`): the store was moved there. Comes
    /// again until it is heeded.
    StoreMoved,
}

/// About one election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionInput {
    /// Answer to `Look`.
    Looked {
        /// Which round.
        round: Round,
        /// All of the election at one revision.
        view: View,
    },
    /// The same, read by a new connection: behind one address there may be several servers, and an old connection shows one only.
    LookedAside {
        /// Which round.
        round: Round,
        /// All of the election at one revision.
        view: View,
    },
    /// Answer to `Feel`.
    Felt {
        /// Which round.
        round: Round,
        /// The revisions asked for.
        pulse: Pulse,
    },
    /// `Look` or `Feel` failed.
    LookFailed {
        /// Which round.
        round: Round,
    },
    /// Answer to `Queue`: the own key exists.
    Queued {
        /// On which lease.
        lease: LeaseId,
        /// The key's `create_revision`.
        created: Revision,
        /// Of the answer.
        header: Header,
    },
    /// `Queue` failed or its outcome is unknown. It is safe to repeat.
    QueueFailed {
        /// On which lease.
        lease: LeaseId,
    },
    /// Answer to `Elect`.
    ElectAnswered {
        /// For which own key.
        key: CandidateKey,
        /// How it went.
        outcome: ElectOutcome,
    },
    /// Answer to `HandOver`.
    HandOverAnswered {
        /// For which own key.
        key: CandidateKey,
        /// How it went.
        outcome: HandOverOutcome,
    },
    /// Answer to `Raise`; whether it failed or not, the next look tells.
    RaiseAnswered {
        /// Whether this daemon's raise committed.
        raised: bool,
    },
    /// Answer to `SealPromises`: no promise will be given any more, and the last one ends then.
    Sealed {
        /// The end of the last promise; in the past where none is outstanding.
        until: Instant,
    },
    /// A watched candidate key was deleted.
    KeyDeleted {
        /// The part of the key after `P/elections/NAME/`.
        suffix: String,
        /// At which revision.
        revision: Revision,
    },
    /// The generation key changed or was deleted.
    GenerationChanged {
        /// What it holds now.
        cell: Cell<GenerationRecord>,
        /// At which revision.
        revision: Revision,
    },
    /// The control key changed or was deleted.
    ControlChanged {
        /// What it holds now.
        cell: Cell<ControlRecord>,
        /// At which revision.
        revision: Revision,
    },
    /// The watch ended (compacted, cancelled, silent, broken): events may be missing, so look again.
    WatchBroken,
}

/// How an elect transaction went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectOutcome {
    /// It committed.
    Won {
        /// Of the answer; `revision` is the commit's.
        header: Header,
        /// What it wrote.
        record: GenerationRecord,
        /// The queue, us at its head, as far as the transaction read it.
        queue: Vec<QueueEntry>,
    },
    /// A compare failed; here is what was compared.
    Refused {
        /// All of the election at that revision.
        view: View,
        /// Whether the view is the transaction's own, which went through etcd's log. Another read may have completed it.
        logged: bool,
    },
    /// etcd refused it without applying it (no space, too many requests, no permission, lease unknown).
    Failed,
    /// It may have committed, or may yet: find out by looking.
    Unknown,
}

/// How a hand-over transaction went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HandOverOutcome {
    /// It committed.
    Done {
        /// Of the answer; `revision` is the commit's.
        header: Header,
        /// What it wrote, where it named a successor.
        record: Option<GenerationRecord>,
    },
    /// A compare failed, or etcd refused it without applying it: look again.
    Refused,
    /// It may have committed, or may yet: find out by looking.
    Unknown,
}

/// What must be done. Carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Publish the core's state to readers, before anything after it is carried out.
    Publish,
    /// A role changed: audit it, count it, log it.
    Transition(Transition),
    /// No promise may be given any more in this election; answer with `Sealed`.
    SealPromises(ElectionIndex),
    /// Ask etcd for a lease.
    Grant {
        /// The TTL to ask for.
        ttl: Duration,
    },
    /// Renew the lease.
    KeepAlive {
        /// Which lease.
        lease: LeaseId,
        /// Names this round.
        round: Round,
        /// The last answer was not confirmed: another member is to be asked, for that one may follow a deposed leader.
        elsewhere: bool,
    },
    /// Read the own keys, linearizably: the renewal counts only then.
    Confirm {
        /// Which lease.
        lease: LeaseId,
        /// Names this round.
        round: Round,
        /// The elections in which we have a key.
        elections: Vec<ElectionIndex>,
        /// Where we have none: an election whose generation is read instead. etcd takes a transaction that reads nothing for one
        /// that any member may answer from its memory, without a quorum (`IsTxnSerializable` in etcd's `txn.go`).
        anchor: Option<ElectionIndex>,
    },
    /// Give the lease up, with all keys on it.
    Revoke {
        /// Which lease.
        lease: LeaseId,
    },
    /// Read all of an election, linearizably.
    Look {
        /// Which election.
        election: ElectionIndex,
        /// Names this round.
        round: Round,
        /// The lease whose key is the own one, if there is any.
        lease: Option<LeaseId>,
    },
    /// Read the revisions of what we rely on, linearizably.
    Feel {
        /// Which election.
        election: ElectionIndex,
        /// Names this round.
        round: Round,
        /// The candidate keys to read, by suffix.
        suffixes: Vec<String>,
    },
    /// Put the own key, if it does not exist.
    Queue {
        /// Which election.
        election: ElectionIndex,
        /// The lease to hang it on.
        lease: LeaseId,
    },
    /// Commit the elect transaction.
    Elect {
        /// Which election.
        election: ElectionIndex,
        /// What it holds.
        txn: ElectTxn,
    },
    /// Commit the hand-over transaction.
    HandOver {
        /// Which election.
        election: ElectionIndex,
        /// What it holds.
        txn: HandOverTxn,
    },
    /// Lift the generation to a floor by compare-and-swap, never down.
    Raise {
        /// Which election.
        election: ElectionIndex,
        /// The floor.
        at_least: Generation,
        /// `mod_revision` of the generation key as last seen.
        modified: Revision,
    },
    /// Watch exactly these keys from now on.
    Watch {
        /// Which election.
        election: ElectionIndex,
        /// What to watch.
        plan: WatchPlan,
    },
    /// Store the high-water mark where it survives a restart, if such a place is configured.
    Remember(HighWater),
    /// The store has another history than before: drop every connection, stream and cache. Counted, and logged.
    Rewound {
        /// What was remembered.
        remembered: HighWater,
        /// What a later read showed.
        seen: Header,
        /// How that was noticed.
        sign: Sign,
        /// Within one TTL of the time before: unrelated servers answer in turn, and nobody queues until that has ended.
        again: bool,
    },
    /// The generation of one election went back, and nothing else: its key was deleted or overwritten. That election begins anew;
    /// its requests under way may still be answered. The highest generation that was known, and what a later read showed (0 for
    /// none). Counted, and logged at ERROR.
    ElectionRewound(ElectionIndex, Generation, Generation),
    /// A command's answer.
    Reply {
        /// Whose.
        ticket: Ticket,
        /// Which.
        reply: Reply,
    },
    /// Shut down: nothing of ours is left in etcd, or the deadline came first.
    Stopped {
        /// Whether the lease is known to be gone.
        clean: bool,
    },
}

/// What shows that the store has another history than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// A revision, a raft term or a generation below what was known.
    WentBack,
    /// Another generation record at the revision of the one known.
    OtherRecord,
    /// Every endpoint answers as another cluster.
    Moved,
}

/// What to watch in one election: the generation and control keys always, and these candidate keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchPlan {
    /// Candidate keys by suffix: the own one, the one just ahead, the leader's. Sorted, without repetition.
    pub suffixes: Vec<String>,
    /// The first revision whose events are wanted.
    pub from: Revision,
}

/// A change of role, as the audit records it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// Which election.
    pub election: ElectionIndex,
    /// The role before.
    pub from: Role,
    /// The role after.
    pub to: Role,
    /// The own generation before; 0 for none.
    pub old_generation: Generation,
    /// The own generation after; 0 for none.
    pub new_generation: Generation,
    /// Why.
    pub reason: Reason,
}
