//! The main path once, for every version of etcd.

use crate::support::{Daemon, Elect, Etcd, eventually, leader_above, leader_of};

const ELECTION: &str = "/tenure/elections/orders";

async fn three(etcd: &Etcd) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for id in ["a", "b", "c"] {
        daemons.push(Daemon::builder(id, etcd).ttl("2s").start().await);
    }
    daemons
}

/// Goal: elect, hand over, take over after kill -9 and after the own key was deleted; all tokens grow, and etcd's own
/// recipe sees each.
/// Method: three candidates, one after the other of these.
#[tokio::test]
async fn leadership_moves_in_every_way_and_tokens_grow() {
    let etcd = Etcd::start().await;
    let mut listener = Elect::listen(&etcd, ELECTION);
    let mut daemons = three(&etcd).await;
    let (leader, first) = leader_of(&daemons).await;
    assert_eq!(listener.next_generation().await.1, first);
    eventually("the others are queued", async || etcd.queue().await.len() == 3).await;

    let answer = daemons[leader].resign().await;
    let (heir, second) = leader_above(&daemons, first).await;
    assert_eq!(answer["leader"]["id"], daemons[heir].id(), "{answer}");
    assert_eq!(listener.next_generation().await.1, second);

    let lease = daemons[heir].status().await.expect("a status")["session"]["lease"].clone();
    etcd.ctl(&["del", &format!("{ELECTION}/{}", lease.as_str().expect("a lease"))]).await;
    let (leader, third) = leader_above(&daemons, second).await;
    assert_eq!(listener.next_generation().await.1, third);
    let lost = daemons[heir].transition("it steps down", |t| t["old_generation"] == second).await;
    assert_eq!(lost["reason"], "key_deleted", "{lost}");

    daemons.remove(leader).sigkill();
    let (leader, fourth) = leader_above(&daemons, third).await;
    assert_eq!(listener.next_generation().await.1, fourth);
    assert_eq!(daemons[leader].token().await, Some(fourth));
    assert_eq!([first, second, third, fourth], [1, 2, 3, 4]);
    assert_eq!(etcd.history().await, [1, 2, 3, 4]);
}

/// Goal: SIGTERM ends with exit code 0, and leaves neither keys nor leases.
/// Method: the leader first, whose successor is named at once; then the others.
#[tokio::test]
async fn sigterm_is_clean() {
    let etcd = Etcd::start().await;
    let mut daemons = three(&etcd).await;
    let (leader, mut generation) = leader_of(&daemons).await;
    eventually("the others are queued", async || etcd.queue().await.len() == 3).await;
    let mut leaving = Some(leader);
    while let Some(leader) = leaving {
        let daemon = daemons.remove(leader);
        daemon.sigterm();
        let status = daemon.wait_exit().await;
        assert_eq!(status.code(), Some(0), "{}", daemon.logs());
        leaving = None;
        if !daemons.is_empty() {
            let (next, token) = leader_above(&daemons, generation).await;
            assert_eq!(token, generation + 1);
            (leaving, generation) = (Some(next), token);
        }
    }
    assert_eq!(etcd.queue().await, [""; 0]);
    assert_eq!(etcd.leases().await, [""; 0]);
    let causes = etcd.generation_record().await.expect("a record")["cause"].clone();
    assert_eq!(causes, "handed_over");
}
