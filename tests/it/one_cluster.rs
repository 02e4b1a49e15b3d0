//! The endpoints are one cluster, or nothing happens that assumes so. All on real etcds.

use std::time::Duration;

use crate::support::{Daemon, DaemonBuilder, Endpoints, Etcd, Link, eventually, leader_above, leader_of, scratch};

/// Short, so that several of them pass within a test.
const TTL: Duration = Duration::from_secs(2);

/// A list as one configuration has it.
struct List(Vec<String>);

impl Endpoints for List {
    fn endpoints(&self) -> Vec<String> {
        self.0.clone()
    }
}

fn daemon(id: &str, etcd: &(impl Endpoints + ?Sized)) -> DaemonBuilder {
    Daemon::builder(id, etcd).ttl("2s")
}

async fn up(daemon: &Daemon, endpoint: &str) -> bool {
    daemon.metric("etcd_endpoint_up", &[endpoint]).await > 0.0
}

async fn says(daemon: &Daemon, what: &str) {
    eventually(what, async || daemon.logs().contains(what).then_some(()).ok_or_else(|| daemon.logs())).await;
}

/// Asks for a while, so that whoever would lead had the time to.
async fn nobody_leads(daemons: &[Daemon], within: Duration) {
    let until = tokio::time::Instant::now() + within;
    while tokio::time::Instant::now() < until {
        for daemon in daemons {
            assert!(!daemon.is_leader().await, "{} leads: {}", daemon.id(), daemon.logs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for a while, in which a renewal that was not confirmed would have cost the guard.
async fn keeps_leading(daemon: &Daemon, within: Duration) {
    let until = tokio::time::Instant::now() + within;
    while tokio::time::Instant::now() < until {
        assert!(daemon.is_leader().await, "{}: {}", daemon.id(), daemon.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Goal: three endpoints that are three clusters elect nobody, and the log names who is where.
#[tokio::test]
async fn three_clusters_in_one_list_elect_nobody() {
    let etcds = [Etcd::start().await, Etcd::start().await, Etcd::start().await];
    let list = List(etcds.iter().map(Etcd::endpoint).collect());
    let daemons = [daemon("a", &list).start().await, daemon("b", &list).start().await];
    for daemon in &daemons {
        says(daemon, "no majority of etcd.endpoints belongs to one cluster").await;
        for etcd in &etcds {
            says(daemon, &format!("{} is in cluster ", etcd.endpoint())).await;
        }
    }
    nobody_leads(&daemons, TTL * 2).await;
}

/// Goal: a member of another cluster among three, from the start on, costs nothing and counts for nothing.
#[tokio::test]
async fn a_foreign_member_among_three_counts_for_nothing_from_the_start() {
    let (etcd, foreign) = (Etcd::cluster(3).await, Etcd::start().await);
    let list = List(vec![foreign.endpoint(), etcd.member(0).endpoint(), etcd.member(1).endpoint()]);
    let daemons = vec![daemon("a", &list).start().await, daemon("b", &list).start().await];
    let (leader, first) = leader_of(&daemons).await;
    says(&daemons[leader], "this is etcd cluster").await;
    eventually("the foreign one is down", async || !up(&daemons[leader], &foreign.endpoint()).await).await;
    // With one of its own members gone, the other is enough; the foreign one helps nobody.
    etcd.member(0).kill();
    daemons[leader].resign().await;
    leader_above(&daemons, first).await;
    let keys = foreign.ctl(&["get", "--prefix", "--keys-only", "/tenure"]).await;
    assert_eq!(keys.trim(), "", "nothing of ours was written there");
}

/// Goal: two of three are enough to start with at once, and so is one of two where the member list names the other.
#[tokio::test]
async fn a_silent_member_of_the_same_cluster_does_not_delay_the_start() {
    let etcd = Etcd::cluster(3).await;
    etcd.member(2).kill();
    let two = List(vec![etcd.member(0).endpoint(), etcd.member(2).endpoint()]);
    let daemons = [daemon("a", &two).start().await];
    leader_of(&daemons).await;
    assert!(!daemons[0].logs().contains("no majority"), "{}", daemons[0].logs());
}

/// Goal: an address that is given to another cluster while a daemon leads costs no leadership, and is named as foreign.
#[tokio::test]
async fn an_address_given_to_another_cluster_is_down_and_costs_no_leadership() {
    let (etcd, foreign) = (Etcd::cluster(3).await, Etcd::start().await);
    let links = [Link::to(etcd.member(0)).await, Link::to(etcd.member(1)).await, Link::to(etcd.member(2)).await];
    let list = List(links.iter().map(Link::endpoint).collect());
    let daemons = [daemon("a", &list).start().await];
    let (_, generation) = leader_of(&daemons).await;
    for link in &links {
        link.give_to(&foreign);
        says(&daemons[0], &format!("the etcd member {} does not serve: this is etcd cluster", link.endpoint())).await;
        eventually("it is down", async || !up(&daemons[0], &link.endpoint()).await).await;
        // Longer than a TTL: what answers as two clusters within one is not one etcd, and heeded later only.
        keeps_leading(&daemons[0], TTL * 3 / 2).await;
        link.give_to(etcd.member(0));
        eventually("it is back", async || up(&daemons[0], &link.endpoint()).await).await;
    }
    assert_eq!(daemons[0].token().await, Some(generation), "{:?}", daemons[0].transitions().await);
}

/// Goal: the operator's word replaces the majority, and what does not fit it is refused with the reason.
#[tokio::test]
async fn a_cluster_that_is_named_is_the_only_one_that_counts() {
    let etcds = [Etcd::start().await, Etcd::start().await, Etcd::start().await];
    let list = List(etcds.iter().map(Etcd::endpoint).collect());
    let first = daemon("first", &etcds[0]).start().await;
    says(&first, "etcd's cluster is known").await;
    let logs = first.logs();
    let id = logs.split("cluster=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("the id");
    let named = [daemon("named", &list).set("etcd.cluster_id", id.trim_matches('"')).start().await];
    first.sigterm();
    assert!(first.wait_exit().await.success());
    leader_of(&named).await;
    let wrong = [daemon("wrong", &etcds[0]).set("etcd.cluster_id", "1").start().await];
    says(&wrong[0], "and ours is 1").await;
    nobody_leads(&wrong, TTL).await;
}

/// One of several servers that are started alike, each by itself, as a package starts them: of equal ids.
async fn twin() -> Etcd {
    let same = "http://localhost:2380";
    let peers = [format!("--initial-advertise-peer-urls={same}"), format!("--initial-cluster=m0={same}")];
    Etcd::builder().arg(&peers[0]).arg(&peers[1]).start().await
}

/// Goal: servers of equal ids that are listed together elect nobody, though the configuration names their cluster, and are named.
/// Method: three etcds with the flags of a package, and daemons that list them in different orders.
#[tokio::test]
async fn servers_that_were_started_alike_elect_nobody() {
    let twins = [twin().await, twin().await, twin().await];
    let status = twins[0].ctl(&["endpoint", "status", "--write-out=fields"]).await;
    let id = status.lines().find_map(|line| line.strip_prefix("\"ClusterID\" : ")).expect("an id");
    let id = format!("{:x}", id.trim().parse::<u64>().expect("a number"));
    for configured in [None, Some(id)] {
        let mut daemons = Vec::new();
        for (turn, name) in ["a", "b", "c"].into_iter().enumerate() {
            let mut urls: Vec<_> = twins.iter().map(Etcd::endpoint).collect();
            urls.rotate_left(turn);
            let mut builder = daemon(name, &List(urls));
            if let Some(id) = &configured {
                builder = builder.set("etcd.cluster_id", id.clone());
            }
            daemons.push(builder.start().await);
        }
        nobody_leads(&daemons, TTL * 2).await;
        for daemon in &daemons {
            says(daemon, "answers as the same member of cluster").await;
            let etcd = daemon.status().await.expect("a status")["etcd"].clone();
            let why = etcd["last_error"].as_str().unwrap_or_default();
            assert!(
                why.contains("no majority of etcd.endpoints belongs to one cluster"),
                "the status says so too: {etcd}"
            );
        }
    }
    for twin in &twins {
        assert_eq!(
            twin.ctl(&["get", "--prefix", "--keys-only", "/tenure"]).await.trim(),
            "",
            "nothing was written there"
        );
    }
}

/// Goal: behind one address, servers of equal ids but of different histories are found out, and nobody campaigns there.
/// Method: what `kubectl scale deployment etcd --replicas=2` makes, behind a balancer.
#[tokio::test]
async fn a_scaled_single_member_behind_one_address_ends_campaigning() {
    let twins = [twin().await, twin().await];
    let fields = ["endpoint", "status", "--write-out=fields"];
    let id =
        |text: &str| text.lines().filter(|l| l.contains("ClusterID") || l.contains("MemberID")).collect::<String>();
    assert_eq!(id(&twins[0].ctl(&fields).await), id(&twins[1].ctl(&fields).await), "equal flags make equal ids");
    let balancer = Link::balanced(&twins.each_ref().map(Etcd::endpoint)).await;
    let daemons = [daemon("a", &balancer).start().await, daemon("b", &balancer).start().await];
    for daemon in &daemons {
        says(daemon, "this address is not one etcd").await;
    }
    for daemon in &daemons {
        // What a guard had left when it was found out.
        eventually("it steps down", async || !daemon.is_leader().await).await;
    }
    nobody_leads(&daemons, TTL * 3).await;
}

/// Goal: the same for servers of different ids.
#[tokio::test]
async fn different_clusters_behind_one_address_end_campaigning() {
    let etcds = [Etcd::start().await, Etcd::start().await];
    let balancer = Link::balanced(&etcds.each_ref().map(Etcd::endpoint)).await;
    let daemons = [daemon("a", &balancer).start().await, daemon("b", &balancer).start().await];
    for daemon in &daemons {
        says(daemon, "this address is not one etcd").await;
    }
    for daemon in &daemons {
        // What a guard had left when it was found out.
        eventually("it steps down", async || !daemon.is_leader().await).await;
    }
    nobody_leads(&daemons, TTL * 3).await;
}

/// Goal: a store that was moved while the daemons were down is adopted, and tokens go on from what `state_dir` remembers.
#[tokio::test]
async fn a_store_moved_while_all_were_down_is_adopted_from_state_dir() {
    let (old, new) = (Etcd::start().await, Etcd::start().await);
    let (link, dir) = (Link::to(&old).await, scratch("state"));
    let before = [daemon("a", &link).state_dir(dir.path()).start().await];
    let (_, mut token) = leader_of(&before).await;
    for _ in 0..3 {
        before[0].resign().await;
        (_, token) = leader_above(&before, token).await;
    }
    before[0].sigterm();
    assert!(before[0].wait_exit().await.success());
    link.give_to(&new);
    let after = [daemon("a", &link).state_dir(dir.path()).start().await];
    let (_, next) = leader_of(&after).await;
    assert!(next > token, "tokens go on: {token}, then {next}");
    says(&after[0], "the store was moved to another etcd cluster").await;
    // Who remembers nothing knows nothing of it either.
    let fresh = [daemon("b", &link).elections(&["other"]).start().await];
    assert_eq!(leader_of(&fresh).await.1, 1);
}

/// Goal: a running daemon follows a move as well, once its guard has passed and that has held for one TTL.
#[tokio::test]
async fn a_store_moved_under_a_running_daemon_is_adopted_after_its_guard() {
    let (old, new) = (Etcd::start().await, Etcd::start().await);
    let link = Link::to(&old).await;
    let daemons = [daemon("a", &link).start().await];
    let (_, token) = leader_of(&daemons).await;
    link.give_to(&new);
    let down = daemons[0].transition("it steps down", |t| t["old_generation"] == token).await;
    assert_eq!(down["reason"], "guard_expired", "{down}");
    says(&daemons[0], "the store was moved to another etcd cluster").await;
    leader_above(&daemons, token).await;
}

/// Goal: with one silent endpoint only the operator decides, by naming the cluster.
#[tokio::test]
async fn with_a_silent_endpoint_only_the_operator_moves_the_store() {
    let (old, new) = (Etcd::cluster(3).await, Etcd::start().await);
    let (link, gone, dir) = (Link::to(old.member(0)).await, Link::to(old.member(1)).await, scratch("state"));
    let both = List(vec![link.endpoint(), gone.endpoint()]);
    let before = [daemon("a", &both).state_dir(dir.path()).start().await];
    let (_, token) = leader_of(&before).await;
    before[0].sigterm();
    assert!(before[0].wait_exit().await.success());
    link.give_to(&new);
    gone.refuse();
    let after = [daemon("a", &both).state_dir(dir.path()).start().await];
    says(&after[0], "this is etcd cluster").await;
    nobody_leads(&after, TTL * 2).await;
    let logs = after[0].logs();
    let found = logs.split("this is etcd cluster ").nth(1).and_then(|rest| rest.split(',').next()).expect("an id");
    let named = [daemon("a", &both).state_dir(dir.path()).set("etcd.cluster_id", found).start().await];
    after[0].sigterm();
    assert!(after[0].wait_exit().await.success());
    assert!(leader_of(&named).await.1 > token);
}
