//! Questions that need etcd, while etcd says nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::Method;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::support::{Daemon, Etcd, Target, eventually, request};

const CANDIDATES: &str = "/v1/elections/orders/candidates";
const HISTORY: &str = "/v1/elections/orders/history";
/// As Kubernetes has it where nobody says otherwise.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

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

/// How long the thread of HTTP has waited for a processor in all: that time is the machine's, which others may have.
fn waited_for_a_processor(daemon: &Daemon) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("a running process");
    let of = |name: &str| {
        tasks
            .filter_map(Result::ok)
            .map(|task| task.path())
            .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
    };
    let waited = of("http").and_then(|task| std::fs::read_to_string(task.join("schedstat")).ok());
    let nanos = waited.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Asks ten times a second until the flood is over, as a Kubernetes probe would; each answer must come in time, less what the
/// daemon had no processor for. Then says how much memory came at the most.
async fn probed_while<T>(flood: JoinHandle<T>, daemon: &Daemon, probe: &Target) -> u64 {
    let before = resident_kib(daemon);
    let (mut most, mut pace) = (0, interval(Duration::from_millis(100)));
    while !flood.is_finished() {
        pace.tick().await;
        let (began, waited) = (Instant::now(), waited_for_a_processor(daemon));
        let answer = probe.send_within(PROBE_LIMIT * 5, request(Method::GET, "/livez", Bytes::new())).await;
        let (took, waited) = (began.elapsed(), waited_for_a_processor(daemon).saturating_sub(waited));
        let in_time = took.saturating_sub(waited) < PROBE_LIMIT;
        assert!(
            in_time && answer.as_ref().is_ok_and(|answer| answer.status == 200),
            "{answer:?} after {took:?}, {waited:?} of them without a processor, and {most} KiB more"
        );
        most = most.max(resident_kib(daemon).saturating_sub(before));
    }
    flood.await.expect("no panic");
    most
}

/// So many times 10 ms, and never quicker to catch up.
fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Goal: neither their number nor a silent etcd costs memory, a probe or a leadership.
/// Method: 900 a second that are sent and abandoned, for longer than any answer takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_at_a_silent_etcd_costs_no_memory_no_probe_and_no_leadership() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").start().await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let to = address(&daemon);
    for path in [CANDIDATES, "/v1/elections/orders/leader?linearizable=true"] {
        eventually("etcd answers", async || daemon.get(path).await.is_ok_and(|a| a.status == 200)).await;
        etcd.pause();
        let to = to.clone();
        let flood = tokio::spawn(async move {
            let mut pace = ticks();
            for _ in 0..600 {
                pace.tick().await;
                join_all((0..9).map(|_| send(&to, path))).await;
            }
        });
        let most = probed_while(flood, &daemon, daemon.public()).await;
        etcd.resume();
        assert!(most < GROWTH_KIB, "{most} KiB more");
        assert_eq!(daemon.token().await, Some(token), "{}", daemon.logs());
    }
}

/// Goal: who comes while the daemon has no processor is kept by the kernel, not told to try again a second later.
/// Method: it stands still while half a second's flood arrives, and a probe behind that.
#[tokio::test]
async fn a_flood_that_arrives_while_the_daemon_stands_still_costs_no_probe() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    etcd.pause();
    let to = address(&daemon);
    daemon.sigstop();
    for nth in 0..450 {
        assert!(send(&to, CANDIDATES).await.is_some(), "connection {nth} found no room");
    }
    let mut probe = send(&to, "/livez").await.expect("the probe found room");
    daemon.sigcont();
    let mut head = [0; 12];
    timeout(PROBE_LIMIT * 5, probe.read_exact(&mut head)).await.expect("in time").expect("it is not sent away unread");
    assert_eq!(&head, b"HTTP/1.1 200");
    etcd.resume();
}

/// Goal: neither do others that keep a connection, or only came to have one.
/// Method: each kind for a second and a half, 600 a second, of whom the last 400 are still there; a probe where they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_idle_half_closed_or_local_clients_costs_no_probe_and_no_leadership() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").start().await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let to = address(&daemon);
    etcd.pause();
    for (what, on_control) in [("half-closed", false), ("idle and asking", false), ("local", true)] {
        let (to, socket) = (to.clone(), daemon.control().clone());
        let flood = tokio::spawn(async move {
            let mut held = VecDeque::new();
            let mut pace = ticks();
            for n in 0..150 {
                pace.tick().await;
                for nth in 0..6 {
                    held.push_back(match what {
                        "idle and asking" if nth % 2 == 0 => Held::Tcp(TcpStream::connect(&to).await.ok()),
                        "local" => Held::Unix(ask_local(&socket, if n % 2 == 0 { CANDIDATES } else { HISTORY }).await),
                        _ => Held::Tcp(send(&to, CANDIDATES).await),
                    });
                    if let (Some(Held::Tcp(Some(last))), "half-closed") = (held.back_mut(), what) {
                        // It may have had its answer.
                        let _ = last.shutdown().await;
                    }
                    if held.len() > 400 {
                        held.pop_front();
                    }
                }
            }
        });
        let probe = if on_control { daemon.control() } else { daemon.public() };
        let most = probed_while(flood, &daemon, probe).await;
        assert!(most < GROWTH_KIB, "{what}: {most} KiB more");
        assert_eq!(daemon.token().await, Some(token), "{what}: {}", daemon.logs());
    }
    etcd.resume();
}

