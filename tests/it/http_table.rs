//! The contract's tables, on real sockets.

use std::time::Duration;

use crate::http_support::{Setup, Stage, ask, candidate, leader, starting};
use crate::support::eventually;
use tenure::clock;

const LONG: Duration = Duration::from_secs(8);

async fn row(stage: &Stage) -> [u16; 5] {
    let mut row = [0; 5];
    for (status, path) in row.iter_mut().zip(["/livez", "/readyz", "/leader", "/gate", "/follower"]) {
        let reply = stage.get(path).await;
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        *status = reply.status;
    }
    row
}

#[tokio::test]
async fn every_state_has_its_probes() {
    let stage = Stage::start(Setup::default()).await;
    assert_eq!(row(&stage).await, [200, 503, 503, 403, 503], "starting, no etcd yet");
    assert_eq!(stage.get("/startupz").await.status, 200);
    assert_eq!(stage.get("/health").await.status, 503, "no session");
    stage.publisher.publish(tenure::snapshot::Snapshot { joined: false, ..candidate() });
    assert_eq!(row(&stage).await, [200, 503, 503, 403, 200], "not in every queue yet");
    stage.publisher.publish(candidate());
    assert_eq!(row(&stage).await, [200, 200, 503, 403, 200], "candidate");
    assert_eq!(stage.get("/health").await.status, 200);
    stage.publisher.publish(leader(LONG));
    assert_eq!(row(&stage).await, [200, 200, 200, 200, 503], "leader");
    for alias in ["/primary", "/read-write"] {
        assert_eq!(stage.get(alias).await.status, 200, "{alias}");
    }
    stage.publisher.publish(leader(Duration::ZERO));
    assert_eq!(row(&stage).await, [200, 200, 503, 403, 503], "guard passed");
    let status = stage.get("/leader").await.json();
    assert_eq!((&status["role"], &status["reason"]), (&"follower".into(), &"guard_expired".into()));
    assert!(status["leader"].is_null() && status["name"] == "" && status["guard_ms"] == 0);
    stage.publisher.publish(tenure::snapshot::Snapshot { draining: true, ..leader(LONG) });
    assert_eq!(row(&stage).await, [200, 503, 503, 403, 503], "draining");
    let mut jumped = leader(LONG);
    jumped.offset_ms += 1_000;
    stage.publisher.publish(jumped);
    assert_eq!(row(&stage).await, [200, 200, 503, 403, 503], "a pause that no clock counted");
    assert_eq!(stage.get("/health").await.status, 503);
}

#[tokio::test]
async fn a_stalled_loop_is_not_alive_and_does_not_lead() {
    let stage = Stage::start(Setup { stall_limit: Duration::from_millis(50), ..Setup::default() }).await;
    stage.publisher.publish(leader(LONG));
    stage.beat_was(Duration::from_secs(1));
    // Nobody can have stood still for longer than we have been serving.
    eventually("it is past the limit", async || stage.get("/livez").await.status == 503).await;
    assert_eq!(row(&stage).await, [503, 503, 503, 403, 503]);
    assert_eq!(stage.control("GET", "/token", "").await.status, 503);
    stage.beat();
    assert_eq!(stage.get("/livez").await.status, 200);
}

#[tokio::test]
async fn strict_readiness_asks_for_recent_contact_and_the_lenient_one_does_not() {
    for (strict, expected) in [(false, 200), (true, 503)] {
        let stage = Stage::start(Setup { strict, ..Setup::default() }).await;
        let mut silent = candidate();
        silent.etcd_seen = Some(clock::now().before(Duration::from_secs(11)));
        stage.publisher.publish(silent);
        assert_eq!(stage.get("/readyz").await.status, expected, "strict: {strict}");
        stage.publisher.publish(candidate());
        assert_eq!(stage.get("/readyz").await.status, 200);
    }
}

