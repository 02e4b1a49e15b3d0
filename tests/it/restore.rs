//! etcd's history goes backwards, and the tokens do not.

use crate::support::{Daemon, Etcd, Link, eventually, leader_above, leader_of, scratch};

/// Hand-overs before the disaster: enough that no new history reaches the revisions of the old one by itself.
const CHANGES: usize = 8;

async fn two(etcd: &Etcd) -> Vec<Daemon> {
    vec![Daemon::builder("a", etcd).start().await, Daemon::builder("b", etcd).start().await]
}

/// Hands over again and again; the one that leads in the end, and with what.
async fn many_changes(daemons: &[Daemon]) -> (usize, u64) {
    let (mut leader, mut generation) = leader_of(daemons).await;
    for _ in 0..CHANGES {
        daemons[leader].resign().await;
        (leader, generation) = leader_above(daemons, generation).await;
    }
    (leader, generation)
}

/// What has to be so after history was rewound: everybody noticed, the old leader left, and the next token is larger.
async fn tokens_grew(daemons: &[Daemon], old: usize, last: u64) {
    let down = daemons[old].transition("the old leader steps down", |t| t["old_generation"] == last).await;
    assert_eq!((&down["from"], &down["to"]), (&"leader".into(), &"follower".into()), "{down}");
    // Its guard may pass first if etcd was away for long, and a wiped etcd may say first that it knows no such lease.
    assert!(["history_rewound", "guard_expired", "lease_lost"].iter().any(|r| down["reason"] == *r), "{down}");
    let (leader, next) = leader_above(daemons, last).await;
    for daemon in daemons {
        eventually("it was noticed and counted", async || {
            daemon.metric("store_identity_changes_total", &[]).await >= 1.0
        })
        .await;
        assert!(
            ["history went backwards", "generation of this election went back"]
                .iter()
                .any(|t| daemon.logs().contains(t)),
            "{}",
            daemon.logs()
        );
    }
    let status = daemons[leader].status().await.expect("a status");
    assert_eq!(status["generation"], next, "{status}");
    for daemon in daemons {
        eventually("all know the new leader", async || {
            let status = daemon.status().await.expect("a status");
            if status["leader"]["generation"] == next { Ok(()) } else { Err(status) }
        })
        .await;
    }
    eventually("nobody else is in the queue", async || {
        let queue = daemons[leader].candidates().await;
        if queue.len() == daemons.len() { Ok(()) } else { Err(queue) }
    })
    .await;
}

/// Goal: after a restore from an older snapshot the next generation is larger than every earlier one.
/// Method: the snapshot is from the first generation, and brings that leader's key back as well.
#[tokio::test]
async fn tokens_grow_across_a_restore_from_an_older_snapshot() {
    let etcd = Etcd::start().await;
    let daemons = two(&etcd).await;
    leader_of(&daemons).await;
    let dir = scratch("snapshot");
    let snapshot = dir.path().join("db");
    etcd.snapshot_save(&snapshot).await;
    let (old, last) = many_changes(&daemons).await;
    etcd.restore_and_restart(&snapshot).await;
    tokens_grew(&daemons, old, last).await;
}

/// Goal: the same where the operator bumped the revision, so that revisions give nothing away.
/// Method: `--bump-revision`; only the generation shows that history is another one.
#[tokio::test]
async fn tokens_grow_across_a_restore_with_a_bumped_revision() {
    let etcd = Etcd::start().await;
    if etcd.version() == "3.4" {
        println!("not shown on etcd 3.4.23: it cannot bump revisions (from 3.4.27 on)");
        return;
    }
    let daemons = two(&etcd).await;
    leader_of(&daemons).await;
    let dir = scratch("snapshot");
    let snapshot = dir.path().join("db");
    etcd.snapshot_save(&snapshot).await;
    let (old, last) = many_changes(&daemons).await;
    etcd.restore_with(&snapshot, &["--bump-revision", "1000000", "--mark-compacted"]).await;
    tokens_grew(&daemons, old, last).await;
}

/// Goal: the same where nothing at all is left of etcd's data.
/// Method: `rm -r` of the data directory; etcd comes back with the same `cluster_id`.
#[tokio::test]
async fn tokens_grow_across_a_wiped_etcd() {
    let mut etcd = Etcd::start().await;
    let daemons = two(&etcd).await;
    let (old, last) = many_changes(&daemons).await;
    etcd.wipe_and_restart().await;
    tokens_grew(&daemons, old, last).await;
}

/// Goal: one survivor is enough, even one that was cut off and wakes up late.
/// Method: of two daemons that knew, one is dead; the other is cut off while a newcomer is elected in the wiped etcd.
#[tokio::test]
async fn one_survivor_is_enough_for_tokens_to_grow() {
    let mut etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    let survivor = Daemon::builder("survivor", &link).ttl("2s").start().await;
    let daemons = [Daemon::builder("dead", &etcd).ttl("2s").start().await, survivor];
    let (_, last) = many_changes(&daemons).await;
    let [dead, survivor] = daemons;
    dead.sigkill();
    link.black_hole();
    etcd.wipe_and_restart().await;
    let newcomer = Daemon::builder("newcomer", &etcd).ttl("2s").start().await;
    let daemons = [newcomer, survivor];
    let (_, reused) = leader_of(&daemons[..1]).await;
    assert!(reused < last, "a fresh daemon cannot know");
    link.reset();
    link.heal();
    leader_above(&daemons, last).await;
    let first = daemons[0].transition("the newcomer steps down", |t| t["old_generation"] == reused).await;
    assert_eq!(first["reason"], "superseded", "{first}");
}

/// Goal: with `state_dir` the tokens grow even when every daemon was restarted meanwhile.
/// Method: stop all, wipe etcd, start all with the directories that they had.
#[tokio::test]
async fn state_dir_makes_tokens_grow_when_all_were_restarted_meanwhile() {
    let mut etcd = Etcd::start().await;
    let dirs = [scratch("state"), scratch("state")];
    let mut daemons = Vec::new();
    for (id, dir) in ["a", "b"].iter().zip(&dirs) {
        daemons.push(Daemon::builder(id, &etcd).ttl("2s").state_dir(dir.path()).start().await);
    }
    let (_, last) = many_changes(&daemons).await;
    for daemon in &daemons {
        daemon.sigterm();
    }
    for daemon in daemons {
        assert!(daemon.wait_exit().await.success());
    }
    etcd.wipe_and_restart().await;
    let mut daemons = Vec::new();
    for (id, dir) in ["a", "b"].iter().zip(&dirs) {
        daemons.push(Daemon::builder(id, &etcd).ttl("2s").state_dir(dir.path()).start().await);
    }
    let (_, next) = leader_of(&daemons).await;
    assert!(next > last, "tokens must grow: {last} then {next}");
    let mut noticed = 0.0;
    for daemon in &daemons {
        noticed += daemon.metric("store_identity_changes_total", &[]).await;
    }
    assert!(noticed >= 1.0, "the first answer showed it to one of them at least");
}
