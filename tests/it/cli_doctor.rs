//! `tenure doctor` on real servers: what it finds, that it names it, how long it takes, and that it leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Certs, Daemon, Endpoints, Etcd, Link, eventually, free_port};

mod between;
mod rights;

/// Whatever is dead.
const LIMIT: Duration = Duration::from_secs(10);
/// For starting the process on a busy machine, on top.
const START: Duration = Duration::from_secs(3);

/// How it ended.
struct Visit {
    code: Option<i32>,
    lines: Vec<String>,
    all: String,
}

impl Visit {
    /// The one line with these words, and its level.
    #[track_caller]
    fn says(&self, level: &str, words: &str) -> &str {
        let found: Vec<_> = self.lines.iter().filter(|l| l.contains(words)).collect();
        assert!(found.len() == 1 && found[0].starts_with(&format!("{level:4}  ")), "{level} {words}: {}", self.all);
        found[0]
    }
}

struct Config {
    dir: tempfile::TempDir,
    value: Value,
}

impl Config {
    fn of(endpoints: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let value = json!({
            "id": "doctored",
            "elections": ["orders"],
            "etcd": {"endpoints": endpoints},
            "session": {"ttl": "5s"},
            "http": {"public": "127.0.0.1:0", "control": format!("unix:{}", dir.path().join("c.sock").display())},
        });
        Self { dir, value }
    }

    fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        self.value.pointer_mut(parent).expect("a section")[key] = value.into();
        self
    }

    fn user(self, password: &str) -> Self {
        let file = self.dir.path().join("password");
        std::fs::write(&file, password).expect("written");
        self.set("/etcd/username", "app").set("/etcd/password_file", file.display().to_string())
    }

    fn file(&self) -> PathBuf {
        let file = self.dir.path().join("tenure.yaml");
        std::fs::write(&file, self.value.to_string()).expect("written");
        file
    }

    fn command(&self, more: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenure"));
        command.args(["doctor", "-c"]).arg(self.file()).args(more).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it, within its limit.
    async fn visit(&self) -> Visit {
        let began = Instant::now();
        let output = self.command(&[]).output().await.expect("it runs");
        let took = began.elapsed();
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(took < LIMIT + START, "it took {took:?}: {all}");
        Visit { code: output.status.code(), lines: all.lines().map(str::to_owned).collect(), all }
    }
}

/// Nothing of a doctor's is left in etcd.
async fn nothing_is_left(etcd: &Etcd) {
    let keys = etcd.ctl(&["get", "/tenure/doctor/", "--prefix", "--keys-only"]).await;
    assert_eq!(keys.trim(), "", "keys are left");
    let leases = etcd.ctl(&["lease", "list"]).await;
    assert!(leases.contains("found 0 leases"), "{leases}");
}

#[tokio::test]
async fn a_healthy_cluster_of_each_version_is_fit_and_nothing_is_left_in_it() {
    for series in ["3.4", "3.5", "3.6", "3.7"] {
        let etcd = Etcd::builder().version(series).members(if series == "3.7" { 3 } else { 1 }).start().await;
        let visit = Config::of(&etcd.endpoints()).visit().await;
        assert_eq!(visit.code, Some(0), "{series}: {}", visit.all);
        let whole =
            visit.says("ok", "a lease was granted, renewed, confirmed and revoked, a key on it elected and watched");
        assert!(etcd.endpoints().iter().all(|e| whole.contains(e)), "through every member: {whole}");
        assert_eq!(
            visit.lines.iter().filter(|l| l.contains(&format!("answers, etcd {series}."))).count(),
            etcd.endpoints().len()
        );
        assert!(
            visit.all.contains("leads etcd") && visit.lines.last().expect("a verdict").ends_with("fit"),
            "{}",
            visit.all
        );
        visit.says("ok", "the boot clock runs");
        nothing_is_left(&etcd).await;
    }
}

#[tokio::test]
async fn json_is_one_document_with_its_verdict() {
    let etcd = Etcd::start().await;
    let output = Config::of(&etcd.endpoints()).command(&["--output", "json"]).output().await.expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["verdict"]["fit"], true, "{document}");
    assert_eq!(document["verdict"]["problems"], 0);
    let remarks = document["remarks"].as_array().expect("remarks");
    assert!(remarks.iter().all(|r| r["level"].is_string() && r["text"].is_string()));
    assert_eq!(document["verdict"]["notes"], remarks.iter().filter(|r| r["level"] == "note").count());
}

/// Goal: whatever is dead, it ends in time, and says of each member what is the matter with it.
/// Method: of three members one that follows is killed, then the other one frozen, then the last.
#[tokio::test]
async fn members_that_are_dead_or_hang_are_told_apart_in_time() {
    let etcd = Etcd::cluster(3).await;
    let config = Config::of(&etcd.endpoints());
    let last = etcd.leader_index().await;
    let [dead, frozen] = [(last + 1) % 3, (last + 2) % 3];
    etcd.member(dead).kill();
    let visit = config.visit().await;
    visit.says("warn", &format!("{} does not answer: ", etcd.member(dead).endpoint()));
    assert_eq!(visit.code, Some(0), "{}", visit.all);
    nothing_is_left(&etcd).await;
    etcd.member(frozen).pause();
    let visit = config.visit().await;
    visit.says(
        "warn",
        &format!("{} accepts connections and answers nothing: its process hangs", etcd.member(frozen).endpoint()),
    );
    visit.says("fail", "no member serves requests");
    assert_eq!(visit.code, Some(5), "{}", visit.all);
    eventually("the last one knows that it is alone", async || {
        config.visit().await.all.contains("it knows no leader: etcd has no quorum").then_some(())
    })
    .await;
    etcd.member(last).pause();
    assert_eq!(config.visit().await.code, Some(5));
}

