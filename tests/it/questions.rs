//! Questions that need etcd, while etcd says nothing.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::support::{Daemon, Etcd, Target, eventually};

/// Memory that may come with connections and their answers.
const GROWTH_KIB: u64 = 16 << 10;

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn address(daemon: &Daemon) -> String {
    let Target::Tcp(address) = daemon.public() else { panic!("{:?} is no TCP address", daemon.public()) };
    address.clone()
}

async fn send(to: &str, path: &str) -> Option<TcpStream> {
    let mut stream = timeout(Duration::from_secs(1), TcpStream::connect(to)).await.ok()?.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
    Some(stream)
}

/// Goal: neither their number nor a silent etcd costs memory, a probe or a leadership.
/// Method: 300 a second that are sent and abandoned, for longer than any answer takes; a probe ten times a second, which may
/// fail once, but not twice in a row: a kubelet acts on failures in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_at_a_silent_etcd_costs_no_memory_no_probe_and_no_leadership() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").start().await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let to = address(&daemon);
    for paths in [["/v1/elections/orders/candidates"; 2], ["/v1/elections/orders/leader?linearizable=true"; 2]] {
        eventually("etcd answers", async || daemon.get(paths[0]).await.is_ok_and(|a| a.status == 200)).await;
        let before = resident_kib(&daemon);
        etcd.pause();
        let flood = {
            let to = to.clone();
            tokio::spawn(async move {
                let mut pace = interval(Duration::from_millis(30));
                for _ in 0..200 {
                    pace.tick().await;
                    join_all((0..9).map(|n| send(&to, paths[n % 2]))).await;
                }
            })
        };
        let (mut most, mut failed_in_a_row) = (0, 0);
        let mut pace = interval(Duration::from_millis(100));
        while !flood.is_finished() {
            pace.tick().await;
            let probe = timeout(Duration::from_secs(3), daemon.probe("/livez")).await;
            failed_in_a_row = if probe == Ok(Some(200)) { 0 } else { failed_in_a_row + 1 };
            assert!(failed_in_a_row < 2, "{probe:?} after {most} KiB more");
            most = most.max(resident_kib(&daemon).saturating_sub(before));
        }
        flood.await.expect("no panic");
        etcd.resume();
        assert!(most < GROWTH_KIB, "{most} KiB more");
        assert_eq!(daemon.token().await, Some(token), "{}", daemon.logs());
    }
}

/// Goal: as many as there are connections may ask; who finds no room hears `busy` at once, and no probe waits for any of them.
#[tokio::test]
async fn questions_that_wait_leave_connections_for_probes() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").set("http.max_connections", 16).start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    etcd.pause();
    let to = address(&daemon);
    let mut asked = Vec::new();
    for _ in 0..15 {
        asked.push(send(&to, "/v1/elections/orders/candidates").await.expect("sent"));
    }
    let began = std::time::Instant::now();
    assert_eq!(daemon.probe("/livez").await, Some(200));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let answers = join_all(asked.into_iter().map(async |mut stream| {
        let mut head = vec![0; 4096];
        let read = timeout(Duration::from_secs(15), stream.read(&mut head)).await.expect("answered").expect("open");
        String::from_utf8_lossy(&head[..read]).into_owned()
    }))
    .await;
    let of = |code: &str| answers.iter().filter(|a| a.contains(&format!("\"code\":\"{code}\""))).count();
    assert!(of("busy") >= 7 && of("busy") + of("unavailable") == 15, "{answers:?}");
    assert!(answers.iter().all(|a| a.starts_with("HTTP/1.1 503") && a.contains("retry-after: 1")), "{answers:?}");
    etcd.resume();
    eventually("etcd is asked again", async || {
        daemon.get("/v1/elections/orders/candidates").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// Goal: a shared read is no older than the question: a token that was superseded before it is never called current.
/// Method: verify without a pause while the leadership changes hands; each answer is held against what was true before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_read_is_never_older_than_the_question() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("5s").promise("100ms").start().await;
    let mut old = eventually("it leads", async || daemon.token().await).await;
    for _ in 0..5 {
        assert_eq!(daemon.verb("resign", &serde_json::json!({})).await.expect("answered").status, 200);
        let new = eventually("it leads anew", async || daemon.token().await.filter(|new| *new > old)).await;
        let token = serde_json::json!({"token": old});
        let asked = (0..12).map(|_| daemon.verb("verify", &token));
        for answer in join_all(asked).await {
            assert_eq!(answer.expect("answered").json()["code"], "stale", "{old}, superseded by {new}");
        }
        old = new;
    }
}
