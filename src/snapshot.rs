//! What readers see: one immutable value, one [`Publisher`], many [`Reader`]s.
//!
//! Role, generation and guard travel together, so they are never torn; whether a leader still leads is judged when it is
//! read, against the clock, so a writer that has stalled cannot keep anyone leader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Hlc, Instant, Reading, Wall};
use crate::election::guard::Guard;
use crate::election::ids::{ElectionIndex, ElectionName, Generation, LeaseId, Revision};
use crate::election::promise::Promises;
use crate::election::role::{Reason, Role};
use crate::health::{Health, Report};
use crate::timing::Timing;

/// The state of the whole daemon at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The candidate's id.
    pub id: String,
    /// The session, while there is one.
    pub session: Option<SessionView>,
    /// One for each configured election, in the order of the configuration.
    pub elections: Vec<ElectionView>,
    /// Set for good by `drain` and by a signal to stop.
    pub draining: bool,
    /// It has been in the queue of each election, or has seen what it only observes, at least once since it started.
    pub joined: bool,
    /// Wall clock minus boot clock when this was published, in milliseconds.
    pub offset_ms: i64,
    /// How much that difference may change before the guard is void.
    pub max_jump: Duration,
    /// When the newest linearizable answer of etcd arrived, if any did.
    pub etcd_seen: Option<Instant>,
}

/// The session as readers see it.
#[derive(Clone, Copy, Debug)]
pub struct SessionView {
    /// Its lease.
    pub lease: LeaseId,
    /// The TTL that etcd granted.
    pub ttl: Duration,
    /// How far the newest confirmed renewal carries.
    pub guard: Guard,
}

/// One election as readers see it.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own for readers, not a state")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionView {
    /// Its name.
    pub name: ElectionName,
    /// The role as last decided. Ask [`Snapshot::role_at`] instead of reading this.
    pub role: Role,
    /// The own generation while the role is leader.
    pub own: Option<Generation>,
    /// The newest generation known, whoever's: seen, or remembered; 0 before any.
    pub observed: Generation,
    /// The application's term recorded with it.
    pub term: u64,
    /// Who leads, as far as etcd told.
    pub leader: Option<LeaderView>,
    /// Whether that is this very daemon, by its key: another one may use the same id, and etcd may name a key that is gone.
    pub ours: bool,
    /// Whether a client that is not Tenure leads the same recipe.
    pub foreign: bool,
    /// Whether new elections are paused.
    pub paused: bool,
    /// Giving a leadership up on request: no longer acting, and not yet released.
    pub leaving: bool,
    /// Why the role is what it is.
    pub reason: Reason,
    /// Since when, on the wall clock.
    pub since: Wall,
    /// The same in causal order.
    pub hlc: Hlc,
    /// Place in the queue, 0 for the leader, as of the last full look; `None` while not queued.
    pub queue_position: Option<usize>,
    /// Candidates in the queue as of the last full look.
    pub candidates: usize,
    /// The newest revision of etcd that contributed to this view.
    pub observed_revision: Revision,
    /// When it did, on the wall clock; `None` before the first contact.
    pub last_update: Option<Wall>,
    /// Grows with every change of what is said here, but for the two before. Set by [`Publisher::publish`].
    pub version: u64,
}

/// A leader as etcd names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderView {
    /// Its candidate id.
    pub id: String,
    /// Where it is reached; empty where it did not say.
    pub url: String,
    /// Its generation.
    pub generation: Generation,
    /// Since when, on the winner's wall clock.
    pub elected_at: Wall,
}

impl ElectionView {
    /// A daemon that has just started and knows nothing of the election yet.
    #[must_use]
    pub fn starting(name: ElectionName, role: Role, since: Wall) -> Self {
        Self {
            name,
            role,
            own: None,
            observed: Generation(0),
            term: 0,
            leader: None,
            ours: false,
            foreign: false,
            paused: false,
            leaving: false,
            reason: Reason::Started,
            since,
            hlc: Hlc::default(),
            queue_position: None,
            candidates: 0,
            observed_revision: Revision(0),
            last_update: None,
            // A restart is a change, too: clocks go on while a daemon is away.
            version: since.0,
        }
    }

    /// Whether both say the same, whenever they heard it.
    fn says_what(&self, other: &Self) -> bool {
        let Self { observed_revision, last_update, version, .. } = *self;
        *self == Self { observed_revision, last_update, version, ..other.clone() }
    }
}

impl Snapshot {
    /// The guard of the leadership of this election, if it is ours and holds at `at`.
    #[must_use]
    pub fn leads_at(&self, election: ElectionIndex, at: Reading) -> Option<(Generation, Guard)> {
        let view = self.elections.get(election.0)?;
        let (Role::Leader, Some(generation)) = (view.role, view.own) else { return None };
        self.session_at(at).map(|session| (generation, session.guard))
    }

    /// The session, if its guard holds at `at`.
    #[must_use]
    pub fn session_at(&self, at: Reading) -> Option<SessionView> {
        // A virtual machine paused with its boot clock stopped shows as a jump of the wall clock: nothing counts then.
        let jumped = u128::from(at.offset_ms.abs_diff(self.offset_ms)) > self.max_jump.as_millis();
        self.session.filter(|session| session.guard.holds_at(at.now) && !jumped)
    }

    /// The role at `at`: a leader whose guard has passed is a follower, whatever was decided before.
    #[must_use]
    pub fn role_at(&self, election: ElectionIndex, at: Reading) -> Role {
        match self.elections[election.0].role {
            Role::Leader if self.leads_at(election, at).is_none() => Role::Follower,
            role => role,
        }
    }

