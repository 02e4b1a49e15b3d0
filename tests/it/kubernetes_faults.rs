//! Whatever the API server does, elections and hand-overs go on; and what it refuses or is set up wrong is said.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kubernetes::{LABEL, SLICE, Shop};
use crate::support::{Daemon, Fault, eventually, fixture, free_port, kubeconfig, leader_above, leader_of};

/// A hand-over and the way to hear of it; a request to the API server alone may take 3 s.
const HAND_OVER: Duration = Duration::from_secs(2);
/// The daemon waits 2 s for the API server at its end.
const END: Duration = Duration::from_secs(4);

/// Resigns, and then ends, each in time.
async fn nothing_is_held_up(daemons: &[Daemon]) {
    let (leader, generation) = leader_of(daemons).await;
    for daemon in daemons.iter().filter(|d| d.id() != daemons[leader].id()) {
        eventually("the others are queued", async || daemon.is_queued().await).await;
    }
    let asked = Instant::now();
    daemons[leader].resign().await;
    let (leader, generation) = leader_above(daemons, generation).await;
    assert!(asked.elapsed() < HAND_OVER, "the hand-over took {:?}", asked.elapsed());
    let asked = Instant::now();
    daemons[leader].sigterm();
    let others: Vec<&Daemon> = daemons.iter().filter(|d| d.id() != daemons[leader].id()).collect();
    eventually("somebody else leads", async || {
        for other in &others {
            if other.leads_with().await.is_some_and(|g| g > generation) {
                return true;
            }
        }
        false
    })
    .await;
    assert!(asked.elapsed() < HAND_OVER, "the hand-over at the end took {:?}", asked.elapsed());
    assert!(daemons[leader].wait_exit().await.success(), "{}", daemons[leader].logs());
    assert!(asked.elapsed() < END, "the end took {:?}", asked.elapsed());
}

async fn a_stuck_api_server_holds_nothing_up(route: &'static str) {
    let shop = Shop::open(route).await;
    shop.api.set_fault(Fault::Mute);
    let daemons = shop.candidates().await;
    nothing_is_held_up(&daemons).await;
}

#[tokio::test]
async fn a_stuck_api_server_delays_no_hand_over_and_no_end_by_label() {
    a_stuck_api_server_holds_nothing_up(LABEL).await;
}

#[tokio::test]
async fn a_stuck_api_server_delays_no_hand_over_and_no_end_by_slice() {
    a_stuck_api_server_holds_nothing_up(SLICE).await;
}

/// Goal: a leader that drains while a request hangs gives up its traffic at once, and not when the request times out.
#[tokio::test]
async fn a_hanging_request_does_not_hold_up_the_withdrawal() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    shop.api.set_fault(Fault::Mute);
    eventually("a request hangs", async || shop.api.parked("pod-0") > 0).await;
    shop.api.set_fault(Fault::None);
    let asked = Instant::now();
    assert_eq!(daemon.post("/v1/drain", &json!({})).await.expect("an answer").status, 202);
    eventually("nobody is routed to", async || shop.routed().is_empty()).await;
    assert!(asked.elapsed() < HAND_OVER, "{:?}", asked.elapsed());
}

/// Goal: a daemon that ends takes its route back, though it has handed over long before the API server has answered.
async fn the_end_waits_for_a_slow_api_server(route: &'static str) {
    let shop = Shop::open(route).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    shop.api.set_fault(Fault::Slow(Duration::from_millis(300)));
    daemon.sigterm();
    assert!(daemon.wait_exit().await.success(), "{}", daemon.logs());
    assert_eq!(shop.routed(), []);
}

#[tokio::test]
async fn the_end_waits_for_a_slow_api_server_by_label() {
    the_end_waits_for_a_slow_api_server(LABEL).await;
}

#[tokio::test]
async fn the_end_waits_for_a_slow_api_server_by_slice() {
    the_end_waits_for_a_slow_api_server(SLICE).await;
}

/// Goal: the same without any server, with one complaint in the log and not one for each try.
#[tokio::test]
async fn a_dead_api_server_delays_nothing_and_is_complained_of_once() {
    let shop = Shop::open(LABEL).await;
    let file = shop.api.kubeconfig("nobody").with_extension("dead");
    std::fs::write(&file, kubeconfig(free_port(), &file)).expect("the directory is the test's");
    let mut daemons = Vec::new();
    for n in 0..3 {
        daemons.push(shop.candidate(n).env("KUBECONFIG", file.display().to_string()).start().await);
    }
    eventually("it tries again and again", async || {
        daemons[0].metric("kubernetes_writes_total", &["error"]).await >= 3.0
    })
    .await;
    nothing_is_held_up(&daemons).await;
    let logs = daemons[0].logs();
    assert_eq!(logs.matches("kubernetes: cannot read pod pod-0").count(), 1, "{logs}");
    assert!(logs.contains("refused"), "the cause is named: {logs}");
}

/// Goal: a daemon that finds no API server at all elects as ever.
#[tokio::test]
async fn a_daemon_outside_of_kubernetes_leads_and_says_what_it_misses() {
    let shop = Shop::open(LABEL).await;
    let daemon = shop.candidate(0).env("KUBECONFIG", "/nonexistent").start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    eventually("it says so", async || daemon.logs().contains("kubernetes: cannot find the API server")).await;
}

