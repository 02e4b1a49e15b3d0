//! Beside etcd's own election recipe: `etcdctl elect` sees us, and queues among us.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Daemon, Elect, Etcd, eventually, leader_above, leader_of};

const ELECTION: &str = "/tenure/elections/orders";

/// Waits until so many stand in the queue.
async fn queued(etcd: &Etcd, count: usize) {
    eventually(&format!("{count} in the queue"), async || {
        let queue = etcd.queue().await;
        if queue.len() == count { Ok(()) } else { Err(queue) }
    })
    .await;
}

/// Goal: whoever listens with etcd's recipe learns of our leader and of each change, with the fencing token.
/// Method: listen before anybody is there; elect, hand over twice, kill -9.
#[tokio::test]
async fn etcdctl_shows_our_leader_and_each_change_with_its_generation() {
    let etcd = Etcd::start().await;
    let mut listener = Elect::listen(&etcd, ELECTION);
    let mut daemons = Vec::new();
    for id in ["a", "b", "c"] {
        daemons.push(Daemon::builder(id, &etcd).ttl("2s").start().await);
    }
    let (mut leader, mut generation) = leader_of(&daemons).await;
    queued(&etcd, 3).await;
    for round in 0..3 {
        let (shown, token) = listener.next_generation().await;
        assert_eq!((token, shown.id().as_deref()), (generation, Some(daemons[leader].id())), "{shown:?}");
        let lease = daemons[leader].status().await.expect("a status")["session"]["lease"].clone();
        assert_eq!(shown.key, format!("{ELECTION}/{}", lease.as_str().expect("a lease")));
        if round == 2 {
            break;
        }
        daemons[leader].resign().await;
        (leader, generation) = leader_above(&daemons, generation).await;
        queued(&etcd, 3).await;
    }
    daemons.remove(leader).sigkill();
    (leader, generation) = leader_above(&daemons, generation).await;
    let (shown, token) = listener.next_generation().await;
    assert_eq!((token, shown.id().as_deref()), (generation, Some(daemons[leader].id())), "{shown:?}");
}

/// What everybody says while a client that is not Tenure leads.
async fn says_foreign(daemon: &Daemon) {
    let status = eventually("a foreign client leads", async || {
        let status = daemon.status().await.expect("a status");
        if status["foreign"] == true { Ok(status) } else { Err(status) }
    })
    .await;
    assert_eq!(status["leader"], Value::Null, "{status}");
    assert_ne!(status["role"], "leader", "{status}");
    for (path, code) in [("/leader", 503), ("/gate", 403), ("/livez", 200), ("/readyz", 200)] {
        assert_eq!(daemon.probe(path).await, Some(code), "{path} of {}", daemon.id());
    }
    assert_eq!(daemon.token().await, None);
}

/// Goal: a client of etcd's recipe gets its turn in the order of the queue, and nobody of ours leads meanwhile.
/// Method: the queue is a, x, b, y, of which x and y are `etcdctl elect`; each resigns in turn.
#[tokio::test]
async fn foreign_candidates_get_their_turn_among_ours() {
    let etcd = Etcd::start().await;
    let mut daemons = vec![Daemon::builder("a", &etcd).start().await];
    let (_, mut generation) = leader_of(&daemons).await;
    let mut x = Elect::candidate(&etcd, ELECTION, "x");
    queued(&etcd, 2).await;
    daemons.push(Daemon::builder("b", &etcd).start().await);
    queued(&etcd, 3).await;
    let mut y = Elect::candidate(&etcd, ELECTION, "y");
    queued(&etcd, 4).await;
    let queue = daemons[0].candidates().await;
    let ids: Vec<_> = queue.iter().map(|c| (c["id"].as_str(), c["foreign"] == true)).collect();
    assert_eq!(ids, [(Some("a"), false), (None, true), (Some("b"), false), (None, true)]);

    for (turn, successor) in [(&mut x, "b"), (&mut y, "a")] {
        let holder = daemons.iter().find(|d| d.id() != successor).expect("two of ours");
        let answer = holder.resign().await;
        assert_eq!(answer["leader"], Value::Null, "nobody of ours comes next: {answer}");
        let shown = turn.next().await;
        assert!(["x", "y"].contains(&shown.value.as_str()), "{shown:?}");
        for daemon in &daemons {
            says_foreign(daemon).await;
        }
        assert_eq!(etcd.generation().await, generation, "nobody of ours was elected meanwhile");
        // Who resigned stands at the end again.
        queued(&etcd, 4).await;
        let over = std::mem::replace(turn, Elect::candidate(&etcd, ELECTION, &shown.value));
        // The newcomer is behind; then it is ours again.
        queued(&etcd, 5).await;
        over.resign().await;
        let (leader, next) = leader_above(&daemons, generation).await;
        assert_eq!(daemons[leader].id(), successor);
        generation = next;
        queued(&etcd, 4).await;
    }
    let status = daemons[0].status().await.expect("a status");
    assert!(status["leader"]["id"] == "a" && status["foreign"] != true, "{status}");
}

/// Goal: nothing but candidates lies under `P/elections/NAME/`, however many changes there were, and no lease is left over.
/// Method: twenty hand-overs, own keys deleted and one candidate killed; then compare with what the daemons call theirs.
#[tokio::test]
async fn nothing_but_candidates_lies_in_the_queue_after_many_changes() {
    let etcd = Etcd::start().await;
    let mut daemons = Vec::new();
    for id in ["a", "b", "c"] {
        daemons.push(Daemon::builder(id, &etcd).ttl("2s").start().await);
    }
    let mut generation = 0;
    for round in 0..24 {
        let (leader, token) = leader_above(&daemons, generation).await;
        generation = token;
        if round % 4 == 3 {
            etcd.ctl(&["del", &own_key(&daemons[leader]).await]).await;
        } else {
            daemons[leader].resign().await;
        }
    }
    daemons.remove(0).sigkill();
    leader_of(&daemons).await;
    eventually("exactly the keys of those who are there", async || {
        let mut expected = BTreeSet::new();
        for daemon in &daemons {
            expected.insert(own_key(daemon).await);
        }
        let queue = etcd.queue().await.into_iter().collect::<BTreeSet<_>>();
        let leases = etcd.leases().await.len();
        if queue == expected && leases == 2 { Ok(()) } else { Err((queue, expected, leases)) }
    })
    .await;
    let generation = etcd.generation().await;
    assert_eq!(etcd.history().await, (1..=generation).collect::<Vec<_>>(), "one record for each generation");
}

async fn own_key(daemon: &Daemon) -> String {
    let status = daemon.status().await.expect("a status");
    format!("{ELECTION}/{}", status["session"]["lease"].as_str().unwrap_or("no session"))
}
