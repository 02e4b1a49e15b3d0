//! What an operator does to a daemon: stops it, drains it, and takes that back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Etcd, eventually, tenure};

/// Longer than a hasty second signal takes, and than a patient one waits.
const PROMISE: &str = "3s";

/// A leader that has just given a promise, so that its hand-over takes a while; and a candidate behind it.
async fn leader_with_a_promise(etcd: &Etcd) -> (Daemon, Daemon, u64) {
    let daemon = Daemon::builder("pod-0", etcd).promise(PROMISE).start().await;
    eventually("it leads", async || daemon.token().await).await;
    let other = Daemon::builder("pod-1", etcd).promise(PROMISE).start().await;
    eventually("it is queued", async || Some(other.status().await?["role"] == "candidate").filter(|c| *c)).await;
    let token = daemon.token().await.expect("it leads still");
    (daemon, other, token)
}

/// Goal: a signal told twice, as `timeout` and terminals do, does not abort the hand-over.
/// Method: SIGTERM, and again as soon as the log shows the first.
#[tokio::test]
async fn a_second_signal_at_once_changes_nothing() {
    let etcd = Etcd::start().await;
    let (daemon, other, token) = leader_with_a_promise(&etcd).await;
    daemon.sigterm();
    eventually("the first is heeded", async || daemon.logs().contains("stopping: handing over").then_some(())).await;
    daemon.sigterm();
    assert!(daemon.wait_exit().await.success(), "{}", daemon.logs());
    assert!(daemon.logs().contains("changes nothing"), "{}", daemon.logs());
    let next = eventually("the other leads", async || other.token().await).await;
    assert_eq!(next, token + 1);
    assert_eq!(other.transition("it leads", |t| t["to"] == "leader").await["reason"], "handed_over");
}

/// Goal: whoever insists is obeyed. Method: the second SIGTERM comes more than a second after the first.
#[tokio::test]
async fn a_second_signal_a_second_later_aborts() {
    let etcd = Etcd::start().await;
    let (daemon, _other, _) = leader_with_a_promise(&etcd).await;
    daemon.sigterm();
    eventually("the first is heeded", async || daemon.logs().contains("stopping: handing over").then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await; // What is tested is this second.
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await.code(), Some(1), "{}", daemon.logs());
    assert!(daemon.logs().contains("aborting"), "{}", daemon.logs());
}