/// `drain`, `undrain`, `drained`, and a `resign` that names a token.
async fn drains(stage: &Stage) {
    let document = |at: &str| serde_json::json!({"draining": true, "held": ["orders"], "hands_over_at": at});
    for (body, at) in [
        ("", "1970-01-01T00:10:00.000Z"),
        ("{\"timeout_ms\":1500}", "1970-01-01T00:00:01.500Z"),
        ("{\"hand_over\":true}", "1970-01-01T00:00:00.000Z"),
        ("{\"hand_over\":false,\"timeout_ms\":null}", "1970-01-01T00:10:00.000Z"),
    ] {
        let answer = stage.control("POST", "/v1/drain", body).await;
        assert_eq!((answer.status, answer.json()), (202, document(at)), "{body}");
    }
    for body in ["{\"timeout_ms\":86400001}", "{\"timeout_ms\":-1}", "{\"hand_over\":1}", "{\"timeout\":1}", "[]"] {
        assert_eq!(stage.control("POST", "/v1/drain", body).await.code(), "malformed", "{body}");
    }
    let undrained = stage.control("POST", "/v1/undrain", "").await;
    assert_eq!((undrained.status, undrained.code().as_str()), (409, "not_draining"));
    let drained = "/v1/elections/orders/drained";
    for body in ["", "{}", "{\"token\":42}", "{\"token\":null}"] {
        assert_eq!(stage.control("POST", drained, body).await.status, 202, "{body}");
    }
    let late = stage.control("POST", drained, "{\"token\":41}").await;
    assert_eq!((late.status, late.code().as_str()), (409, "stale"));
    let nothing = stage.control("POST", "/v1/elections/billing/drained", "").await;
    assert_eq!((nothing.status, nothing.code().as_str()), (409, "not_leader"));
    let late = stage.control("POST", "/v1/elections/billing/resign", "{\"token\":41}").await;
    assert_eq!((late.status, late.code().as_str()), (409, "stale"));
}

#[tokio::test]
async fn startup_may_wait_for_the_first_session_and_is_never_taken_back() {
    let stage = Stage::start(Setup { wait_for_etcd: true, ..Setup::default() }).await;
    let reply = stage.get("/startupz").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "not_started"));
    let list = stage.get("/startupz?verbose").await;
    assert_eq!(
        (list.status, list.body.as_str()),
        (503, "[+]loop ok\n[-]session failed: no session yet\nstartupz check failed\n")
    );
    stage.publisher.publish(candidate());
    assert_eq!(stage.get("/startupz").await.body, "ok");
    stage.publisher.publish(starting());
    assert_eq!(stage.get("/startupz").await.status, 200);
}

#[tokio::test]
async fn the_status_document_is_the_contracts() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(LONG));
    let by_path = stage.get("/v1/elections/orders").await;
    let keys: Vec<_> = by_path.body.split('"').skip(1).step_by(2).take(4).map(str::to_owned).collect();
    assert_eq!(keys[0], "election");
    let status = by_path.json();
    assert_eq!(
        (&status["name"], &status["role"], &status["generation"]),
        (&"pod-0".into(), &"leader".into(), &42.into())
    );
    assert_eq!(status["session"], serde_json::json!({"lease": "694d", "ttl_ms": 10_000}));
    assert_eq!(status["leader"]["url"], "http://10.0.0.5:4790");
    assert!(status["guard_ms"].as_u64().is_some_and(|ms| (1..=8_000).contains(&ms)));
    assert_eq!((&status["token"], &status["promised_ms"]), (&42.into(), &0.into()), "reading it promises nothing");
    assert!(status["version"].as_u64().is_some_and(|version| version > 1_700_000_000_000), "{status}");
    assert_eq!(stage.get("/").await.json()["name"], "pod-0");
    let html = ask(stage.public, "GET", "/", "Accept: text/html\r\n", b"").await;
    assert!(html.header("content-type").starts_with("text/html") && !html.body.contains("<script"));
    let all = stage.get("/v1/elections").await.json();
    assert_eq!(all["elections"][1]["election"], "billing");
    assert_eq!(stage.get("/leader?election=billing").await.status, 503);
    for path in ["/leader?election=nope", "/v1/elections/nope", "/v1/elections/nope/gate"] {
        let reply = stage.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_election"), "{path}");
    }
}

