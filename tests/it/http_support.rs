//! A daemon's HTTP side with a driver that the test plays itself, and a client that sees raw bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenure::clock::{self, Hlc, Instant, Wall};
use tenure::config::{HttpConfig, HttpTls, Listen};
use tenure::control::{
    AuditLine, AuditTrail, Control, ControlError, Current, Drain, Heartbeat, HistoryRecord, Page, Request, Requests,
    Resignation,
};
use tenure::election::event::Transition;
use tenure::election::guard::Guard;
use tenure::election::ids::{CandidateKey, ElectionIndex, ElectionName, Generation, LeaseId, Revision};
use tenure::election::record::{CandidateInfo, Cause, GenerationRecord, Holder, QueueEntry};
use tenure::election::role::{Reason, Role};
use tenure::health::Health;
use tenure::http::{About, Service, bind};
use tenure::metrics::Metrics;
use tenure::rights::Rights;
use tenure::snapshot::{self, ElectionView, LeaderView, Publisher, SessionView, Snapshot};
use tenure::timing::Timing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// For how long the driver that the test plays would hold what was led.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// How a test wants the daemon.
#[derive(Clone, Debug)]
pub struct Setup {
    pub request_timeout: Duration,
    pub max_connections: usize,
    pub strict: bool,
    pub wait_for_etcd: bool,
    pub stall_limit: Duration,
    pub admin_token: Option<&'static str>,
    pub tls: Option<HttpTls>,
    /// Whether the driver answers at all.
    pub mute: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            max_connections: 64,
            strict: false,
            wait_for_etcd: false,
            stall_limit: Duration::from_secs(30),
            admin_token: None,
            tls: None,
            mute: false,
        }
    }
}

/// A running HTTP side.
pub struct Stage {
    pub public: SocketAddr,
    pub control: SocketAddr,
    pub publisher: Publisher,
    pub heartbeat: Heartbeat,
    pub dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

/// No session, no contact, both elections without a leader.
pub fn starting() -> Snapshot {
    let view =
        |name: &str| ElectionView::starting(ElectionName::parse(name).expect("a name"), Role::Follower, clock::wall());
    Snapshot {
        id: "pod-0".to_owned(),
        session: None,
        elections: vec![view("orders"), view("billing")],
        draining: false,
        joined: false,
        offset_ms: clock::reading().offset_ms,
        max_jump: Duration::from_millis(250),
        etcd_seen: None,
    }
}

fn session(left: Duration) -> SessionView {
    let timing = Timing::default();
    let ttl = Duration::from_secs(10);
    let sent = clock::now().before(timing.guard_span(ttl)) + left;
    SessionView { lease: LeaseId(0x694d), ttl, guard: Guard::new(sent, ttl, &timing) }
}

/// Queued behind pod-1, which leads `orders` with generation 41.
pub fn candidate() -> Snapshot {
    let mut s = starting();
    s.session = Some(session(Duration::from_secs(8)));
    s.joined = true;
    s.etcd_seen = Some(clock::now());
    let e = &mut s.elections[0];
    (e.role, e.reason, e.observed, e.queue_position) = (Role::Candidate, Reason::Queued, Generation(41), Some(1));
    let url = "http://10.0.0.6:4790".to_owned();
    e.leader = Some(LeaderView { id: "pod-1".to_owned(), url, generation: Generation(41), elected_at: clock::wall() });
    s
}

/// Leads `orders` with generation 42, for that much longer.
pub fn leader(left: Duration) -> Snapshot {
    let mut s = candidate();
    s.session = Some(session(left));
    let e = &mut s.elections[0];
    (e.role, e.reason, e.observed, e.queue_position) = (Role::Leader, Reason::Elected, Generation(42), Some(0));
    e.own = Some(Generation(42));
    let url = "http://10.0.0.5:4790".to_owned();
    e.ours = true;
    e.leader = Some(LeaderView { id: "pod-0".to_owned(), url, generation: Generation(42), elected_at: clock::wall() });
    s
}

#[derive(Debug)]
struct Trail;

impl AuditTrail for Trail {
    fn newest(&self, election: ElectionIndex, page: Page) -> Vec<AuditLine> {
        let newest = page.before.unwrap_or(2_001).saturating_sub(1);
        let line = |seq| AuditLine {
            seq,
            time: Wall(0),
            hlc: Hlc::default(),
            election,
            transition: Transition {
                election,
                from: Role::Candidate,
                to: Role::Leader,
                old_generation: Generation(0),
                new_generation: Generation(seq),
                reason: Reason::Elected,
            },
            detail: String::new(),
        };
        (1..=newest).rev().take(page.limit).map(line).collect()
    }
}

async fn play(mut requests: Requests, mute: bool) {
    let mut kept = Vec::new();
    let pod = |generation| LeaderView {
        id: "pod-1".to_owned(),
        url: "http://10.0.0.6:4790".to_owned(),
        generation: Generation(generation),
        elected_at: Wall(0),
    };
    let info =
        || CandidateInfo { id: "pod-1".to_owned(), url: String::new(), term: 0, priority: 0, version: "1".to_owned() };
    let key = |created| CandidateKey { suffix: "694d".to_owned(), created: Revision(created) };
    while let Some(request) = requests.recv().await {
        if mute {
            kept.push(request);
            continue;
        }
        match request {
            Request::Resign(ElectionIndex(0), _, reply) => drop(reply.send(Ok(Some(pod(43))))),
            Request::Resign(ElectionIndex(1), Resignation { token: Some(_), .. }, reply) => {
                drop(reply.send(Err(ControlError::Stale)));
            }
            Request::Resign(_, _, reply) => drop(reply.send(Err(ControlError::NotLeader))),
            Request::Drain(hold, reply) => {
                let at = Wall(u64::try_from(hold.unwrap_or(DRAIN_TIMEOUT).as_millis()).expect("small"));
                drop(reply.send(Drain { held: vec![ElectionIndex(0)], hands_over_at: Some(at) }));
            }
            Request::Undrain(reply) => drop(reply.send(Err(ControlError::NotDraining))),
            Request::Drained(ElectionIndex(0), token, reply) => {
                let answer = if token.is_none_or(|t| t == Generation(42)) { Ok(()) } else { Err(ControlError::Stale) };
                drop(reply.send(answer));
            }
            Request::Drained(_, _, reply) => drop(reply.send(Err(ControlError::NotLeader))),
            Request::Inquire(ElectionIndex(0), reply) => {
                drop(reply.send(Ok(Current { generation: Generation(42), leader: Some(pod(42)), foreign: false })));
            }
            Request::Inquire(_, reply) => drop(reply.send(Err(ControlError::Unavailable("no quorum".to_owned())))),
            Request::Candidates(_, reply) => {
                let ours = QueueEntry { key: key(7), lease: 0x694d, candidate: Some(info()) };
                drop(reply.send(Ok(vec![ours, QueueEntry { key: key(9), lease: 0, candidate: None }])));
            }
            Request::History(_, page, reply) => {
                let holder = Holder { id: "pod-1".to_owned(), url: String::new(), key: key(7) };
                let record = |generation| GenerationRecord {
                    generation: Generation(generation),
                    term: 0,
                    holder: (generation != 40).then(|| holder.clone()),
                    cause: Cause::Elected,
                    elected_at: Wall(0),
                    hlc: Hlc::default(),
                    leaderless_ms: 12,
                };
                let records = (0..=42).rev().take(page.limit).map(record);
                drop(reply.send(Ok(records.map(|record| HistoryRecord { record, revision: Revision(99) }).collect())));
            }
            Request::Shutdown => {}
        }
    }
}

impl Stage {
    pub async fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let token_file = setup.admin_token.map(|token| {
            let path = dir.path().join("token");
            std::fs::write(&path, token).expect("written");
            path
        });
        let any = || Listen::Tcp("127.0.0.1:0".parse().expect("an address"));
        let config = HttpConfig {
            public: vec![any()],
            control: vec![any(), Listen::Unix(dir.path().join("control.sock"))],
            request_timeout: setup.request_timeout,
            admin_token_file: token_file,
            advertise_url: None,
            max_connections: setup.max_connections,
            tls: setup.tls,
        };
        let (publisher, reader) = snapshot::channel(starting(), Timing::default(), Health::new(&[], clock::now()));
        let heartbeat = Heartbeat::default();
        let (control, requests) = Control::new(Arc::new(Trail), heartbeat.clone());
        tokio::spawn(play(requests, setup.mute));
        let names: Vec<_> = starting().elections.into_iter().map(|e| e.name).collect();
        let ttl = Duration::from_secs(10);
        let metrics = Metrics::new("1.0.0", "abc", &names, &["http://127.0.0.1:2379".to_owned()], ttl);
        let about = About {
            url: String::new(),
            version: "1.0.0",
            revision: "abc",
            strict_ready: setup.strict,
            startup_wait_for_etcd: setup.wait_for_etcd,
            stall_limit: setup.stall_limit,
            ttl,
        };
        let bound = bind(&config).await.expect("free addresses");
        let address = |listen: &Listen| match listen {
            Listen::Tcp(address) => *address,
            Listen::Unix(path) => panic!("{} is no TCP address", path.display()),
        };
        let (public, control_at) = (address(&bound.addresses().public[0]), address(&bound.addresses().control[0]));
        let (stop, stopped) = oneshot::channel();
        let service = Service { reader, control, metrics, rights: Rights::all(), about };
        let task = tokio::spawn(bound.serve(service, async { drop(stopped.await) }));
        let stage = Self { public, control: control_at, publisher, heartbeat, dir, stop: Some(stop), task };
        stage.beat();
        stage
    }

