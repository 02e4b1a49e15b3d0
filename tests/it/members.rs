//! One member of three hangs without closing anything.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{Daemon, Etcd, eventually, leader_of, leads_through, long_or};

/// Three candidates on three members, and who leads.
async fn three(etcd: &Etcd) -> (Vec<Daemon>, usize) {
    let mut daemons = Vec::new();
    for _ in 0..3 {
        daemons.push(Daemon::start(etcd).await);
    }
    let (leader, _) = leader_of(&daemons).await;
    for (index, daemon) in daemons.iter().enumerate() {
        eventually("the others are queued", async || index == leader || daemon.is_queued().await).await;
    }
    (daemons, leader)
}

async fn logs_of_transitions(daemons: &[Daemon]) -> Vec<usize> {
    let mut lengths = Vec::new();
    for daemon in daemons {
        lengths.push(daemon.transitions().await.len());
    }
    lengths
}

/// Renewals that took longer than an etcd on loopback takes, and watches that were found silent.
async fn stumbles(daemons: &[Daemon]) -> f64 {
    let mut stumbles = 0.0;
    for daemon in daemons {
        let (all, quick) = ("keepalive_seconds_count", daemon.metric("keepalive_seconds_bucket", &["\"0.1\""]).await);
        stumbles += daemon.metric(all, &[]).await - quick + daemon.metric("watch_restarts_total", &["silent"]).await;
    }
    stumbles
}

/// Goal: a follower that hangs costs nothing, whichever it is and whoever talks to it.
/// Method: TTL 5; freeze each of the three in turn for as long as that, having moved etcd's leadership away from it, so that
/// each daemon's own member is among them. `/leader` never says anything but 200, and nobody changes its role.
#[tokio::test]
async fn a_silent_follower_costs_no_leadership() {
    let etcd = Etcd::cluster(3).await;
    let (daemons, leader) = three(&etcd).await;
    let (before, calm) = (logs_of_transitions(&daemons).await, stumbles(&daemons).await);
    for follower in 0..3 {
        etcd.depose(follower).await;
        etcd.member(follower).pause();
        let span = long_or(Duration::from_secs(10), Duration::from_secs(5));
        leads_through(&daemons[leader], "a follower of etcd is frozen", span).await;
        etcd.member(follower).resume();
        // Two frozen at once would be no quorum.
        eventually("it is back", async || etcd.member(follower).status("/health").await).await;
    }
    assert_eq!(logs_of_transitions(&daemons).await, before);
    assert!(stumbles(&daemons).await > calm, "somebody talked to a member that was frozen");
}

/// Goal: etcd's own leader may hang, and a leadership with TTL 5 lives through its succession. Its return is another matter: a
/// process that was stopped as a whole may revoke leases that others have renewed meanwhile (docs/safety.md), and no client can
/// prevent that. Then lease and key are gone, for no other reason leadership ends, and somebody leads again at once.
/// Method: freeze it, and ask `/leader` for longer than two TTLs; then let it return, and read the transitions.
#[tokio::test]
async fn a_silent_etcd_leader_costs_no_leadership() {
    let etcd = Etcd::cluster(3).await;
    let (daemons, leader) = three(&etcd).await;
    let before = logs_of_transitions(&daemons).await;
    let head = etcd.leader_index().await;
    etcd.member(head).pause();
    let span = long_or(Duration::from_secs(30), Duration::from_secs(12));
    leads_through(&daemons[leader], "the leader of etcd is frozen", span).await;
    assert_ne!(etcd.leader_index().await, head);
    assert_eq!(logs_of_transitions(&daemons).await, before);
    etcd.member(head).resume();
    // It revokes within half a second of its return, or not at all.
    sleep(Duration::from_secs(1)).await;
    let (_, generation) = leader_of(&daemons).await;
    for (daemon, seen) in daemons.iter().zip(before) {
        let mut newest_first = daemon.transitions().await;
        newest_first.truncate(newest_first.len() - seen);
        for line in newest_first.iter().filter(|line| line["from"] == "leader") {
            // Whichever it hears first: of the watch, or of the next renewal.
            assert!(line["reason"] == "key_deleted" || line["reason"] == "lease_lost", "{line}");
            println!("etcd revoked a renewed lease; generation {generation} leads now");
        }
    }
}

/// Goal: of every member it is known whether it answers, whoever a daemon happens to talk to.
/// Method: each of three in turn is killed and comes back; the gauges of two daemons, of all members, follow.
#[tokio::test]
async fn of_every_member_it_is_known_whether_it_answers() {
    let etcd = Etcd::cluster(3).await;
    let mut daemons = Vec::new();
    for id in ["a", "b"] {
        daemons.push(Daemon::builder(id, &etcd).ttl("2s").start().await);
    }
    let told = async |down: Option<usize>| {
        for daemon in &daemons {
            for index in 0..3 {
                let up = daemon.metric("etcd_endpoint_up", &[&format!("\"{}\"", etcd.member(index).endpoint())]).await;
                if (up > 0.0) == (down == Some(index)) {
                    return None;
                }
            }
        }
        Some(())
    };
    eventually("all answer", async || told(None).await).await;
    for member in 0..3 {
        etcd.member(member).kill();
        eventually("it alone does not", async || told(Some(member)).await).await;
        etcd.restart_member(member).await;
        eventually("all answer again", async || told(None).await).await;
    }
}
