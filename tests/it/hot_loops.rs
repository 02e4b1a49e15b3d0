//! Whoever can write to etcd can take from a daemon what it has, again and again: it then asks again every few seconds, not a
//! thousand times a second, and is well soon after.

use std::time::{Duration, Instant};

use tokio::process::Child;

use crate::support::{Daemon, Etcd, eventually, scratch};

/// How long somebody interferes.
const HOSTILE: Duration = Duration::from_secs(10);
/// The most requests, of all kinds and tries, that this may cost. Without pauses it is thousands.
const MOST_REQUESTS: f64 = 250.0;
/// The most lines in the log.
const MOST_LINES: usize = 120;
/// The longest pause is 5 s; then come a grant, a place in the queue and an election.
const SOON: Duration = Duration::from_secs(7);

/// Runs a shell loop around etcdctl, which is killed when the handle is dropped.
fn again_and_again(etcd: &Etcd, body: &str) -> Child {
    // `ctl_command` knows the series, the endpoints and the credentials; the shell runs it as "$@".
    let ctl = etcd.ctl_command(&[]);
    let ctl = ctl.as_std();
    let script = format!("while :; do {body}; done");
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(ctl.get_program()).args(ctl.get_args());
    shell.envs(ctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    shell.kill_on_drop(true).spawn().expect("a shell")
}

/// Interferes with a leader, counts what that costs, and measures how soon it leads again.
async fn bounded(etcd: &Etcd, daemon: &Daemon, body: &str) {
    let token = eventually("it leads", async || daemon.token().await).await;
    let (requests, lines) = (daemon.metric("etcd_requests_total", &[]).await, daemon.logs().lines().count());
    let mut shell = again_and_again(etcd, body);
    tokio::time::sleep(HOSTILE).await;
    shell.kill().await.expect("a running shell");
    let over = Instant::now();
    let requests = daemon.metric("etcd_requests_total", &[]).await - requests;
    let lines = daemon.logs().lines().count() - lines;
    assert!(requests < MOST_REQUESTS, "{requests} requests in {HOSTILE:?}");
    assert!(lines < MOST_LINES, "{lines} lines in {HOSTILE:?}:\n{}", daemon.logs());
    let newer = eventually("it leads again", async || daemon.token().await.filter(|new| *new > token)).await;
    let took = over.elapsed();
    assert!(took < SOON, "{took:?} until it led again with {newer}");
    println!("{requests} requests and {lines} lines in {HOSTILE:?}; it led again after {took:?}");
}

/// Goal: keys deleted in a tight loop cost a bounded number of requests and lines. Method: `etcdctl del` of the whole queue.
#[tokio::test]
async fn keys_deleted_in_a_loop_make_no_hot_loop() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("5s").start().await;
    bounded(&etcd, &daemon, "\"$@\" del --prefix /tenure/elections/").await;
}

/// Goal: the same for leases. Method: every lease that etcd knows is revoked, again and again.
#[tokio::test]
async fn leases_revoked_in_a_loop_make_no_hot_loop() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("5s").start().await;
    let body = "for lease in $(\"$@\" lease list | tail -n +2); do \"$@\" lease revoke \"$lease\"; done";
    bounded(&etcd, &daemon, body).await;
}

/// Goal: the same for what etcd refuses. Method: the role loses its right to write, and gets it back.
#[tokio::test]
async fn a_permission_that_is_denied_makes_no_hot_loop() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "secret", &[("read", "/tenure/", true)]).await;
    let dir = scratch("secrets");
    let password = dir.path().join("password");
    std::fs::write(&password, "secret").expect("the directory is ours");
    let daemon = Daemon::builder("pod-0", &etcd)
        .ttl("5s")
        .set("etcd.username", "app")
        .set("etcd.password_file", password.display().to_string())
        .start()
        .await;
    eventually("etcd refuses it", async || daemon.metric("etcd_requests_total", &["permission_denied"]).await > 0.0)
        .await;
    let (requests, lines) = (daemon.metric("etcd_requests_total", &[]).await, daemon.logs().lines().count());
    tokio::time::sleep(HOSTILE).await;
    let requests = daemon.metric("etcd_requests_total", &[]).await - requests;
    let lines = daemon.logs().lines().count() - lines;
    assert!(requests < MOST_REQUESTS, "{requests} requests in {HOSTILE:?}");
    assert!(lines < MOST_LINES, "{lines} lines in {HOSTILE:?}:\n{}", daemon.logs());
    let allowed = Instant::now();
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "tests", "readwrite", "/tenure/"]).await;
    eventually("it leads", async || daemon.token().await).await;
    let took = allowed.elapsed();
    assert!(took < SOON, "{took:?} until it led");
}
