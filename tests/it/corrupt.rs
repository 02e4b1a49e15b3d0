//! What others write where we read: garbage, foreign and huge values. And an etcd that is full.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde_json::{Value, json};
use tenure::etcd::codec::decode_generation;

use crate::support::{Daemon, Etcd, eventually, leader_above, leader_of, leads_through, scratch};

const GENERATION: &str = "/tenure/generations/orders";
const CONTROL: &str = "/tenure/control/orders";
const ELECTION: &str = "/tenure/elections/orders/";

async fn two(etcd: &Etcd) -> Vec<Daemon> {
    let mut daemons = vec![Daemon::builder("a", etcd).ttl("2s").start().await];
    eventually("a has its place", async || daemons[0].is_queued().await || daemons[0].leads_with().await.is_some())
        .await;
    daemons.push(Daemon::builder("b", etcd).ttl("2s").start().await);
    eventually("b is queued", async || daemons[1].is_queued().await).await;
    daemons
}

/// Waits until every daemon has read the election again, twice; nobody leads, and all are well.
async fn nobody_leads(daemons: &[Daemon], what: &str) {
    let mut before = Vec::new();
    for daemon in daemons {
        before.push(reads(daemon).await);
    }
    for (daemon, before) in daemons.iter().zip(before) {
        eventually(&format!("{what}: read again"), async || {
            assert_eq!(daemon.leads_with().await, None, "{what}: {}", daemon.logs());
            reads(daemon).await >= before + 2.0
        })
        .await;
        assert_eq!(daemon.probe("/livez").await, Some(200), "{what}");
        assert!(!daemon.logs().contains("panicked"), "{what}: {}", daemon.logs());
    }
}

/// How often it has read the election: all of it, or the revisions of what it relies on.
async fn reads(daemon: &Daemon) -> f64 {
    let looks = daemon.metric("etcd_requests_total", &["\"look\"", "\"ok\""]).await;
    looks + daemon.metric("etcd_requests_total", &["\"feel\"", "\"ok\""]).await
}

