//! Users, passwords, tokens and certificates of etcd, and how they change while a daemon leads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::interval;

use crate::support::{
    Certs, Daemon, DaemonBuilder, Etcd, eventually, leader_above, leader_of, leads_through, scratch, tenure,
};

/// What the documentation calls the least that an etcd role needs.
const LEAST: [(&str, &str, bool); 4] = [
    ("readwrite", "/tenure/elections/orders/", true),
    ("readwrite", "/tenure/generations/orders", false),
    ("readwrite", "/tenure/history/orders/", true),
    ("read", "/tenure/control/orders", false),
];

/// A daemon that signs in as `app` with what the file says.
fn signed_in(id: &str, etcd: &Etcd, password: &Path) -> DaemonBuilder {
    let password = password.display().to_string();
    Daemon::builder(id, etcd).set("etcd.username", "app").set("etcd.password_file", password)
}

/// Replaces a file as a secret's mount does: whole, at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the directory is ours");
    std::fs::rename(&new, path).expect("the directory is ours");
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    replace(&path, text);
    path
}

/// How often anybody has signed in, as etcd counts it: the daemon's client library does so by itself too.
async fn logins(etcd: &Etcd) -> f64 {
    let metrics = etcd.member(0).status("/metrics").await.expect("the status port answers");
    let series =
        |line: &&str| line.starts_with("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Authenticate\"");
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
    metrics.lines().filter(series).map(value).sum()
}

/// Goal: the documented least role is enough for all that a candidate does, and tokens that ran out cost nothing.
/// Method: simple tokens that end after 3 s without use; renewals come every 6 s, so that each finds its token expired.
#[tokio::test]
async fn the_least_role_is_enough_and_leadership_outlives_its_tokens() {
    let mut etcd = Etcd::builder().arg("--auth-token-ttl=3").start().await;
    etcd.enable_auth_with("app", "secret", &LEAST).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "secret\n");
    let mut daemons = vec![signed_in("slow", &etcd, &password).ttl("30s").start().await];
    let (_, generation) = leader_of(&daemons).await;
    daemons.push(signed_in("other", &etcd, &password).start().await);
    eventually("the other is queued", async || daemons[1].is_queued().await).await;
    let config = daemons[1].config().display().to_string();
    let doctor = tenure(&["doctor", "-c", &config]).await;
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.success() && found.contains("the keys of orders may be read and written"), "{found}");
    let before = logins(&etcd).await;
    leads_through(&daemons[0], "tokens run out", Duration::from_secs(14)).await;
    let guard = daemons[0].status().await.expect("a status")["guard_ms"].as_u64().expect("a u64");
    assert!(guard > 20_000, "renewed since the first token ran out: {guard} ms are left");
    let again = logins(&etcd).await - before;
    assert!(again >= 2.0, "its token ran out before each renewal, and it signed in {again} times");
    let answer = daemons[0].resign().await;
    assert_eq!(answer["leader"]["id"], "other", "{answer}");
    let (leader, next) = leader_above(&daemons, generation).await;
    assert_eq!(daemons[leader].id(), "other");
    assert_eq!(daemons[1].history().await[0]["generation"], next);
    for daemon in &daemons {
        daemon.sigterm();
        assert!(daemon.wait_exit().await.success(), "it may delete its key and revoke its lease");
    }
    assert_eq!(etcd.queue().await, [""; 0]);
}

/// Goal: a candidate that etcd lets do less than it needs is not ready, so that a rolling update to a wrong role or prefix stops at
/// its first pod.
/// Method: rights for nothing, then to read alone, then all.
#[tokio::test]
async fn who_may_not_queue_is_not_ready() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "secret", &[("readwrite", "/elsewhere", true)]).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "secret\n");
    let daemon = signed_in("a", &etcd, &password).start().await;
    let readiness = async || daemon.get("/readyz?verbose").await.map(|answer| (answer.status, answer.text())).ok();
    let unready = async || readiness().await.filter(|(status, why)| *status == 503 && why.contains("[+]started ok"));
    let may = async |right: &str| {
        etcd.ctl(&["role", "grant-permission", "--prefix=true", "tests", right, "/tenure/"]).await;
    };
    eventually("etcd was reached", async || unready().await).await;
    may("read").await;
    eventually("the queue was seen", async || Some(daemon.status().await?["last_update"].is_string()).filter(|s| *s))
        .await;
    let refused = async || daemon.metric("etcd_requests_total", &["\"queue\"", "permission_denied"]).await > 0.0;
    eventually("it may not queue", refused).await;
    assert!(unready().await.is_some(), "{:?}", readiness().await);
    may("readwrite").await;
    eventually("it is ready", async || readiness().await.filter(|(status, _)| *status == 200)).await;
}