#[tokio::test]
async fn a_larger_least_ttl_is_said_with_the_fail_over_it_means() {
    let etcd = Etcd::builder().arg("--heartbeat-interval=500").arg("--election-timeout=5000").start().await;
    let visit = Config::of(&etcd.endpoints()).visit().await;
    let line = visit.says("warn", "etcd grants a lease of 8s where session.ttl asks for 5s");
    assert!(line.contains("worst-case fail-over is 8500ms then, not 5500ms"), "{line}");
    assert_eq!(visit.code, Some(0));
    let graced = Config::of(&etcd.endpoints()).set("/session/vacancy_grace", "3100ms").visit().await;
    graced.says("warn", "session.vacancy_grace of 3100ms no longer keeps promises with a lease of 8s");
}

#[tokio::test]
async fn a_record_over_which_nobody_can_be_elected_is_named_with_its_key() {
    let etcd = Etcd::start().await;
    let config = Config::of(&etcd.endpoints());
    let key = "/tenure/generations/orders";
    etcd.put(key, b"garbage").await;
    let visit = config.visit().await;
    let line = visit.says("fail", &format!("{key} holds no generation record"));
    assert!(line.contains("put back the newest record below /tenure/history/orders/"), "{line}");
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    etcd.ctl(&["del", key]).await;
    etcd.put("/tenure/control/orders", b"garbage").await;
    config.visit().await.says("fail", "/tenure/control/orders holds no control record");
    etcd.ctl(&["del", "/tenure/control/orders"]).await;
    assert_eq!(config.visit().await.code, Some(0));
}

#[tokio::test]
async fn endpoints_by_which_a_daemon_would_campaign_nowhere_are_not_fit() {
    let etcd = Etcd::start().await;
    let dead = |_| format!("http://127.0.0.1:{}", free_port());
    let mut endpoints: Vec<String> = (0..2).map(dead).collect();
    endpoints.push(etcd.endpoint());
    let visit = Config::of(&endpoints).visit().await;
    visit.says("fail", "a daemon would campaign nowhere: no majority of etcd.endpoints belongs to one cluster");
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    assert!(!visit.all.contains("one more that fails"), "{}", visit.all);
}

#[tokio::test]
async fn a_learner_is_named_first() {
    let etcd = Etcd::start().await;
    let (client, peer) = (free_port(), free_port());
    etcd.ctl(&["member", "add", "l", "--learner", &format!("--peer-urls=http://127.0.0.1:{peer}")]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let mut command = etcd.command("etcd");
    command.args(["--name", "l", "--data-dir"]).arg(dir.path()).args(["--initial-cluster-state", "existing"]);
    command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
    command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
    command.args(["--initial-cluster", &format!("{},l={}", etcd.initial_cluster(), url(peer))]);
    let _learner = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts");
    let config = Config::of(&[url(client)]);
    let visit = eventually("the learner answers", async || {
        let visit = config.visit().await;
        visit.all.contains("is a learner").then_some(visit)
    })
    .await;
    assert!(visit.lines[0].starts_with(&format!("fail  {} is a learner", url(client))), "{}", visit.all);
    assert_eq!(visit.code, Some(1), "{}", visit.all);
    let both = Config::of(&[url(client), etcd.endpoint()]).visit().await;
    both.says("warn", "is a learner");
}

#[tokio::test]
async fn daemons_that_share_an_id_are_found_and_a_single_one_is_not_accused() {
    let etcd = Etcd::start().await;
    let start = async || Daemon::builder("doctored", &etcd).start().await;
    let queued = async |count: usize| {
        let keys = etcd.ctl(&["get", "/tenure/elections/orders/", "--prefix", "--keys-only"]).await;
        (keys.split_whitespace().count() == count).then_some(())
    };
    let _one = start().await;
    eventually("one is queued", async || queued(1).await).await;
    let config = Config::of(&etcd.endpoints());
    let visit = config.visit().await;
    visit.says("note", "a daemon with the id doctored is in the queue");
    assert_eq!(visit.code, Some(0), "{}", visit.all);
    let _other = start().await;
    eventually("both are queued", async || queued(2).await).await;
    let visit = config.visit().await;
    visit.says("fail", "2 daemons with the id doctored are in the queues");
    assert_eq!(visit.code, Some(1), "{}", visit.all);
}

#[tokio::test]
async fn a_certificate_that_will_expire_is_named_ours_and_the_members() {
    let dir = tempfile::tempdir().expect("a directory");
    let soon = std::time::SystemTime::now() + Duration::from_hours(48);
    let certs = Certs::make_until(dir.path(), "soon", soon);
    let etcd = Etcd::builder().tls_files(certs.clone()).start().await;
    let show = |path: &Path| path.display().to_string();
    let tls = |certs: &Certs| json!({"ca_file": show(&certs.ca), "cert_file": show(&certs.client_cert), "key_file": show(&certs.client_key)});
    let visit = Config::of(&etcd.endpoints()).set("/etcd/tls", tls(&certs)).visit().await;
    visit.says("warn", &format!("a certificate that {} shows", etcd.endpoint()));
    visit.says("warn", "etcd.tls.cert_file: ");
    assert_eq!(visit.code, Some(0), "{}", visit.all);
    let other = tempfile::tempdir().expect("a directory");
    let stranger = Certs::make(other.path(), "stranger");
    let visit = Config::of(&etcd.endpoints()).set("/etcd/tls", tls(&stranger)).visit().await;
    assert!(visit.lines[0].starts_with("fail  ") && visit.lines[0].contains("does not answer"), "{}", visit.all);
    assert_eq!(visit.code, Some(5), "{}", visit.all);
}