#[tokio::test]
async fn a_long_poll_answers_when_something_changes_and_304_when_nothing_does() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    assert_eq!(stage.get("/v1/elections/orders?wait=10s&after=40").await.json()["generation"], 41, "passed already");
    let nothing = stage.get("/v1/elections/orders?wait=20ms&after=41").await;
    assert_eq!((nothing.status, nothing.body.as_str()), (304, ""));
    let public = stage.public;
    let poll = tokio::spawn(async move { ask(public, "GET", "/v1/elections/orders?wait=10s&after=41", "", b"").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.publisher.publish(leader(Duration::from_millis(300)));
    assert_eq!(poll.await.expect("no panic").json()["role"], "leader");
    // The guard passes, and nobody publishes that.
    let lapsed = stage.get("/v1/elections/orders?wait=10s&after=42").await.json();
    assert_eq!(lapsed["role"], "follower");
    assert_eq!(stage.get("/v1/elections/orders?wait=5").await.code(), "malformed");
}

#[tokio::test]
async fn the_token_carries_its_promise_and_says_why_there_is_none() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(LONG));
    let token = stage.control("GET", "/token", "").await;
    let document = token.json();
    assert_eq!(
        (&document["token"], &document["holder"], &document["valid_for_ms"]),
        (&42.into(), &"pod-0".into(), &990.into())
    );
    assert_eq!((token.header("fencing-token"), token.header("fencing-valid-for-ms")), ("42", "990"));
    let promised = stage.publisher.last_promise(tenure::election::ids::ElectionIndex(0));
    assert!(promised > clock::now(), "the promise is in the ledger");
    assert!(stage.get("/v1/elections/orders").await.json()["promised_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(stage.get("/token").await.status, 404, "not on the public listener");
    stage.publisher.publish(leader(Duration::ZERO));
    assert_eq!(stage.control("GET", "/v1/elections/orders/token", "").await.code(), "guard_expired");
    stage.publisher.publish(candidate());
    let refused = stage.control("GET", "/token", "").await;
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (503, "not_leader", "1"));
    assert_eq!(refused.json()["leader"]["id"], "pod-1");
    stage.publisher.publish(tenure::snapshot::Snapshot { draining: true, ..leader(LONG) });
    assert_eq!(stage.control("GET", "/token", "").await.code(), "draining");
}

#[tokio::test]
async fn the_gate_says_exactly_200_or_403_to_any_method_suffix_query_and_body() {
    let stage = Stage::start(Setup::default()).await;
    let doors = ["/gate", "/gate/a/b?c=d", "/v1/elections/orders/gate", "/v1/elections/orders/gate/x?election=billing"];
    for (snapshot, expected) in [(candidate(), 403), (leader(LONG), 200)] {
        stage.publisher.publish(snapshot);
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE"] {
            for door in doors {
                assert_eq!(ask(stage.public, method, door, "", b"{").await.status, expected, "{method} {door}");
            }
        }
    }
    let open = stage.get("/gate").await;
    assert_eq!((open.header("fencing-token"), open.header("fencing-holder")), ("42", "pod-0"));
    for path in ["/gate/x?election=billing", "/gate/?election=billing"] {
        assert_eq!(stage.get(path).await.status, 200, "a proxy's client does not choose");
    }
    assert_eq!(stage.get("/gate?election=billing").await.status, 403);
    for (badge, expected, code) in [("41", 403, "stale"), ("x", 403, "malformed"), ("42", 200, ""), ("43", 200, "")] {
        let reply = ask(stage.public, "POST", "/gate", &format!("Fencing-Token: {badge}\r\n"), b"").await;
        assert_eq!(reply.status, expected, "{badge}");
        assert!(expected == 200 || reply.code() == code, "{badge}");
    }
    // The announced body never comes, and the answer does not wait for it.
    let eager = ask(stage.public, "PUT", "/gate", "Content-Length: 1000000\r\n", b"");
    let answered = tokio::time::timeout(Duration::from_secs(8), eager).await.expect("answered without the body");
    assert_eq!(answered.status, 200);
    stage.publisher.publish(candidate());
    let shut = stage.get("/gate").await;
    assert_eq!((shut.header("fencing-leader"), shut.header("fencing-leader-url")), ("pod-1", "http://10.0.0.6:4790"));
}