/// Goal: a candidate that may queue and never lead is not ready, and says which right it lacks: else an update to that role would go
/// on to the last pod.
/// Method: all rights but those to write the generation and the history; then the one; then both.
#[tokio::test]
async fn who_may_queue_and_never_lead_is_not_ready() {
    const GENERATION: &str = "/tenure/generations/orders";
    const HISTORY: &str = "/tenure/history/orders/";
    let mut etcd = Etcd::start().await;
    let rights = [("readwrite", "/tenure/elections/orders/", true), ("read", "/tenure/", true)];
    etcd.enable_auth_with("app", "secret", &rights).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "secret\n");
    let daemon = signed_in("a", &etcd, &password).start().await;
    eventually("it is queued", async || daemon.is_queued().await).await;
    let lacks = async |named: &[&str], unnamed: &[&str]| {
        eventually("it is not ready, and says why", async || {
            let answer = daemon.get("/readyz?verbose").await.ok()?;
            let text = answer.text();
            let why = text.lines().find(|line| line.starts_with("[-]rights failed: etcd's role lacks "))?;
            let right = named.iter().all(|n| why.contains(n)) && !unnamed.iter().any(|n| why.contains(n));
            (answer.status == 503 && right && text.contains("[+]joined ok")).then_some(())
        })
        .await;
    };
    lacks(&["write on the key /tenure/generations/orders", "write on the range of /tenure/history/orders/"], &[]).await;
    let said = daemon.logs().lines().filter(|line| line.contains("may queue and never lead")).count();
    assert_eq!(said, 1, "once, since nothing changed: {}", daemon.logs());
    assert!(!daemon.logs().contains("it is unknown whether"), "etcd refused it, and said so: {}", daemon.logs());
    etcd.ctl(&["role", "grant-permission", "tests", "readwrite", GENERATION]).await;
    lacks(&[HISTORY], &[GENERATION]).await;
    assert_eq!(daemon.leads_with().await, None);
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "tests", "readwrite", HISTORY]).await;
    eventually("it is ready", async || (daemon.probe("/readyz").await == Some(200)).then_some(())).await;
    leader_of(std::slice::from_ref(&daemon)).await;
    let written = etcd.keys("/tenure/").await;
    assert!(written.iter().all(|key| !key.contains("probe")), "asking for rights writes nothing: {written:?}");
}

/// Goal: an etcd that denies a right serves: the log says what is refused and what mends it, once, and never that etcd was out of
/// reach.
/// Method: no right at all on the generation, which is what the roll call reads, for several roll calls.
#[tokio::test]
async fn a_right_that_lacks_is_said_as_a_refusal_and_not_as_an_outage() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "secret", &[("readwrite", "/tenure/elections/orders/", true)]).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "secret\n");
    let daemon = signed_in("a", &etcd, &password).ttl("2s").start().await;
    let asked = async || daemon.metric("etcd_requests_total", &["\"roll_call\"", "permission_denied"]).await > 2.0;
    eventually("the roll was called", asked).await;
    let logs = daemon.logs();
    let refused = "etcd refuses what we need: its user lacks a permission: `tenure doctor` names it";
    assert_eq!(logs.matches(refused).count(), 1, "{logs}");
    let lacks = "etcd's role lacks readwrite on the key /tenure/generations/orders";
    eventually("what lacks is named", async || daemon.logs().contains(lacks)).await;
    // A machine that is too busy may keep it silent for a while, which is another matter.
    let unreachable = |line: &&str| line.contains("unreachable") && line.contains("permission");
    assert_eq!(logs.lines().find(unreachable), None, "{logs}");
    assert!(daemon.metric("etcd_endpoint_up", &[]).await > 0.0);
}

