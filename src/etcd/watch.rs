//! The watch: one stream for all elections of this daemon, one watcher for each key, no ranges.
//!
//! One stream, because its liveness is probed every fraction of the TTL, and one probe then serves all; a broken stream breaks
//! every election at once, which costs one look each. One key per watcher, because a range would wake every candidate at every
//! change of the queue.
//!
//! Nothing is resumed. Whatever ends a stream may have cost events, so every election on it hears `WatchBroken` once, its plan is
//! forgotten, and the core, which looks again, sends a plan from the revision of that look. So no watcher ever starts from a
//! revision that was not read, and none at one that was compacted while it slept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::connect::lock;
use super::watch_stream::{End, Stream};
use super::{Edge, Etcd};
use crate::clock::{self, Instant};
use crate::election::event::{ElectionInput, Input, WatchPlan};
use crate::election::ids::ElectionIndex;

/// The pause before a third stream in a row, which doubles from then on. It paces connections; what is looked at and watched again
/// after a stream broke is paced by the core (`election/pause.rs`).
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The pause while etcd refuses our watch: only a person can change that.
const PERMISSION_BACKOFF: Duration = Duration::from_secs(10);
/// How long a member that was behind is the last to be tried again.
const SHUN: Duration = Duration::from_mins(1);
/// How often the same refusal is said.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// A stream that lived this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Plans that the task has not taken yet: at most one for each election, the newest.
#[derive(Default)]
pub(super) struct Plans {
    pending: Mutex<BTreeMap<ElectionIndex, WatchPlan>>,
    pub wake: Notify,
}

impl Plans {
    pub(super) fn take(&self) -> Option<(ElectionIndex, WatchPlan)> {
        lock(&self.pending).pop_first()
    }

    /// A plan that could not be followed waits again, unless a newer one came.
    pub(super) fn give_back(&self, election: ElectionIndex, plan: WatchPlan) {
        lock(&self.pending).entry(election).or_insert(plan);
    }
}

/// A running watch. Ends when dropped.
pub struct Watcher {
    plans: Arc<Plans>,
    task: AbortHandle,
}

