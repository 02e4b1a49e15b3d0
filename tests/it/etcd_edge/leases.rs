//! What etcd 3.7 no longer says of a lease, and what it says too early.

use etcd_client::{Client, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};

use super::super::support::Daemon;
use super::*;

const SERIES: &str = "3.7";

async fn client(etcd: &Etcd) -> Client {
    Client::connect([etcd.endpoint()], None).await.expect("a client")
}

/// Goal: no decision rests on the lease of an answer that leaves it out.
/// Method: first the trap itself, a `keys_only` answer without a lease; then every read whose lease decides something.
#[tokio::test]
async fn every_read_that_asks_for_a_lease_gets_it() {
    let etcd = Etcd::start_version(SERIES).await;
    let a = Candidate::queued("a", &etcd).await;
    let own = format!("/tenure/elections/orders/{}", a.lease);
    let mut kv = client(&etcd).await.kv_client();
    let keys_only = kv.get(own.clone(), Some(GetOptions::new().with_keys_only())).await.expect("an answer");
    assert_eq!(keys_only.kvs()[0].lease(), 0, "not the trap");

    // To queue again puts nothing: the key was recognised as ours.
    let modified = async |kv: &mut etcd_client::KvClient| {
        let answer = kv.get(own.clone(), None).await.expect("an answer");
        (answer.kvs()[0].mod_revision(), answer.kvs()[0].lease())
    };
    let before = modified(&mut kv).await;
    assert_eq!(queue(&a.edge, a.lease).await, a.key);
    assert_eq!(modified(&mut kv).await, before);
    // And a key that hangs on another lease is hung on ours again.
    let other = lease(&a.edge).await;
    kv.put(own.clone(), "by hand", Some(PutOptions::new().with_lease(other.0))).await.expect("put");
    assert_eq!(look(&a.edge, Some(a.lease)).await.own, None);
    assert_eq!(queue(&a.edge, a.lease).await, a.key);
    assert_eq!(modified(&mut kv).await.1, a.lease.0);

    let confirmed = a.edge.confirm(a.lease, ROUND, &[E], None).await;
    assert!(
        matches!(&confirmed, Input::Session(SessionInput::Confirmed { keys, .. }) if keys[0].created == a.key.created)
    );
    let view = look(&a.edge, Some(a.lease)).await;
    assert_eq!((view.own.as_ref(), view.queue[0].lease), (Some(&a.key), a.lease.0));
    let stale = ElectTxn { generation_modified: Revision(1), ..elect_txn(a.lease, &a.key, &view, 1) };
    let refused = elect(&a.edge, &stale, stamp()).await;
    assert!(matches!(&refused, ElectOutcome::Refused { view, .. } if view.own.as_ref() == Some(&a.key)), "{refused:?}");
    let felt = a.edge.feel(E, ROUND, std::slice::from_ref(&a.key.suffix)).await;
    assert!(
        matches!(&felt, Input::Election(E, ElectionInput::Felt { pulse, .. }) if pulse.keys[0] == a.key),
        "{felt:?}"
    );
    let ElectOutcome::Won { queue, .. } = elect(&a.edge, &elect_txn(a.lease, &a.key, &view, 1), stamp()).await else {
        panic!("not won")
    };
    assert_eq!(queue[0].lease, a.lease.0, "a successor would be named with its lease");

    // Values that are too large to be read: then the queue is read without them, and our own key is known all the same.
    for n in 0..24 {
        kv.put(format!("/tenure/elections/orders/z{n}"), "x".repeat(1_000_000), None).await.expect("put");
    }
    let view = look(&a.edge, Some(a.lease)).await;
    assert_eq!((view.own.as_ref(), view.queue[0].lease), (Some(&a.key), 0), "not the second way of reading");
}

/// Something for etcd to apply for seconds: transactions that sort many keys, over and over. What is committed meanwhile waits
/// its turn, while the rest of etcd goes on.
struct Clog {
    client: Client,
    /// How many transactions of these take so long as was asked for.
    length: usize,
}

impl Clog {
    const KEYS: usize = 4_000;
    const SORTS: usize = 20;

    async fn prepare(etcd: &Etcd, length: Duration) -> Self {
        let mut client = client(etcd).await;
        for first in (0..Self::KEYS).step_by(100) {
            let puts: Vec<_> =
                (first..first + 100).map(|n| TxnOp::put(format!("/fill/{n}"), format!("{n}"), None)).collect();
            client.txn(Txn::new().and_then(puts)).await.expect("filled");
        }
        let began = Instant::now();
        client.txn(Self::sorts()).await.expect("sorted");
        let length = length.as_secs_f64() / began.elapsed().as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let length = length.ceil().clamp(2.0, 2_000.0) as usize;
        Self { client, length }
    }

