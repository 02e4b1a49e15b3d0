//! The checker of `make chaos` against histories written by hand: it passes a clean one and catches each kind of break. A
//! checker that lets everything pass would make the whole suite worthless, and nothing else would show it.

#[path = "../chaos/check.rs"]
pub(crate) mod check;
#[path = "../chaos/client.rs"]
#[allow(dead_code, reason = "the register shares its command line; the client runs in the suite")]
mod client;
#[path = "../chaos/history.rs"]
#[allow(dead_code, reason = "the harness writes with it")]
mod history;
#[path = "../chaos/progress.rs"]
pub(crate) mod progress;
#[path = "../chaos/read.rs"]
mod read;
#[path = "../chaos/register.rs"]
#[allow(dead_code, reason = "its process and its socket are for the suite")]
mod register;
#[path = "../chaos/report.rs"]
#[allow(dead_code, reason = "its figures are tested, its output is for the suite")]
mod report;
#[path = "../chaos/faults/takes.rs"]
pub(crate) mod takes;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support as http;
use check::Rule;
use history::{Register, Writer};
use register::{Request, Store};
use report::Summary;

pub(crate) const MS: u64 = 1_000_000;

/// A history: the records of each file.
pub(crate) struct History(BTreeMap<&'static str, Vec<Value>>);

pub(crate) fn ask(daemon: &str, sent: u64, heard: u64, token: u64, valid_for_ms: u64) -> Value {
    json!({"record": "ask", "election": "orders", "daemon": daemon, "sent": sent * MS, "heard": heard * MS, "status": 200,
           "leader": daemon, "token": token, "valid_for_ms": valid_for_ms})
}

pub(crate) fn fault(at: u64, kind: &str, phase: &str) -> Value {
    json!({"record": "fault", "at": at * MS, "kind": kind, "target": "pod-0", "phase": phase, "detail": ""})
}

fn apply(register: &str, at: u64, token: u64, before: u64, accepted: bool) -> Value {
    json!({"record": "apply", "election": "orders", "client": "c", "register": register, "write": true, "at": at * MS,
           "token": token, "highest_before": before, "accepted": accepted})
}

fn add(at: u64, token: u64, element: &str) -> Value {
    json!({"record": "write", "election": "orders", "client": "c", "register": "fenced-set", "token": token,
           "sent": at * MS, "heard": (at + 1) * MS, "outcome": "accepted", "element": element})
}

fn elected(id: &str, generation: u64) -> Value {
    json!({"seq": 1, "time": "2026-01-01T00:00:00.000Z", "hlc": "", "election": "orders", "id": id, "from": "candidate",
           "to": "leader", "old_generation": 0, "new_generation": generation, "reason": "elected", "detail": ""})
}

fn kv(generation: u64, holder: &str, created: i64) -> Value {
    let value = json!({"generation": generation, "holder": holder, "key": format!("lease-of-{holder}")}).to_string();
    json!({"key": base64(&format!("/tenure/history/orders/{generation:020}")), "value": base64(&value),
           "create_revision": created, "mod_revision": created, "version": 1})
}

fn base64(text: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |bytes: &[u8]| {
        let word = (0..3).fold(0, |word, n| word << 8 | usize::from(*bytes.get(n).unwrap_or(&0)));
        let digit = |n: usize| if n > bytes.len() { '=' } else { char::from(digits[word >> (18 - 6 * n) & 63]) };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(chunk).collect()
}

impl History {
    /// Two leaderships: pod-0 with token 1 is gone by 2.4 s, pod-1 leads with 2 from 3 s on; a stale write comes at 4 s.
    pub(crate) fn clean() -> Self {
        let mut stale = apply("unfenced", 4_001, 1, 2, true);
        stale["added"] = json!([]);
        let mut first = apply("fenced-set", 2_000, 1, 0, true);
        first["added"] = json!(["a"]);
        let mut second = apply("fenced-set", 3_200, 2, 1, true);
        second["added"] = json!(["b"]);
        let files = [
            (
                "harness.jsonl",
                vec![
                    json!({"record": "epoch", "at": 1_000 * MS, "name": "one"}),
                    json!({"record": "round", "at": 1_500 * MS, "number": 1}),
                    fault(1_600, "stop", "begin"),
                    fault(3_900, "stop", "end"),
                ],
            ),
            (
                "poller-0.jsonl",
                vec![
                    ask("pod-0", 1_700, 1_710, 1, 500),
                    ask("pod-0", 1_900, 1_910, 1, 500),
                    // Asked before the successor was heard of, and answered after: the daemon was stopped in between.
                    ask("pod-0", 1_950, 5_000, 1, 500),
                    json!({"record": "ask", "election": "orders", "daemon": "pod-0", "sent": 5_000 * MS, "heard": 5_001 * MS,
                       "status": 503, "leader": "pod-1"}),
                ],
            ),
            ("poller-1.jsonl", vec![ask("pod-1", 2_990, 3_000, 2, 500), ask("pod-1", 3_100, 3_101, 2, 500)]),
            ("lock-set-0.jsonl", vec![add(1_999, 1, "a")]),
            ("lock-set-1.jsonl", vec![add(3_199, 2, "b")]),
            (
                "register.jsonl",
                vec![
                    apply("fenced", 1_800, 1, 0, true),
                    apply("unfenced", 1_801, 1, 0, true),
                    first,
                    apply("fenced", 3_100, 2, 1, true),
                    apply("unfenced", 3_101, 2, 1, true),
                    second,
                    apply("fenced", 4_000, 1, 2, false),
                    stale,
                ],
            ),
            ("audit-one-pod-0.jsonl", vec![elected("pod-0", 1)]),
            ("audit-one-pod-1.jsonl", vec![elected("pod-1", 2)]),
            ("etcd-history-one.json", vec![json!({"kvs": [kv(1, "pod-0", 10), kv(2, "pod-1", 20)]})]),
        ];
        Self(BTreeMap::from(files))
    }

    pub(crate) fn of(&mut self, file: &'static str) -> &mut Vec<Value> {
        self.0.entry(file).or_default()
    }

    fn dump(&mut self) -> &mut Vec<Value> {
        self.of("etcd-history-one.json")[0]["kvs"].as_array_mut().expect("records")
    }

    pub(crate) fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        for (file, lines) in &self.0 {
            let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
            std::fs::write(dir.path().join(file), text).expect("the directory is ours");
        }
        dir
    }

    /// The rules that are broken.
    pub(crate) fn broken(&self) -> Vec<Rule> {
        let dir = self.write();
        let (_, violations) = check::check(dir.path()).expect("a history that can be read");
        let mut rules: Vec<Rule> = violations.iter().map(|v| v.rule).collect();
        rules.dedup();
        rules
    }
}

/// The rules that are broken once a clean history was changed.
pub(crate) fn broken(change: impl FnOnce(&mut History)) -> Vec<Rule> {
    let mut history = History::clean();
    change(&mut history);
    history.broken()
}

#[test]
fn a_clean_history_passes_and_is_counted() {
    assert_eq!(History::clean().broken(), []);
    let dir = History::clean().write();
    let (epochs, violations) = check::check(dir.path()).expect("a history that can be read");
    let summary = Summary::of(&epochs, violations);
    assert!(summary.passed(), "{summary:?}");
    assert_eq!((summary.rounds, summary.leaderships, summary.faults["stop"]), (1, 2, 1));
    assert_eq!((summary.stale_refused, summary.stale_taken), (1, 1));
    assert_eq!((summary.adds, summary.adds_lost), (2, 0));
    // From 1.91 s to 3 s nobody led; of 1.391 s between the first answer of a leader and the last.
    assert_eq!((summary.fail_over_ms.max, summary.leaderless_ms.count), (1_090, 1));
    assert!((summary.availability - (1.0 - 1_090.0 / 1_391.0)).abs() < 0.001, "{}", summary.availability);
}

#[test]
fn a_leader_that_was_not_told_is_caught() {
    // A probe, which promises nothing.
    let zombie = |sent: u64| {
        broken(|h| {
            let mut probe = ask("pod-0", sent, 3_002, 1, 0);
            probe["valid_for_ms"] = Value::Null;
            h.of("poller-0.jsonl").push(probe);
        })
    };
    assert_eq!(zombie(3_001), [Rule::OneLeader], "asked a millisecond after the newer one was heard of");
    assert_eq!(zombie(3_000), []);
}

#[test]
fn two_holders_of_one_token_are_caught() {
    assert_eq!(broken(|h| h.of("poller-0.jsonl").push(ask("pod-0", 2_995, 3_002, 2, 500))), [Rule::OneHolder]);
    assert_eq!(broken(|h| h.of("audit-one-pod-0.jsonl").push(elected("pod-0", 2))), [Rule::OneHolder]);
    assert_eq!(broken(|h| h.dump()[1] = kv(2, "pod-2", 20)), [Rule::OneHolder]);
    // An answer that claims leadership and names another.
    assert_eq!(broken(|h| h.of("poller-1.jsonl")[0]["leader"] = "pod-0".into()), [Rule::OneHolder]);
}

#[test]
fn a_promise_that_was_cut_short_is_caught() {
    // 1.95 s and 1,051 ms: a millisecond more than until the successor was heard of.
    assert_eq!(broken(|h| h.of("poller-0.jsonl")[2]["valid_for_ms"] = 1_051.into()), [Rule::PromisesKept]);
    assert_eq!(broken(|h| h.of("poller-0.jsonl")[2]["valid_for_ms"] = 1_050.into()), []);
    // Not only by the next one: token 3 in the promise of 1, with 2 in between unheard.
    let third = |h: &mut History| {
        h.of("poller-0.jsonl")[2]["valid_for_ms"] = 1_051.into();
        h.of("poller-1.jsonl").iter_mut().for_each(|a| a["token"] = 3.into());
        h.dump().push(kv(3, "pod-1", 30));
    };
    assert_eq!(broken(third), [Rule::PromisesKept]);
}

#[test]
fn tokens_that_do_not_grow_are_caught() {
    assert_eq!(broken(|h| h.of("audit-one-pod-0.jsonl").push(elected("pod-0", 1))), [Rule::TokensGrow]);
    assert_eq!(broken(|h| h.dump()[1]["create_revision"] = 9.into()), [Rule::TokensGrow], "out of commit order");
    assert_eq!(broken(|h| h.dump()[1]["version"] = 2.into()), [Rule::TokensGrow], "overwritten");
    assert_eq!(broken(|h| h.dump()[1]["value"] = kv(1, "pod-1", 20)["value"].clone()), [Rule::TokensGrow]);
    let again = |h: &mut History| {
        let dump = json!({"kvs": [kv(1, "pod-0", 10), kv(2, "pod-2", 15)]});
        h.of("etcd-history-one-2.json").push(dump);
    };
    assert_eq!(broken(again), [Rule::OneHolder, Rule::TokensGrow], "issued again after a restore");
    let lifted = |h: &mut History| {
        let mut raised = kv(2, "", 15);
        raised["value"] = base64(&json!({"generation": 2, "holder": null, "key": ""}).to_string()).into();
        h.of("etcd-history-one-2.json").push(json!({"kvs": [kv(1, "pod-0", 10), raised]}));
    };
    assert_eq!(broken(lifted), [], "raised to what a restore lost: nobody holds it");
}

#[test]
fn a_fence_that_gives_way_is_caught() {
    assert_eq!(broken(|h| h.of("register.jsonl")[6]["accepted"] = true.into()), [Rule::FenceHolds]);
    // A register that forgot what it had accepted, and so records itself that nothing is wrong.
    let forgot = |h: &mut History| {
        h.of("register.jsonl")[6] = apply("fenced", 4_000, 1, 1, true);
    };
    assert_eq!(broken(forgot), [Rule::FenceHolds]);
}

#[test]
fn an_add_that_is_lost_is_caught() {
    let lost = Rule::NothingLostFromTheSet;
    assert_eq!(broken(|h| h.of("register.jsonl")[5]["dropped"] = json!(["a"])), [lost], "overwritten");
    assert_eq!(
        broken(|h| h.of("register.jsonl")[5]["accepted"] = false.into()),
        [lost],
        "acknowledged but not applied"
    );
    assert_eq!(broken(|h| h.of("lock-set-1.jsonl")[0]["outcome"] = "unknown".into()), []);
}

#[test]
fn a_leadership_without_a_record_is_caught() {
    assert_eq!(broken(|h| _ = h.dump().pop()), [Rule::NothingLost]);
    assert_eq!(broken(|h| h.of("audit-one-pod-1.jsonl").push(elected("pod-1", 3))), [Rule::NothingLost]);
    let no_dump = |h: &mut History| _ = h.0.remove("etcd-history-one.json");
    assert_eq!(broken(no_dump), [Rule::NothingLost], "no dump at all");
    // One that could not be made is said, and nobody takes what it would have held for lost.
    let unread = |h: &mut History| {
        no_dump(h);
        h.of("harness.jsonl").push(json!({"record": "unread", "at": 5_000 * MS}));
    };
    assert_eq!(broken(unread), []);
}

#[test]
fn only_what_the_protocol_excuses_is_excused() {
    let zombie = |kind: &'static str, begin: u64, end: u64| {
        broken(move |h| {
            h.of("poller-0.jsonl").push(ask("pod-0", 3_001, 3_002, 1, 500));
            h.of("harness.jsonl").extend([fault(begin, kind, "begin"), fault(end, kind, "end")]);
        })
    };
    let both = [Rule::OneLeader, Rule::PromisesKept];
    assert_eq!(zombie("stop", 1_600, 3_900), both);
    assert_eq!(zombie("restore", 1_600, 3_900), both, "survivors of a restore wait a TTL");
    assert_eq!(zombie("key-deleted", 2_800, 2_801), []);
    assert_eq!(zombie("lease-revoked", 1_100, 1_101), [], "not heard of until the guard");
    assert_eq!(zombie("key-deleted", 3_003, 3_004), both, "it came before");
    let of = |target: &'static str| {
        broken(move |h| {
            h.of("poller-0.jsonl").push(ask("pod-0", 3_001, 3_002, 1, 500));
            h.of("harness.jsonl").extend([fault(2_800, "key-deleted", "begin"), fault(2_801, "key-deleted", "end")]);
            h.of("harness.jsonl").iter_mut().rev().take(2).for_each(|fault| fault["target"] = target.into());
        })
    };
    assert_eq!(of("pod-1"), both, "the key of another");
    assert_eq!(of(""), [], "nobody knows whose");
    // A restore takes the record of what was elected in it, and of nothing else.
    let without_record = |begin, end| {
        broken(move |h| {
            _ = h.dump().pop();
            h.of("harness.jsonl").extend([fault(begin, "restore", "begin"), fault(end, "restore", "end")]);
        })
    };
    assert_eq!(without_record(2_900, 3_500), []);
    assert_eq!(without_record(3_001, 3_500), [Rule::NothingLost]);
    assert_eq!(without_record(2_000, 2_999), [Rule::NothingLost]);
}

