//! How an election stands, for whoever shows it.

use super::Core;
use super::contest::State;
use super::ids::{CandidateKey, ElectionIndex, Generation, Revision};
use super::record::{GenerationRecord, Holder};
use super::role::{Reason, Role};

/// One election, for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing<'a> {
    /// The role as decided; whether a leader still leads is for the guard to say.
    pub role: Role,
    /// The own generation while leading.
    pub own: Option<Generation>,
    /// Giving a leadership up on request: no longer acting, and not yet released.
    pub leaving: bool,
    /// Why the role is what it is.
    pub reason: Reason,
    /// What the record holds, as last seen; 0 where there is none that can be read.
    pub observed: Generation,
    /// The newest generation known: a record that cannot be read, or is gone, makes nothing unknown that was known. Of a leader
    /// never more than it may lead with, though others are still to be lifted above that.
    pub newest: Generation,
    /// The term recorded with it.
    pub term: u64,
    /// The leader that etcd names, while its key stands.
    pub leader: Option<(&'a GenerationRecord, &'a Holder)>,
    /// Whether a foreign client leads.
    pub foreign: bool,
    /// Whether new elections are paused.
    pub paused: bool,
    /// Place in the queue, 0 for its head; `None` while not queued or not known.
    pub queue_position: Option<usize>,
    /// Length of the queue.
    pub queued: usize,
    /// The newest revision that contributed; 0 before the first contact.
    pub revision: Revision,
    /// The own key, while one exists as far as we know.
    pub key: Option<&'a CandidateKey>,
}

impl Core {
    /// One election.
    #[must_use]
    pub fn standing(&self, election: ElectionIndex) -> Standing<'_> {
        let contest = &self.contests[election.0];
        let seen = &contest.seen;
        let queued = contest.key().filter(|_| matches!(contest.role(), Role::Leader | Role::Candidate));
        Standing {
            role: contest.role(),
            own: Some(contest.own()).filter(|own| *own > Generation(0)),
            leaving: matches!(&contest.state, State::Leaving(l) if l.generation.is_some()) && contest.reason.is_wish(),
            reason: contest.reason,
            observed: seen.newest(),
            newest: match contest.role() {
                Role::Leader => seen.newest().max(contest.own()),
                _ => seen.newest().max(self.ratchet.floor(election)),
            },
            term: seen.generation.value().map_or(0, |r| r.term),
            leader: seen.leader(),
            foreign: seen.foreign.is_some(),
            paused: seen.paused(),
            queue_position: queued.and_then(|key| seen.queue.iter().position(|e| e.key == *key)),
            queued: seen.queued,
            revision: seen.revision,
            key: contest.key(),
        }
    }
}