#[tokio::test]
async fn missing_rights_are_said_once_and_nothing_else_is_lost() {
    let shop = Shop::open(LABEL).await;
    shop.api.set_rules(json!([]));
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    eventually("it tries", async || daemon.metric("kubernetes_writes_total", &["error"]).await >= 3.0).await;
    assert_eq!(daemon.logs().matches("403 pods is forbidden").count(), 1, "{}", daemon.logs());
    shop.api.set_rules(fixture("rbac-label.json"));
    shop.routes_to("pod-0", generation).await;
    // Said when the write is answered, which is after it can be seen.
    eventually("it says so, once", async || daemon.logs().matches("routing works again").count() == 1).await;
}

async fn conflicts_are_decided_anew(route: &'static str) {
    let shop = Shop::open(route).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    // Enough for one contended read or more in each of three tries.
    shop.api.set_fault(Fault::Contended(3));
    let meddled = json!({"metadata": {"annotations": {"tenure.dev/generation": "0"}}});
    if route == LABEL {
        shop.api.edit("pods", "pod-0", meddled);
    } else {
        shop.edit_slice(meddled);
    }
    eventually("it meets conflicts", async || daemon.metric("kubernetes_writes_total", &["conflict"]).await >= 1.0)
        .await;
    shop.routes_to("pod-0", generation).await;
    assert!(!daemon.logs().contains("WARN tenure::kubernetes"), "a conflict is no news: {}", daemon.logs());
}

#[tokio::test]
async fn conflicts_on_a_pod_are_decided_anew() {
    conflicts_are_decided_anew(LABEL).await;
}

#[tokio::test]
async fn conflicts_on_a_slice_are_decided_anew() {
    conflicts_are_decided_anew(SLICE).await;
}

/// Goal: a token that is no longer accepted is read again from its file at the next try, not when a cache runs out.
#[tokio::test]
async fn a_new_token_is_taken_up() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    shop.routes_to("pod-0", generation).await;
    shop.api.revoke("pod-0");
    shop.edit_slice(json!({"endpoints": []}));
    eventually("it is turned away", async || daemon.logs().contains("401 Unauthorized")).await;
    shop.api.set_token("pod-0", "pod-0#2");
    shop.routes_to("pod-0", generation).await;
}

/// Goal: a Service that cannot be routed by slice is refused with what to change, and taken once it is changed.
#[tokio::test]
async fn a_service_that_does_not_fit_is_refused_with_what_to_change() {
    let shop = Shop::open(SLICE).await;
    let good = shop.api.get("services", "orders")["spec"].clone();
    shop.api.delete("services", "orders");
    let daemon = shop.candidate(0).start().await;
    let generation = eventually("it leads", async || daemon.leads_with().await).await;
    let says = async |what: &str| {
        eventually(what, async || if daemon.logs().contains(what) { Ok(()) } else { Err(daemon.logs()) }).await;
        assert_eq!(shop.slice(), Value::Null, "nothing was written");
    };
    says("there is no service orders").await;
    let with = |key: &str, value: Value| {
        let mut spec = good.clone();
        spec[key] = value;
        shop.api.put("services", "orders", json!({"spec": spec}));
    };
    with("selector", json!({"app": "orders"}));
    says("service orders has a selector").await;
    with("ports", json!([{"port": 80, "targetPort": "http"}]));
    says("service orders has the named targetPort http").await;
    with("ports", json!([]));
    says("service orders has no ports").await;
    shop.api.put("services", "orders", json!({"spec": good}));
    shop.routes_to("pod-0", generation).await;
}

#[tokio::test]
async fn an_address_of_version_6_makes_a_slice_of_its_kind_and_takes_no_other() {
    let shop = Shop::open(SLICE).await;
    let daemon = shop.candidate(0).set("kubernetes.address", "fd00::5").start().await;
    eventually("the slice is there", async || shop.routed().len() == 1).await;
    assert_eq!(shop.slice()["addressType"], "IPv6");
    assert_eq!(shop.slice()["endpoints"][0]["addresses"], json!(["fd00::5"]));
    daemon.sigterm();
    daemon.wait_exit().await;
    assert!(shop.routed().is_empty(), "the end withdraws it");
    let daemon = shop.candidate(1).start().await;
    let what = "endpoint slice orders-tenure is of type IPv6";
    eventually(what, async || daemon.logs().contains(what)).await;
    assert!(shop.routed().is_empty());
}

#[tokio::test]
async fn a_slice_of_another_election_is_left_alone() {
    let shop = Shop::open(SLICE).await;
    let meta = json!({"labels": {"tenure.dev/election": "billing"}, "annotations": {"tenure.dev/generation": "1"}});
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.9.9.9"]}], "metadata": meta});
    shop.api.put("endpointslices", "orders-tenure", slice);
    let before = shop.slice();
    let daemon = shop.candidate(0).start().await;
    let what = "endpoint slice orders-tenure belongs to the election billing";
    eventually(what, async || daemon.logs().contains(what)).await;
    assert_eq!(shop.slice(), before);
}

#[tokio::test]
async fn without_routing_there_is_no_series_of_it() {
    let shop = Shop::open("label").await;
    let daemon = shop.candidate(0).set("kubernetes.route", "none").start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    let page = daemon.get("/metrics").await.expect("an answer").text();
    assert!(!page.contains("kubernetes"), "{page}");
    assert!(shop.api.writes().is_empty());
}
