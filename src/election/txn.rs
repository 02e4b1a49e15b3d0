//! The transactions of the protocol, but for what the edge adds (id, url, time). Their conditions are data, so that etcd, the
//! model checker and the simulation judge the very same ones.

use super::ids::{CandidateKey, Generation, LeaseId, Revision};
use super::mutant::{self, Mutant};
use super::record::QueueEntry;

/// The most candidates that a preferred successor may pass by: their keys are deleted in the hand-over's transaction, whose
/// size etcd limits (`--max-txn-ops`, 128 by default).
pub const MAX_SKIPPED: usize = 32;

/// A condition of a transaction. All hold at the moment of the commit, or nothing is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Every key of the queue has a `create_revision` of this or later.
    NobodyBefore(Revision),
    /// This very incarnation of a candidate's key stands.
    Stands(CandidateKey),
    /// The generation key was last modified at this revision; 0 for one that does not exist. The edge compares its value too,
    /// where it knows it: after a restore the same revision may come again, with another record.
    GenerationUnchanged(Revision),
    /// The same of the control key, but for the value.
    ControlUnchanged(Revision),
}

/// The elect transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ElectTxn {
    /// The session's lease.
    pub lease: LeaseId,
    /// `create_revision` of the own key.
    pub created: Revision,
    /// `mod_revision` of the generation key as last seen.
    pub generation_modified: Revision,
    /// `mod_revision` of the control key as last seen.
    pub control_modified: Revision,
    /// The generation to write.
    pub generation: Generation,
    /// The term to write.
    pub term: u64,
    /// Milliseconds since the vacancy was seen.
    pub leaderless_ms: u64,
}

/// The hand-over transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandOverTxn {
    /// The own key.
    pub key: CandidateKey,
    /// Names the successor and its generation. Without one the own key is deleted, and the queue goes on by itself.
    pub successor: Option<Succession>,
}

/// The naming of a successor inside a hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Succession {
    /// The successor as seen.
    pub entry: QueueEntry,
    /// `mod_revision` of the generation key: our own record's.
    pub generation_modified: Revision,
    /// `mod_revision` of the control key as last seen, when nothing was paused.
    pub control_modified: Revision,
    /// The generation to write.
    pub generation: Generation,
    /// The term to write.
    pub term: u64,
    /// Keys of Tenure candidates queued between us and a preferred successor: deleted with ours; their owners queue again.
    pub skipped: Vec<CandidateKey>,
    /// Milliseconds since we stopped acting.
    pub leaderless_ms: u64,
}

impl ElectTxn {
    /// Nobody is ahead, our key stands, and neither the generation nor the pause changed since we looked.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let own = CandidateKey::of(self.lease, self.created);
        let first = if mutant::on(Mutant::RangeOffByOne) { Revision(self.created.0 - 1) } else { self.created };
        let mut conditions =
            vec![Condition::NobodyBefore(first), Condition::GenerationUnchanged(self.generation_modified)];
        if !mutant::on(Mutant::ElectWithoutOwnKey) {
            conditions.push(Condition::Stands(own));
        }
        if !mutant::on(Mutant::ElectWhilePaused) {
            conditions.push(Condition::ControlUnchanged(self.control_modified));
        }
        conditions
    }
}

impl HandOverTxn {
    /// Our key stands; and where somebody is named, so does the successor's and that of everybody passed by, the generation is
    /// still ours, and nobody has paused the election since.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = vec![Condition::Stands(self.key.clone())];
        if let Some(to) = &self.successor {
            conditions.push(Condition::GenerationUnchanged(to.generation_modified));
            conditions.extend(to.skipped.iter().cloned().map(Condition::Stands));
            if !mutant::on(Mutant::HandOverWhilePaused) {
                conditions.push(Condition::ControlUnchanged(to.control_modified));
            }
            if !mutant::on(Mutant::SuccessorNotChecked) {
                conditions.push(Condition::Stands(to.entry.key.clone()));
            }
        }
        conditions
    }
}
