//! Whether another daemon uses our id. Elections go by keys, so that both work; but people, and whatever reads names, cannot
//! tell them apart.
//!
//! A candidate of our id whose lease is not ours may be a former run of this very daemon, whose lease has not ended yet. So it
//! counts when its key is younger than our first lease, or when it stands for longer than a lease without renewals could.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::sleep;

use super::connect::lock;
use super::{Edge, Etcd};
use crate::clock::{self, Instant};
use crate::election::ids::{CandidateKey, ElectionIndex, LeaseId, Revision};
use crate::election::record::{QUEUE_LIMIT, QueueEntry};

/// Leases of ours that are remembered; keys of older ones are gone.
const LEASES: usize = 16;
/// How long the key of a former run may stand: its lease may have been longer than ours.
const FORMER_RUN: Duration = Duration::from_secs(30);
/// How often one election is asked for the ids in its queue, on average.
const EVERY: Duration = Duration::from_secs(20);

/// What is known of candidates with our id.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    ours: VecDeque<i64>,
    /// The store's revision when our first lease was granted.
    began: Option<Revision>,
    /// Keys of our id that are not ours, and when each was seen first. At most a queue for each election.
    seen: BTreeMap<(ElectionIndex, CandidateKey), Instant>,
    said: BTreeSet<(ElectionIndex, CandidateKey)>,
}

impl Namesakes {
    pub(super) fn granted(&mut self, lease: LeaseId, at: Revision) {
        self.ours.push_back(lease.0);
        if self.ours.len() > LEASES {
            self.ours.pop_front();
        }
        self.began.get_or_insert(at);
    }

    /// Revisions of a history that is no more compare with nothing.
    pub(super) fn forget(&mut self) {
        *self = Self { ours: std::mem::take(&mut self.ours), ..Self::default() };
    }

    /// Looks through a queue. Returns the entries of other daemons that use `id`, each once.
    pub(super) fn see(
        &mut self,
        election: ElectionIndex,
        queue: &[QueueEntry],
        id: &str,
        ttl: Duration,
        now: Instant,
    ) -> Vec<QueueEntry> {
        let alike = |e: &&QueueEntry| e.candidate.as_ref().is_some_and(|c| c.id == id) && !self.ours.contains(&e.lease);
        let present: Vec<_> = queue.iter().filter(alike).take(QUEUE_LIMIT).cloned().collect();
        let stands = |key: &CandidateKey| present.iter().any(|e| e.key == *key);
        self.seen.retain(|(of, key), _| *of != election || stands(key));
        self.said.retain(|(of, key)| *of != election || stands(key));
        let patience = (ttl * 2).max(FORMER_RUN);
        let mut others = Vec::new();
        for entry in present {
            let which = (election, entry.key.clone());
            let since = *self.seen.entry(which.clone()).or_insert(now);
            let younger = self.began.is_some_and(|began| entry.key.created > began);
            if (younger || now.since(since) >= patience) && self.said.insert(which) {
                others.push(entry);
            }
        }
        others
    }
}

impl Etcd {
    /// Reads the queue of one election after the other, for as long as it runs. The core reads queues as well, but rarely: a
    /// leader has no reason to.
    pub async fn look_for_namesakes(self) {
        let edge = &self.edge;
        for election in (0..edge.keys.len()).cycle().map(ElectionIndex) {
            sleep(edge.pool.jittered(edge.limits.ttl.min(EVERY))).await;
            // What it finds is said on the way. What it cannot read, others complain of.
            drop(edge.look("read", election, None).await);
        }
    }
}

impl Edge {
    /// Says of candidates in this queue that another daemon put them there under our id.
    pub(super) fn complain_of_namesakes(&self, election: ElectionIndex, queue: &[QueueEntry]) {
        let (id, ttl) = (&self.identity.id, self.limits.ttl);
        for entry in lock(&self.namesakes).see(election, queue, id, ttl, clock::now()) {
            let url = entry.candidate.map(|c| c.url).unwrap_or_default();
            tracing::warn!(
                election = %self.identity.elections[election.0].0, id, url, lease = %LeaseId(entry.lease),
                "another daemon uses our id: both work, but names no longer say who leads; give each daemon its own id"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::record::CandidateInfo;

    const E: ElectionIndex = ElectionIndex(0);
    const TTL: Duration = Duration::from_secs(10);

    fn entry(id: &str, lease: i64, created: i64) -> QueueEntry {
        let candidate =
            CandidateInfo { id: id.into(), url: String::new(), term: 0, priority: 0, version: String::new() };
        let key = CandidateKey::of(LeaseId(lease), Revision(created));
        QueueEntry { key, lease, candidate: Some(candidate) }
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn ours() -> Namesakes {
        let mut namesakes = Namesakes::default();
        namesakes.granted(LeaseId(7), Revision(100));
        namesakes
    }

    #[test]
    fn a_younger_key_of_our_id_is_another_daemon_and_said_once() {
        let mut namesakes = ours();
        let queue = [entry("a", 7, 101), entry("b", 8, 102), entry("a", 9, 103)];
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(1)), [queue[2].clone()]);
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(2)), []);
        assert_eq!(namesakes.see(E, &queue[..2], "a", TTL, at(3)), []);
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(4)).len(), 1, "it went, and came back");
    }

    #[test]
    fn a_former_run_of_ours_is_not_another_daemon_until_it_outlives_its_lease() {
        let mut namesakes = ours();
        let queue = [entry("a", 5, 90), entry("a", 7, 101)];
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(1)), []);
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(30)), []);
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(31)).len(), 1, "somebody renews it");
        let mut gone = ours();
        gone.see(E, &queue, "a", TTL, at(1));
        assert_eq!(gone.see(E, &queue[1..], "a", TTL, at(31)), []);
    }

    #[test]
    fn our_own_older_session_is_ours() {
        let mut namesakes = ours();
        namesakes.granted(LeaseId(8), Revision(200));
        let queue = [entry("a", 7, 101), entry("a", 8, 201)];
        assert_eq!(namesakes.see(E, &queue, "a", TTL, at(99)), []);
    }
}
