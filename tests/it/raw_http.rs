//! Bytes on connections as no browser sends them: split, pipelined, oversized, slow, broken. Requests that are whole, and only
//! mean nonsense, are in `bad_input.rs`; single cases are in `http_limits.rs`.

use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{Daemon, Etcd, Target, eventually};

/// The daemon's own limit for a head, as configured below.
const REQUEST_TIMEOUT: &str = "500ms";
/// Every connection ends within this, with room for a busy machine.
const ENDED: Duration = Duration::from_secs(10);
const ROUNDS: usize = 25;
const AT_ONCE: usize = 16;

/// What one connection sends.
struct Script {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    /// The status of each answer, where that is certain.
    expected: Option<Vec<u16>>,
}

/// A request that is in order, and its answer while the daemon leads. One to the gate with a body ends its connection, since the
/// gate reads none.
fn request(rng: &mut Rng, last: bool) -> (Vec<u8>, u16) {
    const KNOWN: [(&str, u16); 8] = [
        ("GET /livez", 200),
        ("GET /readyz?verbose", 200),
        ("GET /leader", 200),
        ("GET /v1/elections/orders", 200),
        ("GET /metrics", 200),
        ("PUT /gate/a/b", 200),
        ("GET /nope", 404),
        ("DELETE /follower", 405),
    ];
    let (line, status) = KNOWN[rng.usize(..KNOWN.len())];
    let close = if last { "Connection: close\r\n" } else { "" };
    let body = match (line.starts_with("PUT"), rng.bool()) {
        (false, _) => "\r\n",
        (true, false) => "Content-Length: 5\r\n\r\nGET /",
        (true, true) => "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nTrailer: x\r\n\r\n",
    };
    (format!("{line} HTTP/1.1\r\nHost: x\r\n{close}{body}").into_bytes(), status)
}

fn script(rng: &mut Rng) -> Script {
    let (pieces, pause, expected) = match rng.u8(..8) {
        // Several requests at once: as many answers, in order.
        0 | 1 => {
            let count = rng.usize(1..12);
            let (bytes, mut statuses): (Vec<_>, Vec<_>) = (1..=count).map(|n| request(rng, n == count)).unzip();
            if let Some(at) = bytes.iter().position(|bytes| bytes.starts_with(b"PUT")) {
                statuses.truncate(at + 1);
            }
            (vec![bytes.concat()], 0, Some(statuses))
        }
        // One, in pieces of a few bytes.
        2 => {
            let (bytes, status) = request(rng, true);
            (bytes.chunks(rng.usize(3..12)).map(<[u8]>::to_vec).collect(), 2, Some(vec![status]))
        }
        // A head that is too long, in one line or in many.
        3 => (vec![format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100 << 10)).into_bytes()], 0, Some(vec![431])),
        4 => (vec![format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(20_000)).into_bytes()], 0, Some(vec![431])),
        // A head that never ends, a byte at a time: longer than the daemon waits.
        5 => (b"GET /livez HTTP/1.1\r\nX-Slow: slow".iter().map(|b| vec![*b]).collect(), 50, None),
        // Two lengths, one of which hides a request; half a body.
        6 => {
            let hidden = "0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
            let lengths = ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length: 4\r\nContent-Length: 5"];
            let head = format!("PUT /gate HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n{hidden}", lengths[rng.usize(..2)]);
            (vec![head.into_bytes()], 0, None)
        }
        _ => {
            let (mut bytes, _) = request(rng, true);
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            bytes.truncate(rng.usize(1..=bytes.len()));
            (vec![bytes], 0, None)
        }
    };
    Script { pieces, pause: Duration::from_millis(pause), expected }
}

/// The status of every answer on a connection that ends by itself.
async fn play(address: &str, script: &Script) -> Vec<u16> {
    let (mut from, mut to) = TcpStream::connect(address).await.expect("somebody listens").into_split();
    let send = async {
        for piece in &script.pieces {
            // The daemon may have had enough.
            if to.write_all(piece).await.is_err() {
                break;
            }
            sleep(script.pause).await;
        }
        // Our side stays open: whoever waits for more must come to an end of his own.
        to
    };
    let mut answer = Vec::new();
    // A close with something unread is a reset; what came before it counts.
    let read = async { drop(from.read_to_end(&mut answer).await) };
    let (_open, ()) = timeout(ENDED, futures_util::future::join(send, read)).await.expect("every connection ends");
    statuses(&answer)
}

fn statuses(mut answer: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while !answer.is_empty() {
        let text = String::from_utf8_lossy(answer);
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half a head: {text}"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)).and_then(|code| code.parse().ok());
        found.push(status.unwrap_or_else(|| panic!("no answer: {head}")));
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let end = head.len() + 4 + length.unwrap_or(0);
        answer = answer.get(end..).unwrap_or_else(|| panic!("half a body: {text}"));
    }
    found
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process").count()
}

/// Goal: an answer or a close for whatever comes, in time, in order and of the right number; nothing is kept of it.
/// Method: seeded scripts, sixteen at once, against a leader with a TTL of 2 s; then count what it holds open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_any_order_are_answered_or_cut_off_and_nothing_is_kept() {
    let etcd = Etcd::start().await;
    let builder = Daemon::builder("pod-0", &etcd).ttl("2s");
    let daemon = builder.set("http.request_timeout", REQUEST_TIMEOUT).start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    let Target::Tcp(address) = daemon.public() else { panic!("{:?} is no TCP address", daemon.public()) };
    let (files, before) = (open_files(daemon.pid()), daemon.transitions().await.len());
    let mut rng = Rng::with_seed(42);
    for round in 0..ROUNDS {
        let scripts: Vec<_> = (0..AT_ONCE).map(|_| script(&mut rng)).collect();
        let answers = join_all(scripts.iter().map(|script| play(address, script))).await;
        for (script, found) in scripts.iter().zip(answers) {
            let sent = String::from_utf8_lossy(script.pieces.first().expect("a piece")).into_owned();
            match &script.expected {
                Some(expected) => assert_eq!(found, *expected, "round {round}: {sent:.500}"),
                None => assert!(found.iter().all(|status| *status < 500), "round {round}: {found:?} to {sent}"),
            }
        }
    }
    assert!(daemon.is_leader().await);
    assert_eq!(daemon.transitions().await.len(), before, "no leadership was lost meanwhile");
    assert!(!daemon.logs().contains("panicked"), "{}", daemon.logs());
    eventually("no connection is left", async || {
        let now = open_files(daemon.pid());
        // The question's own connection may still be closing.
        if now <= files + 1 { Ok(()) } else { Err(now) }
    })
    .await;
}
