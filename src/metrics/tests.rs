use super::*;
use crate::clock::{self};
use crate::election::ids::Generation;
use crate::election::role::Role;
use crate::snapshot::{ElectionView, LeaderView};

fn metrics() -> Metrics {
    let names = [ElectionName::parse("orders").expect("a name")];
    Metrics::new("1.0", "abc", &names, &["http://a:2379".to_owned()], Duration::from_secs(10))
}

fn snapshot(leader: Option<(&str, u64)>) -> Snapshot {
    let leader = leader.map(|(id, generation)| LeaderView {
        id: id.to_owned(),
        url: String::new(),
        generation: Generation(generation),
        elected_at: clock::Wall::default(),
    });
    let name = ElectionName::parse("orders").expect("a name");
    let ours = leader.as_ref().is_some_and(|l| l.id == "pod-0");
    let view = ElectionView { leader, ours, ..ElectionView::starting(name, Role::Follower, clock::Wall::default()) };
    Snapshot {
        id: "pod-0".to_owned(),
        session: None,
        elections: vec![view],
        draining: false,
        joined: true,
        offset_ms: 0,
        max_jump: Duration::ZERO,
        etcd_seen: None,
    }
}

#[test]
fn vacancies_and_changes_of_leader_are_counted_without_a_scrape() {
    let m = metrics();
    let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
    let looks = [
        (None, 10),
        (Some(("pod-1", 1)), 12),
        (Some(("pod-1", 1)), 20),
        (None, 30),
        (Some(("pod-1", 2)), 31),
        (Some(("pod-2", 3)), 40),
        // etcd still names us though we no longer act.
        (Some(("pod-0", 4)), 50),
        (Some(("pod-2", 5)), 55),
    ];
    for (leader, seconds) in looks {
        m.published(&snapshot(leader), at(seconds));
    }
    let families = &m.0.families;
    let leaderless = families.leaderless.with_label_values(&["orders"]).get();
    assert!((leaderless - 8.0).abs() < 1e-9, "2 + 1 + 5 seconds, not {leaderless}");
    assert_eq!(families.leader_changes.with_label_values(&["orders"]).get(), 3, "the first one seen is no change");
}

#[test]
fn the_newer_format_is_given_to_whoever_prefers_it() {
    let format = |accept: &str| Format::negotiate([accept].into_iter());
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(format(prometheus), Format::OpenMetrics);
    for old in
        ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "text/plain, application/openmetrics-text;q=0.5"]
    {
        assert_eq!(format(old), Format::Text, "{old}");
    }
}

#[test]
fn clients_cannot_make_series_up() {
    let m = metrics();
    for method in ["BREW", "FOO", "get"] {
        m.http_request("other", method, 405, Duration::ZERO);
    }
    assert_eq!(m.0.families.http_requests.with_label_values(&["other", "other", "405"]).get(), 3);
}
