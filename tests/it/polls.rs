//! Long polls: no change is missed between two of them, and none where a probe is.

use std::time::Duration;

use serde_json::Value;
use tenure::election::ids::Generation;
use tenure::election::role::{Reason, Role};
use tenure::snapshot::Snapshot;
use tokio::task::JoinHandle;

use crate::http_support::{Reply, Setup, Stage, ask, candidate, leader, starting};
use crate::support::eventually;

const LONG: Duration = Duration::from_secs(8);
const ORDERS: &str = "/v1/elections/orders";

fn version(reply: &Reply) -> u64 {
    reply.json()["version"].as_u64().unwrap_or_else(|| panic!("no version: {}", reply.body))
}

/// A poll that is known to wait: its answer is counted only when it ends, but its connection is open.
async fn poll(stage: &Stage, control: bool, path: &str) -> JoinHandle<Reply> {
    let (to, path) = (if control { stage.control } else { stage.public }, path.to_owned());
    let polling = tokio::spawn(async move { ask(to, "GET", &path, "", b"").await });
    // One round of another request: the runtime has turned meanwhile.
    for _ in 0..20 {
        assert_eq!(stage.get("/livez").await.status, 200);
    }
    assert!(!polling.is_finished());
    polling
}

/// A change that was published and taken back before the poll came, or while it was being woken.
fn there_and_back(stage: &Stage) {
    let mut away = candidate();
    (away.elections[0].role, away.elections[0].reason) = (Role::Follower, Reason::LeaseLost);
    stage.publisher.publish(away);
    stage.publisher.publish(candidate());
}

#[tokio::test]
async fn a_change_between_two_polls_is_not_missed_though_it_was_taken_back() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    let known = version(&stage.get(ORDERS).await);
    let path = format!("{ORDERS}?wait=50ms&version={known}");
    assert_eq!(stage.get(&path).await.status, 304, "nothing changed");
    assert_eq!(version(&stage.get(ORDERS).await), known, "reading changes nothing");
    there_and_back(&stage);
    let path = format!("{ORDERS}?wait=10s&version={known}");
    let next = stage.get(&path).await;
    assert!(version(&next) > known, "same role, same generation, and yet");
    let waiting = poll(&stage, false, &format!("{ORDERS}?wait=10s&version={}", version(&next))).await;
    there_and_back(&stage);
    assert!(version(&waiting.await.expect("no panic")) > version(&next));
}

#[tokio::test]
async fn a_guard_that_passes_and_an_etcd_that_falls_silent_are_changes_too() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(Duration::from_millis(1_500)));
    let first = stage.get(ORDERS).await;
    assert_eq!(first.json()["token"], 42);
    let lapsed = stage.get(&format!("{ORDERS}?wait=10s&version={}", version(&first))).await;
    assert_eq!((&lapsed.json()["role"], &lapsed.json()["token"]), (&"follower".into(), &Value::Null));
    assert!(version(&lapsed) > version(&first));
    // Heard last almost two TTLs ago: soon nobody knows who leads.
    let mut silent = candidate();
    silent.etcd_seen = Some(tenure::clock::now().before(Duration::from_millis(18_500)));
    stage.publisher.publish(silent);
    let known = stage.get(ORDERS).await;
    assert_eq!(known.json()["leader"]["id"], "pod-1");
    let unknown = stage.get(&format!("{ORDERS}?wait=10s&version={}", version(&known))).await;
    assert_eq!((&unknown.json()["leader"], &unknown.json()["name"]), (&Value::Null, &"".into()));
    stage.publisher.publish(candidate());
    assert!(version(&stage.get(ORDERS).await) >= version(&unknown));
}