/// Goal: an etcd that is gone shows, in words and in JSON, and the leader that it named last as an old one; so does its return.
#[tokio::test]
async fn the_status_says_that_etcd_does_not_answer_and_since_when() {
    let etcd = Etcd::start().await;
    let leader = Daemon::builder("pod-0", &etcd).start().await;
    eventually("it leads", async || leader.token().await).await;
    let daemon = Daemon::builder("pod-1", &etcd).start().await;
    eventually("it is queued", async || Some(daemon.status().await?["role"] == "candidate").filter(|c| *c)).await;
    let config = daemon.config().display().to_string();
    let said = async || {
        let output = tenure(&["status", "-c", &config]).await;
        assert!(output.status.success(), "{output:?}");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let etcd_of = async || daemon.status().await.map(|document| document["etcd"].clone());
    let well = etcd_of().await.expect("a document");
    assert!(well["reachable"] == true && well["since"].is_null() && well["for_ms"].is_null(), "{well}");
    assert!(well["last_error"].is_null(), "{well}");
    let [table, words] = said().await;
    assert!(words.is_empty() && !table.contains("as of"), "{table}{words}");
    etcd.member(0).pause();
    let gone = eventually("it is noticed", async || etcd_of().await.filter(|etcd| etcd["reachable"] == false)).await;
    assert!(gone["since"].is_string() && gone["for_ms"].as_u64() >= Some(2_500), "half a TTL of silence: {gone}");
    let why = format!("{}: no answer within ", etcd.endpoint());
    assert!(gone["last_error"].as_str().is_some_and(|reason| reason.starts_with(&why)), "{gone}");
    let [table, words] = said().await;
    assert!(table.contains("pod-0 (as of "), "{table}");
    assert!(words.starts_with("etcd: unreachable for ") && words.contains("see \"tenure doctor -c "), "{words}");
    assert!(words.contains(&why), "{words}");
    let [_, words] = {
        let all = tenure(&["status", "-c", &config, "--output", "json"]).await;
        [all.stderr, all.stdout].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let json: Value = serde_json::from_str(&words).expect("one document");
    assert_eq!(json["elections"][0]["etcd"]["reachable"], false);
    etcd.member(0).resume();
    eventually("it is back", async || etcd_of().await.filter(|etcd| etcd["reachable"] == true)).await;
}

/// POSTs to `/v1/drain`; the elections that it held.
async fn drain(daemon: &Daemon, body: Value) -> Vec<Value> {
    let answer = daemon.post("/v1/drain", &body).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let at = &answer.json()["hands_over_at"];
    let held = answer.json()["held"].as_array().expect("a list").clone();
    assert_eq!(at.is_null(), held.is_empty(), "only what is held will be handed over: {}", answer.text());
    assert_eq!(daemon.leader_status().await, Some(503), "not leader from that instant");
    assert_eq!(daemon.probe("/readyz").await, Some(503));
    held
}

/// Goal: `hand_over` hands over by itself, as soon as the last promise has run out, and never within it.
/// Method: the promise's age counts from when its request was sent, on the caller's clock; the successor's first yes is after it.
#[tokio::test]
async fn a_drain_that_hands_over_waits_for_the_last_promise_and_for_nothing_else() {
    let etcd = Etcd::start().await;
    let (daemon, other, _) = leader_with_a_promise(&etcd).await;
    let sent = Instant::now();
    let token = daemon.control().get("/token").await.expect("an answer").json();
    let valid = Duration::from_millis(token["valid_for_ms"].as_u64().expect("a promise"));
    assert_eq!(drain(&daemon, json!({"hand_over": true})).await, ["orders"]);
    eventually("the other leads", async || other.is_leader().await).await;
    assert!(sent.elapsed() > valid, "{:?} after a promise of {valid:?}", sent.elapsed());
    assert_eq!(other.token().await, token["token"].as_u64().map(|t| t + 1));
    assert_eq!(other.transition("it leads", |t| t["to"] == "leader").await["reason"], "handed_over");
    // It takes part in nothing, for as long as it drains.
    eventually("it is out of the queue", async || (queued(&daemon).await == ["pod-1"]).then_some(())).await;
    let again = drain(&daemon, json!({})).await;
    assert!(again.is_empty(), "{again:?}");
}

async fn queued(daemon: &Daemon) -> Vec<String> {
    let answer = daemon.get("/v1/elections/orders/candidates").await.expect("an answer").json();
    let ids = answer["candidates"].as_array().expect("a list").iter();
    ids.map(|c| c["id"].as_str().expect("an id").to_owned()).collect()
}

/// Goal: a drain that somebody forgot blocks an election for no longer than its time; a candidate's place is given up at once.
#[tokio::test]
async fn a_forgotten_drain_hands_over_by_itself() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).set("session.drain_timeout", "2s").start().await;
    eventually("it leads", async || daemon.token().await).await;
    let [other, third] = ["pod-1", "pod-2"].map(|id| Daemon::builder(id, &etcd));
    let (other, third) = (other.start().await, third.start().await);
    eventually("both are queued", async || (queued(&daemon).await.len() == 3).then_some(())).await;
    assert_eq!(drain(&third, json!({})).await, Vec::<Value>::new());
    eventually("it has left", async || (!queued(&daemon).await.contains(&"pod-2".to_owned())).then_some(())).await;
    let began = Instant::now();
    assert_eq!(drain(&daemon, json!({})).await, ["orders"]);
    eventually("the other leads", async || other.is_leader().await).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert!(daemon.logs().contains("draining: nobody leads orders until"), "{}", daemon.logs());
}

