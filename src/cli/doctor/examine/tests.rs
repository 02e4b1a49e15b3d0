use super::super::{Clocks, Failed, Findings, Member, Namesake, Rights};
use super::*;
use crate::config::{self, Env, Overrides};
use crate::etcd::{EndpointStatus, Flaw, Kind, ListedMember, Obstacle, Origin, Round, Step};

fn config_with(yaml: &str) -> Config {
    let env = Env::from_iter([("HOSTNAME", "pod-0"), ("TENURE_ELECTIONS", "orders")]);
    let overrides = Overrides { env, ..Overrides::default() };
    config::load_bytes("tenure.yaml", yaml.as_bytes(), &overrides).expect("right").0
}

fn config() -> Config {
    config_with("{}")
}

fn up(name: u64, version: &str) -> Member {
    let origin = Origin { cluster: 7, member: name, revision: 5, term: 2 };
    let mut member = Member::new(&format!("http://m{name}:2379"));
    member.greeting = Ok(Vec::new());
    let version = version.to_owned();
    member.status = Ok(EndpointStatus { origin, version, led: true, leader: name == 1, ..EndpointStatus::default() });
    (member.read, member.memory) = (Ok(origin), Ok(origin));
    member
}

fn failed(kind: Kind, text: &str) -> Failed {
    Failed { kind, text: text.to_owned() }
}

/// All that is said of it, as a daemon's round found each member good.
fn said(findings: &Findings, config: &Config) -> Vec<Remark> {
    let of = findings.members.len();
    let mut all: Vec<_> = findings.members.iter().flat_map(|m| member(m, of, false)).collect();
    all.extend(members(findings, config));
    all.extend(rest(findings, config));
    all
}

fn found(members: Vec<Member>) -> Findings {
    Findings { members, ..Findings::default() }
}

/// The one remark with these words.
#[track_caller]
fn expect(findings: &Findings, level: Level, words: &str) -> String {
    let all = said(findings, &config());
    let matching: Vec<_> = all.iter().filter(|r| r.text.contains(words)).collect();
    assert!(matching.len() == 1 && matching[0].level == level, "{words}: {all:#?}");
    matching[0].text.clone()
}

fn worst(findings: &Findings) -> Level {
    said(findings, &config()).into_iter().map(|r| r.level).max().expect("remarks")
}

fn played(change: impl FnOnce(&mut Round)) -> Round {
    let origin = |_| Origin { cluster: 7, member: 1, revision: 9, term: 2 };
    let ms = Duration::from_millis;
    let mut round = Round {
        granted: Some(Duration::from_secs(10)),
        writes: vec![ms(2); 4],
        renewals: vec![ms(1); 3],
        origins: (0..8).map(origin).collect(),
        elsewhere: (0..6).map(origin).collect(),
        ..Round::default()
    };
    change(&mut round);
    round
}

fn round(change: impl FnOnce(&mut Round)) -> Findings {
    let mut member = up(1, "3.7.3");
    member.reads = vec![Ok(Duration::from_millis(1)); 8];
    member.round = Some(played(change));
    found(vec![member])
}

#[test]
fn a_recent_and_fast_etcd_is_all_good() {
    let mut findings = round(|_| {});
    for name in [2, 3] {
        findings.members.push(up(name, "3.7.3"));
    }
    findings.rights = vec![("orders".to_owned(), Rights::Granted)];
    findings.clocks = Clocks { watched: Duration::from_secs(2), moved_ms: -1, slewed_ppm: 40 };
    assert_eq!(worst(&findings), Level::Good, "{:?}", said(&findings, &config()));
}

#[test]
fn a_silent_minority_is_a_warning_and_a_silent_majority_is_not_one() {
    let dead = |name: &str| {
        let mut member = Member::new(name);
        member.greeting = Err(failed(Kind::Unreachable, "connection refused"));
        member
    };
    assert_eq!(worst(&found(vec![up(1, "3.6.14"), up(2, "3.6.14"), dead("c")])), Level::Warn);
    let mut first = up(1, "3.6.14");
    let listed =
        |id: u64, url: &str| ListedMember { id, name: String::new(), client_urls: vec![format!("http://{url}")] };
    first.listed =
        Ok((Origin { cluster: 7, ..Origin::default() }, vec![listed(1, "m1:2379"), listed(2, "b"), listed(3, "c")]));
    expect(&found(vec![first, dead("b"), dead("c")]), Level::Bad, "1 of 3 endpoints serve requests");
    assert_eq!(worst(&found(vec![dead("a")])), Level::Bad);
    expect(&found(vec![dead("a"), dead("b")]), Level::Bad, "no member serves requests");
}

