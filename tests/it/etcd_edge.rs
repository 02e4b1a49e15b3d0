//! The etcd edge on a real etcd: what each answer proves, and what it does when members, connections or values are bad.

#![allow(clippy::disallowed_types, reason = "a test's stopwatch is not a deadline of the daemon's")]

mod credentials;
mod leases;
mod members;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenure::clock::{self, HlcClock, Wall};
use tenure::config::EtcdConfig;
use tenure::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Round, SessionInput, WatchPlan};
use tenure::election::ids::{CandidateKey, ElectionIndex, ElectionName, Generation, LeaseId, Revision};
use tenure::election::record::{Cause, Cell, QUEUE_LIMIT, QueueEntry, View};
use tenure::election::txn::{ElectTxn, HandOverTxn, Succession};
use tenure::etcd::{Etcd as Edge, Identity, Kind, Stamp, Telemetry};
use tenure::timing::{Timing, TimingSpec};
use tokio::sync::mpsc;

use super::support::{Certs, Endpoints, Etcd, Link, eventually};

const E: ElectionIndex = ElectionIndex(0);
const ROUND: Round = Round(1);
const TTL: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Notes {
    watches: Mutex<Vec<&'static str>>,
    requests: Mutex<Vec<(&'static str, &'static str)>>,
}

impl Telemetry for Notes {
    fn request(&self, method: &'static str, code: &'static str, _: Duration) {
        self.requests.lock().expect("notes").push((method, code));
    }
    fn endpoint_up(&self, _: &str, _: bool) {}
    fn keepalive_failed(&self, _: &str) {}
    fn watch_restarted(&self, cause: &'static str) {
        self.watches.lock().expect("notes").push(cause);
    }
}

fn config(etcd: &(impl Endpoints + ?Sized)) -> EtcdConfig {
    EtcdConfig {
        endpoints: etcd.endpoints(),
        prefix: "/tenure".into(),
        cluster_id: None,
        username: None,
        password_file: None,
        tls: None,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(5),
    }
}

fn edge_with(id: &str, config: &EtcdConfig, seed: u64) -> (Edge, Arc<Notes>) {
    let notes = Arc::<Notes>::default();
    let identity = Identity {
        id: id.into(),
        url: format!("http://{id}"),
        version: "0.1.0".into(),
        elections: vec![(ElectionName::parse("orders").expect("a name"), 5)],
    };
    let timing = Timing::new(TimingSpec { ttl: TTL, ..TimingSpec::default() }).expect("timing");
    (Edge::new(config, identity, &timing, Arc::clone(&notes) as _, seed).expect("an edge"), notes)
}

fn edge(id: &str, etcd: &(impl Endpoints + ?Sized)) -> Edge {
    edge_with(id, &config(etcd), fastrand::u64(..)).0
}

fn stamp() -> Stamp {
    let wall = clock::wall();
    Stamp { wall, hlc: HlcClock::default().tick(Wall(wall.0 + fastrand::u64(..1_000_000))) }
}

async fn lease(edge: &Edge) -> LeaseId {
    match edge.grant(TTL).await {
        Input::Session(SessionInput::Granted { lease, ttl, header }) => {
            assert!(ttl == TTL && lease.0 > 0 && header.raft_term.0 > 0);
            lease
        }
        other => panic!("{other:?}"),
    }
}

async fn queue(edge: &Edge, lease: LeaseId) -> CandidateKey {
    match edge.queue(E, lease).await {
        Input::Election(E, ElectionInput::Queued { lease: l, created, .. }) if l == lease => {
            CandidateKey::of(lease, created)
        }
        other => panic!("{other:?}"),
    }
}

async fn look(edge: &Edge, lease: Option<LeaseId>) -> View {
    match edge.look(E, ROUND, lease).await {
        Input::Election(E, ElectionInput::Looked { view, .. } | ElectionInput::LookedAside { view, .. }) => view,
        other => panic!("{other:?}"),
    }
}

fn elect_txn(lease: LeaseId, key: &CandidateKey, view: &View, generation: u64) -> ElectTxn {
    ElectTxn {
        lease,
        created: key.created,
        generation_modified: view.generation.modified(),
        control_modified: view.control.modified(),
        generation: Generation(generation),
        term: 3,
        leaderless_ms: 7,
    }
}