    /// Finds an election by name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ElectionIndex> {
        self.elections.iter().position(|e| e.name.as_str() == name).map(ElectionIndex)
    }
}

/// A fencing token with its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The generation.
    pub generation: Generation,
    /// Until then, counted on the caller's clock from when it sent its request, no other daemon leads.
    pub valid_for: Duration,
    /// What is left of the guard.
    pub guard: Duration,
}

type Ledgers = Arc<[Mutex<Promises>]>;

/// The one writer.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Arc<Snapshot>>,
    ledgers: Ledgers,
}

/// A reader; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    receiver: watch::Receiver<Arc<Snapshot>>,
    health: Health,
    ledgers: Ledgers,
    timing: Timing,
}

/// Makes the pair. `timing` says how long a promise lasts; `health` is how etcd answers.
#[must_use]
pub fn channel(first: Snapshot, timing: Timing, health: Health) -> (Publisher, Reader) {
    let ledgers: Ledgers = first.elections.iter().map(|_| Mutex::default()).collect();
    let (sender, receiver) = watch::channel(Arc::new(first));
    let reader = Reader { receiver, health, ledgers: Arc::clone(&ledgers), timing };
    (Publisher { sender, ledgers }, reader)
}

impl Publisher {
    /// Replaces what readers see, and counts each election's changes.
    pub fn publish(&self, mut snapshot: Snapshot) {
        {
            let before = self.sender.borrow();
            let lease = |of: &Snapshot| of.session.map(|s| (s.lease, s.ttl));
            let whole = lease(&before) != lease(&snapshot) || before.draining != snapshot.draining;
            for (now, before) in snapshot.elections.iter_mut().zip(&before.elections) {
                now.version = before.version + u64::from(whole || !now.says_what(before));
            }
        }
        self.sender.send_replace(Arc::new(snapshot));
    }

    /// The role and own generation that readers see now.
    #[must_use]
    pub fn shown(&self, election: ElectionIndex) -> Option<(Role, Option<Generation>)> {
        self.sender.borrow().elections.get(election.0).map(|e| (e.role, e.own))
    }

    /// The end of the last promise given in this election.
    ///
    /// Call it only after a snapshot that does not lead it was published: then no later promise follows, because
    /// [`Reader::token`] looks at the snapshot while it holds the ledger.
    #[must_use]
    pub fn last_promise(&self, election: ElectionIndex) -> Instant {
        locked(&self.ledgers[election.0]).latest()
    }
}

impl Reader {
    /// The newest snapshot.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        Arc::clone(&self.receiver.borrow())
    }

    /// How etcd answers, as of now: newer than the snapshot, which changes for other reasons.
    #[must_use]
    pub fn etcd(&self) -> Report {
        self.health.report()
    }

    /// Waits until the snapshot is replaced; for ever once the publisher is gone.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The token of this election with a fresh promise, if we lead at `at`. The promise is in the ledger before this returns.
    #[must_use]
    pub fn token(&self, election: ElectionIndex, at: Reading) -> Option<Token> {
        let mut ledger = locked(self.ledgers.get(election.0)?);
        let (generation, guard) = self.load().leads_at(election, at)?;
        let valid_for = ledger.give(at.now, guard, &self.timing);
        Some(Token { generation, valid_for, guard: guard.remaining(at.now) })
    }

    /// What is left of the last promise given in this election; zero where none is outstanding.
    #[must_use]
    pub fn promised(&self, election: ElectionIndex, now: Instant) -> Duration {
        self.ledgers.get(election.0).map_or(Duration::ZERO, |l| locked(l).latest().since(now))
    }
}

fn locked(ledger: &Mutex<Promises>) -> std::sync::MutexGuard<'_, Promises> {
    // A ledger is one moment in time: a panic elsewhere cannot have left it half written.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_grows_with_every_change_of_this_election_and_of_the_session_only() {
        let start = Wall(1_760_000_000_000);
        let view =
            |name: &str| ElectionView::starting(ElectionName::parse(name).expect("a name"), Role::Follower, start);
        let first = Snapshot {
            id: "pod-0".to_owned(),
            session: None,
            elections: vec![view("orders"), view("billing")],
            draining: false,
            joined: false,
            offset_ms: 0,
            max_jump: Duration::from_millis(250),
            etcd_seen: None,
        };
        let (publisher, reader) = channel(first.clone(), Timing::default(), Health::new(&[], Instant::default()));
        let mut expected = [start.0; 2];
        let mut publish = |snapshot: &Snapshot, more: [u64; 2]| {
            publisher.publish(snapshot.clone());
            expected = [expected[0] + more[0], expected[1] + more[1]];
            assert_eq!(reader.load().elections.iter().map(|e| e.version).collect::<Vec<_>>(), expected);
        };
        let mut next = first;
        publish(&next, [0, 0]);
        // A look that found nothing new.
        (next.elections[0].last_update, next.elections[0].observed_revision) = (Some(start), Revision(7));
        publish(&next, [0, 0]);
        // There and back again, between two looks of a reader: two changes all the same.
        next.elections[0].role = Role::Candidate;
        publish(&next, [1, 0]);
        next.elections[0].role = Role::Follower;
        publish(&next, [1, 0]);
        next.elections[1].paused = true;
        publish(&next, [0, 1]);
        next.draining = true;
        publish(&next, [1, 1]);
    }
}
