//! Two daemons with one id: a copied configuration. Elections go by keys.

use std::time::Duration;

use crate::support::{Daemon, Etcd, eventually, eventually_within};

/// Goal: both work, say who leads by key and not by name, and the log says what is wrong, with the other one's url.
/// Method: two daemons `twin`. The second follows the first: it does not take itself for the leader, and redirects there. The
/// first is killed, and the second leads; each has said once that the other has its id.
#[tokio::test]
async fn two_daemons_with_one_id_both_work_and_say_who_leads() {
    let etcd = Etcd::start().await;
    let a = Daemon::builder("twin", &etcd).start().await;
    eventually("a leads", async || a.is_leader().await).await;
    let b = Daemon::builder("twin", &etcd).start().await;
    eventually("b is queued", async || b.is_queued().await).await;
    let (of_a, of_b) = (a.status().await.expect("a status"), b.status().await.expect("a status"));
    assert_eq!(of_b["role"], "candidate", "{of_b}");
    assert_eq!(of_b["leader"], of_a["leader"], "both name the same leader");
    assert_eq!(of_b["leader"]["id"], "twin");
    let url = of_a["leader"]["url"].as_str().expect("a url").to_owned();
    assert_eq!(b.leader_status().await, Some(503));
    assert_eq!(b.token().await, None);
    let away = b.get("/v1/elections/orders/redirect/x").await.expect("an answer");
    assert_eq!(away.status, 307, "{}", away.text());
    assert_eq!(a.get("/v1/elections/orders/redirect/x").await.expect("an answer").status, 200, "it is here");
    assert_eq!(b.get("/follower").await.expect("an answer").status, 200, "it follows a leader");
    // Nobody leads for no time at all in b's eyes: the leader is not b.
    assert!(b.metric("leader_changes_observed_total", &[]).await < 0.5);
    eventually_within("the older one hears of the younger one", Duration::from_secs(40), async || {
        a.logs().contains("another daemon uses our id")
    })
    .await;
    a.sigkill();
    eventually("b leads", async || b.is_leader().await).await;
    let of_b = b.status().await.expect("a status");
    assert_eq!((&of_b["role"], &of_b["leader"]["id"]), (&"leader".into(), &"twin".into()));
    assert_ne!(of_b["leader"]["url"].as_str(), Some(url.as_str()));
    assert!((b.metric("leader_changes_observed_total", &[]).await - 1.0).abs() < 0.5, "another leadership");
    assert_eq!(a.logs().matches("another daemon uses our id").count(), 1, "{}", a.logs());
}

/// Goal: a daemon that is started again is not taken for another one with its id.
/// Method: kill it, start it anew with the same id, while its former key still stands, and wait until that is gone.
#[tokio::test]
async fn a_former_run_is_no_namesake() {
    let etcd = Etcd::start().await;
    let before = Daemon::builder("again", &etcd).start().await;
    eventually("it leads", async || before.is_leader().await).await;
    before.sigkill();
    let after = Daemon::builder("again", &etcd).start().await;
    eventually("it leads again", async || after.is_leader().await).await;
    assert!(!after.logs().contains("another daemon uses our id"), "{}", after.logs());
}
