//! Clients that are careless: they shut their side, go away, announce what never comes, or send headers by the thousand.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::http_support::{Reply, Setup, Stage, candidate, leader};
use crate::support::{Daemon, Etcd, Target, eventually};

const LONG: Duration = Duration::from_mins(1);

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn open(target: &Target) -> Box<dyn Stream> {
    match target {
        Target::Tcp(address) => Box::new(TcpStream::connect(address).await.expect("somebody listens")),
        Target::Unix(path) => Box::new(UnixStream::connect(path).await.expect("somebody listens")),
    }
}

/// Sends, shuts the writing side, and reads to the end.
async fn half_closing(mut stream: impl Stream, request: &str) -> Option<Reply> {
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("shut");
    let mut raw = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut raw)).await.expect("it ends").expect("in good order");
    Reply::parse(&raw)
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_answer_on_every_route() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::start(&etcd).await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let verify = format!("{{\"token\":{token}}}");
    for version in ["1.0", "1.1"] {
        for (method, path, body, expected) in [
            ("GET", "/livez", "", 200),
            ("GET", "/leader", "", 200),
            ("GET", "/gate", "", 200),
            ("GET", "/metrics", "", 200),
            ("GET", "/openapi.json", "", 200),
            ("GET", "/token", "", 200),
            ("GET", "/v1/elections/orders?wait=300ms", "", 304),
            ("GET", "/v1/elections/orders/candidates", "", 200),
            ("GET", "/v1/elections/orders/leader?linearizable=true", "", 200),
            ("GET", "/v1/elections/orders/history", "", 200),
            ("GET", "/v1/elections/orders/transitions", "", 200),
            ("POST", "/v1/elections/orders/verify", verify.as_str(), 200),
            ("POST", "/v1/elections/orders/nope", "", 404),
        ] {
            let length = body.len();
            let request =
                format!("{method} {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
            for target in [daemon.public(), daemon.control()] {
                let reply = half_closing(open(target).await, &request).await;
                let reply = reply.unwrap_or_else(|| panic!("no answer: {method} {path} {version} {target:?}"));
                let there = target == daemon.control() || reply.status != 404;
                assert!(!there || reply.status == expected, "{method} {path} {version} {target:?}: {reply:?}");
            }
        }
    }
    let resign = "POST /v1/elections/orders/resign HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let told = half_closing(open(daemon.control()).await, resign).await.expect("a verb that was carried out is told");
    assert_eq!(told.status, 200);
    let resigned = daemon.transitions().await.into_iter().filter(|line| line["reason"] == "resigned").count();
    assert_eq!(resigned, 1);
}

#[tokio::test]
async fn a_client_that_sends_no_more_is_answered_over_tls_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, trusted) = crate::http_limits::certificate(dir.path());
    let stage = Stage::start(Setup { tls: Some(files), ..Setup::default() }).await;
    stage.publisher.publish(leader(LONG));
    for path in ["/leader", "/v1/elections/orders/candidates", "/v1/elections/orders?wait=300ms"] {
        let stream = crate::http_limits::tls_stream(stage.public, &trusted, None).await.expect("TLS");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = half_closing(stream, &request).await.unwrap_or_else(|| panic!("no answer: {path}"));
        assert!([200, 304].contains(&reply.status), "{path}: {reply:?}");
    }
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a running process").count()
}