async fn elect(edge: &Edge, txn: &ElectTxn, stamp: Stamp) -> ElectOutcome {
    match edge.elect(E, txn, stamp).await {
        Input::Election(E, ElectionInput::ElectAnswered { key, outcome }) => {
            assert_eq!(key, CandidateKey::of(txn.lease, txn.created));
            outcome
        }
        other => panic!("{other:?}"),
    }
}

async fn hand_over(edge: &Edge, txn: &HandOverTxn, stamp: Stamp) -> HandOverOutcome {
    match edge.hand_over(E, txn, stamp).await {
        Input::Election(E, ElectionInput::HandOverAnswered { outcome, .. }) => outcome,
        other => panic!("{other:?}"),
    }
}

fn succession(view: &View, entry: &QueueEntry, skipped: Vec<CandidateKey>) -> Succession {
    let generation = view.generation.value().expect("a record").generation.next();
    Succession {
        control_modified: view.control.modified(),
        entry: entry.clone(),
        generation_modified: view.generation.modified(),
        generation,
        term: 4,
        skipped,
        leaderless_ms: 1,
    }
}

/// A candidate in the queue, elected if it is first.
struct Candidate {
    edge: Edge,
    lease: LeaseId,
    key: CandidateKey,
}

impl Candidate {
    async fn queued(id: &str, etcd: &(impl Endpoints + ?Sized)) -> Self {
        let edge = edge(id, etcd);
        let lease = lease(&edge).await;
        let key = queue(&edge, lease).await;
        Self { edge, lease, key }
    }

    async fn win(&self) -> (View, ElectOutcome) {
        let view = look(&self.edge, Some(self.lease)).await;
        let next = view.generation.value().map_or(0, |record| record.generation.0) + 1;
        let outcome = elect(&self.edge, &elect_txn(self.lease, &self.key, &view, next), stamp()).await;
        (look(&self.edge, Some(self.lease)).await, outcome)
    }
}