/// Goal: no change of etcd's users and roles costs a leadership, though each makes every JWT "old".
/// Method: JWTs that end after 5 s whatever is done with them, and an unrelated role or user every 300 ms.
#[tokio::test]
async fn unrelated_changes_of_users_and_roles_cost_no_leadership() {
    let dir = scratch("secrets");
    let key = secret(dir.path(), "jwt", "a key for HMAC that is long enough for anybody");
    let token = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=5s", key.display());
    let mut etcd = Etcd::builder().arg(&token).start().await;
    etcd.enable_auth_with("app", "secret", &LEAST).await;
    let password = secret(dir.path(), "password", "secret");
    let mut daemons = vec![signed_in("a", &etcd, &password).start().await];
    let (_, generation) = leader_of(&daemons).await;
    daemons.push(signed_in("b", &etcd, &password).start().await);
    eventually("b is queued", async || daemons[1].is_queued().await).await;
    let (before, span) = (logins(&etcd).await, Duration::from_secs(12));
    let disturb = async {
        let mut ticks = interval(Duration::from_millis(300));
        for number in 0.. {
            ticks.tick().await;
            etcd.ctl(&["role", "add", &format!("role-{number}")]).await;
            etcd.ctl(&["user", "add", &format!("user-{number}:x")]).await;
        }
    };
    tokio::select! {
        () = disturb => unreachable!("it goes on for ever"),
        () = leads_through(&daemons[0], "users and roles change", span) => {}
    }
    assert_eq!(daemons[0].leads_with().await, Some(generation));
    let again = logins(&etcd).await - before;
    // etcdctl signs in for each of its changes.
    let changes = etcd.ctl(&["role", "list"]).await.lines().filter(|l| l.starts_with("role-")).count() * 2;
    assert!(
        again >= 20.0 + f64::from(u32::try_from(changes).expect("few")),
        "{again} logins, {changes} of them etcdctl's"
    );
    daemons[0].resign().await;
    let (leader, _) = leader_above(&daemons, generation).await;
    assert_eq!(daemons[leader].id(), "b", "its watch lived through it as well");
}

/// Goal: a password is rotated without anybody noticing: first the file, then etcd.
/// Method: change it while a daemon leads with TTL 5, and ask `/leader` for longer than that.
#[tokio::test]
async fn a_password_is_rotated_without_a_flap() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "old", &LEAST).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "old");
    let daemons = [signed_in("a", &etcd, &password).start().await];
    leader_of(&daemons).await;
    replace(&password, "new");
    etcd.ctl_with(&["user", "passwd", "app", "--interactive=false"], b"new\n").await;
    // Without the one of etcdctl for that change.
    let before = logins(&etcd).await;
    leads_through(&daemons[0], "the password changed", Duration::from_secs(7)).await;
    assert!(logins(&etcd).await > before, "it signed in again");
}

/// Goal: the other order heals as well, without a restart.
/// Method: change it in etcd, wait until the daemon has been refused, then give it the new one.
#[tokio::test]
async fn a_password_file_that_comes_late_heals() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "old", &LEAST).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "old");
    let daemons = [signed_in("a", &etcd, &password).ttl("2s").start().await];
    let (_, generation) = leader_of(&daemons).await;
    etcd.ctl_with(&["user", "passwd", "app", "--interactive=false"], b"new\n").await;
    daemons[0].transition("it cannot renew", |t| t["from"] == "leader").await;
    assert_eq!(daemons[0].leader_status().await, Some(503));
    replace(&password, "new");
    leader_above(&daemons, generation).await;
}

