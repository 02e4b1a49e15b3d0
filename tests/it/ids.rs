//! One definition of what an id is: for the configuration, the environment, flags, and what others wrote in etcd.

use std::process::Command;

use crate::support::{Daemon, Etcd, eventually};

/// Each with a word of the reason.
const BAD: [(&str, &str); 7] = [
    ("\"pod-0\"", "quotation mark"),
    ("'pod-0'", "quotation mark"),
    ("pod\u{200b}0", "U+200B"),
    ("pod\u{202e}0", "U+202E"),
    ("pod\u{fffe}0", "U+FFFE"),
    ("pod 0", "white space"),
    ("pod\u{a0}0", "white space"),
];

fn check(id: Option<&str>, variable: Option<(&str, &str)>) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.yaml");
    let of_file = id.map(|id| format!("id: {}\n", serde_json::Value::from(id))).unwrap_or_default();
    std::fs::write(&file, format!("{of_file}elections: [orders]\n")).expect("ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(["config", "check"]).arg(&file).env_remove("HOSTNAME").env_remove("TENURE_ID").envs(variable);
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_id_is_refused_for_the_same_reasons_wherever_it_comes_from() {
    for (bad, reason) in BAD {
        for (from, (code, said)) in [
            ("the file", check(Some(bad), None)),
            ("TENURE_ID", check(None, Some(("TENURE_ID", bad)))),
            ("HOSTNAME", check(None, Some(("HOSTNAME", bad)))),
        ] {
            assert!(code == Some(3) && said.contains(reason), "{bad:?} from {from}: {code:?} {said}");
        }
    }
    let long = "é".repeat(253);
    for good in ["pod-0", "größe", &long] {
        for (from, (code, said)) in [
            ("the file", check(Some(good), None)),
            ("TENURE_ID", check(None, Some(("TENURE_ID", good)))),
            ("HOSTNAME", check(None, Some(("HOSTNAME", good)))),
        ] {
            assert_eq!(code, Some(0), "{good:?} from {from}: {said}");
        }
    }
    assert_eq!(check(Some(&"é".repeat(254)), None).0, Some(3));
}

/// Goal: a candidate whose id is none is waited for like any foreign client, is never named successor, and is spoken of once.
#[tokio::test]
async fn an_odd_id_in_etcd_makes_a_foreign_candidate_and_is_said() {
    let etcd = Etcd::start().await;
    let granted = etcd.ctl(&["lease", "grant", "600"]).await;
    let lease = granted.split(' ').nth(1).expect("its id").to_owned();
    let key = format!("/tenure/elections/orders/{lease}");
    let value = r#"{"id":"pod\u200b0","url":"","term":0,"priority":0,"version":"1"}"#;
    etcd.ctl(&["put", &format!("--lease={lease}"), &key, value]).await;
    let daemon = Daemon::builder("größe", &etcd).ttl("2s").start().await;
    eventually("it waits", async || daemon.status().await.is_some_and(|s| s["queue_position"] == 1)).await;
    let status = daemon.status().await.expect("answered");
    assert_eq!((&status["foreign"], &status["leader"]), (&true.into(), &serde_json::Value::Null), "{status}");
    let queue = daemon.get("/v1/elections/orders/candidates").await.expect("answered").json();
    assert_eq!((&queue["candidates"][0]["foreign"], &queue["candidates"][1]["id"]), (&true.into(), &"größe".into()));
    let said = || daemon.logs().matches("a candidate's id is none").count();
    eventually("it is said", async || said() == 1).await;
    assert!(daemon.logs().contains("U+200B"), "{}", daemon.logs());
    etcd.ctl(&["lease", "revoke", &lease]).await;
    eventually("it leads", async || daemon.is_leader().await).await;
    // Letters beyond ASCII stand in headers as they are.
    let open = daemon.get("/gate").await.expect("answered");
    assert_eq!(open.headers["fencing-holder"].as_bytes(), "größe".as_bytes());
    assert_eq!(said(), 1, "{}", daemon.logs());
}
