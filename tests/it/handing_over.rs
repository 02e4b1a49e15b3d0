//! How fast leadership moves, and that promises hold while it does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, EventType, WatchOptions};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Daemon, Etcd, eventually};

/// Rounds of each measurement; `TENURE_TEST_LONG=1` makes figures worth quoting.
fn rounds(short: usize, longer: usize) -> usize {
    if long() { longer } else { short }
}

fn long() -> bool {
    std::env::var_os("TENURE_TEST_LONG").is_some()
}

/// Prints and returns the median and the 99th percentile.
fn percentiles(what: &str, mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    let at = |p: usize| took[(took.len() - 1) * p / 100];
    println!("{what}: p50 {:?}, p99 {:?}, n = {}", at(50), at(99), took.len());
    (at(50), at(99))
}

async fn three(etcd: &Etcd) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for n in 0..3 {
        daemons.push(Daemon::builder(&format!("pod-{n}"), etcd).ttl("2s").start().await);
    }
    daemons
}

/// The one that leads with a generation above `past`, and that generation.
async fn leader_past(daemons: &[Daemon], past: u64) -> (usize, u64) {
    eventually("somebody leads", async || {
        for (n, daemon) in daemons.iter().enumerate() {
            let answer = daemon.get("/leader").await.ok();
            if let Some(generation) = answer.filter(|a| a.status == 200).and_then(|a| a.json()["generation"].as_u64())
                && generation > past
            {
                return Some((n, generation));
            }
        }
        None
    })
    .await
}

/// A change that etcd committed: a generation, or the end of a candidate's key; and when we heard of it.
struct Change {
    deleted: bool,
    at: Instant,
}

/// Watches everything under the prefix.
async fn changes(etcd: &Etcd) -> mpsc::UnboundedReceiver<Change> {
    let mut client = Client::connect([etcd.endpoint()], None).await.expect("a client");
    let mut watch = client.watch("/tenure/", Some(WatchOptions::new().with_prefix())).await.expect("a watch");
    #[allow(clippy::disallowed_methods, reason = "a test's own record, read at its end")]
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let _client = client;
        while let Ok(Some(message)) = watch.message().await {
            let at = Instant::now();
            for event in message.events() {
                let key = event.kv().and_then(|kv| kv.key_str().ok()).unwrap_or_default();
                let deleted = event.event_type() == EventType::Delete && key.starts_with("/tenure/elections/");
                if (deleted || key.starts_with("/tenure/generations/")) && sender.send(Change { deleted, at }).is_err()
                {
                    return;
                }
            }
        }
    });
    receiver
}

/// Goal: after kill -9 the successor's generation commits within 20 ms (median) of etcd deleting the key.
/// Method: one watch sees both commits. `make figures` holds a release build to the figure.
#[tokio::test]
async fn after_a_crash_the_successor_commits_within_20_ms_of_the_expiry() {
    let etcd = Etcd::start().await;
    let mut daemons = three(&etcd).await;
    let mut took = Vec::new();
    let mut past = 0;
    for _ in 0..rounds(4, 40) {
        let (leader, generation) = leader_past(&daemons, past).await;
        // The next must be queued, or there is nobody to be measured.
        let next = &daemons[(leader + 1) % daemons.len()];
        eventually("the others are queued", async || Some(next.status().await?["role"] == "candidate").filter(|c| *c))
            .await;
        let mut changes = changes(&etcd).await;
        daemons[leader].sigkill();
        let gone = loop {
            let change = changes.recv().await.expect("the watch goes on");
            if change.deleted {
                break change.at;
            }
        };
        let committed = changes.recv().await.expect("the watch goes on");
        assert!(!committed.deleted, "the generation follows the deletion");
        took.push(committed.at - gone);
        past = generation;
        let id = daemons[leader].id().to_owned();
        daemons[leader] = Daemon::builder(&id, &etcd).ttl("2s").start().await;
    }
    let (p50, _) = percentiles("key deleted -> next generation committed", took);
    // The short form shares two cores with other tests, in a debug build: it shows a lost wake-up, not a figure.
    let limit = Duration::from_millis(if long() { 20 } else { 80 });
    assert!(p50 < limit, "{p50:?}");
}

