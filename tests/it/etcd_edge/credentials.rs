//! Passwords, tokens and certificates that run out or change.

use super::*;

#[tokio::test]
async fn a_token_that_ran_out_and_a_password_that_changed_cost_a_retry() {
    let mut etcd = Etcd::builder().arg("--auth-token-ttl=1").start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "wrong\n").expect("write");
    etcd.enable_auth("app", "secret", "/tenure").await;
    let settings =
        EtcdConfig { username: Some("app".into()), password_file: Some(password_file.clone()), ..config(&etcd) };
    let (edge, notes) = edge_with("a", &settings, 1);
    let error = edge.read(E).await.expect_err("the password is wrong");
    assert_eq!(error.kind(), Kind::Auth, "{error}");
    let tries = notes.requests.lock().expect("notes").iter().filter(|(m, _)| *m == "authenticate").count();
    assert!(tries <= 2, "no hot loop: {tries}");
    std::fs::write(&password_file, "secret\n").expect("write");
    let lease = eventually("the new password", async || match edge.grant(TTL).await {
        Input::Session(SessionInput::Granted { lease, .. }) => Some(lease),
        _ => None,
    })
    .await;
    queue(&edge, lease).await;
    let (sink, mut inputs) = mpsc::channel(8);
    let watcher = edge.watch(sink);
    let plan = |view: &View| WatchPlan { suffixes: vec![], from: Revision(view.header.revision.0 + 1) };
    for round in 0..2 {
        // Longer than a token lives.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let view = look(&edge, Some(lease)).await;
        let renewed = edge.keep_alive(lease, ROUND, true).await;
        assert!(matches!(renewed, Input::Session(SessionInput::KeepAliveAnswered { .. })), "{renewed:?}");
        watcher.plan(E, plan(&view));
        etcd.ctl(&["put", "/tenure/control/orders", &format!(r#"{{"paused":true,"n":{round}}}"#)]).await;
        assert!(matches!(next(&mut inputs).await, ElectionInput::ControlChanged { .. }));
    }
}

/// Goal: the role that operations.md describes is enough, no part of it is too much, and what is missing is named.
/// Method: that role, from the document, granted right by right.
#[tokio::test]
async fn the_documented_role_is_enough_and_what_is_missing_of_it_is_named() {
    let mut etcd = Etcd::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "secret\n").expect("write");
    etcd.enable_auth("app", "secret", "/elsewhere").await;
    let settings = EtcdConfig { username: Some("app".into()), password_file: Some(password_file), ..config(&etcd) };
    let (edge, _) = edge_with("a", &settings, 1);
    let denied = async || edge.permissions(&[]).await.remove(0).1.expect("an answer");

    let text = include_str!("../../../docs/operations.md");
    let line = text.lines().find(|line| line.contains("**etcd role**")).expect("the role is documented");
    let (readwrite, read) = line.split_once("; ").expect("what is written, and what is read");
    let keys = |part: &str| {
        part.split('`').filter(|t| t.starts_with('/') && t.contains("NAME")).map(str::to_owned).collect::<Vec<_>>()
    };
    let rights = keys(readwrite).into_iter().map(|key| ("readwrite", key));
    let rights: Vec<_> = rights.chain(keys(read).into_iter().map(|key| ("read", key))).collect();
    let says = |(right, key): &(&str, String)| {
        let what = if key.ends_with('/') { "the range of" } else { "the key" };
        format!("{right} on {what} {}", key.replace("NAME", "orders"))
    };
    for granted in 0..rights.len() {
        let mut missing: Vec<_> = rights[granted..].iter().map(says).collect();
        let mut named = denied().await;
        missing.sort();
        named.sort();
        assert_eq!(named, missing);
        let (right, key) = (rights[granted].0, rights[granted].1.replace("NAME", "orders"));
        let mut grant = vec!["role", "grant-permission", "tests", right, &key];
        if key.ends_with('/') {
            grant.insert(2, "--prefix=true");
        }
        etcd.ctl(&grant).await;
    }
    assert_eq!(denied().await, Vec::<String>::new());
    etcd.ctl(&["role", "revoke-permission", "tests", "/tenure/generations/orders"]).await;
    etcd.ctl(&["role", "grant-permission", "tests", "read", "/tenure/generations/orders"]).await;
    assert_eq!(denied().await, ["write on the key /tenure/generations/orders"]);
}

#[tokio::test]
async fn mutual_tls_works_and_rotated_files_are_taken_up() {
    let etcd = Etcd::builder().tls().start().await;
    let certs = etcd.certs().expect("TLS").clone();
    // At first the files of another authority, as a mount may have them; then the right ones, put in their place.
    let dir = tempfile::tempdir().expect("a directory");
    let other = Certs::make(dir.path(), "stranger");
    let tls = tenure::config::EtcdTls {
        ca_file: Some(certs.ca.clone()),
        cert_file: Some(other.client_cert.clone()),
        key_file: Some(other.client_key.clone()),
        server_name: None,
    };
    let (edge, _) = edge_with("a", &EtcdConfig { tls: Some(tls.clone()), ..config(&etcd) }, 1);
    assert!(edge.read(E).await.is_err(), "etcd does not know the authority");
    std::fs::copy(&certs.client_cert, &other.client_cert).expect("copy");
    std::fs::copy(&certs.client_key, &other.client_key).expect("copy");
    eventually("the rotated files to be taken up", async || edge.read(E).await.ok()).await;
    let status = edge.versions().await.remove(0).1.expect("a status");
    assert!(status.leader && status.version.starts_with(etcd.version()), "{status:?}");
    let nobody = tenure::config::EtcdTls { cert_file: None, key_file: None, ..tls };
    let (stranger, _) = edge_with("b", &EtcdConfig { tls: Some(nobody), ..config(&etcd) }, 1);
    assert!(stranger.read(E).await.is_err(), "etcd wants a certificate");
}

#[tokio::test]
async fn a_jwt_that_any_change_of_roles_invalidates_costs_a_retry() {
    let dir = tempfile::tempdir().expect("a directory");
    let (password_file, key) = (dir.path().join("password"), dir.path().join("jwt.key"));
    std::fs::write(&password_file, "secret").expect("write");
    std::fs::write(&key, "a key that is long enough for HS256").expect("write");
    let flag = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=60s", key.display());
    let mut etcd = Etcd::builder().arg(&flag).start().await;
    etcd.enable_auth("app", "secret", "/tenure").await;
    let settings = EtcdConfig { username: Some("app".into()), password_file: Some(password_file), ..config(&etcd) };
    let (edge, _) = edge_with("a", &settings, 1);
    let lease = lease(&edge).await;
    let key = queue(&edge, lease).await;
    let (sink, mut inputs) = mpsc::channel(8);
    let watcher = edge.watch(sink);
    for role in ["one", "two", "three"] {
        etcd.ctl(&["role", "add", role]).await;
        // The first request after the change differs from round to round.
        if role == "one" {
            let renewed = edge.keep_alive(lease, ROUND, false).await;
            assert!(matches!(renewed, Input::Session(SessionInput::KeepAliveAnswered { .. })), "{renewed:?}");
        }
        if role == "two" {
            let view = edge.read(E).await.expect("a view");
            let outcome = elect(&edge, &elect_txn(lease, &key, &view, 1), stamp()).await;
            assert!(matches!(outcome, ElectOutcome::Won { .. }), "{outcome:?}");
            etcd.ctl(&["role", "add", "four"]).await;
        }
        // A watch is opened with the token at hand, and told in a message of the stream that it is refused.
        watcher.plan(E, WatchPlan { suffixes: vec![role.into()], from: Revision(1) });
        let key = format!("/tenure/elections/orders/{role}");
        etcd.ctl(&["put", &key, "x"]).await;
        etcd.ctl(&["del", &key]).await;
        loop {
            match next(&mut inputs).await {
                ElectionInput::KeyDeleted { suffix, .. } if suffix == role => break,
                ElectionInput::WatchBroken => {
                    watcher.plan(E, WatchPlan { suffixes: vec![role.into()], from: Revision(1) });
                }
                _ => {}
            }
        }
    }
}
