//! A leader that must stop says so: at once where it is told, and no later than its guard where it is told nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, Etcd, Link, eventually};

/// Own-key deletions and revocations must show over HTTP within this time.
const OUT_OF_BAND: Duration = Duration::from_millis(100);

async fn leader(etcd: &Etcd) -> (Daemon, u64) {
    let daemon = Daemon::builder("pod-0", etcd).ttl("2s").start().await;
    let token = eventually("it leads", async || daemon.token().await).await;
    (daemon, token)
}

/// Waits for 503 and returns how long it took.
async fn until_refused(daemon: &Daemon, since: Instant) -> Duration {
    eventually("/leader says 503", async || daemon.leader_status().await == Some(503)).await;
    since.elapsed()
}

/// Goal: a leader whose key somebody deletes says so within 100 ms, and the next token is larger.
/// Method: `etcdctl del`, and polling. A candidate behind makes the refusal visible for good.
#[tokio::test]
async fn a_deleted_key_ends_leadership_within_100_ms() {
    let etcd = Etcd::start().await;
    let (daemon, old) = leader(&etcd).await;
    let other = Daemon::builder("pod-1", &etcd).ttl("2s").start().await;
    eventually("it is queued", async || Some(other.status().await?["role"] == "candidate").filter(|c| *c)).await;
    let lease = daemon.status().await.expect("a status")["session"]["lease"].as_str().expect("a lease").to_owned();
    etcd.ctl(&["del", &format!("/tenure/elections/orders/{lease}")]).await;
    let took = until_refused(&daemon, Instant::now()).await;
    assert!(took < OUT_OF_BAND, "{took:?}");
    let seen = daemon.transition("a step-down", |t| t["reason"] == "key_deleted").await;
    assert_eq!((seen["from"].as_str(), seen["to"].as_str()), (Some("leader"), Some("follower")));
    let new = eventually("the other leads", async || other.token().await).await;
    assert!(new > old, "tokens must grow: {old} then {new}");
}

/// Goal: the same for a revoked lease. A candidate behind makes the refusal visible for good.
#[tokio::test]
async fn a_revoked_lease_ends_leadership_within_100_ms() {
    let etcd = Etcd::start().await;
    let (daemon, old) = leader(&etcd).await;
    let other = Daemon::builder("pod-1", &etcd).ttl("2s").start().await;
    eventually("it is queued", async || Some(other.status().await?["role"] == "candidate").filter(|c| *c)).await;
    let lease = daemon.status().await.expect("a status")["session"]["lease"].as_str().expect("a lease").to_owned();
    etcd.ctl(&["lease", "revoke", &lease]).await;
    let took = until_refused(&daemon, Instant::now()).await;
    assert!(took < OUT_OF_BAND, "{took:?}");
    let new = eventually("the other leads", async || other.token().await).await;
    assert!(new > old, "tokens must grow: {old} then {new}");
}

/// Goal: a process that was stopped for twice its TTL says "not leader" to its very first request.
/// Method: SIGSTOP, with the request already waiting in its socket when SIGCONT comes.
#[tokio::test]
async fn the_first_answer_after_a_long_stop_is_not_leader() {
    let etcd = Etcd::start().await;
    let (daemon, _) = leader(&etcd).await;
    daemon.sigstop();
    // The signal is on its way until the kernel shows every thread as stopped.
    let stat = format!("/proc/{}/task", daemon.pid());
    eventually("every thread has stopped", async || {
        let mut threads = std::fs::read_dir(&stat).expect("a running process").map(|t| t.expect("a thread").path());
        threads.all(|t| std::fs::read_to_string(t.join("stat")).is_ok_and(|s| s.contains(") T ")))
    })
    .await;
    let stopped = Instant::now();
    let (leader, token) = tokio::join!(
        daemon.public().send_within(
            Duration::from_secs(10),
            crate::support::request(hyper::Method::GET, "/leader", hyper::body::Bytes::new())
        ),
        async {
            tokio::time::sleep_until((stopped + Duration::from_secs(4)).into()).await;
            daemon.sigcont();
            daemon.control().get("/token").await
        }
    );
    let leader = leader.expect("an answer");
    assert_eq!(leader.status, 503, "{}", leader.text());
    // A new term may have been won by then, never the old one.
    let token = token.expect("an answer");
    assert!(token.status == 503 || token.json()["token"] != 1, "{}", token.text());
}