    pub fn beat(&self) {
        self.heartbeat.beat(clock::now());
    }

    /// As if the loop had turned last that long ago.
    pub fn beat_was(&self, ago: Duration) {
        self.heartbeat.beat(Instant::from_nanos(clock::now().before(ago).as_nanos()));
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub async fn get(&self, path: &str) -> Reply {
        ask(self.public, "GET", path, "", b"").await
    }

    pub async fn control(&self, method: &str, path: &str, body: &str) -> Reply {
        ask(self.control, method, path, "", body.as_bytes()).await
    }

    pub fn socket(&self) -> std::path::PathBuf {
        Path::new(self.dir.path()).join("control.sock")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn parse(raw: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(raw).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let pairs = lines.filter_map(|l| l.split_once(": "));
        let headers = pairs.map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
        Some(Self { status, headers, body: body.to_owned() })
    }
}

/// One request on a connection of its own; `extra` holds whole header lines.
pub async fn ask(to: SocketAddr, method: &str, path: &str, extra: &str, body: &[u8]) -> Reply {
    let stream = TcpStream::connect(to).await.expect("somebody listens");
    exchange(stream, method, path, extra, body).await
}

pub async fn exchange<S>(stream: S, method: &str, path: &str, extra: &str, body: &[u8]) -> Reply
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    try_exchange(stream, method, path, extra, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

pub async fn try_exchange<S>(
    mut stream: S,
    method: &str,
    path: &str,
    extra: &str,
    body: &[u8],
) -> std::io::Result<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length =
        if body.is_empty() && method != "POST" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{extra}\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut raw = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut raw)).await??;
    Reply::parse(&raw).ok_or_else(|| std::io::Error::other(String::from_utf8_lossy(&raw).into_owned()))
}
