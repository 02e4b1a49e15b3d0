//! The metrics page.

use std::time::Duration;

use crate::http_support::{Setup, Stage, ask, candidate, leader};

const FAMILIES: &[&str] = &[
    "build_info",
    "is_leader",
    "role",
    "generation",
    "observed_generation",
    "transitions_total",
    "leader_changes_observed_total",
    "leaderless_seconds_total",
    "candidates",
    "queue_position",
    "session_ttl_seconds",
    "guard_deadline_timestamp_seconds",
    "guard_remaining_seconds",
    "promise_outstanding_seconds",
    "keepalive_seconds",
    "keepalive_failures_total",
    "elect_seconds",
    "handover_seconds",
    "loop_lag_seconds",
    "etcd_endpoint_up",
    "watch_restarts_total",
    "store_identity_changes_total",
    "generation_raised_total",
    "fenced_total",
    "gate_answers_total",
    "http_requests_total",
    "http_request_seconds",
    "audit_dropped_total",
    "log_dropped_total",
];

#[tokio::test]
async fn every_family_is_there_from_the_start_and_judged_at_the_scrape() {
    let stage = Stage::start(Setup::default()).await;
    let page = stage.get("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for family in FAMILIES {
        assert!(page.body.contains(&format!("# HELP tenure_{family} ")), "{family}");
    }
    assert!(
        page.body.contains("\nprocess_resident_memory_bytes ")
            && page.body.contains("\nleader_election_master_status{")
    );
    assert!(page.body.contains("\ntenure_is_leader{election=\"orders\"} 0\n"));
    stage.publisher.publish(leader(Duration::from_millis(200)));
    stage.get("/gate").await;
    ask(stage.public, "GET", "/gate", "Fencing-Token: 1\r\n", b"").await;
    ask(stage.public, "BREW", "/nope", "", b"").await;
    let page = stage.get("/metrics").await.body;
    for line in [
        "tenure_is_leader{election=\"orders\"} 1",
        "tenure_generation{election=\"orders\"} 42",
        "tenure_role{election=\"orders\",role=\"leader\"} 1",
        "leader_election_master_status{name=\"orders\"} 1",
        "tenure_gate_answers_total{answer=\"allowed\",election=\"orders\"} 1",
        "tenure_fenced_total{door=\"gate\",election=\"orders\"} 1",
        "tenure_http_requests_total{code=\"404\",method=\"other\",route=\"other\"} 1",
        "tenure_queue_position{election=\"billing\"} -1",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line}");
    }
    tokio::time::sleep(Duration::from_millis(210)).await;
    let page = stage.get("/metrics").await.body;
    assert!(
        page.contains("\ntenure_is_leader{election=\"orders\"} 0\n"),
        "the guard has passed, and nobody published that"
    );
    if let Ok(path) = std::env::var("TENURE_TEST_METRICS_OUT") {
        std::fs::write(path, page).expect("written");
    }
}

#[tokio::test]
async fn openmetrics_comes_when_asked_for_and_parses() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let page = ask(stage.public, "GET", "/metrics", accept, b"").await;
    assert_eq!(page.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(page.body.ends_with("# EOF\n"));
    assert!(page.body.contains("# TYPE tenure_transitions counter\n"));
    assert!(page.body.contains("tenure_elect_seconds_bucket{le=\"1.0\"} 0\n"));
    for line in page.body.lines().filter(|l| !l.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a sample");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}