/// Goal: a leader cut off from etcd says so before etcd lets anyone else win.
/// Method: black-hole (not close) its connection, so that only the guard can save us.
#[tokio::test]
async fn partitioned_leader_steps_down_before_its_successor_is_elected() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    let a = Daemon::builder("pod-a", &link).ttl("2s").start().await;
    let old = eventually("a leads", async || a.token().await).await;
    let b = Daemon::builder("pod-b", &etcd).ttl("2s").start().await;
    eventually("b is queued", async || Some(b.status().await?["role"] == "candidate").filter(|c| *c)).await;
    link.black_hole();
    let new = eventually("b leads", async || b.token().await).await;
    assert!(!a.is_leader().await);
    let (stepped_down, elected) = (a.stepped_down_at().await, b.elected_at().await);
    assert!(stepped_down < elected, "a stepped down at {stepped_down}, b was elected at {elected}");
    assert!(new > old, "tokens must grow: {old} then {new}");
    link.heal();
    eventually("a is queued again", async || Some(a.status().await?["role"] == "candidate").filter(|c| *c)).await;
}

/// Goal: a drain ends leadership at once, keeps the key, and hands over only at the signal or the application's word.
#[tokio::test]
async fn drained_leader_keeps_its_place_until_told() {
    let etcd = Etcd::start().await;
    let (daemon, _) = leader(&etcd).await;
    let other = Daemon::builder("pod-1", &etcd).ttl("2s").start().await;
    eventually("it is queued", async || Some(other.status().await?["role"] == "candidate").filter(|c| *c)).await;
    assert_eq!(daemon.post("/v1/drain", &json!({})).await.expect("an answer").status, 202);
    assert_eq!(daemon.leader_status().await, Some(503));
    assert_eq!(daemon.probe("/readyz").await, Some(503));
    assert_eq!(daemon.probe("/livez").await, Some(200));
    // Longer than its lease: the session goes on, so nobody else may lead.
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        assert!(!other.is_leader().await, "handed over before it was told");
    }
    assert_eq!(daemon.verb("drained", &json!({})).await.expect("an answer").status, 202);
    eventually("the other leads", async || other.is_leader().await).await;
    daemon.sigterm();
    assert!(daemon.wait_exit().await.success());
}

/// Goal: while a resign waits for a promise to run out, the daemon says that it is leaving: not ready, and no token.
#[tokio::test]
async fn a_resign_under_a_promise_says_that_it_is_leaving() {
    let etcd = Etcd::start().await;
    let (daemon, _) = leader(&etcd).await;
    let nothing = json!({});
    assert!(daemon.token().await.is_some(), "a promise of one second");
    let asked = Instant::now();
    let (resigned, ()) = tokio::join!(daemon.verb("resign", &nothing), async {
        eventually("it is not ready", async || daemon.probe("/readyz").await == Some(503)).await;
        let token = daemon.control().get("/token").await.expect("an answer");
        assert_eq!((token.status, token.json()["code"].clone()), (503, "draining".into()));
        assert_eq!(daemon.leader_status().await, Some(503));
    });
    assert_eq!(resigned.expect("an answer").status, 200);
    let took = asked.elapsed();
    assert!(took > Duration::from_millis(900), "it handed over within its promise: {took:?}");
    assert!(took < Duration::from_millis(1_300), "it handed over later than its promise asked for: {took:?}");
    eventually("it is ready again", async || daemon.probe("/readyz").await == Some(200)).await;
}
