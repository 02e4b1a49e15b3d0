//! Members that hang, are gone, or have no quorum.

use super::*;

/// Goal: a session without keys is confirmed by the quorum, or by nobody.
/// Method: an edge that knows one member, and the other two are frozen. The same without an anchor shows the trap: that member
/// answers from its memory.
#[tokio::test]
async fn without_a_quorum_a_session_without_keys_is_not_confirmed() {
    let etcd = Etcd::cluster(3).await;
    let (edge, _) = edge_with("a", &config(etcd.member(2)), 0);
    let lease = lease(&edge).await;
    let asked = edge.confirm(lease, ROUND, &[], Some(E)).await;
    assert!(matches!(asked, Input::Session(SessionInput::Confirmed { .. })), "{asked:?}");
    for member in 0..2 {
        etcd.member(member).pause();
    }
    let of_memory = edge.confirm(lease, ROUND, &[], None).await;
    let asked = edge.confirm(lease, ROUND, &[], Some(E)).await;
    for member in 0..2 {
        etcd.member(member).resume();
    }
    assert!(matches!(of_memory, Input::Session(SessionInput::Confirmed { .. })), "not the trap: {of_memory:?}");
    assert!(matches!(asked, Input::Session(SessionInput::ConfirmFailed { .. })), "{asked:?}");
}

#[tokio::test]
async fn a_frozen_member_of_three_costs_no_more_than_the_hedge() {
    let etcd = Etcd::cluster(3).await;
    let leader = etcd.leader_index().await;
    let follower = (leader + 1) % 3;
    for seed in 0..3 {
        let (edge, _) = edge_with("a", &config(&etcd), seed);
        let lease = lease(&edge).await;
        queue(&edge, lease).await;
        etcd.member(follower).pause();
        for _ in 0..10 {
            let began = Instant::now();
            let renewed = edge.keep_alive(lease, ROUND, false).await;
            assert!(matches!(renewed, Input::Session(SessionInput::KeepAliveAnswered { .. })), "{renewed:?}");
            let confirmed = edge.confirm(lease, ROUND, &[E], None).await;
            assert!(matches!(confirmed, Input::Session(SessionInput::Confirmed { .. })), "{confirmed:?}");
            look(&edge, Some(lease)).await;
            assert!(began.elapsed() < Duration::from_millis(1500), "seed {seed}: {:?}", began.elapsed());
        }
        etcd.member(follower).resume();
    }
    // The leader: a new one has to be elected, and then the old streams do not hold anything up.
    let (edge, _) = edge_with("b", &config(&etcd), 7);
    let lease = lease(&edge).await;
    let leader = etcd.leader_index().await;
    etcd.member(leader).pause();
    let began = Instant::now();
    let renewed = eventually("a renewal", async || {
        let answer = edge.keep_alive(lease, ROUND, false).await;
        matches!(answer, Input::Session(SessionInput::KeepAliveAnswered { .. }))
    });
    renewed.await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    etcd.member(leader).resume();
}

#[tokio::test]
async fn an_etcd_that_is_not_there_costs_few_tries_and_bounded_time() {
    // Nobody listens on port 1, and this network is for documentation only: refused, and black hole.
    let endpoints = vec!["http://127.0.0.1:1".to_owned(), "http://192.0.2.1:2379".to_owned()];
    let settings = EtcdConfig { request_timeout: Duration::from_secs(2), ..config(&endpoints) };
    let (edge, notes) = edge_with("a", &settings, 1);
    let began = Instant::now();
    assert_eq!(edge.grant(TTL).await, Input::Session(SessionInput::GrantFailed));
    let view = edge.read(E).await.expect_err("nobody there");
    assert!(view.to_string().contains("read"), "{view}");
    let txn = HandOverTxn { key: CandidateKey::of(LeaseId(1), Revision(1)), successor: None };
    let outcome = hand_over(&edge, &txn, stamp()).await;
    assert!(matches!(outcome, HandOverOutcome::Refused | HandOverOutcome::Unknown), "{outcome:?}");
    let failed = Input::Session(SessionInput::KeepAliveFailed { lease: LeaseId(1), round: ROUND });
    assert_eq!(edge.keep_alive(LeaseId(1), ROUND, false).await, failed);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(notes.requests.lock().expect("notes").len() <= 4 * 8);

    // A watch that cannot be opened keeps its plan, says nothing, and does not spin.
    let (sink, mut inputs) = mpsc::channel(8);
    let watcher = edge.watch(sink);
    watcher.plan(E, WatchPlan { suffixes: vec![], from: Revision(1) });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(inputs.try_recv().is_err());
    assert!(notes.watches.lock().expect("notes").len() <= 10);
}
