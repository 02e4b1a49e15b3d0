//! One member of three hangs without closing anything.

use std::time::Duration;

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

/// Goal: a follower that hangs costs nothing, whichever of the two it is that the leader talks to.
/// Method: TTL 5; freeze one follower for longer than the TTL, then the other. `/leader` never says anything but 200, and
/// nobody changes its role.
#[tokio::test]
async fn a_silent_follower_costs_no_leadership() {
    let etcd = Etcd::cluster(3).await;
    let (daemons, leader) = three(&etcd).await;
    let before = logs_of_transitions(&daemons).await;
    let head = etcd.leader_index().await;
    for follower in (0..3).filter(|index| *index != head) {
        etcd.member(follower).pause();
        let span = long_or(Duration::from_secs(15), Duration::from_secs(6));
        leads_through(&daemons[leader], "a follower of etcd is frozen", span).await;
        etcd.member(follower).resume();
        // Two frozen at once would be no quorum.
        eventually("it is back", async || etcd.member(follower).status("/health").await).await;
    }
    assert_eq!(logs_of_transitions(&daemons).await, before);
}

/// Goal: etcd's own leader may hang, and a leadership with TTL 5 lives through its succession.
/// Method: freeze it, and ask `/leader` for longer than two TTLs; then let it return, and ask on.
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
    etcd.member(head).resume();
    leads_through(&daemons[leader], "the leader of etcd is back", Duration::from_secs(1)).await;
    assert_eq!(logs_of_transitions(&daemons).await, before);
}