    /// With a write in it: etcd orders only those by its log.
    fn sorts() -> Txn {
        let sorted = GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Descend).with_limit(1);
        let mut ops = vec![TxnOp::put("/clog", "x", None)];
        ops.extend((0..Self::SORTS).map(|_| TxnOp::get("/fill/", Some(sorted.clone()))));
        Txn::new().and_then(ops)
    }

    /// Committed and applied.
    async fn indexes(&self) -> (u64, u64) {
        let status = self.client.clone().status().await.expect("a status");
        (status.raft_index(), status.raft_applied_index())
    }

    async fn committed(&self, index: u64) {
        eventually("it is committed", async || (self.indexes().await.0 >= index).then_some(())).await;
    }

    /// Gives it all to etcd, and a revocation of `lease` after it; returns once that is committed, with its index.
    async fn revoke_behind(&self, lease: LeaseId) -> u64 {
        let (before, _) = self.indexes().await;
        for _ in 0..self.length {
            let mut client = self.client.clone();
            // Its answer comes too late for its client's patience or not at all; that it was committed is seen below.
            tokio::spawn(async move { client.txn(Self::sorts()).await.map(drop) });
        }
        let behind = before + u64::try_from(self.length).expect("a small number") + 1;
        self.committed(behind - 1).await;
        let mut client = self.client.clone();
        tokio::spawn(async move { client.lease_revoke(lease.0).await.map(drop) });
        self.committed(behind).await;
        behind
    }
}

async fn renewed(edge: &Edge, lease: LeaseId) -> bool {
    match edge.keep_alive(lease, ROUND, false).await {
        Input::Session(SessionInput::KeepAliveAnswered { ttl, .. }) => !ttl.is_zero(),
        Input::Session(SessionInput::KeepAliveFailed { .. } | SessionInput::LeaseUnknown { .. }) => false,
        other => panic!("{other:?}"),
    }
}

/// Goal: etcd 3.7 renews a lease whose end is committed already (its `FastLeaseKeepAlive`), and nothing of that counts.
/// Method: a revocation waits behind others to be applied; the renewal in that time is answered, and the read that has to
/// confirm it waits for the same thing as the revocation.
#[tokio::test]
async fn a_renewal_after_the_revocation_was_committed_is_answered_and_never_confirmed() {
    let etcd = Etcd::start_version(SERIES).await;
    let a = Candidate::queued("a", &etcd).await;
    assert!(renewed(&a.edge, a.lease).await);
    let confirmed = a.edge.confirm(a.lease, ROUND, &[E], None).await;
    assert!(
        matches!(&confirmed, Input::Session(SessionInput::Confirmed { keys, .. }) if keys[0].created == a.key.created)
    );

    let clog = Clog::prepare(&etcd, Duration::from_secs(4)).await;
    let revocation = clog.revoke_behind(a.lease).await;
    let (mut answered, mut asked) = (0, 0);
    loop {
        let answer = renewed(&a.edge, a.lease).await;
        if clog.indexes().await.1 >= revocation {
            break;
        }
        // Both were so when the answer came: committed, and not applied.
        answered += usize::from(answer);
        asked += 1;
        match a.edge.confirm(a.lease, ROUND, &[E], None).await {
            Input::Session(SessionInput::ConfirmFailed { .. }) => {}
            Input::Session(SessionInput::Confirmed { keys, .. }) => assert_eq!(keys[0].created, Revision(0)),
            other => panic!("{other:?}"),
        }
    }
    assert!(answered > 0, "etcd answered none of {asked} renewals: not the trap");
    let gone = eventually("the end to show", async || match a.edge.confirm(a.lease, ROUND, &[E], None).await {
        Input::Session(SessionInput::Confirmed { keys, .. }) => Some(keys[0].created),
        _ => None,
    });
    assert_eq!(gone.await, Revision(0));
    assert!(!renewed(&a.edge, a.lease).await);
}

/// The same to a whole daemon: it stops leading by its guard, while etcd would renew its lease for ever.
#[tokio::test]
async fn a_leader_whose_renewals_are_answered_but_not_confirmed_stops_by_its_guard() {
    let etcd = Etcd::start_version(SERIES).await;
    let clog = Clog::prepare(&etcd, Duration::from_secs(10)).await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("3s").start().await;
    eventually("it leads", async || daemon.token().await).await;
    let text = daemon.status().await.expect("a status")["session"]["lease"].as_str().expect("a lease").to_owned();
    let lease = LeaseId(i64::from_str_radix(&text, 16).expect("hex"));
    let witness = edge("witness", &etcd);
    let revocation = clog.revoke_behind(lease).await;
    eventually("it leads no more", async || (!daemon.is_leader().await).then_some(())).await;
    assert!(renewed(&witness, lease).await, "etcd still renews the lease");
    assert!(clog.indexes().await.1 < revocation, "and has not applied its end");
    daemon.transition("its guard ended it", |t| t["reason"] == "guard_expired").await;
}
