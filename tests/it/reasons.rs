//! Why etcd does not serve, in the daemon's log, in words.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::support::{Certs, Daemon, Etcd, Link, eventually, free_port, scratch};

/// An endpoint, files to set, and the words that are to come.
type Case<'a> = (String, Vec<(&'a str, &'a Path)>, &'a str);

/// The daemon's word for it, once it is said.
async fn says(daemon: &Daemon, what: &str) {
    eventually(&format!("the log says: {what}"), async || daemon.logs().contains(what)).await;
    assert!(!daemon.logs().contains("transport error: transport error"), "{}", daemon.logs());
}

async fn one(endpoint: &str, more: &[(&str, &Path)]) -> Daemon {
    let mut builder = Daemon::builder("a", &vec![endpoint.to_owned()][..]).ttl("2s");
    for (key, path) in more {
        builder = builder.set(key, path.display().to_string());
    }
    builder.start().await
}

/// Goal: whatever is wrong between a daemon and its etcd, the log has the reason, once, in words.
/// Method: real servers of each kind: with TLS of another authority, with TLS that wants a certificate, plain; a port that is
/// closed, one that is silent, a name that does not resolve.
#[tokio::test]
async fn the_log_says_why_etcd_does_not_serve() {
    let etcd = Etcd::builder().tls().start().await;
    let plain = Etcd::start().await;
    let certs = etcd.certs().expect("TLS").clone();
    let dir = scratch("tenure-strangers");
    let strangers = Certs::make(dir.path(), "stranger");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let link = Link::to(&plain).await;
    link.black_hole();
    let (ca, strange) = (certs.ca.as_path(), strangers.ca.as_path());
    let (tls, http) = (etcd.endpoint(), plain.endpoint());
    let swap = |url: &str, from: &str, to: &str| url.replacen(from, to, 1);
    let table: Vec<Case<'_>> = vec![
        (tls.clone(), vec![("etcd.tls.ca_file", strange)], "no authority in etcd.tls.ca_file issued it"),
        (tls.clone(), vec![("etcd.tls.ca_file", ca)], "it asks for a client certificate"),
        (swap(&tls, "https", "http"), vec![], "it speaks TLS (https:// instead of http://)"),
        (swap(&http, "http", "https"), vec![("etcd.tls.ca_file", ca)], "does it speak TLS at all"),
        (closed, vec![], "connection refused"),
        (link.endpoint(), vec![], "no answer within"),
        ("http://etcd.invalid:2379".into(), vec![], "its name does not resolve"),
    ];
    for (endpoint, more, words) in table {
        let daemon = one(&endpoint, &more).await;
        says(&daemon, words).await;
        says(&daemon, "unreachable").await;
        assert!(daemon.metric("etcd_endpoint_up", &[]).await < 0.5, "{endpoint}");
    }
}

/// Goal: the end of an outage is said as well, and how long it was.
#[tokio::test]
async fn the_log_says_that_etcd_answers_again() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("a", &etcd).ttl("2s").start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    etcd.kill();
    says(&daemon, "connection refused").await;
    etcd.restart().await;
    says(&daemon, "etcd answers again after").await;
    eventually("it leads again", async || daemon.is_leader().await).await;
}

/// Goal: a member that answers and serves nothing that is needed is not up, and it is said why.
/// Method: a member that has lost its quorum.
#[tokio::test]
async fn a_member_without_a_quorum_serves_nothing() {
    let etcd = Etcd::cluster(3).await;
    for member in 1..3 {
        etcd.member(member).kill();
    }
    let daemon = Daemon::builder("a", etcd.member(0)).ttl("2s").start().await;
    says(&daemon, "unreachable").await;
    assert!(daemon.metric("etcd_endpoint_up", &[]).await < 0.5);
    let named = async || {
        ["it has no leader", "within its own limit", "no answer within"].iter().any(|w| daemon.logs().contains(w))
    };
    eventually("a reason", named).await;
    for member in 1..3 {
        etcd.restart_member(member).await;
    }
    says(&daemon, "etcd answers again after").await;
    eventually("it serves", async || daemon.metric("etcd_endpoint_up", &[]).await > 0.0).await;
}

/// Goal: what etcd grants instead of what was asked is said once, with what follows from it.
#[tokio::test]
async fn a_granted_ttl_other_than_the_asked_one_is_said() {
    // The later of two flags counts.
    let slow = ["--heartbeat-interval=500", "--election-timeout=5000"];
    let etcd = slow.iter().fold(Etcd::builder(), |etcd, flag| etcd.arg(flag)).start().await;
    let daemon = Daemon::start(&etcd).await;
    eventually("it leads", async || daemon.is_leader().await).await;
    says(&daemon, "etcd grants leases of 8s where 5s are asked").await;
    says(&daemon, "a fail-over takes up to 8.5s, not 5.5s").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.logs().matches(" WARN ").count(), 1, "{}", daemon.logs());
}

/// Goal: a learner serves nothing that is needed, and is named as one.
#[tokio::test]
async fn a_learner_is_not_up_and_is_named() {
    let etcd = Etcd::start().await;
    let dir = scratch("tenure-learner");
    let [client, peer] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
    etcd.ctl(&["member", "add", "l", "--learner", &format!("--peer-urls={peer}")]).await;
    let mut command = etcd.command("etcd");
    command.args(["--name", "l", "--data-dir"]).arg(dir.path()).args(["--initial-cluster-state", "existing"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("{},l={peer}", etcd.initial_cluster())]);
    let _learner = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts");
    let daemon = one(&client, &[]).await;
    says(&daemon, "it is a learner").await;
    assert!(daemon.metric("etcd_endpoint_up", &[]).await < 0.5);
}

/// Goal: behind a proxy that answers renewals by itself, a daemon does not lead and lose it again and again: it says why not.
/// Method: etcd's own grpc-proxy, and a TTL that it does not keep up with.
#[tokio::test]
async fn nobody_leads_behind_a_proxy_that_renews_by_itself() {
    let etcd = Etcd::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = etcd.command("etcd");
    command.args(["grpc-proxy", "start", "--endpoints"]).arg(etcd.endpoint().trim_start_matches("http://"));
    command.args(["--listen-addr", &address, &format!("--advertise-client-url={address}")]);
    let _proxy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the proxy starts");
    eventually("the proxy listens", async || TcpStream::connect(&address).await.ok()).await;
    let daemon = one(&format!("http://{address}"), &[]).await;
    says(&daemon, "is `etcd grpc-proxy` in between?").await;
    assert!(!daemon.logs().contains("to=\"leader\""), "{}", daemon.logs());
    assert_eq!(daemon.logs().matches("grpc-proxy").count(), 1, "{}", daemon.logs());
    let leases = async || etcd.ctl(&["lease", "list"]).await.matches('\n').count();
    eventually("its leases are given up", async || leases().await <= 3).await;
    assert!(daemon.logs().matches("etcd answers again").count() <= 2, "{}", daemon.logs());
}