/// A client that stays.
enum Held {
    Tcp(Option<TcpStream>),
    Unix(#[expect(dead_code, reason = "held open")] Option<UnixStream>),
}

async fn ask_local(to: &Target, path: &str) -> Option<UnixStream> {
    let Target::Unix(socket) = to else { panic!("{to:?} is no socket") };
    let mut stream = timeout(PROBE_LIMIT, UnixStream::connect(socket)).await.ok()?.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
    Some(stream)
}

/// Goal: who is refused at the door hears what everybody would, and nothing but whole questions is refused there.
#[tokio::test]
async fn a_refusal_at_the_door_is_a_whole_answer_and_meant_for_questions_only() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::builder("pod-0", &etcd).ttl("20s").set("http.max_connections", 4).start().await;
    eventually("it leads", async || daemon.is_leader().await).await;
    etcd.pause();
    let to = address(&daemon);
    let _asked = send(&to, CANDIDATES).await.expect("sent");
    let code = async |path: &str| {
        let answer = daemon.get(path).await.expect("answered");
        (answer.status, answer.header("content-type").map(str::to_owned), answer.json()["code"].clone())
    };
    let problem = Some("application/problem+json".to_owned());
    let refused = (503, problem.clone(), "busy".into());
    eventually("one waits, and no more may", async || code(CANDIDATES).await == refused).await;
    assert_eq!(code(HISTORY).await, (404, problem.clone(), "not_found".into()), "not on this listener");
    assert_eq!(code("/v1/elections/nope/candidates").await, (404, problem, "unknown_election".into()));
    // What waits while the daemon stands still has arrived whole when it is let in.
    daemon.sigstop();
    let mut standing = Vec::new();
    for (path, more, expected) in [
        ("/v1/elections/orders/leader?linearizable=1", "\r\n", "503"),
        ("/v1/elections/orders/leader?linearizable=1", "Content-Length: 1\r\n\r\n{", "503"),
        ("/v1/elections/orders/leader?linearizable=1", "\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "503"),
        ("/v1/elections/orders/leader", "\r\n", "200"),
        ("/v1/elections/orders/history", "\r\n", "404"),
        ("/v1/elections/nope/candidates", "\r\n", "404"),
        ("/livez", "\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(&to).await.expect("the kernel takes it");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}");
        stream.write_all(request.as_bytes()).await.expect("sent");
        standing.push((stream, request, expected));
    }
    daemon.sigcont();
    for (mut stream, request, expected) in standing {
        let mut answer = String::new();
        timeout(PROBE_LIMIT * 5, stream.read_to_string(&mut answer)).await.expect("in time").expect("in good order");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {answer}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{request}: {answer}");
        assert!(expected != "503" || body.contains("\"code\":\"busy\"") && head.contains("retry-after: 1"), "{answer}");
    }
    let counted = daemon.get("/metrics").await.expect("answered").text();
    let busy = counted.lines().filter(|line| line.starts_with("tenure_http_requests_total") && line.contains("503"));
    assert!(
        busy.clone().any(|line| line.contains("/leader\"") && line.ends_with(" 3")),
        "{:?}",
        busy.collect::<Vec<_>>()
    );
    etcd.resume();
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
    let began = Instant::now();
    assert_eq!(daemon.probe("/livez").await, Some(200));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let answers = join_all(asked.into_iter().map(async |mut stream| {
        let mut head = vec![0; 4096];
        let read = timeout(Duration::from_secs(15), stream.read(&mut head)).await.expect("answered").expect("open");
        String::from_utf8_lossy(&head[..read]).into_owned()
    }))
    .await;
    let of = |code: &str| answers.iter().filter(|a| a.contains(&format!("\"code\":\"{code}\""))).count();
    assert!(of("busy") >= 11 && of("busy") + of("unavailable") == 15, "{answers:?}");
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