#[test]
fn epochs_are_not_compared_with_one_another() {
    let next = |h: &mut History| {
        h.of("harness.jsonl").push(json!({"record": "epoch", "at": 6_000 * MS, "name": "two"}));
        h.of("poller-0.jsonl").push(ask("pod-0", 7_000, 7_001, 1, 500));
        h.of("register-2.jsonl").push(apply("fenced", 7_002, 1, 0, true));
        h.of("etcd-history-two.json").push(json!({"kvs": [kv(1, "pod-0", 5)]}));
    };
    assert_eq!(broken(next), []);
    let register_goes_on = |h: &mut History| {
        next(h);
        h.of("register-2.jsonl")[0]["highest_before"] = 2.into();
    };
    assert_eq!(broken(register_goes_on), [Rule::FenceHolds]);
}

fn append_to(dir: &Path, text: &str) {
    let path = dir.join("poller-0.jsonl");
    let whole = std::fs::read_to_string(&path).expect("a file") + text;
    std::fs::write(path, whole).expect("the directory is ours");
}

#[test]
fn a_history_with_holes_is_refused() {
    let refused = |change: fn(&Path)| {
        let dir = History::clean().write();
        change(dir.path());
        check::check(dir.path()).err()
    };
    assert_eq!(refused(|_| {}), None);
    // Whoever was killed while it wrote cut its last line short; anything else is not ours.
    let torn = |dir: &Path| append_to(dir, "{\"record\":\"as");
    let broken = |dir: &Path| append_to(dir, "{\"record\":\"as\n");
    assert_eq!(refused(torn), None);
    assert!(refused(broken).is_some_and(|e| e.contains("poller-0.jsonl:5")));
    assert!(refused(|dir| std::fs::remove_file(dir.join("harness.jsonl")).expect("a file")).is_some());
    let renamed = |dir: &Path| {
        let (from, to) = (dir.join("audit-one-pod-0.jsonl"), dir.join("audit-three-pod-0.jsonl"));
        std::fs::rename(from, to).expect("a file");
    };
    assert!(refused(renamed).is_some_and(|e| e.contains("no epoch three")));
}