#[tokio::test]
async fn another_elections_change_wakes_nobody_and_a_wrong_version_is_answered_at_once() {
    let stage = Stage::start(Setup::default()).await;
    // One moment for both: a candidate made anew would see a leader of another time.
    let mut other = candidate();
    stage.publisher.publish(other.clone());
    let known = version(&stage.get(ORDERS).await);
    other.elections[1].paused = true;
    stage.publisher.publish(other);
    assert_eq!(stage.get(&format!("{ORDERS}?wait=50ms&version={known}")).await.status, 304);
    for other in [known - 1, known + 1, 0] {
        assert_eq!(stage.get(&format!("{ORDERS}?wait=10s&version={other}")).await.status, 200, "{other}");
    }
    for bad in ["version=x", "version=-1", "wait=5&version=1"] {
        assert_eq!(stage.get(&format!("{ORDERS}?{bad}")).await.code(), "malformed", "{bad}");
    }
}

#[tokio::test]
async fn after_a_generation_ends_with_a_higher_one_or_with_another_role() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    assert_eq!(stage.get(&format!("{ORDERS}?wait=10s&after=40")).await.status, 200, "passed already");
    let waiting = poll(&stage, false, &format!("{ORDERS}?wait=10s&after=41")).await;
    let mut follower = candidate();
    follower.elections[0].role = Role::Follower;
    stage.publisher.publish(follower);
    assert_eq!(waiting.await.expect("no panic").json()["role"], "follower");
    let waiting = poll(&stage, false, &format!("{ORDERS}?wait=10s&after=41")).await;
    let mut newer = candidate();
    (newer.elections[0].role, newer.elections[0].observed) = (Role::Follower, Generation(43));
    stage.publisher.publish(newer);
    assert_eq!(waiting.await.expect("no panic").json()["generation"], 43);
}

#[tokio::test]
async fn a_token_may_be_waited_for() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    let refused = stage.control("GET", "/token?wait=30ms", "").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "not_leader"));
    assert_eq!(stage.control("GET", "/token?wait=30", "").await.code(), "malformed");
    for path in ["/token?wait=30s", "/v1/elections/orders/token?wait=30s"] {
        stage.publisher.publish(candidate());
        let waiting = poll(&stage, true, path).await;
        stage.publisher.publish(leader(LONG));
        let granted = waiting.await.expect("no panic");
        assert_eq!((granted.status, &granted.json()["token"]), (200, &42.into()), "{path}");
        assert!(granted.json()["valid_for_ms"].as_u64().is_some_and(|ms| (1..=1_000).contains(&ms)), "{path}");
    }
}

#[tokio::test]
async fn a_probe_is_never_waited_for() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(LONG));
    let probes =
        ["/livez", "/readyz", "/startupz", "/leader", "/primary", "/read-write", "/follower", "/replica", "/health"];
    for probe in probes {
        for query in ["wait=30s", "wait", "wait=x", "verbose&wait=1ms"] {
            let reply = stage.get(&format!("{probe}?{query}")).await;
            assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{probe}?{query}");
        }
    }
    assert_eq!(stage.get("/gate?wait=30s").await.status, 200, "that query is the proxied client's");
}

#[tokio::test]
async fn a_token_is_nobodys_but_the_leaders() {
    let stage = Stage::start(Setup::default()).await;
    let draining = Snapshot { draining: true, ..leader(LONG) };
    for (what, snapshot, token) in [
        ("starting", starting(), Value::Null),
        ("candidate", candidate(), Value::Null),
        ("leader", leader(LONG), 42.into()),
        ("lapsed", leader(Duration::ZERO), Value::Null),
        ("draining", draining, Value::Null),
    ] {
        stage.publisher.publish(snapshot);
        for path in [ORDERS, "/leader", "/follower", "/health", "/"] {
            assert_eq!(stage.get(path).await.json()["token"], token, "{what}: {path}");
        }
        assert_eq!(stage.get("/v1/elections").await.json()["elections"][0]["token"], token, "{what}");
    }
    // A promise outlives the leadership that gave it, and shows.
    stage.publisher.publish(leader(LONG));
    assert_eq!(stage.control("GET", "/token", "").await.status, 200);
    stage.publisher.publish(candidate());
    assert!(stage.get(ORDERS).await.json()["promised_ms"].as_u64().is_some_and(|ms| ms > 0));
    eventually("it runs out", async || stage.get(ORDERS).await.json()["promised_ms"] == 0).await;
}
