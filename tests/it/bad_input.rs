//! Rude clients: whatever they send, no 500, no leadership lost, and memory back to where it was.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Daemon, Etcd, Target, eventually};

/// Resident set of a process, in KiB.
fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a resident set");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn address(target: &Target) -> String {
    match target {
        Target::Tcp(address) => address.clone(),
        Target::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}

/// A request of which nearly every part may be nonsense.
fn nonsense(rng: &mut Rng) -> Vec<u8> {
    const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "BREW"];
    const PATHS: [&str; 24] = [
        "/",
        "/leader",
        "/follower",
        "/livez",
        "/readyz?verbose",
        "/startupz",
        "/health",
        "/gate",
        "/gate/a/b?c=d",
        "/token",
        "/metrics",
        "/version",
        "/openapi.json",
        "/v1/elections",
        "/v1/elections/orders",
        "/v1/elections/nope",
        "/v1/elections/orders?wait=1ms&after=99999999999999999999",
        "/v1/elections/orders/redirect/x/%2e%2e/y",
        "/v1/elections/orders/verify",
        "/v1/elections/orders/history?limit=0",
        "/v1/elections/orders/leader?linearizable=maybe",
        "//..//",
        "/%00%ff",
        "/?election=%F0%9F%91%BB",
    ];
    const HEADERS: [&str; 8] = [
        "Fencing-Token: 18446744073709551616",
        "Fencing-Token: -1",
        "Accept: application/openmetrics-text",
        "Expect: 100-continue",
        "Content-Type: application/json",
        "Authorization: Bearer \u{1}",
        "Last-Event-ID: x",
        "Connection: upgrade\r\nUpgrade: h2c",
    ];
    let (method, path) = (METHODS[rng.usize(..9)], PATHS[rng.usize(..24)]);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for _ in 0..rng.usize(..4) {
        head += HEADERS[rng.usize(..8)];
        head += "\r\n";
    }
    let body: Vec<u8> = match rng.u8(..4) {
        0 => Vec::new(),
        1 => br#"{"token":1}"#.to_vec(),
        2 => b"[".repeat(rng.usize(1..5_000)),
        _ => (0..rng.usize(..2_000)).map(|_| rng.u8(..)).collect(),
    };
    let length = if rng.u8(..8) == 0 { rng.usize(..4_000) } else { body.len() };
    let mut bytes = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes();
    bytes.extend(body);
    if rng.u8(..16) == 0 {
        let at = rng.usize(..bytes.len());
        bytes[at] = rng.u8(..);
    }
    bytes
}

/// The status code of the answer to raw bytes, if one comes.
async fn status(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // The daemon may answer and close before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.take(64 * 1024).read_to_end(&mut answer)).await;
    read.expect("every connection ends").ok()?;
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1)?.parse().ok()
}

/// Goal and method: 5,000 random requests, 200 slow connections and bodies of 10 MiB, against a leader with a TTL of 2 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rude_clients_cost_neither_a_500_nor_a_leadership_nor_memory() {
    let etcd = Etcd::start().await;
    let builder = Daemon::builder("pod-0", &etcd).ttl("2s");
    let daemon = builder.set("http.request_timeout", "2s").start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    let (public, pid) = (address(daemon.public()), daemon.pid());
    let before = daemon.transitions().await.len();
    let resting = rss(pid);

    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(&public).await.expect("a connection");
        if n % 2 == 0 {
            stream.write_all(b"GET /leader HTTP/1.1\r\nX-Slow: ").await.expect("a write");
        }
        slow.push(stream);
    }
    let seed = Rng::new().u64(..);
    println!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut codes = std::collections::BTreeMap::<_, u32>::new();
    for batch in 0..250 {
        let requests: Vec<_> = (0..20).map(|_| nonsense(&mut rng)).collect();
        let answers = futures_util::future::join_all(requests.iter().map(|r| status(&public, r))).await;
        for (request, code) in requests.iter().zip(answers) {
            assert!(code.is_none_or(|c| c != 500 && c < 504), "{code:?} to {}", String::from_utf8_lossy(request));
            *codes.entry(code).or_default() += 1;
        }
        if batch % 50 == 0 {
            assert!(daemon.is_leader().await, "leadership was lost in batch {batch}");
        }
    }
    println!("answers by code: {codes:?}");
    let huge = vec![b' '; 10 << 20];
    for path in ["/v1/elections/orders/verify", "/v1/elections/orders/resign"] {
        let mut bytes =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", huge.len()).into_bytes();
        bytes.extend(&huge);
        let code = status(&public, &bytes).await;
        assert!(matches!(code, Some(404 | 405 | 413)), "{path}: {code:?}");
    }
    let verify =
        daemon.control().post("/v1/elections/orders/verify", &serde_json::json!({"x": " ".repeat(2 << 20)})).await;
    assert_eq!(verify.expect("an answer").status, 413);
    drop(slow);

    assert!(daemon.is_leader().await);
    assert_eq!(daemon.transitions().await.len(), before, "no leadership was lost meanwhile");
    let began = Instant::now();
    eventually("memory is back", async || (rss(pid) < resting + 4 * 1024).then_some(()).ok_or(rss(pid))).await;
    println!("resident set: {resting} KiB before, {} KiB {:?} after", rss(pid), began.elapsed());
}
