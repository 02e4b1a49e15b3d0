//! One snapshot and one reading of the clocks: all that a handler judges by.

use std::sync::Arc;
use std::time::Duration;

use super::Service;
use crate::clock::{self, Instant, Reading};
use crate::election::guard::Guard;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::{Reason, Role};
use crate::snapshot::{ElectionView, LeaderView, SessionView, Snapshot};

/// What is true now, as far as this daemon knows.
///
/// Invariant: whoever asks whether we lead asks [`Moment::leading`]: guard, drain and a stalled loop are judged in one place.
#[derive(Clone, Debug)]
pub struct Moment {
    /// What the driver published last.
    pub snapshot: Arc<Snapshot>,
    /// When it is judged.
    pub at: Reading,
    /// Whether the driver's loop stands still.
    pub stalled: bool,
    /// Whether etcd was heard within two TTLs, one for a look and one for what it said to hold: longer ago, who leads is not
    /// known any more.
    heard: bool,
    /// After so long, this is no longer so by the clock alone.
    stands: Duration,
    /// For how long etcd has not answered a question that only a quorum can; `None` while it does.
    pub silent: Option<Duration>,
}

impl Moment {
    /// The present. `born` is when we began to serve: before that, nobody can have stood still.
    pub fn now(service: &Service, born: Instant) -> Self {
        let snapshot = service.reader.load();
        let at = clock::reading();
        let still = service.control.loop_age(at.now).min(at.now.since(born));
        let unheard = snapshot.etcd_seen.map(|seen| at.now.since(seen));
        let (limit, known) = (service.about.stall_limit, service.about.ttl * 2);
        let ends = [
            limit.checked_sub(still),
            unheard.and_then(|unheard| known.checked_sub(unheard)),
            snapshot.session.map(|session| session.guard.remaining(at.now)),
        ];
        let stands = ends.into_iter().flatten().filter(|left| !left.is_zero()).min().unwrap_or(limit);
        let silent = silence(&snapshot, service.about.ttl, at.now, born);
        let heard = unheard.is_some_and(|unheard| unheard < known);
        Self { snapshot, at, stalled: still >= limit, heard, stands, silent }
    }

    /// How long nothing of it changes by the clock alone.
    pub const fn stands(&self) -> Duration {
        self.stands
    }

    /// Whether we are giving up what we led: all of it, or this election.
    pub fn withdrawing(&self, e: ElectionIndex) -> bool {
        self.snapshot.draining || self.view(e).leaving
    }

    /// The election as published. `e` comes from a lookup by name in this daemon's configuration, which does not change.
    pub fn view(&self, e: ElectionIndex) -> &ElectionView {
        &self.snapshot.elections[e.0]
    }

    /// The own generation and guard, if we lead now.
    pub fn leading(&self, e: ElectionIndex) -> Option<(Generation, Guard)> {
        let may = !self.stalled && !self.snapshot.draining;
        may.then(|| self.snapshot.leads_at(e, self.at)).flatten()
    }

    /// The role now: whoever does not lead is no leader, whatever was published.
    pub fn role(&self, e: ElectionIndex) -> Role {
        match self.view(e).role {
            Role::Leader if self.leading(e).is_none() => Role::Follower,
            role => role,
        }
    }

    /// Why the role is what it is.
    pub fn reason(&self, e: ElectionIndex) -> Reason {
        let view = self.view(e);
        if view.role != Role::Leader || self.leading(e).is_some() {
            return view.reason;
        }
        match self.snapshot.session {
            _ if self.snapshot.draining => Reason::Drained,
            Some(session) if session.guard.holds_at(self.at.now) && !self.stalled => Reason::ClockJumped,
            _ => Reason::GuardExpired,
        }
    }

    /// Who leads now. Not ourselves when we do not, though etcd may still say so: it has not heard yet.
    pub fn leader(&self, e: ElectionIndex) -> Option<LeaderView> {
        let view = self.view(e);
        let named = view.leader.as_ref().filter(|_| self.heard);
        match self.leading(e) {
            Some((generation, _)) => {
                Some(named.filter(|l| l.generation == generation).cloned().unwrap_or(LeaderView {
                    id: self.snapshot.id.clone(),
                    url: String::new(),
                    generation,
                    elected_at: view.since,
                }))
            }
            None => named.filter(|_| !view.ours).cloned(),
        }
    }

    /// The session, while it is known to live.
    pub fn session(&self) -> Option<SessionView> {
        self.snapshot.session_at(self.at)
    }

    /// How long ago etcd was last heard, if ever.
    pub fn contact_age(&self) -> Option<Duration> {
        self.snapshot.etcd_seen.map(|seen| self.at.now.since(seen))
    }
}

/// A candidate asks with each renewal, a fifth of the TTL apart, and who only observes once a TTL: by then two answers are missing.
fn silence(snapshot: &Snapshot, ttl: Duration, now: Instant, born: Instant) -> Option<Duration> {
    let ttl = snapshot.session.map_or(ttl, |session| session.ttl);
    let observes = snapshot.elections.iter().all(|e| e.role == Role::Observer);
    let limit = if observes { ttl * 2 } else { ttl / 2 };
    let silent = now.since(snapshot.etcd_seen.unwrap_or(born));
    (snapshot.etcd_seen.is_none() || silent > limit).then_some(silent)
}
