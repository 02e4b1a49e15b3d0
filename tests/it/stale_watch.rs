//! A member of etcd that answers and applies nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::support::{Daemon, Etcd, eventually, eventually_within};

/// Which members have watchers of this kind of client: etcd's own count.
async fn watchers(etcd: &Etcd, member: usize) -> f64 {
    let text = etcd.member(member).status("/metrics").await.expect("a member answers");
    let line = text.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
    line.expect("etcd counts its watchers").parse().expect("a number")
}

/// Goal: fail-over keeps its bound though the candidate's watch is on a member that answers and applies nothing.
/// Method: three members; the leader's daemon knows only etcd's leader, the candidate's knows all. The follower that holds the
/// candidate's watch gets no entries from then on, but hears its leader. A write passes; the watch leaves. Then the leading
/// daemon is killed. (With the candidate's watch on etcd's own leader, etcd's leadership moves first.)
#[tokio::test]
async fn a_watch_leaves_a_member_that_answers_and_applies_nothing() {
    let etcd = Etcd::builder().members(3).starvable().start().await;
    let b = Daemon::builder("b", &etcd).start().await;
    eventually("b leads, alone", async || b.is_leader().await).await;
    // The only watchers there are, are its own.
    let stuck_on = eventually("its watch is somewhere", async || {
        for member in 0..3 {
            if watchers(&etcd, member).await > 0.0 {
                return Some(member);
            }
        }
        None
    })
    .await;
    etcd.depose(stuck_on).await;
    let chief = etcd.leader_index().await;
    let a = Daemon::builder("a", etcd.member(chief)).start().await;
    eventually("a is queued", async || a.is_queued().await).await;
    b.resign().await;
    eventually("a leads", async || a.is_leader().await).await;
    eventually("b is queued", async || b.is_queued().await).await;
    assert!(watchers(&etcd, stuck_on).await > 0.0, "the watch of b stayed where it was");

    etcd.starve(Some(stuck_on)).await;
    etcd.ctl_through(chief, &["put", "/elsewhere", "x"]).await;
    let stuck = etcd.ctl_through(stuck_on, &["get", "--consistency=s", "/elsewhere"]).await;
    assert_eq!(stuck.trim(), "", "the starved member applies nothing");
    eventually_within("the watch leaves it", Duration::from_secs(20), async || {
        b.metric("watch_restarts_total", &["\"stale\""]).await > 0.0
    })
    .await;
    assert!(b.logs().contains("is stale: at revision"), "{}", b.logs());
    a.sigkill();
    let began = Instant::now();
    while !b.is_leader().await {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody leads");
        sleep(Duration::from_millis(20)).await;
    }
    // 5 s of TTL and 0.5 s of etcd's overshoot are promised; the rest is a commit on a busy machine.
    assert!(began.elapsed() < Duration::from_millis(7_500), "fail-over took {:?}", began.elapsed());
    assert!(b.metric("watch_restarts_total", &["\"stale\""]).await < 1.5, "it did not come back to it");
    assert_eq!(b.verb("resign", &json!({})).await.expect("an answer").status, 200);
    etcd.starve(None).await;
}
