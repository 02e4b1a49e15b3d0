//! How `make chaos` judges progress: by the promised bound and what the faults of the round take by themselves. A leader that
//! comes a millisecond later is a violation.

use std::time::Duration;

use serde_json::json;

use crate::chaos_check::check::{Rule, check};
use crate::chaos_check::progress::{Recovery, recoveries};
use crate::chaos_check::takes::{Cause, bound, takes};
use crate::chaos_check::{History, MS, ask, fault};

/// When the faults of the history have begun, in ms; longer before they have ended than any clock of theirs runs.
const BEGUN: u64 = 4_100;
/// When they have ended.
const HEALED: u64 = 10_000;

/// Faults of these kinds that have ended by [`HEALED`], and a leader again so many ms after it.
fn history(kinds: &[&str], grace_ms: u64, leader_after: Option<u64>) -> History {
    let mut history = History::clean();
    let harness = history.of("harness.jsonl");
    harness.retain(|record| record["record"] != "fault");
    harness.push(healed(3_050, grace_ms));
    for kind in kinds {
        harness.extend([fault(BEGUN, kind, "begin"), fault(HEALED, kind, "end")]);
    }
    harness.push(healed(HEALED, grace_ms));
    let answers = history.of("poller-1.jsonl");
    // The faults ended nothing before.
    answers.extend((3_120..HEALED).step_by(20).map(|at| ask("pod-1", at, at, 2, 500)));
    // As a poller has it until the history ends: some answers of a leader, and all others of followers.
    for at in (HEALED..HEALED + 30_000).step_by(20) {
        let leads = leader_after.is_some_and(|after| at >= HEALED + after);
        let mut answer = ask("pod-1", at, at, 2, 500);
        if !leads {
            answer = json!({"record": "ask", "election": "orders", "daemon": "pod-1", "sent": at * MS, "heard": at * MS, "status": 503});
        }
        answers.push(answer);
    }
    // The very instant, between two questions.
    answers.extend(leader_after.map(|after| ask("pod-1", HEALED + after, HEALED + after, 2, 500)));
    history
}

fn healed(at: u64, grace_ms: u64) -> serde_json::Value {
    json!({"record": "healed", "at": at * MS, "grace_ms": grace_ms})
}

/// The last end of faults in a history, and whether the checker finds fault with it.
fn judged(history: &History) -> (Option<Recovery>, Vec<Rule>) {
    let dir = history.write();
    let (epochs, _) = check(dir.path()).expect("a history that can be read");
    let all = recoveries(&epochs[0], "orders").expect("faults with figures");
    (all.into_iter().rfind(|r| !r.faults.contains(&"start".to_owned())), history.broken())
}

#[test]
fn a_leader_that_comes_later_than_promised_and_what_the_faults_take_is_caught() {
    let cases: [(&[&str], u64, u64); 9] = [
        // TTL, etcd's overshoot, a commit and an answer.
        (&["cut-daemon", "kill-daemon", "stop-client"], 0, 3_000),
        (&["cut-daemon-in"], 0, 5_000),
        (&["cut-daemon"], 2_100, 5_100),
        (&["resign"], 0, 1_250),
        // Each cause once, and the promised bound of what ends a leadership hardest.
        (&["kill-etcd-leader", "resign", "clock-jump"], 0, 6_800),
        (&["kill-etcd-leader"], 2_100, 14_100),
        (&["stop-quorum"], 0, 11_800),
        (&["nospace", "stop-daemon"], 0, 11_000),
        (&["restore"], 0, 15_000),
    ];
    for (kinds, grace, allowed) in cases {
        let (recovery, broken) = judged(&history(kinds, grace, Some(allowed)));
        let recovery = recovery.expect("it can be judged");
        assert_eq!((recovery.bound_ms, recovery.took_ms), (allowed, allowed), "{kinds:?}: {recovery:?}");
        assert_eq!(broken, [], "{kinds:?}");
        let (_, broken) = judged(&history(kinds, grace, Some(allowed + 1)));
        assert_eq!(broken, [Rule::Progress], "{kinds:?}: a millisecond too late");
    }
}

#[test]
fn a_leader_that_never_comes_is_caught_and_one_that_nobody_waited_for_is_not() {
    assert_eq!(judged(&history(&["cut-daemon"], 0, None)).1, [Rule::Progress]);
    let mut broken_off = history(&["cut-daemon"], 0, None);
    broken_off.of("poller-1.jsonl").retain(|ask| ask["heard"].as_u64() <= Some((HEALED + 3_000) * MS));
    let (recovery, broken) = judged(&broken_off);
    assert!(recovery.is_none() && broken.is_empty(), "{recovery:?} {broken:?}");
}

#[test]
fn a_leader_that_is_lost_again_gives_way_to_the_time_of_its_successor() {
    let mut lost = history(&["cut-daemon"], 0, Some(0));
    let gone = (HEALED + 500) * MS..(HEALED + 3_400) * MS;
    lost.of("poller-1.jsonl").retain(|ask| !gone.contains(&ask["sent"].as_u64().expect("a time")));
    let (recovery, broken) = judged(&lost);
    assert_eq!((recovery.expect("judged").took_ms, broken), (3_400, vec![Rule::Progress]));
}