impl Watcher {
    /// Watches exactly these keys of an election from now on. Keys already watched go on as they are, whatever `plan.from` says;
    /// for the others it is the first revision that is reported.
    pub fn plan(&self, election: ElectionIndex, plan: WatchPlan) {
        lock(&self.plans.pending).insert(election, plan);
        self.plans.wake.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Etcd {
    /// Starts a watch that reports into `sink`, and waits when that is full. Reports nothing before it has a plan.
    ///
    /// For each key events come in the order of their revisions. Between keys there is no order, even within one transaction:
    /// a hand-over's `KeyDeleted` and `GenerationChanged` come either way round. Events may come that a look has shown already.
    #[must_use]
    pub fn watch(&self, sink: mpsc::Sender<Input>) -> Watcher {
        let plans = Arc::<Plans>::default();
        let member = self.edge.pool.preferred.load(Ordering::Relaxed);
        let (edge, plans_too) = (Arc::clone(&self.edge), Arc::clone(&plans));
        let shunned = vec![None; edge.pool.members.len()];
        let task = Task { edge, plans: plans_too, sink, member, shunned, bad: 0, refused: 0, complained: None };
        Watcher { plans, task: tokio::spawn(task.run()).abort_handle() }
    }
}

struct Task {
    edge: Arc<Edge>,
    plans: Arc<Plans>,
    sink: mpsc::Sender<Input>,
    member: usize,
    /// When each member was found behind.
    shunned: Vec<Option<Instant>>,
    /// Streams in a row that failed or broke soon.
    bad: u32,
    /// Refusals in a row.
    refused: usize,
    complained: Option<Instant>,
}

/// The sink is closed: nobody listens any more.
struct Closed;

impl Task {
    async fn run(mut self) {
        while self.round().await.is_ok() {}
    }

    /// One stream, from the plan that needs it to its end.
    async fn round(&mut self) -> Result<(), Closed> {
        let mut epoch = self.edge.pool.epoch.subscribe();
        while lock(&self.plans.pending).is_empty() {
            self.plans.wake.notified().await;
        }
        tokio::select! {
            // Plans of a history that is no more would start in the future of this one, and stay mute.
            _ = epoch.changed() => return self.report(BTreeSet::new(), &End::Reset).await,
            () = sleep(self.pause()) => {}
        }
        let began = clock::now();
        let first = lock(&self.plans.pending).keys().next().copied();
        let Some(first) = first else { return Ok(()) };
        let (concerned, end) = match Stream::open(&self.edge, self.member, first).await {
            Ok(mut stream) => {
                let end = stream.serve(&self.plans, &self.sink, &mut epoch).await;
                (stream.elections(), end)
            }
            // The plans wait for the next stream: they say from where they want events, so nothing is lost.
            Err(end) => (BTreeSet::new(), end),
        };
        if matches!(end, End::Closed) {
            return Err(Closed);
        }
        tracing::debug!(endpoint = self.endpoint(), %end, "the watch ended");
        self.judge(&end, clock::now().since(began));
        self.report(concerned, &end).await
    }

    fn pause(&self) -> Duration {
        let by = match (self.refused, self.bad) {
            // Each member has refused twice, the second time a token that was new.
            (refused, _) if refused >= 2 * self.shunned.len() => PERMISSION_BACKOFF,
            (_, 0 | 1) => return Duration::ZERO,
            (_, bad) => (BACKOFF * 2_u32.saturating_pow(bad - 2)).min(BACKOFF_MAX),
        };
        self.edge.pool.jittered(by)
    }

    fn judge(&mut self, end: &End, lived: Duration) {
        if lived >= GOOD_AFTER {
            (self.bad, self.refused) = (0, 0);
        }
        self.bad = self.bad.saturating_add(1);
        match end {
            // The first refusal may be a token that ran out, and was renewed since: the same member is asked again.
            End::Auth(reason) => {
                self.refused = self.refused.saturating_add(1);
                if self.refused.is_multiple_of(2) {
                    self.complain(reason);
                    self.member = self.next();
                }
            }
            End::Stale { .. } => {
                self.shunned[self.member] = Some(clock::now());
                self.refused = 0;
                tracing::warn!("the etcd member {} is {end}: watching another one", self.endpoint());
                self.member = self.next();
            }
            _ => self.member = self.next(),
        }
    }

    fn complain(&mut self, reason: &str) {
        let now = clock::now();
        if self.complained.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
            self.complained = Some(now);
            tracing::warn!(reason, "the etcd member {} refuses the watch: trying the next one", self.endpoint());
        }
    }

    fn endpoint(&self) -> &str {
        &self.edge.pool.members[self.member].endpoint
    }

    /// The member after this one; one that does not serve, or was behind, only where there is no other.
    fn next(&self) -> usize {
        let (pool, now) = (&self.edge.pool, clock::now());
        let behind = |member: usize| self.shunned[member].is_some_and(|at| now.since(at) < SHUN);
        let good = |member: &usize| pool.health.serves(*member) != Some(false) && !behind(*member);
        let count = pool.members.len();
        let mut others = (1..count).map(|step| (self.member + step) % count);
        others.find(good).unwrap_or((self.member + 1) % count)
    }

    /// Tells every election concerned, once. A plan that came meanwhile is dropped too: it was made in the belief that the keys
    /// of the plan before were being watched.
    async fn report(&self, mut concerned: BTreeSet<ElectionIndex>, end: &End) -> Result<(), Closed> {
        self.edge.pool.telemetry.watch_restarted(end.cause());
        {
            let mut pending = lock(&self.plans.pending);
            if matches!(end, End::Reset) {
                concerned.extend(pending.keys());
            }
            pending.retain(|election, _| !concerned.contains(election));
        }
        for election in concerned {
            let input = Input::Election(election, ElectionInput::WatchBroken);
            self.sink.send(input).await.map_err(|_| Closed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::EtcdConfig;
    use crate::election::ids::Revision;
    use crate::etcd::{Identity, Telemetry};
    use crate::timing::Timing;

    struct Unheard;

    impl Telemetry for Unheard {
        fn request(&self, _: &'static str, _: &'static str, _: Duration) {}
        fn endpoint_up(&self, _: &str, _: bool) {}
        fn keepalive_failed(&self, _: &str) {}
        fn watch_restarted(&self, _: &'static str) {}
    }

    /// With members that are not there.
    pub(in crate::etcd) fn edge(members: usize) -> Arc<Edge> {
        let endpoints = (0..members).map(|member| format!("http://127.0.0.{}:1", member + 1)).collect();
        let config = EtcdConfig {
            endpoints,
            prefix: "/tenure".to_owned(),
            cluster_id: None,
            username: None,
            password_file: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(2),
        };
        let name = crate::election::ids::ElectionName::parse("orders").expect("a name");
        let (id, url, version) = ("a".to_owned(), String::new(), String::new());
        let identity = Identity { id, url, version, elections: vec![(name, 0)] };
        Etcd::new(&config, identity, &Timing::default(), Arc::new(Unheard), 1).expect("an etcd").edge
    }

    fn task(members: usize) -> Task {
        let (edge, plans, sink) = (edge(members), Arc::default(), mpsc::channel(1).0);
        Task { edge, plans, sink, member: 0, shunned: vec![None; members], bad: 0, refused: 0, complained: None }
    }

    fn refuse(task: &mut Task) {
        task.judge(&End::Auth("permission denied".to_owned()), Duration::ZERO);
    }

    #[test]
    fn a_watch_leaves_a_member_that_alone_refuses_it_once_its_token_was_new() {
        let mut task = task(3);
        refuse(&mut task);
        assert_eq!(task.member, 0, "its token may have run out");
        refuse(&mut task);
        assert_eq!(task.member, 1);
        assert!(task.pause() < PERMISSION_BACKOFF / 2, "the next one is asked soon");
        task.judge(&End::Broken("gone".to_owned()), GOOD_AFTER);
        assert_eq!((task.refused, task.pause()), (0, Duration::ZERO), "what served is forgiven");
    }

    #[test]
    fn a_watch_that_every_member_refuses_is_asked_for_seldom() {
        let mut task = task(3);
        (0..6).for_each(|_| refuse(&mut task));
        assert_eq!(task.member, 0, "each was asked twice");
        assert!(task.pause() >= PERMISSION_BACKOFF / 2);
    }

    #[test]
    fn a_member_that_was_behind_comes_last() {
        let mut task = task(3);
        task.judge(&End::Stale { shown: Revision(5), behind: Revision(6) }, GOOD_AFTER);
        task.judge(&End::Broken("gone".to_owned()), Duration::ZERO);
        assert_eq!(task.member, 2);
        task.judge(&End::Broken("gone".to_owned()), Duration::ZERO);
        assert_eq!(task.member, 1, "not back to the one that was behind");
    }
}