#[test]
fn a_long_run_without_a_stale_write_proves_too_little() {
    let mut history = History::clean();
    history.of("register.jsonl").truncate(6);
    let tame = |history: &History| {
        let dir = history.write();
        let (epochs, violations) = check::check(dir.path()).expect("a history that can be read");
        Summary::of(&epochs, violations).too_tame
    };
    assert_eq!(tame(&history), None, "a short one may be so");
    history.of("poller-1.jsonl").push(ask("pod-1", 400_000, 400_001, 2, 500));
    assert!(tame(&history).is_some_and(|why| why.contains("fence")));
    let mut nobody = History::clean();
    nobody.0.retain(|file, _| !file.starts_with("poller"));
    assert!(tame(&nobody).is_some_and(|why| why.contains("nobody")));
}

/// What the suite's own store does with a write of an old leader, and with one of a client's own that comes late.
#[test]
fn the_store_with_a_fence_refuses_what_the_one_without_takes() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let store = Store::new(Writer::create(dir.path()).expect("the directory is ours"));
    let request = |register, client: &str, token, attempt, set: Option<&[&str]>| {
        let set = set.map(|s| s.iter().map(ToString::to_string).collect());
        let (election, client) = ("orders".to_owned(), client.to_owned());
        store.apply(Request { election, register, client, token, attempt, set })
    };
    for (register, fence) in [(Register::FencedSet, true), (Register::UnfencedSet, false)] {
        let put = |client, token, attempt, set| request(register, client, token, attempt, Some(set)).accepted;
        assert!(put("a", 1, 10, &["x"]));
        // A new leader that has only read yet: an old one must not write behind its back.
        let read = request(register, "b", 2, 10, None);
        assert!(read.accepted && read.set.contains("x"));
        assert_eq!(put("a", 1, 11, &["y"]), !fence);
        assert!(put("b", 2, 12, &["x", "z"]));
        assert_eq!(put("b", 2, 11, &["x"]), !fence, "held up on its way, and overtaken by a later attempt of its own");
        let found = request(register, "b", 2, 13, None).set;
        assert_eq!(found.contains("z"), fence, "{found:?}");
    }
}