#[test]
fn a_hanging_disk_a_hanging_process_a_lost_quorum_and_a_learner_are_told_apart() {
    let with = |change: fn(&mut Member)| {
        let mut member = up(3, "3.7.3");
        change(&mut member);
        found(vec![up(1, "3.7.3"), up(2, "3.7.3"), member])
    };
    let disk = with(|m| m.read = Err(failed(Kind::Unknown, "no answer")));
    expect(&disk, Level::Warn, "http://m3:2379 answers from memory, and takes no part: its disk hangs");
    let process = with(|m| {
        let silent = || failed(Kind::Unknown, "no answer");
        (m.status, m.read, m.memory) = (Err(silent()), Err(silent()), Err(silent()));
    });
    expect(&process, Level::Warn, "answers nothing: its process hangs");
    let alone = with(|m| {
        m.read = Err(failed(Kind::Unknown, "no leader"));
        m.status.as_mut().expect("up").led = false;
    });
    expect(&alone, Level::Warn, "it knows no leader");
    let refusing = with(|m| {
        let told = || failed(Kind::Unknown, "etcdserver: no leader");
        (m.status, m.read, m.memory) = (Err(told()), Err(told()), Err(told()));
    });
    expect(&refusing, Level::Warn, "it knows no leader");
    let learner = with(|m| {
        m.read = Err(failed(Kind::WrongMember, "rpc not supported for learner"));
        m.status.as_mut().expect("up").learner = true;
    });
    expect(&learner, Level::Warn, "is a learner");
    let untold = with(|m| {
        (m.read, m.status) = (Err(failed(Kind::WrongMember, "learner")), Err(failed(Kind::Permission, "denied")));
    });
    expect(&untold, Level::Warn, "is a learner");
}

#[test]
fn members_of_several_clusters_are_named_with_where_they_belong() {
    let mut stranger = up(2, "3.7.3");
    for origin in [stranger.read.as_mut(), stranger.memory.as_mut()] {
        origin.expect("up").cluster = 0xabc;
    }
    let text = expect(&found(vec![up(1, "3.7.3"), stranger, up(3, "3.7.3")]), Level::Bad, "2 clusters");
    assert!(text.contains("7: http://m1:2379 and http://m3:2379; abc: http://m2:2379"), "{text}");
    let mut twice = up(1, "3.7.3");
    twice.endpoint = "http://again:2379".to_owned();
    expect(&found(vec![up(1, "3.7.3"), twice]), Level::Warn, "are the same member");
}

#[test]
fn a_member_that_no_endpoint_reaches_is_named_unless_a_silent_one_may_be_it() {
    let listed =
        |id, name: &str| ListedMember { id, name: name.to_owned(), client_urls: vec![format!("http://m{id}:2379")] };
    let list = vec![listed(1, "a"), listed(2, "b"), listed(3, "c")];
    let mut first = up(1, "3.7.3");
    first.listed = Ok((Origin { cluster: 7, ..Origin::default() }, list));
    let mut findings = found(vec![first, up(2, "3.7.3")]);
    let text = expect(&findings, Level::Note, "etcd has 3 members");
    assert!(text.contains("not among the endpoints: c (http://m3:2379)"), "{text}");
    findings.members.push(Member::new("http://m3:2379"));
    assert!(!said(&findings, &config()).iter().any(|r| r.text.contains("etcd has 3 members")));
}

#[test]
fn proxies_show_by_their_list_by_their_rhythm_and_by_their_ids() {
    let mut listing = up(1, "3.7.3");
    listing.listed = Ok((Origin::default(), vec![ListedMember::default()]));
    expect(&found(vec![listing]), Level::Bad, "grpc-proxy");
    let slow = round(|r| r.renewals = [1, 3_300].map(Duration::from_millis).to_vec());
    expect(&slow, Level::Bad, "grpc-proxy");
    let spread = round(|r| r.origins[3].member = 9);
    expect(&spread, Level::Bad, "spreads the requests of one connection");
    let balanced = round(|r| r.elsewhere[3].member = 9);
    expect(&balanced, Level::Note, "a balancer");
    let scaled = round(|r| r.unseen = 2);
    expect(&scaled, Level::Bad, "one address of several servers");
    let slow_for_all = round(|r| r.renewals = vec![Duration::from_millis(800); 3]);
    assert!(!said(&slow_for_all, &config()).iter().any(|r| r.text.contains("proxy")), "slow is no proxy");
}

#[test]
fn equal_ids_do_not_make_a_cluster_of_servers_that_know_nothing_of_each_other() {
    let mut findings = round(|r| r.unseen_by_next = true);
    let mut other = up(1, "3.7.3");
    (other.endpoint, other.round) = ("http://other:2379".to_owned(), Some(played(|_| {})));
    findings.members.push(other);
    expect(
        &findings,
        Level::Bad,
        "http://m1:2379 and http://other:2379 are not one cluster, though their ids are equal",
    );
}

