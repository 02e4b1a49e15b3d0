//! Users, passwords and roles.

use super::*;

/// `readwrite` on what the documented role has; `P/doctor/` is up to the test.
const ROLE: [(&str, &str, bool); 4] = [
    ("readwrite", "/tenure/elections/orders/", true),
    ("readwrite", "/tenure/history/orders/", true),
    ("readwrite", "/tenure/generations/orders", false),
    ("read", "/tenure/control/orders", false),
];

#[tokio::test]
async fn who_is_not_let_in_hears_so_first_and_soon() {
    let mut etcd = Etcd::start().await;
    etcd.enable_auth("app", "secret", "/tenure").await;
    for (config, words) in [
        (Config::of(&etcd.endpoints()).user("wrong"), "etcd does not let `app` in: "),
        (Config::of(&etcd.endpoints()), "etcd asks for a user, and none is configured"),
    ] {
        let visit = config.visit().await;
        assert!(visit.lines[0].starts_with(&format!("fail  {words}")), "first: {}", visit.all);
        assert_eq!(visit.code, Some(1), "{}", visit.all);
        visit.says("ok", "answers, etcd ");
        assert!(visit.lines.last().is_some_and(|l| l.contains("1 problem") && l.ends_with("not fit")), "{}", visit.all);
    }
}

#[tokio::test]
async fn missing_rights_are_named_without_a_write_and_those_for_a_round_are_only_noted() {
    for series in ["3.4", "3.5", "3.6", "3.7"] {
        let mut etcd = Etcd::start_version(series).await;
        etcd.enable_auth_with("app", "secret", &ROLE).await;
        let config = Config::of(&etcd.endpoints()).user("secret");
        let visit = config.visit().await;
        assert_eq!(visit.code, Some(0), "{series}: {}", visit.all);
        visit.says("note", "may not write below /tenure/doctor/");
        visit.says("ok", "the keys of orders may be read and written");
        nothing_is_left(&etcd).await;
        etcd.ctl(&["role", "grant-permission", "--prefix=true", "tests", "readwrite", "/tenure/doctor/"]).await;
        let visit = config.visit().await;
        visit.says("ok", "a key on it elected and watched");
        nothing_is_left(&etcd).await;
        etcd.ctl(&["role", "revoke-permission", "tests", "/tenure/generations/orders"]).await;
        etcd.ctl(&["role", "grant-permission", "tests", "read", "/tenure/generations/orders"]).await;
        let before = etcd.ctl(&["get", "/tenure/elections/", "--prefix"]).await;
        let visit = config.visit().await;
        visit.says("fail", "etcd's role lacks write on the key /tenure/generations/orders");
        assert_eq!(visit.code, Some(1), "{series}: {}", visit.all);
        assert_eq!(etcd.ctl(&["get", "/tenure/elections/", "--prefix"]).await, before, "nothing was written");
        let observer = config.set("/elections", json!([{"name": "orders", "observe": true}]));
        observer.visit().await.says("ok", "the keys of orders may be read");
    }
}
