//! A network to break: a TCP proxy on loopback, one connection upstream for each that it accepts.
//!
//! It may also stand for an address behind which several servers answer, or that is given to another one.
//!
//! It never loses a byte in the midst of a stream, because TCP does not: what is held back while the link is broken
//! arrives after [`Link::heal`], late, as retransmitted segments would.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{Endpoints, free_port};

/// What one direction may hold between reading and writing, in chunks of [`CHUNK`] bytes.
const QUEUE: usize = 64;
const CHUNK: usize = 16 * 1024;

/// A proxy in front of one upstream; it ends, with all its connections, when the handle is dropped.
pub struct Link {
    scheme: String,
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    counts: Arc<Counts>,
    upstreams: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

/// How the link treats its traffic now.
#[derive(Clone, Copy, Debug)]
struct Mode {
    hold_to_server: bool,
    hold_to_client: bool,
    refuse: bool,
    delay: Duration,
    /// Once this passes towards the server, answers are held.
    trap: Option<&'static str>,
    /// Connections made in an earlier age are reset.
    age: u64,
}

const HEALTHY: Mode =
    Mode { hold_to_server: false, hold_to_client: false, refuse: false, delay: Duration::ZERO, trap: None, age: 0 };

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

impl Link {
    /// A link to the first endpoint of a server, a member, another link, or a URL.
    pub async fn to(upstream: &(impl Endpoints + ?Sized)) -> Self {
        let mut urls = upstream.endpoints();
        urls.truncate(1);
        Self::balanced(&urls).await
    }

    /// A balancer: each new connection goes to any of these URLs, as kube-proxy has it.
    pub async fn balanced(urls: &[String]) -> Self {
        let scheme = urls.first().and_then(|url| url.split_once("://")).map_or("http", |(scheme, _)| scheme);
        let upstreams = Arc::new(Mutex::new(urls.iter().map(|url| host(url)).collect::<Vec<_>>()));
        let (mode, watched) = watch::channel(HEALTHY);
        let mode = Arc::new(mode);
        let counts = Arc::<Counts>::default();
        let (port, listener) = listen().await;
        let accepting = tokio::spawn(accept(
            listener,
            port,
            Arc::clone(&upstreams),
            watched,
            Arc::downgrade(&mode),
            Arc::clone(&counts),
        ));
        Self { scheme: scheme.to_owned(), port, mode, counts, upstreams, accepting }
    }

    /// The address is another server's from now on: what is connected is reset.
    pub fn give_to(&self, upstream: &(impl Endpoints + ?Sized)) {
        let urls = upstream.endpoints();
        *self.upstreams.lock().expect("nobody panics with it") = urls.iter().take(1).map(|url| host(url)).collect();
        self.reset();
    }

    /// The URL to use instead of the upstream's.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Forwards nothing either way and closes nothing; new connections are accepted and hear nothing either.
    pub fn black_hole(&self) {
        self.change(|mode| (mode.hold_to_server, mode.hold_to_client) = (true, true));
    }

    /// One way: requests arrive and take effect, answers do not come back.
    pub fn drop_server_to_client(&self) {
        self.change(|mode| mode.hold_to_client = true);
    }

    /// [`Link::drop_server_to_client`], from the very request on that holds `text`: it takes effect, its answer is held.
    ///
    /// Set it after whatever made the client ask has reached it, or before the client has a reason to ask.
    pub fn drop_answers_from(&self, text: &'static str) {
        self.change(|mode| mode.trap = Some(text));
    }

    /// Whether the request of [`Link::drop_answers_from`] has passed.
    pub fn has_dropped(&self) -> bool {
        let mode = self.mode.borrow();
        mode.trap.is_none() && mode.hold_to_client
    }

    /// The other way: the server still talks, and hears nothing.
    pub fn drop_client_to_server(&self) {
        self.change(|mode| mode.hold_to_server = true);
    }

    /// Every chunk arrives this much later, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.change(|mode| mode.delay = delay);
    }

    /// Resets what is connected, and refuses new connections: the server's machine is up, the server is not.
    pub fn refuse(&self) {
        self.change(|mode| {
            mode.refuse = true;
            mode.age += 1;
        });
    }

    /// Resets what is connected; new connections work.
    pub fn reset(&self) {
        self.change(|mode| mode.age += 1);
    }

    /// Ends all of the above.
    pub fn heal(&self) {
        self.change(|mode| *mode = Mode { age: mode.age, ..HEALTHY });
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Mode)) {
        self.mode.send_modify(change);
    }
}

impl Endpoints for Link {
    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The connections end by themselves: their watch is closed with `mode`.
        self.accepting.abort();
    }
}

fn host(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, address)| address).to_owned()
}