#[test]
fn a_larger_lease_than_asked_for_comes_with_the_fail_over_that_it_means() {
    let text = expect(&round(|r| r.granted = Some(Duration::from_secs(15))), Level::Warn, "grants a lease of 15s");
    assert!(text.contains("worst-case fail-over is 15500ms then, not 10500ms"), "{text}");
}

#[test]
fn the_lease_bug_comes_with_the_settings_that_keep_promises() {
    let findings = found(vec![up(1, "3.5.3")]);
    let text = expect(&findings, Level::Warn, "15247");
    // (1 s + 2/5 of 10 s) / 0.99, and 10 s / 0.99.
    assert!(text.contains("session.vacancy_grace: 5051ms keeps") && text.contains("10102ms keeps"), "{text}");
    let slow = round(|r| r.granted = Some(Duration::from_secs(20)));
    let findings = Findings {
        members: vec![Member { round: slow.members.into_iter().next().and_then(|m| m.round), ..up(1, "3.5.3") }],
        ..Findings::default()
    };
    let text = expect(&findings, Level::Warn, "15247");
    assert!(text.contains("session.vacancy_grace: 9091ms keeps"), "by the granted TTL: {text}");
    assert!(text.contains("20203ms (which takes session.ttl: 20s,"), "what the configuration would accept: {text}");
}

#[test]
fn a_slow_disk_is_told_from_a_slow_way() {
    let ms = Duration::from_millis;
    let mut slow = round(|r| r.writes = vec![ms(400); 4]);
    let text = expect(&slow, Level::Warn, "the disk of etcd is slow");
    assert!(text.contains("writes take 400.0ms and reads 1.0ms"), "{text}");
    slow.members[0].reads = vec![Ok(ms(300)); 8];
    assert!(!said(&slow, &config()).iter().any(|r| r.text.contains("disk of etcd is slow")), "the way is slow");
}

#[test]
fn slow_reads_missing_rights_alarms_namesakes_and_restless_clocks_stand_out() {
    let only = |change: fn(&mut Findings)| {
        let mut findings = round(|_| {});
        change(&mut findings);
        worst(&findings)
    };
    let reads = |millis: &[u64]| {
        let mut findings = round(|_| {});
        findings.members[0].reads = millis.iter().map(|n| Ok(Duration::from_millis(*n))).collect();
        worst(&findings)
    };
    assert_eq!((reads(&[1_000; 3]), reads(&[1, 1, 1_000])), (Level::Bad, Level::Warn));
    assert_eq!(only(|f| f.members[0].reads.push(Err(failed(Kind::Unknown, "x")))), Level::Warn);
    assert_eq!(only(|f| f.rights = vec![("a".to_owned(), Rights::Denied("no".to_owned()))]), Level::Bad);
    let clocks = |moved_ms, slewed_ppm| Clocks { watched: Duration::from_secs(2), moved_ms, slewed_ppm };
    assert_eq!(only(|_| {}), Level::Note, "one endpoint");
    for (f, level) in
        [((-300, 0), Level::Bad), ((100, 0), Level::Warn), ((0, 83_333), Level::Warn), ((0, -11_000), Level::Warn)]
    {
        let mut findings = round(|_| {});
        findings.clocks = clocks(f.0, f.1);
        assert_eq!(worst(&findings), level, "{f:?}");
    }
    assert_eq!(only(|f| f.members[0].status.as_mut().expect("up").errors.push("NOSPACE".to_owned())), Level::Bad);
    let namesake = |lease, url: &str| Namesake { election: "orders".to_owned(), lease, url: url.to_owned() };
    let mut findings = round(|_| {});
    findings.namesakes = vec![namesake(1, "http://a:1"), namesake(2, "http://b:1")];
    expect(&findings, Level::Bad, "2 daemons with the id pod-0 are in the queues (at http://a:1 and http://b:1)");
    findings.namesakes.pop();
    expect(&findings, Level::Note, "right if it is the one of this configuration");
    let ours = config_with("http: {advertise_url: 'http://ours:1'}");
    assert!(
        said(&findings, &ours).iter().any(|r| r.level == Level::Warn && r.text.contains("another daemon has the id"))
    );
}

#[test]
fn one_member_that_applies_nothing_while_the_others_do_has_a_hanging_disk() {
    let silent =
        || crate::etcd::Error::Silent { operation: "x", endpoint: "y".to_owned(), limit: Duration::from_millis(1_500) };
    let mut findings = round(|_| {});
    for name in [2, 3] {
        let mut other = up(name, "3.7.3");
        other.round = Some(played(|r| {
            r.origins.iter_mut().chain(&mut r.elsewhere).for_each(|origin| origin.member = name);
            r.failed = (name == 3).then(|| (Step::Grant, silent()));
        }));
        findings.members.push(other);
    }
    expect(
        &findings,
        Level::Warn,
        "http://m3:2379 cannot get a lease (no answer within 1500ms) while the others can: its disk hangs",
    );
}