#[tokio::test]
async fn only_the_first_in_the_queue_is_elected_and_once() {
    let etcd = Etcd::start().await;
    let (a, b) = (Candidate::queued("a", &etcd).await, Candidate::queued("b", &etcd).await);
    assert_eq!(queue(&a.edge, a.lease).await, a.key, "queueing is idempotent");
    let view = look(&b.edge, Some(b.lease)).await;
    assert_eq!((view.queued, &view.ahead, &view.own), (2, &Some(a.key.clone()), &Some(b.key.clone())));
    let refused = elect(&b.edge, &elect_txn(b.lease, &b.key, &view, 1), stamp()).await;
    assert!(
        matches!(&refused, ElectOutcome::Refused { view, logged: true } if view.ahead == Some(a.key.clone())),
        "{refused:?}"
    );

    let txn = elect_txn(a.lease, &a.key, &view, 1);
    let first = stamp();
    let ElectOutcome::Won { header, record, queue } = elect(&a.edge, &txn, first).await else { panic!("not won") };
    assert_eq!((record.generation, record.term, record.cause), (Generation(1), 3, Cause::Elected));
    assert_eq!(queue.iter().map(|e| e.key.clone()).collect::<Vec<_>>(), [a.key.clone(), b.key.clone()]);
    assert_eq!(queue[0].candidate.as_ref().map(|c| (c.id.as_str(), c.priority, c.term)), Some(("a", 5, 3)));

    // The very same copy again is what a second try of a hedged call meets.
    let ElectOutcome::Won { header: again, .. } = elect(&a.edge, &txn, first).await else { panic!("not recognised") };
    assert_eq!(again.revision, header.revision, "the commit's revision, not the answer's");
    // Somebody else's record, even of the same generation, is not ours.
    let other = elect(&a.edge, &txn, stamp()).await;
    assert!(
        matches!(&other, ElectOutcome::Refused { view, .. } if view.generation.value() == Some(&record)),
        "{other:?}"
    );

    let value = etcd.ctl(&["get", "--print-value-only", &format!("/tenure/elections/orders/{}", a.lease)]).await;
    assert!(value.contains(r#""generation":1"#), "the recipe's listeners see the token: {value}");
    let history = a.edge.history(E, 10, None).await.expect("history");
    assert_eq!(history, [(record, header.revision)]);
}

/// Goal: every condition of the elect transaction reaches etcd.
/// Method: each alone is wrong, and all others right; then all are right. (Who is first: the test above.)
#[tokio::test]
async fn an_election_on_any_outdated_knowledge_is_refused() {
    let etcd = Etcd::start().await;
    let a = Candidate::queued("a", &etcd).await;
    etcd.ctl(&["put", "/tenure/control/orders", r#"{"paused":false}"#]).await;
    let view = look(&a.edge, Some(a.lease)).await;
    let right = elect_txn(a.lease, &a.key, &view, 1);
    let other = |revision: Revision| Revision(revision.0 + 1);
    for (what, wrong) in [
        ("own key", ElectTxn { created: other(right.created), ..right.clone() }),
        ("generation", ElectTxn { generation_modified: other(right.generation_modified), ..right.clone() }),
        ("control", ElectTxn { control_modified: other(right.control_modified), ..right.clone() }),
    ] {
        let outcome = elect(&a.edge, &wrong, stamp()).await;
        assert!(matches!(outcome, ElectOutcome::Refused { .. }), "{what}: {outcome:?}");
    }
    assert!(matches!(elect(&a.edge, &right, stamp()).await, ElectOutcome::Won { .. }));
}

#[tokio::test]
async fn a_hand_over_names_the_successor_in_one_commit_and_is_recognised_when_repeated() {
    let etcd = Etcd::start().await;
    let [a, b, c] =
        [Candidate::queued("a", &etcd).await, Candidate::queued("b", &etcd).await, Candidate::queued("c", &etcd).await];
    let (view, _) = a.win().await;
    let txn =
        HandOverTxn { key: a.key.clone(), successor: Some(succession(&view, &view.queue[2], vec![b.key.clone()])) };
    let at = stamp();
    let HandOverOutcome::Done { header, record: Some(record) } = hand_over(&a.edge, &txn, at).await else {
        panic!("not handed over")
    };
    assert_eq!((record.generation, record.cause, record.term), (Generation(2), Cause::HandedOver, 4));
    let repeated = hand_over(&a.edge, &txn, at).await;
    assert!(matches!(&repeated, HandOverOutcome::Done { header: h, .. } if h.revision == header.revision));

    let view = look(&c.edge, Some(c.lease)).await;
    assert_eq!(view.queue.iter().map(|e| &e.key).collect::<Vec<_>>(), [&c.key], "a left, b was skipped");
    assert_eq!(view.queue[0].lease, c.lease.0, "the successor's key still ends with its lease");
    assert_eq!(view.generation, Cell::Valid { value: record, modified: header.revision });

    // b queues again; c leaves without a successor named, then a stale hand-over of c finds nothing.
    queue(&b.edge, b.lease).await;
    let leave = HandOverTxn { key: c.key.clone(), successor: None };
    assert!(matches!(hand_over(&c.edge, &leave, stamp()).await, HandOverOutcome::Done { record: None, .. }));
    assert_eq!(hand_over(&c.edge, &leave, stamp()).await, HandOverOutcome::Refused);
    let view = look(&b.edge, Some(b.lease)).await;
    let stale = HandOverTxn { key: c.key.clone(), successor: Some(succession(&view, &view.queue[0], vec![])) };
    assert_eq!(hand_over(&c.edge, &stale, stamp()).await, HandOverOutcome::Refused);

    b.edge.trim_history(E, &look(&b.edge, Some(b.lease)).await.own.expect("queued"), 1).await.expect("trim");
    let left = b.edge.history(E, 10, None).await.expect("history");
    assert_eq!(left.iter().map(|(r, _)| r.generation.0).collect::<Vec<_>>(), [2]);
    assert!(b.edge.trim_history(E, &b.key, 0).await.is_err(), "b's earlier key is gone, so it trims no more");
}

/// Goal: whoever paused the election before a hand-over committed finds that nobody was named.
/// Method: the transaction of a leader that has not heard of the pause, of one that has been resumed since, and the right one.
#[tokio::test]
async fn a_hand_over_that_a_pause_overtook_names_nobody() {
    let etcd = Etcd::start().await;
    let [a, b] = [Candidate::queued("a", &etcd).await, Candidate::queued("b", &etcd).await];
    let (view, _) = a.win().await;
    let to_b = |view: &View| HandOverTxn {
        key: a.key.clone(),
        successor: Some(succession(view, view.queue.last().expect("b is queued"), vec![])),
    };
    let before = look(&a.edge, Some(a.lease)).await;
    for paused in [true, false] {
        etcd.ctl(&["put", "/tenure/control/orders", &format!(r#"{{"paused":{paused}}}"#)]).await;
        assert_eq!(hand_over(&a.edge, &to_b(&before), stamp()).await, HandOverOutcome::Refused, "paused: {paused}");
        let after = look(&a.edge, Some(a.lease)).await;
        assert_eq!(after.generation.modified(), before.generation.modified(), "nobody was named");
        assert_eq!(after.own, Some(a.key.clone()), "and the own key stands");
    }
    assert!(view.queue.iter().any(|entry| entry.key == b.key));
    let now = look(&a.edge, Some(a.lease)).await;
    assert!(matches!(hand_over(&a.edge, &to_b(&now), stamp()).await, HandOverOutcome::Done { record: Some(_), .. }));
}

#[tokio::test]
async fn a_second_copy_recognises_the_first_whose_answer_was_lost() {
    let etcd = Etcd::cluster(2).await;
    // Answers of one member get lost.
    let link = Link::to(etcd.member(0)).await;
    let a = Candidate::queued("a", &etcd).await;
    let (mut lossy, mut seed, mut hedged) = (edge("a", &link.endpoint()), 0, 0);
    assert!(lossy.read(E).await.is_ok());
    let view = look(&a.edge, Some(a.lease)).await;
    link.drop_server_to_client();
    let began = Instant::now();
    let unknown = elect(&lossy, &elect_txn(a.lease, &a.key, &view, 1), stamp()).await;
    assert_eq!(unknown, ElectOutcome::Unknown, "no answer proves nothing");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    let view = eventually("the lost copy to show", async || {
        let view = look(&a.edge, Some(a.lease)).await;
        view.generation.value().is_some().then_some(view)
    })
    .await;
    assert_eq!(view.generation.value().expect("a record").generation, Generation(1));
    link.heal();

    // The same with a healthy second way, asked after the hedge delay; seeds choose where a call begins.
    for generation in 2..6 {
        let both = vec![link.endpoint(), etcd.member(1).endpoint()];
        seed += 1;
        lossy = edge_with("a", &config(&both), seed).0;
        let view = look(&lossy, Some(a.lease)).await;
        link.drop_server_to_client();
        let txn = elect_txn(a.lease, &a.key, &view, generation);
        let began = Instant::now();
        let outcome = elect(&lossy, &txn, stamp()).await;
        hedged += usize::from(began.elapsed() >= Duration::from_millis(200));
        assert!(
            matches!(&outcome, ElectOutcome::Won { record, .. } if record.generation.0 == generation),
            "{outcome:?}"
        );
        link.heal();
    }
    assert!(hedged > 0, "some call began at the way that loses answers");
}

#[tokio::test]
async fn foreign_and_corrupt_values_are_seen_for_what_they_are() {
    let etcd = Etcd::start().await;
    etcd.ctl(&["put", "/tenure/elections/orders/foreign", "some proposal"]).await;
    let a = Candidate::queued("a", &etcd).await;
    let forged = format!("/tenure/elections/orders/{:x}", 0x1234);
    etcd.ctl(&["put", &forged, r#"{"id":"x","url":"","term":0,"priority":0,"version":"1"}"#]).await;
    let view = look(&a.edge, Some(a.lease)).await;
    let kinds: Vec<_> =
        view.queue.iter().map(|e| (e.key.suffix.as_str(), e.candidate.is_some(), e.lease != 0)).collect();
    let own = a.lease.to_string();
    assert_eq!(kinds, [("foreign", false, false), (own.as_str(), true, true), ("1234", false, false)]);
    assert_eq!(view.ahead.expect("the foreign one").suffix, "foreign");

    let big = format!(r#"{{"paused":false,"why":"{}"}}"#, "x".repeat(64 * 1024));
    for (control, corrupt) in [(r#"{"paused":true,"by":"me"}"#, false), ("{}", true), ("\u{1}", true), (&big, true)] {
        etcd.ctl(&["put", "/tenure/control/orders", control]).await;
        let view = look(&a.edge, None).await;
        assert_eq!(matches!(view.control, Cell::Corrupt { modified } if modified.0 > 0), corrupt);
    }
    let max = format!(
        r#"{{"generation":{},"term":0,"holder":null,"url":"","key":"","created":0,"cause":"raised","elected_at":"2026-01-01T00:00:00.000Z","hlc":"2026-01-01T00:00:00.000Z+00000000"}}"#,
        i64::MAX
    );
    for value in ["", "null", "42", &max] {
        etcd.ctl(&["put", "/tenure/generations/orders", value]).await;
        assert!(matches!(look(&a.edge, None).await.generation, Cell::Corrupt { .. }), "{value}");
    }
    // A raise gets over a corrupt record, by its revision, and not down.
    let modified = look(&a.edge, None).await.generation.modified();
    let raise = async |at_least, modified| match a.edge.raise(E, Generation(at_least), modified, stamp()).await {
        Input::Election(E, ElectionInput::RaiseAnswered { raised }) => raised,
        other => panic!("{other:?}"),
    };
    assert!(!raise(57, Revision(1)).await);
    assert!(raise(57, modified).await);
    let view = look(&a.edge, None).await;
    assert_eq!(view.generation.value().map(|r| (r.generation.0, r.holder.is_none())), Some((57, true)));
    assert!(!raise(57, view.generation.modified()).await && !raise(5, view.generation.modified()).await);
}

#[tokio::test]
async fn a_place_behind_what_a_look_reads_is_still_known() {
    let etcd = Etcd::start().await;
    let a = edge("a", &etcd);
    let before = lease(&a).await;
    // Not by an etcdctl for each: on a busy machine that takes longer than the lease lives.
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.expect("a client");
    for n in 0..=QUEUE_LIMIT {
        client.put(format!("/tenure/elections/orders/z{n:03}"), "foreign", None).await.expect("put");
    }
    let own = queue(&a, before).await;
    let view = look(&a, Some(before)).await;
    assert_eq!((view.queue.len(), view.queued, view.own), (QUEUE_LIMIT, QUEUE_LIMIT + 2, Some(own)));
    assert_eq!(view.ahead.expect("one ahead").suffix, format!("z{QUEUE_LIMIT:03}"));
}

#[tokio::test]
async fn a_lease_that_is_gone_is_reported_as_such_everywhere() {
    let etcd = Etcd::start().await;
    let a = Candidate::queued("a", &etcd).await;
    let mut last = clock::now();
    for _ in 0..3 {
        let asked = clock::now();
        match a.edge.keep_alive(a.lease, ROUND, false).await {
            Input::Session(SessionInput::KeepAliveAnswered { ttl, header, .. }) => {
                assert!(ttl == TTL && header.sent_at >= asked && header.sent_at > last);
                last = header.sent_at;
            }
            other => panic!("{other:?}"),
        }
        let Input::Session(SessionInput::Confirmed { keys, header, .. }) =
            a.edge.confirm(a.lease, ROUND, &[E], None).await
        else {
            panic!("not confirmed")
        };
        assert!(keys[0].created == a.key.created && header.sent_at > last);
    }
    // Somebody puts our key by hand: it hangs on no lease then, so it is not ours, until it is queued again.
    let own = format!("/tenure/elections/orders/{}", a.lease);
    etcd.ctl(&["put", &own, "by hand"]).await;
    let confirmed = a.edge.confirm(a.lease, ROUND, &[E], None).await;
    assert!(matches!(&confirmed, Input::Session(SessionInput::Confirmed { keys, .. }) if keys[0].created.0 == 0));
    assert_eq!(look(&a.edge, Some(a.lease)).await.own, None);
    assert_eq!(queue(&a.edge, a.lease).await, a.key, "hung on the lease again, in its place");

    etcd.ctl(&["lease", "revoke", &a.lease.to_string()]).await;
    let gone = a.edge.keep_alive(a.lease, ROUND, false).await;
    assert!(
        matches!(&gone, Input::Session(SessionInput::KeepAliveAnswered { ttl, .. }) if ttl.is_zero()),
        "on the open stream: {gone:?}"
    );
    let unknown = Input::Session(SessionInput::LeaseUnknown { lease: a.lease });
    assert_eq!(a.edge.keep_alive(a.lease, ROUND, true).await, unknown, "on a fresh stream");
    assert_eq!(a.edge.queue(E, a.lease).await, unknown);
    assert_eq!(a.edge.revoke(a.lease).await, Input::Session(SessionInput::Revoked { lease: a.lease }));
}

/// Takes inputs until one is not expected any more.
async fn next(inputs: &mut mpsc::Receiver<Input>) -> ElectionInput {
    let input = tokio::time::timeout(Duration::from_secs(15), inputs.recv()).await.expect("an input in time");
    match input.expect("the watch runs") {
        Input::Election(E, input) => input,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_survives_compaction_and_restart_by_saying_that_it_broke() {
    let etcd = Etcd::start().await;
    let a = Candidate::queued("a", &etcd).await;
    let (edge, notes) = edge_with("w", &config(&etcd), 1);
    let (sink, mut inputs) = mpsc::channel(8);
    let watcher = edge.watch(sink);
    let plan = |view: &View, suffixes: &[&str]| WatchPlan {
        suffixes: suffixes.iter().map(|s| (*s).to_owned()).collect(),
        from: Revision(view.header.revision.0 + 1),
    };
    let old = look(&edge, None).await;
    let own = a.lease.to_string();
    watcher.plan(E, plan(&old, &[&own]));
    let (view, _) = a.win().await;
    let changed = next(&mut inputs).await;
    assert!(
        matches!(&changed, ElectionInput::GenerationChanged { cell, revision }
        if *cell == view.generation && *revision == view.generation.modified()),
        "{changed:?}"
    );

    // A plan that keeps a key, drops one, and takes one up.
    watcher.plan(E, plan(&view, &["other"]));
    etcd.ctl(&["put", "/tenure/elections/orders/other", "x"]).await;
    etcd.ctl(&["del", "/tenure/elections/orders/other"]).await;
    assert!(matches!(next(&mut inputs).await, ElectionInput::KeyDeleted { suffix, .. } if suffix == "other"));
    etcd.ctl(&["put", "/tenure/control/orders", r#"{"paused":true}"#]).await;
    assert!(matches!(next(&mut inputs).await, ElectionInput::ControlChanged { cell, .. }
        if cell.value().is_some_and(|c| c.paused)));

    let now = look(&edge, None).await;
    etcd.ctl(&["compact", &now.header.revision.to_string()]).await;
    watcher.plan(E, plan(&old, &["unseen"]));
    assert_eq!(next(&mut inputs).await, ElectionInput::WatchBroken, "a start that was compacted");
    assert_eq!(*notes.watches.lock().expect("notes"), ["compacted"]);

    watcher.plan(E, plan(&look(&edge, None).await, &[&own]));
    etcd.ctl(&["put", "/tenure/control/orders", "{}"]).await;
    assert!(matches!(next(&mut inputs).await, ElectionInput::ControlChanged { cell: Cell::Corrupt { .. }, .. }));
    etcd.restart().await;
    assert_eq!(next(&mut inputs).await, ElectionInput::WatchBroken, "the restart");
    let view = eventually("etcd to answer", async || edge.read(E).await.ok()).await;
    watcher.plan(E, plan(&view, &[&own]));
    etcd.ctl(&["del", &format!("/tenure/elections/orders/{own}")]).await;
    assert!(matches!(next(&mut inputs).await, ElectionInput::KeyDeleted { suffix, .. } if suffix == own));
    etcd.ctl(&["del", "/tenure/generations/orders"]).await;
    assert!(matches!(next(&mut inputs).await, ElectionInput::GenerationChanged { cell: Cell::Absent, .. }));

    edge.reset();
    assert_eq!(next(&mut inputs).await, ElectionInput::WatchBroken, "the reset");
    assert!(inputs.try_recv().is_err(), "each end was reported once");
    drop(watcher);
    assert!(inputs.recv().await.is_none(), "a dropped watcher ends its task");
}

#[tokio::test]
async fn a_quiet_watch_stays_and_one_that_hears_nothing_breaks() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    let (edge, notes) = edge_with("w", &config(&link.endpoint()), 1);
    let (sink, mut inputs) = mpsc::channel(8);
    let watcher = edge.watch(sink);
    let view = edge.read(E).await.expect("a view");
    let plan = WatchPlan { suffixes: vec!["x".into()], from: Revision(view.header.revision.0 + 1) };
    watcher.plan(E, plan.clone());
    // Three probes long: quiet, but alive. A length of time is the very subject here.
    tokio::time::sleep(TTL / 5 * 3).await;
    assert!(inputs.try_recv().is_err() && notes.watches.lock().expect("notes").is_empty());
    link.drop_server_to_client();
    let began = Instant::now();
    assert_eq!(next(&mut inputs).await, ElectionInput::WatchBroken);
    assert!(began.elapsed() < TTL / 5 + Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(*notes.watches.lock().expect("notes"), ["silent"]);
    // The next plan waits for a stream, and misses nothing.
    watcher.plan(E, plan);
    etcd.ctl(&["put", "/tenure/control/orders", r#"{"paused":true}"#]).await;
    link.heal();
    assert!(matches!(next(&mut inputs).await, ElectionInput::ControlChanged { .. }));
}