/// Goal: with no promise outstanding, a resign moves leadership within one look at the queue, one commit and one watch delivery.
/// Method: a long poll at every daemon sees the change; timed from sending `resign` to the answer of the one that leads, so that
/// two HTTP exchanges and the reading of the queue are in the figures, which are printed.
#[tokio::test]
async fn a_graceful_resign_without_promises_takes_a_look_a_commit_and_a_delivery() {
    let etcd = Etcd::start().await;
    let daemons = three(&etcd).await;
    let mut took = Vec::new();
    let (mut leader, mut generation) = leader_past(&daemons, 0).await;
    for _ in 0..rounds(20, 200) {
        let queued = async || {
            for (n, daemon) in daemons.iter().enumerate() {
                if n != leader && daemon.status().await?["role"] != "candidate" {
                    return None;
                }
            }
            Some(())
        };
        eventually("the others are queued", queued).await;
        let (nothing, start) = (json!({}), Instant::now());
        let polls = daemons.iter().enumerate().map(async |(n, daemon)| {
            let path = format!("/v1/elections/orders?wait=10s&after={generation}");
            let document = daemon.get(&path).await.expect("an answer").json();
            (document["role"] == "leader").then(|| (n, document["generation"].as_u64(), start.elapsed()))
        });
        let (answer, seen) = tokio::join!(daemons[leader].verb("resign", &nothing), join_all(polls));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (next, newest, after) = seen.into_iter().flatten().next().expect("somebody leads");
        assert_eq!(answer.json()["leader"]["generation"].as_u64(), newest, "the answer names the new leader");
        took.push(after);
        (leader, generation) = (next, newest.expect("a generation"));
    }
    let (p50, _) = percentiles("resign sent -> successor says 200", took);
    assert!(p50 < Duration::from_millis(50), "{p50:?}");
}

/// Goal: two applications never hold a live promise at once.
/// Method: one poller a daemon asks for tokens as fast as it can across resigns; overlaps are judged by the callers' clock,
/// a promise counting from when its request was *sent*.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_never_overlap_across_resigns() {
    let etcd = Etcd::start().await;
    let daemons: &'static [Daemon] = three(&etcd).await.leak();
    let over: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let given: &'static AtomicUsize = Box::leak(Box::default());
    let pollers: Vec<_> = daemons.iter().map(|daemon| tokio::spawn(poll(daemon, given, over))).collect();
    let (mut leader, mut generation) = leader_past(daemons, 0).await;
    for _ in 0..rounds(12, 50) {
        // Each leader gives many promises, however busy the machine is.
        let before = given.load(Ordering::Relaxed);
        eventually("promises", async || given.load(Ordering::Relaxed) >= before + 30).await;
        let answer = daemons[leader].verb("resign", &json!({})).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        (leader, generation) = leader_past(daemons, generation).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut promises = Vec::new();
    for poller in pollers {
        promises.extend(poller.await.expect("a poller"));
    }
    for daemon in daemons {
        daemon.sigkill();
    }
    promises.sort_by_key(|p| p.from);
    println!("{} promises, {} generations", promises.len(), generation);
    let mut last: Option<Promise> = None;
    for promise in promises {
        if let Some(last) = last.filter(|l| l.daemon != promise.daemon) {
            let early = last.until.saturating_duration_since(promise.from);
            assert!(early.is_zero(), "{last:?} overlaps {promise:?} by {early:?}");
            assert!(promise.token > last.token, "tokens must grow: {last:?}, {promise:?}");
        }
        if last.is_none_or(|l| promise.until > l.until || l.daemon != promise.daemon) {
            last = Some(promise);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    daemon: u32,
    token: u64,
    /// When the answer was there to act on.
    from: Instant,
    until: Instant,
}

async fn poll(daemon: &Daemon, given: &AtomicUsize, over: &AtomicBool) -> Vec<Promise> {
    let mut promises = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let Ok(answer) = daemon.control().get("/token").await else { continue };
        if answer.status == 200 {
            let body = answer.json();
            let valid = Duration::from_millis(body["valid_for_ms"].as_u64().expect("a length"));
            let token = body["token"].as_u64().expect("a token");
            given.fetch_add(1, Ordering::Relaxed);
            promises.push(Promise { daemon: daemon.pid(), token, from: Instant::now(), until: sent + valid });
        }
    }
    promises
}