/// Goal: a wrong password is said clearly, once in a while, and is no hot loop: etcd hashes each try on purpose slowly.
/// Method: start with one, read the log and the counters of a few seconds; then mend the file.
#[tokio::test]
async fn a_wrong_password_is_said_clearly_and_is_no_hot_loop() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth_with("app", "right", &LEAST).await;
    let dir = scratch("secrets");
    let password = secret(dir.path(), "password", "wrong");
    let daemons = [signed_in("a", &etcd, &password).start().await];
    let line = eventually("a line in the log", async || {
        let log = daemons[0].logs();
        let refused = |line: &&str| line.contains("authentication failed");
        log.lines().find(refused).map(str::to_owned).ok_or(log)
    })
    .await;
    assert!(line.contains("WARN") || line.contains("ERROR"), "{line}");
    for (path, code) in [("/leader", 503), ("/livez", 200), ("/health", 503)] {
        assert_eq!(daemons[0].probe(path).await, Some(code), "{path}");
    }
    // A rate is measured over time.
    let before = daemons[0].metric("etcd_requests_total", &[]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let logins = daemons[0].metric("etcd_requests_total", &["authenticate"]).await;
    let tries = daemons[0].metric("etcd_requests_total", &[]).await - before;
    assert!(logins <= 3.0 && tries <= 60.0, "{logins} logins, {tries} tries in 4 s");
    let said = daemons[0].logs().lines().filter(|line| line.contains("authentication failed")).count();
    assert!(said <= 5, "{said} lines in the log: {}", daemons[0].logs());
    assert_eq!(daemons[0].leads_with().await, None);
    replace(&password, "right");
    leader_of(&daemons).await;
}

/// Goal: TLS to an etcd that asks for no certificate: its own is checked against `ca_file`.
/// Method: one daemon with the right authority, and one with another's, which never gets a session.
#[tokio::test]
async fn tls_trusts_the_configured_authority_only() {
    let etcd = Etcd::builder().server_tls().start().await;
    let with_ca = |id: &str, ca: &Path| {
        Daemon::builder(id, &etcd).set("etcd.tls.ca_file", ca.display().to_string()) //
    };
    let dir = scratch("other-certs");
    let other = Certs::make(dir.path(), "other");
    let mistaken = with_ca("mistaken", &other.ca).start().await;
    let daemons = [with_ca("a", &etcd.certs().expect("TLS").ca).start().await];
    let (_, generation) = leader_of(&daemons).await;
    assert_eq!(generation, 1);
    assert_eq!(mistaken.probe("/health").await, Some(503));
    eventually("its log says why", async || mistaken.logs().to_ascii_lowercase().contains("certificate")).await;
    assert_eq!(etcd.queue().await.len(), 1);
}

/// Goal: certificates are replaced while a daemon leads, all of them at once, authority included.
/// Method: write new files over the old ones, and restart etcd, which then knows nothing of the old authority.
#[tokio::test]
async fn mutual_tls_lives_through_new_certificates() {
    let etcd = Etcd::builder().tls().start().await;
    let certs = etcd.certs().expect("TLS").clone();
    let file = |path: &PathBuf| path.display().to_string();
    let builder = |id: &str| {
        let builder = Daemon::builder(id, &etcd).ttl("10s");
        let builder =
            builder.set("etcd.tls.ca_file", file(&certs.ca)).set("etcd.tls.cert_file", file(&certs.client_cert));
        builder.set("etcd.tls.key_file", file(&certs.client_key))
    };
    let mut daemons = vec![builder("a").start().await];
    let (_, generation) = leader_of(&daemons).await;
    daemons.push(builder("b").start().await);
    eventually("b is queued", async || daemons[1].is_queued().await).await;
    Certs::make(certs.ca.parent().expect("a directory"), "renewed");
    let restarted = async {
        etcd.restart().await;
        for daemon in &daemons {
            eventually("it reads the new files", async || daemon.logs().contains("TLS files for etcd changed")).await;
            eventually("it is in touch again", async || daemon.probe("/health").await == Some(200)).await;
        }
    };
    tokio::select! {
        () = restarted => {}
        () = leads_through(&daemons[0], "certificates are replaced", Duration::from_mins(1)) => {
            panic!("not in touch again: {}", daemons[0].logs());
        }
    }
    // Longer than the guard that was earned before.
    leads_through(&daemons[0], "certificates were replaced", Duration::from_secs(10)).await;
    assert_eq!(daemons[0].leads_with().await, Some(generation));
    daemons[0].resign().await;
    let (leader, _) = leader_above(&daemons, generation).await;
    assert_eq!(daemons[leader].id(), "b");
}
