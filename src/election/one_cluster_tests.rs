//! Attacks on the rule of one cluster.

use super::*;

const TTL: Duration = Duration::from_secs(10);
const X: u64 = 0x1;
const Y: u64 = 0x2;
const Z: u64 = 0x3;

fn urls(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("http://m{i}:2379")).collect()
}

fn fresh(n: usize) -> OneCluster {
    OneCluster::new(&urls(n), None, None, TTL)
}

fn is(cluster: u64, member: u64) -> Identity {
    Identity { cluster: ClusterId(cluster), member: MemberId(member) }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn list(cluster: &mut OneCluster, of: u64, members: &[(u64, &str)]) {
    let members: Vec<_> = members.iter().map(|(id, url)| (MemberId(*id), vec![(*url).to_owned()])).collect();
    cluster.listed(at(1), ClusterId(of), &members);
}

#[test]
fn two_of_three_members_pin_and_one_does_not() {
    let mut one = fresh(3);
    assert_eq!(one.heard(at(1), 0, is(X, 10)), Verdict::Undecided);
    assert_eq!(one.heard(at(1), 2, is(X, 12)), Verdict::Ours);
    assert_eq!(one.pin(), Some(ClusterId(X)));
    assert_eq!(one.heard(at(2), 1, is(Y, 20)), Verdict::Foreign { pinned: ClusterId(X) });
    assert!(one.is_foreign(at(2), 1) && !one.is_foreign(at(2), 0));
}

#[test]
fn three_clusters_of_one_member_pin_nobody_and_are_named() {
    let mut one = fresh(3);
    for (endpoint, cluster) in [X, Y, Z].into_iter().enumerate() {
        assert_eq!(one.heard(at(1), endpoint, is(cluster, 7)), Verdict::Undecided);
        list(&mut one, cluster, &[(7, &format!("http://m{endpoint}:2379"))]);
    }
    assert_eq!(one.pin(), None);
    let said = one.describe(at(1), &["u0", "u1", "u2"]);
    assert!(said.contains("u0 is in cluster 1, u1 is in cluster 2, u2 is in cluster 3"), "{said}");
}

#[test]
fn a_single_endpoint_pins_by_its_answer() {
    assert_eq!(fresh(1).heard(at(1), 0, is(X, 1)), Verdict::Ours);
}

#[test]
fn several_names_of_one_member_count_once() {
    let mut one = fresh(3);
    one.heard(at(1), 0, is(X, 10));
    assert_eq!(one.heard(at(1), 1, is(X, 10)), Verdict::Undecided, "one member under two names, and one unknown");
    assert_eq!(one.heard(at(1), 2, is(Y, 20)), Verdict::Undecided, "one member against one");
    assert_eq!(one.heard(at(2), 2, is(X, 11)), Verdict::Ours, "two members of three endpoints");
}

#[test]
fn servers_that_were_started_alike_pin_nobody_and_are_named() {
    for n in 2..=4 {
        for configured in [None, Some(ClusterId(X))] {
            let mut one = OneCluster::new(&urls(n), configured, None, TTL);
            for endpoint in 0..n {
                assert_eq!(one.heard(at(1), endpoint, is(X, 10)), Verdict::Undecided, "{n} of them, {configured:?}");
            }
            let said = one.describe(at(1), &["u0", "u1", "u2", "u3"][..n]);
            assert!(said.starts_with("u0 is in cluster 1, u1 answers as the same member of cluster 1 as u0"), "{said}");
        }
    }
}

#[test]
fn a_silent_endpoint_counts_where_one_list_names_it() {
    let mut one = fresh(2);
    assert_eq!(one.heard(at(1), 0, is(X, 10)), Verdict::Undecided);
    assert!(one.wants_lists().is_empty(), "the other may answer yet");
    one.silent(at(1), 1);
    assert_eq!(one.wants_lists(), [0]);
    list(&mut one, X, &[(10, "http://m0:2379"), (11, "https://M1:2379/")]);
    assert_eq!(one.pin(), Some(ClusterId(X)));
}

#[test]
fn a_list_does_not_speak_for_an_endpoint_that_answers_or_for_another_address() {
    let mut one = fresh(2);
    one.heard(at(1), 0, is(X, 10));
    one.heard(at(1), 1, is(Y, 20));
    list(&mut one, X, &[(10, "http://m0:2379"), (11, "http://m1:2379")]);
    assert_eq!(one.pin(), None, "it answers for itself");
    let mut one = fresh(2);
    one.heard(at(1), 0, is(X, 10));
    one.silent(at(1), 1);
    list(&mut one, X, &[(10, "http://m0:2379"), (11, "http://10.0.0.7:2379")]);
    assert_eq!(one.pin(), None, "the list names it otherwise");
}

#[test]
fn an_address_in_two_lists_counts_for_neither() {
    let mut one = fresh(3);
    one.heard(at(1), 0, is(X, 10));
    one.heard(at(1), 1, is(Y, 20));
    list(&mut one, X, &[(10, "http://m0:2379"), (12, "http://m2:2379")]);
    list(&mut one, Y, &[(20, "http://m1:2379"), (22, "http://m2:2379")]);
    one.silent(at(1), 2);
    assert_eq!(one.pin(), None);
}

#[test]
fn the_configuration_replaces_the_test_and_is_never_left() {
    let mut one = OneCluster::new(&urls(3), Some(ClusterId(X)), Some(ClusterId(Z)), TTL);
    assert_eq!(one.heard(at(1), 0, is(X, 10)), Verdict::Undecided, "the others may be the same");
    one.silent(at(1), 1);
    one.silent(at(1), 2);
    assert_eq!(one.heard(at(1), 0, is(X, 10)), Verdict::Ours, "one member is enough");
    for endpoint in 0..3 {
        for second in [2, 30, 60] {
            assert!(matches!(one.heard(at(second), endpoint, is(Y, 20)), Verdict::Foreign { .. }));
        }
    }
    assert_eq!(one.moved(at(60)), None);
}

#[test]
fn at_the_start_a_store_that_moved_is_known_once_every_endpoint_says_so() {
    let mut one = OneCluster::new(&urls(2), None, Some(ClusterId(X)), TTL);
    one.heard(at(1), 0, is(Y, 20));
    assert_eq!(one.moved(at(1)), None, "one endpoint has not answered");
    one.silent(at(1), 1);
    assert_eq!(one.moved(at(100)), None, "with one silent only the operator decides");
    one.heard(at(101), 1, is(Y, 21));
    assert_eq!(one.moved(at(101)), Some(ClusterId(Y)));
    one.adopt(ClusterId(Y));
    assert_eq!(one.heard(at(102), 0, is(Y, 20)), Verdict::Ours);
}

#[test]
fn in_a_running_daemon_a_move_holds_for_one_ttl_first() {
    let mut one = fresh(2);
    for endpoint in 0..2 {
        one.heard(at(1), endpoint, is(X, 10 + endpoint as u64));
    }
    let all = |one: &mut OneCluster, second| {
        for endpoint in 0..2 {
            one.heard(at(second), endpoint, is(Y, 20 + endpoint as u64));
        }
    };
    all(&mut one, 20);
    assert_eq!(one.moved(at(40)), None, "nobody has answered since");
    all(&mut one, 29);
    assert_eq!(one.moved(at(29)), None);
    all(&mut one, 30);
    assert_eq!(one.moved(at(30)), Some(ClusterId(Y)));
    one.silent(at(31), 1);
    assert_eq!(one.moved(at(31)), None, "a silent endpoint begins it anew");
    all(&mut one, 32);
    assert_eq!(one.moved(at(32)), None);
}

#[test]
fn an_address_that_answers_as_two_clusters_in_turn_is_not_heeded() {
    let mut one = fresh(1);
    assert_eq!(one.heard(at(1), 0, is(X, 10)), Verdict::Ours);
    assert!(matches!(one.heard(at(2), 0, is(Y, 20)), Verdict::Foreign { .. }), "once is an address given away");
    assert_eq!(one.heard(at(3), 0, is(X, 10)), Verdict::Mixed);
    assert_eq!(one.heard(at(102), 0, is(X, 10)), Verdict::Mixed);
    assert_eq!(one.heard(at(104), 0, is(X, 10)), Verdict::Ours, "calm for ten TTLs");
}

/// Whatever a number of daemons hear, in whatever order, of endpoints that each are of one cluster: no two pin different ones.
#[test]
fn no_two_daemons_with_one_list_pin_different_clusters() {
    // Every endpoint is one of these members; two names may lead to one member.
    const MEMBERS: [(u64, u64); 5] = [(X, 10), (X, 11), (Y, 20), (Y, 21), (Z, 30)];
    let mut pinned_some = 0;
    for n in 1..=4_u32 {
        for world in 0..5_usize.pow(n) {
            let truth: Vec<_> = (0..n).map(|i| MEMBERS[world / 5_usize.pow(i) % 5]).collect();
            // Each daemon is answered by some, and the rest keep silent; lists are true.
            let mut pins = BTreeSet::new();
            for answered in 0..2_usize.pow(n) {
                let mut one = fresh(n as usize);
                for (i, (cluster, member)) in truth.iter().enumerate() {
                    if answered >> i & 1 == 1 {
                        one.heard(at(1), i, is(*cluster, *member));
                    } else {
                        one.silent(at(1), i);
                    }
                }
                for i in one.wants_lists() {
                    let of = truth[i].0;
                    let members = truth.iter().enumerate().filter(|(_, (cluster, _))| *cluster == of);
                    let members: Vec<_> =
                        members.map(|(i, (_, id))| (MemberId(*id), vec![format!("http://m{i}:2379")])).collect();
                    one.listed(at(1), ClusterId(of), &members);
                }
                pins.extend(one.pin());
            }
            assert!(pins.len() <= 1, "{truth:?}: {pins:?}");
            pinned_some += pins.len();
        }
    }
    assert!(pinned_some > 50, "{pinned_some} pins: the test must not pass for want of them");
}