/// Goal: `undrain` hands over first what was still held, and leads again only with another token.
#[tokio::test]
async fn an_undrained_daemon_takes_part_again_behind_the_others_and_with_a_new_token() {
    let etcd = Etcd::start().await;
    let (daemon, other, token) = leader_with_a_promise(&etcd).await;
    let early = daemon.post("/v1/undrain", &json!({})).await.expect("an answer");
    assert_eq!((early.status, early.json()["code"].clone()), (409, "not_draining".into()));
    assert_eq!(drain(&daemon, json!({})).await, ["orders"]);
    assert_eq!(daemon.post("/v1/undrain", &json!({})).await.expect("an answer").status, 200);
    eventually("the other leads", async || other.is_leader().await).await;
    assert_eq!(other.token().await, Some(token + 1));
    eventually("it queues again", async || Some(daemon.status().await?["role"] == "candidate").filter(|c| *c)).await;
    eventually("it is ready", async || (daemon.probe("/readyz").await == Some(200)).then_some(())).await;
    // Alone, it leads again: with a token of its own.
    other.sigterm();
    assert!(other.wait_exit().await.success());
    let again = eventually("it leads again", async || daemon.token().await).await;
    assert_eq!(again, token + 2);
    drain(&daemon, json!({})).await;
    assert_eq!(daemon.post("/v1/undrain", &json!({})).await.expect("an answer").status, 200);
    let alone = eventually("it leads once more", async || daemon.token().await).await;
    assert!(alone > again, "an undone drain leads on with nothing: {again} then {alone}");
}

/// Goal: words that mean another leadership end none, and where there is nothing to hand over that is said.
/// Method: `drained` and `resign` as a late repetition of an earlier leader would send them, and as the command line does.
#[tokio::test]
async fn a_late_drained_or_resign_ends_no_newer_leadership() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).start().await;
    let old = eventually("it leads", async || daemon.token().await).await;
    assert_eq!(daemon.verb("drained", &json!({"token": old})).await.expect("an answer").status, 202);
    let token = eventually("it leads anew", async || daemon.token().await.filter(|t| *t > old)).await;
    for verb in ["drained", "resign"] {
        let late = daemon.verb(verb, &json!({"token": old})).await.expect("an answer");
        assert_eq!((late.status, late.json()["code"].clone()), (409, "stale".into()), "{verb}");
        assert_eq!(late.json()["leader"]["generation"], token, "{verb} names who leads");
    }
    assert_eq!(daemon.token().await, Some(token), "it leads on");
    let other = Daemon::builder("pod-1", &etcd).start().await;
    eventually("it is queued", async || Some(other.status().await?["role"] == "candidate").filter(|c| *c)).await;
    let nothing = other.verb("drained", &json!({})).await.expect("an answer");
    assert_eq!((nothing.status, nothing.json()["code"].clone()), (409, "not_leader".into()));
    let config = other.config().display().to_string();
    let output = tenure(&["drained", "-c", &config, "--token", &token.to_string()]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("nothing to hand over"), "{said}");
    let config = daemon.config().display().to_string();
    let output = tenure(&["resign", "-c", &config, "--token", &token.to_string()]).await;
    assert!(output.status.success(), "{output:?}");
    eventually("the other leads", async || other.is_leader().await).await;
}

/// Goal: the command line says what a drain does, how long, and how it ends.
#[tokio::test]
async fn the_command_line_says_what_a_drain_holds() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).start().await;
    eventually("it leads", async || daemon.token().await).await;
    let config = daemon.config().display().to_string();
    let said = async |args: &[&str]| {
        let output = tenure(&[args, &["-c", &config]].concat()).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, words) = said(&["undrain"]).await;
    assert!(code == Some(4) && words.contains("does not drain"), "{code:?} {words}");
    let (code, words) = said(&["drain", "--timeout", "5m"]).await;
    assert!(code == Some(0) && words.contains("no longer leading orders. Nobody leads until"), "{code:?} {words}");
    let (code, words) = said(&["undrain"]).await;
    assert!(code == Some(0) && words.contains("taking part again"), "{code:?} {words}");
    eventually("it leads again", async || daemon.token().await).await;
    let (code, words) = said(&["drain", "--hand-over"]).await;
    assert!(code == Some(0) && words.contains("as soon as the last promise has run out"), "{code:?} {words}");
    eventually("all is handed over", async || daemon.logs().contains("takes part in no election").then_some(())).await;
    let (code, words) = said(&["drain"]).await;
    assert!(code == Some(0) && words.contains("it led nothing"), "{code:?} {words}");
}