async fn listen() -> (u16, TcpListener) {
    loop {
        let port = free_port();
        // Lost to another process since it was found free: take the next.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return (port, listener);
        }
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    upstreams: Arc<Mutex<Vec<String>>>,
    mut mode: watch::Receiver<Mode>,
    link: Weak<watch::Sender<Mode>>,
    counts: Arc<Counts>,
) {
    let mut listener = Some(listener);
    loop {
        if mode.borrow_and_update().refuse {
            // Closed, not just left alone: the kernel would go on accepting.
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            client = accepted => if let Some((client, _)) = client {
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                let upstream = {
                    let all = upstreams.lock().expect("nobody panics with it");
                    all[fastrand::usize(..all.len())].clone()
                };
                counts.open.fetch_add(1, Ordering::Relaxed);
                let (mode, counts) = (mode.clone(), Arc::clone(&counts));
                let link = Weak::clone(&link);
                tokio::spawn(async move {
                    connection(client, &upstream, mode, &link).await;
                    counts.open.fetch_sub(1, Ordering::Relaxed);
                });
            },
        }
    }
}

/// One accepted connection, until both ends have closed it, one has broken it, or the link resets it.
async fn connection(
    mut client: TcpStream,
    upstream: &str,
    mode: watch::Receiver<Mode>,
    link: &Weak<watch::Sender<Mode>>,
) {
    let age = mode.borrow().age;
    let ended = tokio::select! {
        ended = carry(&mut client, upstream, mode.clone(), link) => ended,
        () = newer_age(mode, age) => Err(Broken),
    };
    if ended.is_err() {
        // RST, so that the client learns at once, instead of an orderly end that the server never sent. If this fails,
        // the connection is gone already.
        let _ = client.set_zero_linger();
    }
}

async fn carry(
    client: &mut TcpStream,
    upstream: &str,
    mut mode: watch::Receiver<Mode>,
    link: &Weak<watch::Sender<Mode>>,
) -> Result<(), Broken> {
    // A SYN into a black hole is not answered upstream either.
    mode.wait_for(|mode| !mode.hold_to_server).await?;
    let mut server = TcpStream::connect(upstream).await?;
    // A proxy's own batching must not look like latency.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::try_join!(
        pump(client_read, server_write, mode.clone(), Direction::ToServer, link),
        pump(server_read, client_write, mode, Direction::ToClient, link),
    )?;
    Ok(())
}

/// Resolves once the link has been reset, or is gone.
async fn newer_age(mut mode: watch::Receiver<Mode>, age: u64) {
    let _ = mode.wait_for(|mode| mode.age != age).await;
}

/// Carries one direction to its end of stream.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: watch::Receiver<Mode>,
    direction: Direction,
    link: &Weak<watch::Sender<Mode>>,
) -> Result<(), Broken> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let (mut reading, mut writing) = (mode.clone(), mode);
    // Two halves, so that a delay is latency and not a limit on throughput.
    let read = async move {
        loop {
            open(&mut reading, direction).await?;
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return Ok::<(), Broken>(());
            }
            chunk.truncate(length);
            if let Direction::ToServer = direction {
                spring(link, &chunk);
            }
            let due = Instant::now() + reading.borrow().delay;
            sender.send((due, chunk)).await.map_err(|_| Broken)?;
        }
    };
    let write = async {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            // Asked again: the link may have been cut while the chunk was read or on its way.
            open(&mut writing, direction).await?;
            to.write_all(&chunk).await?;
        }
        open(&mut writing, direction).await?;
        to.shutdown().await?;
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Holds the answers if this is the request that they are to be held from.
///
/// Small requests are written in one piece, and HTTP/2 carries the bodies of gRPC as they are.
fn spring(link: &Weak<watch::Sender<Mode>>, chunk: &[u8]) {
    let Some(link) = link.upgrade() else { return };
    link.send_if_modified(|mode| {
        let hit = mode.trap.is_some_and(|text| chunk.windows(text.len()).any(|part| part == text.as_bytes()));
        if hit {
            (mode.trap, mode.hold_to_client) = (None, true);
        }
        hit
    });
}

/// Waits until this direction is not held.
async fn open(mode: &mut watch::Receiver<Mode>, direction: Direction) -> Result<(), Broken> {
    let held = |mode: &Mode| match direction {
        Direction::ToServer => mode.hold_to_server,
        Direction::ToClient => mode.hold_to_client,
    };
    mode.wait_for(|mode| !held(mode)).await?;
    Ok(())
}

/// One end failed, or the link is gone; which one makes no difference to the other.
struct Broken;

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl From<watch::error::RecvError> for Broken {
    fn from(_: watch::error::RecvError) -> Self {
        Self
    }
}