#[test]
fn a_failed_step_says_what_cannot_be_done_and_where() {
    let error = || crate::etcd::Error::Malformed { operation: "x", what: "y" };
    expect(
        &round(|r| r.failed = Some((Step::Confirm, error()))),
        Level::Bad,
        "http://m1:2379: cannot confirm a renewal",
    );
    expect(&round(|r| r.without_keys = true), Level::Note, "may not write below /tenure/doctor/");
}

#[test]
fn being_refused_names_the_settings_at_fault() {
    let text = not_let_in(&failed(Kind::Auth, "authentication failed"), &config()).text;
    assert!(text.contains("asks for a user, and none is configured"), "{text}");
}

#[test]
fn where_a_daemon_would_heed_no_cluster_that_is_said_and_not_what_might_fail_next() {
    let silent = |name: &str| Member::new(name);
    let lonely = found(vec![up(1, "3.7.3"), silent("http://b:2379"), silent("http://c:2379")]);
    let text = expect(&lonely, Level::Bad, "a daemon would campaign nowhere: no majority of etcd.endpoints");
    assert!(text.contains("http://m1:2379 is in cluster 7, http://b:2379 does not answer"), "{text}");
    assert!(!said(&lonely, &config()).iter().any(|r| r.text.contains("one more that fails")));
    let mut again = up(1, "3.7.3");
    again.endpoint = "http://again:2379".to_owned();
    let twice = found(vec![up(1, "3.7.3"), silent("http://b:2379"), again]);
    expect(&twice, Level::Bad, "a daemon would campaign nowhere");
    expect(&twice, Level::Warn, "http://m1:2379 and http://again:2379 are the same member: list each member once");
    let mine = config_with("etcd: {cluster_id: '7'}");
    assert!(!said(&lonely, &mine).iter().any(|r| r.text.contains("campaign nowhere")), "the operator's word counts");
    let other = config_with("etcd: {cluster_id: '8'}");
    let all = said(&found(vec![up(1, "3.7.3")]), &other);
    assert!(
        all.iter().any(|r| r.level == Level::Bad && r.text.contains("no endpoint belongs to cluster 8")),
        "{all:?}"
    );
}

#[test]
fn a_grace_that_the_granted_lease_outgrows_is_warned_of() {
    let config = config_with("session: {ttl: 5s, vacancy_grace: 3100ms}");
    let all = said(&round(|r| r.granted = Some(Duration::from_secs(8))), &config);
    let text = "session.vacancy_grace of 3100ms no longer keeps promises with a lease of 8s: that takes 4243ms";
    assert!(all.iter().any(|r| r.level == Level::Warn && r.text == text), "{all:?}");
    let all = said(&round(|r| r.granted = Some(Duration::from_secs(5))), &config);
    assert!(!all.iter().any(|r| r.text.contains("no longer keeps")), "{all:?}");
}

#[test]
fn a_record_that_lets_nobody_be_elected_fails_with_its_key() {
    let with = |flaw| {
        let mut findings = round(|_| {});
        let obstacle = Obstacle { key: "/tenure/generations/orders".to_owned(), flaw };
        findings.records = vec![("orders".to_owned(), Ok(vec![obstacle]))];
        findings
    };
    let garbage = with(Flaw::NoGeneration("it claims generation 9".to_owned()));
    let text =
        expect(&garbage, Level::Bad, "/tenure/generations/orders holds no generation record (it claims generation 9)");
    assert!(text.contains("the newest record below /tenure/history/orders/"), "the remedy: {text}");
    expect(&with(Flaw::Largest), Level::Bad, "the largest generation");
    expect(&with(Flaw::NoControl), Level::Bad, "counts as a pause");
    expect(&with(Flaw::Paused), Level::Warn, "is paused");
    expect(&with(Flaw::Term(3)), Level::Warn, "carries term 3");
    let mut unread = round(|_| {});
    unread.records = vec![("orders".to_owned(), Err(failed(Kind::Unknown, "slow")))];
    expect(&unread, Level::Warn, "whether the records of orders let anybody be elected is unknown: slow");
}

#[test]
fn a_closed_connection_and_a_slow_login_are_not_called_silence() {
    let with = |text: &str| {
        let mut member = up(3, "3.7.3");
        let told = || failed(Kind::Unknown, text);
        (member.status, member.read, member.memory) = (Err(told()), Err(told()), Err(told()));
        found(vec![up(1, "3.7.3"), up(2, "3.7.3"), member])
    };
    let closed = expect(&with("it closed the connection: it is stopping"), Level::Warn, "closes the connection");
    assert_eq!(closed, "http://m3:2379 closes the connection: it is stopping");
    expect(&with("logging in there takes longer than"), Level::Warn, "http://m3:2379 serves nothing: logging in there");
}
