//! The kit itself, on the real servers: what it promises to other tests.

use std::time::{Duration, Instant};

use serde_json::json;

use super::http::{TIMEOUT, request};
use super::{Endpoints, Etcd, Link, Target, eventually, eventually_within};

const SHORT: Duration = Duration::from_millis(300);

async fn every_operation_works_on(series: &str) {
    let mut etcd = Etcd::start_version(series).await;
    assert!(etcd.ctl(&["version"]).await.contains(&format!("etcdctl version: {series}.")));
    etcd.ctl(&["put", "k", "before"]).await;
    let dir = super::logs::scratch("snapshot");
    let snapshot = dir.path().join("db");
    etcd.snapshot_save(&snapshot).await;
    etcd.ctl(&["put", "k", "after"]).await;
    etcd.restart().await;
    assert_eq!(etcd.ctl(&["get", "k", "--print-value-only"]).await, "after\n");
    etcd.restore_and_restart(&snapshot).await;
    assert_eq!(etcd.ctl(&["get", "k", "--print-value-only"]).await, "before\n");
    etcd.wipe_and_restart().await;
    assert_eq!(etcd.ctl(&["get", "k"]).await, "");
    etcd.enable_auth("app", "secret", "/tenure").await;
    etcd.ctl(&["put", "k", "by root"]).await;
    etcd.restart().await;
    assert_eq!(etcd.leader_index().await, 0);
}

#[tokio::test]
async fn every_etcd_operation_works_on_3_4() {
    every_operation_works_on("3.4").await;
}

#[tokio::test]
async fn every_etcd_operation_works_on_3_5() {
    every_operation_works_on("3.5").await;
}

#[tokio::test]
async fn every_etcd_operation_works_on_3_6() {
    every_operation_works_on("3.6").await;
}

#[tokio::test]
async fn every_etcd_operation_works_on_3_7() {
    every_operation_works_on("3.7").await;
}

#[tokio::test]
async fn a_cluster_elects_another_leader_when_its_leader_is_frozen() {
    let etcd = Etcd::cluster(3).await;
    let first = etcd.leader_index().await;
    etcd.member(first).pause();
    let second = etcd.leader_index().await;
    assert_ne!(first, second);
    etcd.member(first).resume();
    etcd.member(first).kill();
    etcd.restart_member(first).await;
    assert_eq!(etcd.endpoints().len(), 3);
}

#[tokio::test]
async fn tls_admits_clients_with_a_certificate_only() {
    let etcd = Etcd::builder().tls().start().await;
    assert!(etcd.endpoint().starts_with("https://"));
    etcd.ctl(&["put", "k", "v"]).await;
    let stranger = ["--cert=", "--key=", "--command-timeout=1s", "--dial-timeout=1s", "get", "k"];
    etcd.try_ctl(&stranger).await.expect_err("no certificate was shown");
}

/// `/version` through a link: the plain HTTP that every etcd's client port speaks beside gRPC.
async fn version_through(link: &Link) -> Option<u16> {
    let request = request(hyper::Method::GET, "/version", hyper::body::Bytes::new());
    let answer = Target::parse(&link.endpoint()).send_within(SHORT, request).await;
    answer.ok().map(|answer| answer.status)
}

#[tokio::test]
async fn a_black_hole_swallows_everything_and_closes_nothing() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    assert_eq!(version_through(&link).await, Some(200));
    link.black_hole();
    let target = Target::parse(&link.endpoint());
    let waiting = tokio::spawn(async move { target.get("/version").await });
    eventually("the connection is accepted", async || link.accepted() == 2).await;
    assert_eq!(version_through(&link).await, None);
    assert!(!waiting.is_finished(), "neither answered nor closed");
    link.heal();
    // Held back, not lost: what was sent into the hole arrives after it.
    let answer = tokio::time::timeout(TIMEOUT, waiting).await.expect("bounded").expect("no panic");
    assert_eq!(answer.expect("an answer").status, 200);
    eventually("all are closed", async || link.open() == 0).await;
}

#[tokio::test]
async fn a_one_way_link_lets_requests_take_effect() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    link.drop_server_to_client();
    let target = Target::parse(&link.endpoint());
    // "k" and "v" in base64, as etcd's JSON gateway wants them.
    let put = tokio::spawn(async move { target.post("/v3/kv/put", &json!({"key": "aw==", "value": "dg=="})).await });
    eventually("the put arrives", async || etcd.ctl(&["get", "k", "--print-value-only"]).await == "v\n").await;
    assert!(!put.is_finished(), "its answer does not come back");
    link.heal();
    let answer = tokio::time::timeout(TIMEOUT, put).await.expect("bounded").expect("no panic");
    assert_eq!(answer.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_delay_is_added_in_each_direction() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    link.delay(Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(version_through(&link).await, Some(200));
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_refusing_link_resets_refuses_and_heals_on_the_same_port() {
    let etcd = Etcd::start().await;
    let link = Link::to(&etcd).await;
    link.black_hole();
    let target = Target::parse(&link.endpoint());
    let waiting = tokio::spawn(async move { target.get("/version").await });
    eventually("the connection is accepted", async || link.open() == 1).await;
    link.refuse();
    let broken = tokio::time::timeout(TIMEOUT, waiting).await.expect("bounded").expect("no panic");
    broken.expect_err("a connection that is reset has no answer");
    let start = Instant::now();
    assert_eq!(version_through(&link).await, None);
    assert!(start.elapsed() < SHORT, "refused at once, not timed out");
    link.heal();
    eventually_within("it works again", Duration::from_secs(5), async || version_through(&link).await).await;
}