#[tokio::test]
async fn a_redirect_keeps_path_and_query() {
    let stage = Stage::start(Setup::default()).await;
    assert_eq!(stage.get("/v1/elections/orders/redirect/a").await.code(), "no_leader");
    stage.publisher.publish(candidate());
    let away = ask(stage.public, "POST", "/v1/elections/orders/redirect/a/b?c=d", "", b"body").await;
    assert_eq!((away.status, away.header("location")), (307, "http://10.0.0.6:4790/a/b?c=d"));
    let mut evil = candidate();
    evil.elections[0].leader.as_mut().expect("a leader").url = "javascript:alert(1)".to_owned();
    stage.publisher.publish(evil);
    assert_eq!(stage.get("/v1/elections/orders/redirect/a").await.status, 503);
    stage.publisher.publish(leader(LONG));
    assert_eq!(stage.get("/v1/elections/orders/redirect").await.json()["here"], true);
}

#[tokio::test]
async fn verify_and_the_verbs_answer_as_the_contract_says() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(LONG));
    let verify = "/v1/elections/orders/verify";
    assert_eq!(stage.control("POST", verify, "{\"token\":42}").await.json()["verdict"], "current");
    for (token, code) in [(41, "stale"), (43, "not_issued"), (0, "not_issued")] {
        let reply = stage.control("POST", verify, &format!("{{\"token\":{token}}}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (409, code));
        assert_eq!(reply.json()["current"], serde_json::json!({"token": 42, "holder": "pod-1"}));
    }
    for bad in [
        "",
        "{",
        "[42]",
        "{\"token\":-1}",
        "{\"token\":\"42\"}",
        "{\"token\":42,\"x\":1}",
        "{\"token\":4.2}",
        "null",
        "\u{fffd}",
    ] {
        let reply = stage.control("POST", verify, bad).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{bad}");
    }
    assert_eq!(stage.control("POST", "/v1/elections/billing/verify", "{\"token\":1}").await.code(), "unavailable");
    let resigned = stage.control("POST", "/v1/elections/orders/resign", "").await;
    assert_eq!((resigned.status, &resigned.json()["leader"]["generation"]), (200, &43.into()));
    assert_eq!(stage.control("POST", "/v1/elections/orders/resign", "{\"cooldown_ms\":5}").await.status, 200);
    // A whole number, as languages write it that have no integers.
    for (body, status) in [("5.0", 200), ("-0.0", 200), ("5.5", 400), ("-1", 400), ("1e30", 400), ("\"5\"", 400)] {
        let body = format!("{{\"cooldown_ms\":{body}}}");
        assert_eq!(stage.control("POST", "/v1/elections/orders/resign", &body).await.status, status, "{body}");
    }
    assert_eq!(stage.control("POST", "/v1/elections/orders/resign", "{\"cooldown\":5}").await.status, 400);
    let follower = stage.control("POST", "/v1/elections/billing/resign", "{}").await;
    assert_eq!((follower.status, follower.code().as_str()), (409, "not_leader"));
    drains(&stage).await;
    for verb in ["resign", "drained", "verify", "token", "transitions", "history"] {
        let reply = ask(stage.public, "POST", &format!("/v1/elections/orders/{verb}"), "", b"{}").await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{verb} on the public listener");
    }
    for later in ["state", "state/k", "events", "transfer", "pause", "resume", "term", "raise", "heartbeat"] {
        assert_eq!(stage.control("POST", &format!("/v1/elections/orders/{later}"), "").await.status, 404, "{later}");
    }
}

#[tokio::test]
async fn a_driver_that_does_not_answer_leaves_questions_unavailable_and_verbs_unknown() {
    let setup = Setup { mute: true, request_timeout: Duration::from_millis(200), ..Setup::default() };
    let stage = Stage::start(setup).await;
    stage.publisher.publish(leader(LONG));
    for (method, path, body, code) in [
        ("POST", "/v1/elections/orders/verify", "{\"token\":1}", "unavailable"),
        ("GET", "/v1/elections/orders/candidates", "", "unavailable"),
        ("GET", "/v1/elections/orders/history", "", "unavailable"),
        ("GET", "/v1/elections/orders/leader?linearizable=true", "", "unavailable"),
        ("POST", "/v1/elections/orders/resign", "", "outcome_unknown"),
        ("POST", "/v1/drain", "", "outcome_unknown"),
        ("POST", "/v1/elections/orders/drained", "", "outcome_unknown"),
    ] {
        let reply = stage.control(method, path, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (503, code), "{path}");
    }
    assert_eq!(stage.get("/v1/elections/orders/leader").await.json()["id"], "pod-0", "from memory");
}

#[tokio::test]
async fn lists_come_newest_first_within_their_limit() {
    let stage = Stage::start(Setup::default()).await;
    for (query, count, newest) in [("", 100, 2_000), ("?limit=3&before=10", 3, 9), ("?limit=5000", 1_000, 2_000)] {
        let list = stage.control("GET", &format!("/v1/elections/orders/transitions{query}"), "").await.json();
        let list = list["transitions"].as_array().expect("a list").clone();
        assert_eq!((list.len(), &list[0]["seq"]), (count, &newest.into()), "{query}");
        assert_eq!(list[0]["election"], "orders");
    }
    let history = stage.control("GET", "/v1/elections/orders/history?limit=5", "").await.json();
    assert_eq!(
        (&history["history"][0]["generation"], &history["history"][2]["holder"]),
        (&42.into(), &serde_json::Value::Null)
    );
    for bad in ["limit=0", "limit=x", "before=-1"] {
        assert_eq!(stage.control("GET", &format!("/v1/elections/orders/history?{bad}"), "").await.status, 400, "{bad}");
    }
    let queue = stage.get("/v1/elections/orders/candidates").await.json();
    assert_eq!((&queue["candidates"][0]["id"], &queue["candidates"][0]["lease"]), (&"pod-1".into(), &"694d".into()));
    assert_eq!((&queue["candidates"][1]["position"], &queue["candidates"][1]["foreign"]), (&1.into(), &true.into()));
    assert_eq!(stage.get("/v1/elections/orders/leader?linearizable=true").await.json()["id"], "pod-1");
    assert_eq!(stage.get("/v1/elections/orders/leader").await.code(), "no_leader");
}

#[tokio::test]
async fn methods_are_answered_as_documented() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    for method in ["HEAD", "OPTIONS"] {
        for (path, expected) in [("/livez", 200), ("/leader", 503), ("/follower", 200)] {
            let reply = ask(stage.public, method, path, "", b"").await;
            assert_eq!(reply.status, expected, "{method} {path}");
            assert!(method != "HEAD" || reply.body.is_empty(), "HEAD has no body");
        }
    }
    let options = ask(stage.public, "OPTIONS", "/v1/elections", "", b"").await;
    assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, OPTIONS"));
    let options = ask(stage.public, "OPTIONS", "/v1/elections/nope/leader", "", b"").await;
    assert_eq!((options.status, options.code().as_str()), (404, "unknown_election"));
    let wrong = ask(stage.public, "DELETE", "/leader", "", b"").await;
    assert_eq!(
        (wrong.status, wrong.code().as_str(), wrong.header("allow")),
        (405, "method_not_allowed", "GET, HEAD, OPTIONS")
    );
    let wrong = stage.control("GET", "/v1/elections/orders/resign", "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST"));
    assert_eq!(stage.get("/nope").await.code(), "not_found");
    assert_eq!(stage.get("/version").await.json(), serde_json::json!({"version": "1.0.0", "revision": "abc"}));
    assert_eq!(stage.get("/openapi.json").await.json()["openapi"], "3.1.0");
}