/// Goal: a poll or a question whose caller has gone ends long before its time; one whose caller only sends no more does not.
/// Method: a silent etcd with an hour's patience; count what the daemon holds open.
#[tokio::test]
async fn whoever_has_really_gone_is_noticed() {
    const CLIENTS: usize = 12;
    let etcd = Etcd::start().await;
    let builder = Daemon::builder("pod-0", &etcd).ttl("60s").set("etcd.request_timeout", "10s");
    let daemon = builder
        .yaml("elections: [orders, {name: billing, observe: true}]")
        .set("http.request_timeout", "60s")
        .start()
        .await;
    eventually("it leads", async || daemon.is_leader().await).await;
    let before = open_files(&daemon);
    etcd.pause();
    for (target, path) in [
        (daemon.control(), "/v1/elections/orders?wait=60s"),
        (daemon.control(), "/v1/elections/orders/candidates"),
        (daemon.control(), "/v1/elections/orders/history"),
        (daemon.public(), "/v1/elections/orders?wait=60s"),
        (daemon.public(), "/v1/elections/orders/candidates"),
    ] {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut stream = open(target).await;
            // Over TCP, an answer that is not read when the socket closes makes that a reset.
            let request = format!("GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            stream.read_exact(&mut [0; 12]).await.expect("the first answer");
            clients.push(stream);
        }
        // Those to etcd come and go meanwhile.
        eventually("all are served", async || open_files(&daemon) + 3 >= before + CLIENTS).await;
        drop(clients);
        let began = Instant::now();
        eventually("all have left", async || {
            let now = open_files(&daemon);
            if now <= before + 3 { Ok(()) } else { Err(now - before) }
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(4), "{target:?} {path}: {:?}", began.elapsed());
    }
    let waiting =
        half_closing(open(daemon.control()).await, "GET /v1/elections/orders?wait=3s HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(waiting.await.expect("answered, as late as it asked for").status, 304);
    etcd.resume();
    eventually("etcd is asked again", async || {
        daemon.get("/v1/elections/orders/candidates").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// Goal: exactly 200 or 403, at once, and no connection that a proxy could use again by mistake.
#[tokio::test]
async fn the_gate_answers_whatever_body_was_announced_and_closes() {
    let stage = Stage::start(Setup::default()).await;
    let socket = Target::Unix(stage.socket());
    let tcp = |address: std::net::SocketAddr| Target::Tcp(address.to_string());
    let targets = [tcp(stage.public), tcp(stage.control), socket];
    let next = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    for (snapshot, expected) in [(candidate(), 403), (leader(LONG), 200)] {
        stage.publisher.publish(snapshot);
        for target in &targets {
            for (head, sent) in [
                ("Content-Length: 10\r\n", ""),
                ("Content-Length: 10\r\n", "12345"),
                ("Content-Length: 34\r\n", next),
                ("Content-Length: 99999999999\r\n", "x"),
                ("Transfer-Encoding: chunked\r\n", ""),
                ("Transfer-Encoding: chunked\r\n", "5\r\nab"),
                ("Transfer-Encoding: chunked\r\n", "not a chunk\r\n"),
                ("Expect: 100-continue\r\nContent-Length: 10\r\n", ""),
                ("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", ""),
            ] {
                let path = "/v1/elections/orders/gate/a";
                let mut stream = open(target).await;
                let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n{sent}");
                let began = Instant::now();
                stream.write_all(request.as_bytes()).await.expect("sent");
                let mut raw = Vec::new();
                // It ends by itself, though we go on holding our side open.
                let ended = tokio::time::timeout(Duration::from_secs(4), stream.read_to_end(&mut raw)).await;
                let reply = Reply::parse(&raw).unwrap_or_else(|| panic!("no answer: {head}{sent} {target:?}"));
                assert!(ended.is_ok(), "still open: {head}{sent} {target:?} {:?}", began.elapsed());
                assert_eq!((reply.status, reply.header("connection")), (expected, "close"), "{head}{sent} {target:?}");
                assert_eq!(raw.windows(8).filter(|w| w == b"HTTP/1.1").count(), 1, "one answer: {head}{sent}");
            }
        }
    }
}

#[tokio::test]
async fn the_gate_answers_up_to_64_kib_of_headers_however_many() {
    const MOST: usize = 64 << 10;
    let stage = Stage::start(Setup::default()).await;
    let lines = |line: &dyn Fn(usize) -> String, size: usize| {
        let mut all = String::new();
        for n in 0.. {
            let next = line(n);
            if all.len() + next.len() > size {
                break;
            }
            all.push_str(&next);
        }
        all
    };
    let kinds: [(&str, &dyn Fn(usize) -> String); 4] = [
        ("one long line", &|n| if n == 0 { format!("A: {}\r\n", "x".repeat(MOST - 8)) } else { "b:\r\n".repeat(2) }),
        ("the shortest", &|_| "a:\r\n".to_owned()),
        ("each another", &|n| format!("a{n:x}:\r\n")),
        ("cookies", &|n| format!("Cookie: k{n}={}\r\n", "v".repeat(200))),
    ];
    for (snapshot, expected) in [(candidate(), 403), (leader(LONG), 200)] {
        stage.publisher.publish(snapshot);
        for (what, line) in kinds {
            for to in [stage.public, stage.control] {
                let headers = lines(line, MOST - 2);
                let mut stream = TcpStream::connect(to).await.expect("somebody listens");
                let request = format!("GET /gate/{} HTTP/1.1\r\n{headers}\r\n", "p".repeat(1_000));
                stream.write_all(request.as_bytes()).await.expect("sent");
                stream.shutdown().await.expect("shut");
                let mut raw = Vec::new();
                stream.read_to_end(&mut raw).await.expect("an orderly end");
                let reply = Reply::parse(&raw).unwrap_or_else(|| panic!("no answer: {what}"));
                assert_eq!(reply.status, expected, "{what}, {} bytes", headers.len());
            }
        }
    }
    for (what, line) in kinds {
        let headers = lines(line, 2 * MOST);
        let headers = if headers.len() < MOST + 9_000 { headers + &"c:\r\n".repeat(5_000) } else { headers };
        let mut stream = TcpStream::connect(stage.public).await.expect("somebody listens");
        // It may have had enough before all is sent.
        let _ = stream.write_all(format!("GET /gate HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
        let mut raw = Vec::new();
        let _ = stream.read_to_end(&mut raw).await;
        assert_eq!(Reply::parse(&raw).map(|reply| reply.status), Some(431), "{what}, {} bytes", headers.len());
    }
}

#[tokio::test]
async fn odd_but_lawful_requests_are_answered_in_order() {
    let stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(leader(LONG));
    for (request, expected) in [
        (
            "GET /gate HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\n\r\n",
            vec![200, 200, 404],
        ),
        ("GET http://somewhere.example/gate/a?b HTTP/1.1\r\nHost: x\r\n\r\n", vec![200]),
        ("GET /gate HTTP/1.0\r\n\r\n", vec![200]),
        ("GET /gate HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /livez HTTP/1.0\r\n\r\n", vec![200, 200]),
        ("POST /gate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", vec![200]),
        ("POST /gate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", vec![200]),
        ("POST /gate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", vec![400]),
        ("\r\n\r\nGET /gate HTTP/1.1\r\nHost: x\r\n\r\n", vec![200]),
    ] {
        let mut stream = TcpStream::connect(stage.public).await.expect("somebody listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("shut");
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.expect("an orderly end");
        let text = String::from_utf8_lossy(&raw);
        let statuses: Vec<u16> =
            text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect();
        assert_eq!(statuses, expected, "{request}");
    }
}

/// Goal: a verb that came whole is carried out and told; one whose body was cut short is not carried out.
#[tokio::test]
async fn a_body_that_ends_too_early_carries_nothing_out() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::start(&etcd).await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let cut = "POST /v1/elections/orders/resign HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"cooldown_ms\"";
    let reply = half_closing(open(daemon.control()).await, cut).await;
    assert!(reply.is_none_or(|reply| reply.status == 400));
    assert_eq!(daemon.token().await, Some(token));
    assert_eq!(daemon.verb("resign", &json!({})).await.expect("answered").status, 200);
}
