//! Clients that mean no good, and those that are only clumsy.

use std::time::{Duration, Instant};

use tenure::config::{HttpConfig, HttpTls, Listen};
use tenure::http::{BindError, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::http_support::{Reply, Setup, Stage, ask, candidate, exchange, leader, try_exchange};
use crate::support::tenure;

const LONG: Duration = Duration::from_mins(1);

fn config(control: Vec<Listen>) -> HttpConfig {
    HttpConfig {
        public: Vec::new(),
        control,
        request_timeout: Duration::from_secs(1),
        admin_token_file: None,
        advertise_url: None,
        max_connections: 8,
        tls: None,
    }
}

#[tokio::test]
async fn connect_is_refused_and_the_connection_survives_it_no_worse() {
    let stage = Stage::start(Setup::default()).await;
    let mut stream = TcpStream::connect(stage.public).await.expect("connected");
    stream.write_all(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await.expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 405");
    assert_eq!(stage.get("/livez").await.status, 200);
}

#[tokio::test]
async fn slow_and_silent_connections_are_closed_and_do_not_keep_probes_out() {
    let limit = Duration::from_millis(600);
    let setup = Setup { request_timeout: limit, max_connections: 8, ..Setup::default() };
    let stage = Stage::start(setup).await;
    let mut held = Vec::new();
    for i in 0..40 {
        let mut stream = TcpStream::connect(stage.control).await.expect("connected");
        let start: &[u8] = match i % 4 {
            0 => b"",
            1 => b"GET /livez HTTP/1.1\r\nHost:",
            2 => b"POST /v1/elections/orders/verify HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
            _ => b"PUT /gate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        };
        // Whoever was sent away already cannot be written to.
        let _ = stream.write_all(start).await;
        held.push(stream);
    }
    let began = Instant::now();
    assert_eq!(ask(stage.control, "GET", "/livez", "", b"").await.status, 200);
    assert!(began.elapsed() < limit, "a full house made the probe wait {:?}", began.elapsed());
    for mut stream in held {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(limit * 3, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open, after {}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_408() {
    let stage = Stage::start(Setup { request_timeout: Duration::from_millis(200), ..Setup::default() }).await;
    let path = "/v1/elections/orders/verify";
    let mut stream = TcpStream::connect(stage.control).await.expect("connected");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.expect("closed by the server");
    let reply = Reply::parse(&raw).expect("an answer");
    assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"));
}

#[tokio::test]
async fn polls_give_way_when_the_house_is_full() {
    let stage = Stage::start(Setup { max_connections: 2, ..Setup::default() }).await;
    // It serves: whoever connects before that is not polling yet, and is sent away like any idle client.
    assert_eq!(stage.get("/livez").await.status, 200);
    let public = stage.public;
    let poll = || tokio::spawn(ask(public, "GET", "/v1/elections/orders?wait=60s", "", b""));
    let polls = [poll(), poll()];
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.get("/livez").await.status, 200);
    let first = futures_util::future::select_all(polls).await.0.expect("no panic");
    assert_eq!(first.status, 304);
}

#[tokio::test]
async fn large_bodies_are_refused_in_an_orderly_way() {
    let stage = Stage::start(Setup::default()).await;
    let body = vec![b' '; 10 << 20];
    let path = "/v1/elections/orders/verify";
    let reply = ask(stage.control, "POST", path, "", &body).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "too_large"));
    // Chunked: nothing announces the size.
    let mut stream = TcpStream::connect(stage.control).await.expect("connected");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..160 {
        stream.write_all(b"10000\r\n").await.expect("sent");
        stream.write_all(&body[..0x10000]).await.expect("sent");
        stream.write_all(b"\r\n").await.expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sent");
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.expect("an orderly end");
    assert_eq!(Reply::parse(&raw).expect("an answer").status, 413);
    // A body that nobody asked for, at a path that reads none.
    assert_eq!(ask(stage.public, "PUT", "/gate", "", &body).await.status, 403);
    // Deep nesting.
    let deep = "[".repeat(1 << 19);
    let deep = format!("{{\"token\":{deep}");
    assert_eq!(stage.control("POST", path, &deep).await.status, 400);
}

const WORDS: &[&str] = &[
    "v1",
    "elections",
    "orders",
    "billing",
    "gate",
    "token",
    "verify",
    "resign",
    "leader",
    "redirect",
    "drained",
    "history",
    "transitions",
    "candidates",
    "metrics",
    "..",
    "%2e",
    "%",
    "",
    "é",
    "x",
    "drain",
    "*",
    "livez",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE", "FOO", "PATCH"];
const QUERIES: &[&str] = &[
    "",
    "?",
    "?wait=1ms",
    "?wait=x",
    "?limit=-1",
    "?after=99999999999999999999",
    "?election=%zz",
    "?verbose&linearizable",
];
const BODIES: &[&[u8]] = &[
    b"",
    b"{}",
    b"{\"token\":42}",
    b"{\"token\":1e400}",
    b"\xff\xfe",
    b"[]",
    b"{\"cooldown_ms\":18446744073709551615}",
];

#[tokio::test]
async fn random_requests_cause_no_500_and_no_panic() {
    let stage = Stage::start(Setup { request_timeout: Duration::from_secs(2), ..Setup::default() }).await;
    stage.publisher.publish(leader(LONG));
    let mut random = fastrand::Rng::with_seed(42);
    for i in 0..2_000 {
        let path: String = (0..random.usize(1..6)).flat_map(|_| ["/", WORDS[random.usize(..WORDS.len())]]).collect();
        let to = if random.bool() { stage.public } else { stage.control };
        let (method, query) = (METHODS[random.usize(..METHODS.len())], QUERIES[random.usize(..QUERIES.len())]);
        let extra =
            ["", "Fencing-Token: \u{1}\r\n", "Accept: ;;q=,\r\n", "Authorization: Bearer\r\n"][random.usize(..4)];
        let body = BODIES[random.usize(..BODIES.len())];
        let mut stream = TcpStream::connect(to).await.expect("somebody listens");
        let head = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{extra}\r\n",
            body.len()
        );
        let mut raw = [head.as_bytes(), body].concat();
        if i % 5 == 0 {
            let at = random.usize(..raw.len());
            raw[at] = random.u8(..);
        }
        if i % 50 == 1 {
            raw = std::iter::repeat_with(|| random.u8(..)).take(200).collect();
        }
        let broken = i % 5 == 0 || i % 50 == 1;
        let _ = stream.write_all(&raw).await;
        if broken {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let reply = Reply::parse(&answer);
        // A handler's panic costs its connection.
        assert!(broken || reply.is_some(), "no answer: {method} {path}{query}");
        if let Some(reply) = reply {
            assert!(reply.status < 500 || reply.status == 503, "{method} {path}{query}: {reply:?}");
        }
    }
    assert!(!stage.task.is_finished());
    assert_eq!(stage.get("/leader").await.status, 200);
    assert!(!stage.get("/metrics").await.body.contains("code=\"500\""));
}

#[tokio::test]
async fn verbs_on_tcp_need_the_token_where_there_is_one_and_the_socket_does_not() {
    let stage = Stage::start(Setup { admin_token: Some("secret"), ..Setup::default() }).await;
    stage.publisher.publish(leader(LONG));
    let resign = "/v1/elections/orders/resign";
    let refused = stage.control("POST", resign, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"));
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(ask(stage.control, "POST", resign, "Authorization: Bearer wrong\r\n", b"").await.status, 401);
    assert_eq!(ask(stage.control, "POST", resign, "Authorization: Bearer secret\r\n", b"").await.status, 200);
    assert_eq!(stage.control("GET", "/token", "").await.status, 200, "reading needs none");
    let stream = UnixStream::connect(stage.socket()).await.expect("connected");
    assert_eq!(exchange(stream, "POST", resign, "", b"").await.status, 200);
}

#[tokio::test]
async fn a_control_listener_that_anyone_could_use_is_refused() {
    let open = |address: &str| config(vec![Listen::Tcp(address.parse().expect("an address"))]);
    assert!(matches!(bind(&open("0.0.0.0:0")).await, Err(BindError::Unguarded(_))));
    assert!(bind(&open("127.0.0.1:0")).await.is_ok());
}

#[tokio::test]
async fn a_socket_is_taken_over_from_the_dead_only_and_goes_with_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.sock");
    let config = config(vec![Listen::Unix(path.clone())]);
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a crash leaves its socket");
    let bound = bind(&config).await.expect("nobody answers on it");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
    assert!(matches!(bind(&config).await, Err(BindError::Listen { .. })), "somebody answers on it");
    drop(bound);
    assert!(!path.exists());
    std::fs::write(&path, "precious").expect("written");
    assert!(bind(&config).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).expect("kept"), "precious");
}

#[tokio::test]
async fn stopping_is_quick_whoever_is_connected() {
    let mut stage = Stage::start(Setup::default()).await;
    stage.publisher.publish(candidate());
    let public = stage.public;
    let poll = tokio::spawn(ask(public, "GET", "/v1/elections/orders?wait=60s", "", b""));
    let mut silent = TcpStream::connect(public).await.expect("connected");
    silent.write_all(b"GET /livez HT").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    stage.stop();
    (&mut stage.task).await.expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(poll.await.expect("answered").status, 304);
    assert!(TcpStream::connect(public).await.is_err() && !stage.socket().exists());
}

pub fn certificate(dir: &std::path::Path) -> (HttpTls, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let files = HttpTls { cert_file: dir.join("cert.pem"), key_file: dir.join("key.pem"), client_ca_file: None };
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).expect("written");
    std::fs::write(&files.cert_file, made.cert.pem()).expect("written");
    (files, made.cert.pem())
}

pub async fn tls_stream(
    to: std::net::SocketAddr,
    trusted: &str,
    own: Option<&HttpTls>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    use std::sync::Arc;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, pki_types};
    let mut roots = RootCertStore::empty();
    roots.add(pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).expect("PEM")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(files) => {
            let cert = pki_types::CertificateDer::from_pem_file(&files.cert_file).expect("PEM");
            let key = pki_types::PrivateKeyDer::from_pem_file(&files.key_file).expect("PEM");
            config.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    let stream = TcpStream::connect(to).await?;
    let name = "localhost".try_into().expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn over_tls(to: std::net::SocketAddr, trusted: &str, own: Option<&HttpTls>) -> std::io::Result<Reply> {
    try_exchange(tls_stream(to, trusted, own).await?, "GET", "/livez", "", b"").await
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, trusted) = certificate(dir.path());
    let others = tempfile::tempdir().expect("a directory");
    let (stranger, _) = certificate(others.path());
    let tls = HttpTls { client_ca_file: Some(files.cert_file.clone()), ..files.clone() };
    let stage = Stage::start(Setup { tls: Some(tls), ..Setup::default() }).await;
    assert!(over_tls(stage.public, &trusted, None).await.is_err(), "no certificate");
    assert!(over_tls(stage.public, &trusted, Some(&stranger)).await.is_err(), "another authority's");
    assert_eq!(over_tls(stage.public, &trusted, Some(&files)).await.expect("TLS").status, 200);
}

/// Goal: the command line reaches a daemon with TLS, trusts nobody unasked, and shows its certificate where one is wanted.
#[tokio::test]
async fn the_command_line_speaks_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, _) = certificate(dir.path());
    let others = tempfile::tempdir().expect("a directory");
    let (stranger, _) = certificate(others.path());
    let path = |path: &std::path::Path| path.display().to_string();
    let ask = async |stage: &Stage, more: &[&str]| {
        let address = format!("https://{}", stage.public);
        let output = tenure(&[&["check", "--expect", "live", "--control", &address], more].concat()).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ca, key, other) = (path(&files.cert_file), path(&files.key_file), path(&stranger.cert_file));
    let named = ["--server-name", "localhost"];
    let stage = Stage::start(Setup { tls: Some(files.clone()), ..Setup::default() }).await;
    let (code, why) = ask(&stage, &[]).await;
    assert!(code == Some(2) && why.contains("https needs --ca-file"), "{code:?} {why}");
    let trusting = [&["--ca-file", &ca], &named[..]].concat();
    assert_eq!(ask(&stage, &trusting).await, (Some(0), String::new()));
    for wrong in [vec!["--ca-file", &ca], [&["--ca-file", &other], &named[..]].concat()] {
        let (code, why) = ask(&stage, &wrong).await;
        assert!(code == Some(5) && why.contains("certificate"), "{wrong:?}: {code:?} {why}");
    }
    let (code, why) = ask(&stage, &["--ca-file", &key]).await;
    assert!(code == Some(1) && why.contains("holds no certificate, but: private key"), "{code:?} {why}");
    let tls = HttpTls { client_ca_file: Some(files.cert_file.clone()), ..files.clone() };
    let stage = Stage::start(Setup { tls: Some(tls), ..Setup::default() }).await;
    assert_eq!(ask(&stage, &trusting).await.0, Some(5), "it wants a certificate");
    let own = [&trusting[..], &["--cert-file", &ca, "--key-file", &key]].concat();
    assert_eq!(ask(&stage, &own).await, (Some(0), String::new()));
}

#[tokio::test]
async fn tls_is_served_its_files_are_read_again_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, first) = certificate(dir.path());
    let stage = Stage::start(Setup { tls: Some(files.clone()), ..Setup::default() }).await;
    assert_eq!(over_tls(stage.public, &first, None).await.expect("TLS").status, 200);
    std::fs::write(&files.cert_file, "broken").expect("written");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(over_tls(stage.public, &first, None).await.expect("the old one").status, 200);
    let (_, second) = certificate(dir.path());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(over_tls(stage.public, &first, None).await.is_err(), "the old one is gone");
    assert_eq!(over_tls(stage.public, &second, None).await.expect("the new one").status, 200);
    let stream = UnixStream::connect(stage.socket()).await.expect("connected");
    assert_eq!(exchange(stream, "GET", "/livez", "", b"").await.status, 200, "a Unix socket is plain");
}
