//! The version of each election's document: it grows with every change, so that no change is missed between two polls.

use std::sync::{Mutex, PoisonError};

use super::moment::Moment;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::{Reason, Role};

/// Counts what changes by the clock alone; what is published brings a count of its own.
#[derive(Debug)]
pub struct Versions(Mutex<Vec<Seen>>);

/// What was last made out of one election.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// By the clock alone: a guard that passed, an etcd that is not heard any more.
    lapses: u64,
    published: u64,
    judged: Option<Judged>,
}

/// What a document says that depends on the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Judged {
    role: Role,
    reason: Reason,
    leader: Option<(String, Generation)>,
    session: bool,
}

impl Versions {
    /// For that many elections.
    pub fn new(elections: usize) -> Self {
        Self(Mutex::new(vec![Seen::default(); elections]))
    }

    /// The version of what `moment` says of this election.
    pub fn of(&self, moment: &Moment, e: ElectionIndex) -> u64 {
        let published = moment.view(e).version;
        // Each entry is replaced whole: a panic elsewhere cannot have left one half written.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut all[e.0];
        if published >= seen.published {
            let judged = Judged {
                role: moment.role(e),
                reason: moment.reason(e),
                leader: moment.leader(e).map(|leader| (leader.id, leader.generation)),
                session: moment.session().is_some(),
            };
            let lapsed = published == seen.published && seen.judged.as_ref().is_some_and(|before| *before != judged);
            seen.lapses += u64::from(lapsed);
            (seen.published, seen.judged) = (published, Some(judged));
        }
        published + seen.lapses
    }
}