/// A line at WARN or ERROR that holds `part`.
async fn says(daemon: &Daemon, part: &str) {
    eventually(&format!("a warning about {part}"), async || {
        let log = daemon.logs();
        let found = log.lines().any(|l| (l.contains("WARN") || l.contains("ERROR")) && l.contains(part));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
}

fn record(generation: u64) -> Value {
    json!({
        "generation": generation, "term": 0, "holder": null, "url": "", "key": "", "created": 0, "cause": "raised",
        "elected_at": "2026-01-01T00:00:00.000Z", "hlc": "00000000000000000-0", "leaderless_ms": 0,
    })
}

/// Goal: on a generation record that cannot be read nobody is elected, whatever it holds; that is said, and it heals.
/// Method: garbage of every kind before and while two candidates wait; then a record that can be read, with a high number.
#[tokio::test]
async fn nobody_is_elected_on_a_corrupt_generation_record() {
    let etcd = Etcd::start().await;
    etcd.put(GENERATION, b"not JSON").await;
    let daemons = two(&etcd).await;
    nobody_leads(&daemons, "not JSON").await;
    says(&daemons[0], GENERATION).await;
    let mut negative = record(41);
    negative["generation"] = json!(-1);
    let huge = "x".repeat(1_000_000).into_bytes();
    let values: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("no fields", b"{}".to_vec()),
        ("no text", b"\xff\xfe\x00".to_vec()),
        ("the largest u64", record(u64::MAX).to_string().into_bytes()),
        ("negative", negative.to_string().into_bytes()),
        ("huge", huge),
    ];
    for (what, value) in values {
        etcd.put(GENERATION, &value).await;
        nobody_leads(&daemons, what).await;
    }
    let hlc = "z".repeat(3);
    let mut odd = record(41);
    odd["hlc"] = json!(hlc);
    etcd.put(GENERATION, odd.to_string().as_bytes()).await;
    nobody_leads(&daemons, "a bad time").await;
    // A good record is best made by a good daemon, in another place.
    let good = good_record(&etcd, 41).await;
    etcd.put(GENERATION, good.as_bytes()).await;
    let (_, generation) = leader_of(&daemons).await;
    assert_eq!(generation, 42);
}

/// Goal: a record whose generation leaves no room above it counts for nothing: nobody leads over it, nobody takes it for a floor,
/// and when it is deleted the election goes on where it was. In etcd, and in a file under `state_dir`.
/// Method: the largest numbers that there are, and the first that does not count, under a leader; delete; start one anew, whose file
/// holds such a number; delete the key once more.
#[tokio::test]
async fn a_generation_that_leaves_no_room_counts_for_nothing() {
    let (etcd, state) = (Etcd::start().await, scratch("state"));
    let start = async |id: &str| Daemon::builder(id, &etcd).ttl("2s").state_dir(&state.path().join(id)).start().await;
    for id in ["a", "b"] {
        std::fs::create_dir(state.path().join(id)).expect("the directory is ours");
    }
    let mut daemons = vec![start("a").await, start("b").await];
    let (_, mut generation) = leader_of(&daemons).await;
    for claimed in [1 << 62, i64::MAX.unsigned_abs() - 1, u64::MAX] {
        etcd.put(GENERATION, record(claimed).to_string().as_bytes()).await;
        for daemon in &daemons {
            says(daemon, &claimed.to_string()).await;
            assert!(
                daemon.logs().contains("put back the newest record of its history"),
                "the remedy: {}",
                daemon.logs()
            );
        }
        etcd.ctl(&["del", GENERATION]).await;
        let (_, next) = leader_above(&daemons, generation).await;
        assert!(next < generation + 10, "{claimed} was no floor: {next} after {generation}");
        generation = next;
    }
    daemons.remove(1).sigkill();
    let file = state.path().join("b/high-water.json");
    let mut mark: Value = serde_json::from_slice(&std::fs::read(&file).expect("a mark")).expect("JSON");
    mark["generations"]["orders"] = json!(u64::MAX);
    std::fs::write(&file, mark.to_string()).expect("written");
    daemons.push(start("b").await);
    says(&daemons[1], "none that counts").await;
    etcd.ctl(&["del", GENERATION]).await;
    let (_, next) = leader_above(&daemons, generation).await;
    assert!(next < generation + 10, "the file was no floor: {next} after {generation}");
}

/// Goal: one election's generation key that somebody deletes, or overwrites with an older record, is that election's affair: it
/// begins anew above what is remembered, and the others keep their leader.
/// Method: two daemons, two elections; delete the key of one, then put its first record there; a third daemon only observes.
#[tokio::test]
async fn a_lost_generation_key_concerns_its_election_alone() {
    let etcd = Etcd::start().await;
    let both = |id: &str| Daemon::builder(id, &etcd).ttl("2s").elections(&["orders", "billing"]);
    let daemons = vec![both("a").start().await, both("b").start().await];
    let (leader, mut generation) = leader_of(&daemons).await;
    let first = etcd.value(GENERATION).await.expect("a record");
    let billing = async |daemon: &Daemon| {
        let answer = daemon.get("/v1/elections/billing").await.expect("an answer").json();
        (answer["generation"].as_u64(), answer["leader"]["id"].as_str().map(ToOwned::to_owned))
    };
    eventually("billing has a leader", async || billing(&daemons[leader]).await.1).await;
    let before = billing(&daemons[leader]).await;
    let lost: [&dyn Fn() -> Vec<String>; 2] = [&|| vec!["del".to_owned(), GENERATION.to_owned()], &|| {
        vec!["put".to_owned(), GENERATION.to_owned(), first.clone()]
    }];
    for lose in lost {
        let words = lose();
        etcd.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (_, next) = leader_above(&daemons, generation).await;
        assert!(next > generation + 1, "the floor was raised first: {next} after {generation}");
        generation = next;
    }
    for daemon in &daemons {
        assert_eq!(billing(daemon).await, before, "billing keeps its leader and its generation");
        let path = "/v1/elections/billing/transitions?limit=100";
        let lines = daemon.control().get(path).await.expect("an answer").json();
        let rewound = lines["transitions"].as_array().expect("a list").iter().any(|t| t["reason"] == "history_rewound");
        assert!(!rewound, "{lines}");
        says(daemon, "the generation of this election went back").await;
        assert!(daemon.metric("store_identity_changes_total", &[]).await >= 2.0);
    }
}

/// Goal: whatever a fuzzer thought of as a value, under whichever of our keys: nobody leads on it, nobody dies of it, and without
/// it all is well.
/// Method: the corpus of the fuzz target, but for what a generation record may be, under all kinds of keys at once; then
/// delete it.
#[tokio::test]
async fn nobody_leads_on_what_a_fuzzer_wrote_and_nobody_dies_of_it() {
    let etcd = Etcd::start().await;
    etcd.put(GENERATION, b"first of all").await;
    let daemons = two(&etcd).await;
    let values = crate::fuzz::corpus("etcd_values").into_iter().map(|(_, value)| value);
    let corrupt = values.filter(|value| decode_generation(value).is_none());
    for (n, value) in corrupt.step_by(4).enumerate() {
        etcd.put(GENERATION, &value).await;
        etcd.put(CONTROL, &value).await;
        etcd.put(&format!("{ELECTION}fuzz-{n}"), &value).await;
        etcd.put(&format!("/tenure/history/orders/{n:020}"), &value).await;
        for daemon in &daemons {
            assert_eq!(daemon.leads_with().await, None, "{n}: {}", String::from_utf8_lossy(&value));
        }
    }
    nobody_leads(&daemons, "what a fuzzer wrote").await;
    for daemon in &daemons {
        assert!(daemon.candidates().await.len() > 20);
        let history = daemon.control().get("/v1/elections/orders/history").await.expect("an answer");
        assert_eq!(history.json()["history"], json!([]), "none of it is a record");
    }
    for key in [GENERATION, CONTROL] {
        etcd.ctl(&["del", key]).await;
    }
    etcd.ctl(&["del", "--prefix", &format!("{ELECTION}fuzz-")]).await;
    let (_, generation) = leader_of(&daemons).await;
    assert_eq!(generation, 1);
}

/// A record as Tenure writes it, with this generation and nobody who holds it.
async fn good_record(etcd: &Etcd, generation: u64) -> String {
    let other = [Daemon::builder("other", etcd).prefix("/other").start().await];
    leader_of(&other).await;
    let text = etcd.value("/other/generations/orders").await.expect("a record");
    let mut record: Value = serde_json::from_str(&text).expect("JSON");
    record["generation"] = json!(generation);
    record["holder"] = Value::Null;
    record["cause"] = json!("raised");
    record.to_string()
}

/// Goal: a record that is spoilt under a leader makes no second one, and no smaller token, whatever follows.
/// Method: spoil it, resign, and mend it with what it held.
#[tokio::test]
async fn a_record_spoilt_under_a_leader_makes_no_second_leader() {
    let etcd = Etcd::start().await;
    let daemons = two(&etcd).await;
    let (leader, generation) = leader_of(&daemons).await;
    let good = etcd.value(GENERATION).await.expect("a record");
    etcd.put(GENERATION, b"garbage").await;
    for daemon in &daemons {
        says(daemon, GENERATION).await;
    }
    let other = &daemons[1 - leader];
    assert_eq!(other.leads_with().await, None);
    for daemon in &daemons {
        // What was known stays known: a token of the past does not pass for a good one.
        assert_eq!(daemon.status().await.expect("a status")["generation"], generation);
        assert_eq!(daemon.gate_with(generation - 1).await, 403);
        let verdict = daemon.verb("verify", &json!({"token": generation})).await.expect("an answer");
        assert_eq!(verdict.status, 503, "nothing can be said of it: {}", verdict.text());
    }
    if daemons[leader].leads_with().await.is_some() {
        daemons[leader].resign().await;
    }
    nobody_leads(&daemons, "spoilt").await;
    etcd.put(GENERATION, good.as_bytes()).await;
    let (_, next) = leader_above(&daemons, generation).await;
    assert_eq!(next, generation + 1);
}

/// Goal: a control record that cannot be read counts as a pause: the leader stays, nobody new is elected, and it heals.
/// Method: garbage and a huge value while one leads; resign; then delete it.
#[tokio::test]
async fn a_corrupt_control_record_counts_as_a_pause() {
    let etcd = Etcd::start().await;
    let daemons = two(&etcd).await;
    let (leader, generation) = leader_of(&daemons).await;
    for value in [b"garbage".to_vec(), "x".repeat(1_000_000).into_bytes()] {
        etcd.put(CONTROL, &value).await;
        for daemon in &daemons {
            eventually("it counts as a pause", async || daemon.status().await.expect("a status")["paused"] == true)
                .await;
        }
        leads_through(&daemons[leader], "a pause", Duration::from_millis(500)).await;
    }
    says(&daemons[leader], CONTROL).await;
    daemons[leader].resign().await;
    nobody_leads(&daemons, "resigned under a pause").await;
    etcd.ctl(&["del", CONTROL]).await;
    leader_above(&daemons, generation).await;
}

/// Goal: keys that others put into the queue, of any name and size, harm nobody: they get their turn, and when they are
/// gone ours go on.
/// Method: keys without a lease, huge, with no text for a name, and one that looks like ours; the leader resigns.
#[tokio::test]
async fn odd_keys_in_the_queue_get_their_turn_and_harm_nobody() {
    let etcd = Etcd::start().await;
    let mut daemons = vec![Daemon::builder("a", &etcd).ttl("2s").start().await];
    let (_, generation) = leader_of(&daemons).await;
    let alike = json!({"id": "alike", "url": "", "term": 0, "priority": 9, "version": "9"}).to_string();
    for (name, value) in [("", "nameless"), ("alike", &alike), ("deep/er", "x"), ("7fffffffffffffff", &alike)] {
        etcd.put(&format!("{ELECTION}{name}"), value.as_bytes()).await;
    }
    for number in 0..3 {
        etcd.put(&format!("{ELECTION}huge-{number}"), "x".repeat(1_400_000).as_bytes()).await;
    }
    let mut put = etcd.ctl_command(&["put"]);
    put.arg(OsStr::from_bytes(b"/tenure/elections/orders/\xff\xfe")).arg("no text");
    assert!(put.output().await.expect("etcdctl runs").status.success());
    daemons.push(Daemon::builder("b", &etcd).ttl("2s").start().await);
    eventually("b is queued", async || daemons[1].is_queued().await).await;
    let queue = daemons[1].candidates().await;
    let foreign: Vec<bool> = queue.iter().map(|c| c["foreign"] == true).collect();
    assert_eq!(foreign, [false, true, true, true, true, true, true, true, true, false], "{queue:?}");
    leads_through(&daemons[0], "odd keys", Duration::from_secs(3)).await;
    daemons[0].resign().await;
    nobody_leads(&daemons, "odd keys lead").await;
    for daemon in &daemons {
        let status = daemon.status().await.expect("a status");
        assert_eq!((&status["foreign"], &status["leader"]), (&json!(true), &Value::Null), "{status}");
    }
    let mut delete = etcd.ctl_command(&["del"]);
    delete.arg(OsStr::from_bytes(b"/tenure/elections/orders/\xff\xfe"));
    assert!(delete.output().await.expect("etcdctl runs").status.success());
    for name in ["", "alike", "deep/er", "7fffffffffffffff", "huge-0", "huge-1"] {
        etcd.ctl(&["del", &format!("{ELECTION}{name}")]).await;
    }
    nobody_leads(&daemons, "one is left").await;
    etcd.ctl(&["del", &format!("{ELECTION}huge-2")]).await;
    leader_above(&daemons, generation).await;
}

/// Goal: a leader's key that somebody put by hand hangs on no lease, and would block the election for ever; it does not.
/// Method: put it, with garbage and with what it held; the leader steps down, and tokens go on without the old one.
#[tokio::test]
async fn a_leaders_key_put_by_hand_blocks_nobody() {
    let etcd = Etcd::start().await;
    let mut daemons = two(&etcd).await;
    let (mut leader, mut generation) = leader_of(&daemons).await;
    for keep in [false, true] {
        let key = own_key(&daemons[leader]).await;
        let value = etcd.value(&key).await.expect("a candidate");
        etcd.put(&key, if keep { value.as_bytes() } else { b"garbage" }).await;
        let down = daemons[leader].transition("it steps down", |t| t["old_generation"] == generation).await;
        assert_eq!(down["reason"], "key_deleted", "{down}");
        (leader, generation) = leader_above(&daemons, generation).await;
    }
    daemons.remove(leader).sigkill();
    let key = own_key(&daemons[0]).await;
    leader_above(&daemons, generation).await;
    eventually("only the living stand in the queue", async || {
        let queue = etcd.queue().await;
        if queue == [key.clone()] { Ok(()) } else { Err(queue) }
    })
    .await;
}

async fn own_key(daemon: &Daemon) -> String {
    let status = daemon.status().await.expect("a status");
    format!("{ELECTION}{}", status["session"]["lease"].as_str().expect("a session"))
}

/// Goal: in an etcd without space the leader stays, and can resign, which only deletes; nobody new is elected, that is said,
/// and all recover once there is space.
/// Method: fill a store of 4 MiB until the alarm; then empty, compact, defragment, disarm.
#[tokio::test]
async fn a_full_etcd_keeps_its_leader_lets_it_resign_and_recovers() {
    let etcd = Etcd::builder().arg("--quota-backend-bytes=4194304").start().await;
    let daemons = two(&etcd).await;
    let (leader, generation) = leader_of(&daemons).await;
    let filler = "x".repeat(500_000);
    let mut puts = 0;
    let refused = loop {
        let put = etcd.try_ctl_with(&["put", &format!("filler-{puts}")], filler.as_bytes()).await;
        if let Err(refused) = put {
            break refused;
        }
        puts += 1;
        assert!(puts < 100, "it never fills");
    };
    assert!(refused.contains("space exceeded"), "{refused}");
    assert!(etcd.ctl(&["alarm", "list"]).await.contains("NOSPACE"));
    leads_through(&daemons[leader], "no space", Duration::from_secs(3)).await;
    let answer = daemons[leader].resign().await;
    assert_eq!(answer["leader"], Value::Null, "nobody can be named: {answer}");
    nobody_leads(&daemons, "no space").await;
    says(&daemons[1 - leader], "space exceeded").await;
    assert_eq!(etcd.generation().await, generation);
    etcd.ctl(&["del", "--prefix", "filler"]).await;
    let revision = etcd.revision().await.to_string();
    etcd.ctl(&["compaction", "--physical", &revision]).await;
    etcd.ctl(&["defrag"]).await;
    etcd.ctl(&["alarm", "disarm"]).await;
    let (_, next) = leader_above(&daemons, generation).await;
    assert_eq!(etcd.history().await, (1..=next).collect::<Vec<_>>());
    eventually("both stand in the queue", async || etcd.queue().await.len() == 2).await;
}