#[test]
fn a_leader_is_due_while_only_daemons_are_hit() {
    let gap_of = |kind: &str, until: u64| {
        let mut history = history(&[kind], 0, Some(0));
        // From the fault's beginning on nobody leads for so long.
        let gone = BEGUN * MS..(BEGUN + until) * MS;
        history.of("poller-1.jsonl").retain(|ask| !gone.contains(&ask["sent"].as_u64().expect("a time")));
        history.broken()
    };
    assert_eq!(gap_of("kill-daemon", 2_980), []);
    assert_eq!(gap_of("kill-daemon", 3_020), [Rule::Progress]);
    let until_the_next = |kind: &str| {
        let mut history = history(&["kill-daemon"], 0, Some(0));
        let gone = BEGUN * MS..(BEGUN + 3_020) * MS;
        history.of("poller-1.jsonl").retain(|ask| !gone.contains(&ask["sent"].as_u64().expect("a time")));
        history.of("harness.jsonl").extend([fault(BEGUN + 2_900, kind, "begin"), fault(BEGUN + 2_910, kind, "end")]);
        history.broken()
    };
    assert_eq!(until_the_next("stop-client"), [Rule::Progress], "the clock goes on");
    assert_eq!(until_the_next("stop-daemon"), [], "which may have been the next to lead");
    assert_eq!(gap_of("kill-member", 3_020), [], "etcd may have no leader meanwhile");
}

#[test]
fn a_pause_that_grew_in_the_round_before_counts_as_long_as_it_may_be_in_force() {
    let allowed = |ended: u64| {
        let mut history = history(&["cut-daemon"], 0, Some(0));
        let harness = history.of("harness.jsonl");
        for record in harness.iter_mut() {
            let later = [(BEGUN, 20_000), (HEALED, 25_000)].into_iter().find(|(at, _)| record["at"] == at * MS);
            record["at"] = later.map_or(record["at"].take(), |(_, at)| (at * MS).into());
        }
        harness.extend([fault(3_060, "nospace", "begin"), fault(ended, "nospace", "end"), healed(5_050, 0)]);
        judged(&history).0.expect("judged").bound_ms
    };
    // For 10 s after it has passed, and it is of 5 s.
    assert_eq!(allowed(5_000), 3_000 + 5_000);
    assert_eq!(allowed(4_999), 3_000);
}

#[test]
fn what_a_fault_takes_may_reach_into_the_next_round() {
    let mut history = history(&["resign"], 0, Some(0));
    let harness = history.of("harness.jsonl");
    // It has ended 7 s before the healing, and of the 6 s that it allows nothing is left.
    harness.extend([fault(2_900, "kill-member", "begin"), fault(3_000, "kill-member", "end")]);
    assert_eq!(judged(&history).0.expect("judged").bound_ms, 1_250);
    let harness = history.of("harness.jsonl");
    harness.iter_mut().filter(|r| r["kind"] == "kill-member").for_each(|r| r["at"] = (5_000 * MS).into());
    assert_eq!(judged(&history).0.expect("judged").bound_ms, 3_000);
}

#[test]
fn every_fault_of_the_suite_has_its_figure_and_an_unknown_one_is_no_excuse() {
    let suite = include_str!("../chaos/faults/mod.rs");
    let names: Vec<_> = suite.split("    fault(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 30, "{names:?}");
    let without: Vec<_> = names.iter().filter(|name| takes(name).is_err()).collect();
    assert!(without.is_empty(), "{without:?}");
    assert!(bound(&[("meteorite", Duration::ZERO)], &[], Duration::ZERO).is_err());
    let mut history = history(&["cut-daemon"], 0, Some(0));
    history.of("harness.jsonl").push(fault(BEGUN, "meteorite", "begin"));
    assert_eq!(history.broken(), [Rule::Progress]);
}

#[test]
fn what_a_fault_takes_runs_from_its_own_end() {
    let (second, no) = (Duration::from_secs(1), Duration::ZERO);
    let allowed = |ended: &[(&str, Duration)]| bound(ended, &[], no).expect("figures").0.as_millis();
    assert_eq!(allowed(&[("kill-member", no), ("stop-daemon", no)]), 6_000);
    assert_eq!(allowed(&[("kill-member", second), ("stop-daemon", no)]), 5_000);
    assert_eq!(allowed(&[("kill-member", 9 * second), ("stop-daemon", no)]), 3_000);
    // Of two with one cause, the later.
    assert_eq!(allowed(&[("kill-member", 2 * second), ("move-leader", second)]), 5_000);
}

#[test]
fn without_pre_vote_etcd_elects_once_more() {
    let causes = |grace| {
        let killed = [("kill-member", Duration::ZERO)];
        bound(&killed, &[], Duration::from_millis(grace)).expect("a figure").1
    };
    assert_eq!(causes(0), [Cause::EtcdElects]);
    assert_eq!(causes(2_100), [Cause::EtcdElects, Cause::EtcdElectsAgain]);
}
