//! What an application does with a daemon: asks it, and writes with the token that it got.
//!
//! Each client is a process of its own, so that it can be stopped at any instant; what it heard goes to its own file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use hyper::Method;
use rustix::process::getppid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use super::history::{Ask, Outcome, Record, Register, Write, Writer, now};
use super::http::{Target, request};
use super::register::{Answer, Request};

/// Between two questions of a poller.
const EVERY: Duration = Duration::from_millis(20);

/// Between two questions of a poller that hears nothing.
const SELDOM: Duration = Duration::from_millis(400);

/// An answer that took so many nanoseconds is one of a daemon that was stopped, or cut off.
const LATE: u64 = 100_000_000;

/// Longer than any stop of a daemon: what it says when it goes on is what is most worth hearing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions of one poller that may wait for an answer at once.
const OPEN: usize = 40;

/// For one exchange with the register.
const REGISTER_PATIENCE: Duration = Duration::from_secs(3);

/// The longest pause of a lock-set client inside its critical section: two and a half TTL.
const LONGEST_PAUSE_MS: u64 = 5_000;

/// What a worker does between looking at its promise and its write.
const PREPARES: Duration = Duration::from_millis(5);

/// One client's view of the world.
#[derive(Debug)]
struct Client {
    name: String,
    /// The id of the daemon, and where it listens.
    id: String,
    daemon: Target,
    election: String,
    register: String,
    history: Writer,
}

/// A token and what came with it.
#[derive(Clone, Copy, Debug)]
struct Held {
    token: u64,
    /// On the boot clock, from when the request was sent.
    until: u64,
}

/// `client --kind poller|worker|lock-set --daemon URL --id DAEMON --register HOST:PORT --history FILE [--election NAME] [--seed N]`
pub fn main(args: &[String]) -> Result<(), String> {
    let file = Path::new(option(args, "--history")?);
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let client = Client {
        id: option(args, "--id")?.to_owned(),
        daemon: Target::parse(option(args, "--daemon")?),
        election: option(args, "--election").unwrap_or("orders").to_owned(),
        register: option(args, "--register")?.to_owned(),
        history: Writer::open(file).map_err(|e| format!("{}: {e}", file.display()))?,
        name: stem,
    };
    let seed = option(args, "--seed").unwrap_or("1").parse().map_err(|e| format!("--seed: {e}"))?;
    let kind = option(args, "--kind")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    end_with_the_parent();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        match kind {
            "poller" => poll(Arc::new(client)).await,
            "worker" => work(&client).await,
            "lock-set" => lock_set(&client, Rng::with_seed(seed)).await,
            _ => Err(format!("--kind {kind}: poller, worker or lock-set")),
        }
    })
}

/// The value behind a flag.
pub fn option<'a>(args: &'a [String], name: &str) -> Result<&'a str, String> {
    let at = args.iter().position(|a| a == name);
    at.and_then(|at| args.get(at + 1)).map(String::as_str).ok_or_else(|| format!("{name} VALUE is missing"))
}

/// A harness that was killed leaves no clients behind.
pub fn end_with_the_parent() {
    let parent = getppid();
    std::thread::spawn(move || {
        while getppid() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::process::exit(1);
    });
}

/// Asks whether answers come or not: a question to a daemon that is stopped is answered when it goes on.
///
/// What counts then are questions that were sent after others took over, and daemons answer in order. So few are sent while
/// none is answered, and with the first late answer, which says that the daemon goes on, a new one follows at once.
async fn poll(client: Arc<Client>) -> Result<(), String> {
    let (open, late) = (Arc::new(Semaphore::new(OPEN)), Arc::new(Notify::new()));
    // In turn: the token with its promise, and the probe, which anyone may read and which promises nothing.
    let paths = [format!("/v1/elections/{}/token", client.election), format!("/leader?election={}", client.election)];
    for path in paths.iter().cycle() {
        let permit = Arc::clone(&open).acquire_owned().await.map_err(|e| e.to_string())?;
        let (client, path, goes_on) = (Arc::clone(&client), path.clone(), Arc::clone(&late));
        tokio::spawn(async move {
            let ask = client.ask(&path).await;
            drop(permit);
            if ask.heard - ask.sent > LATE {
                goes_on.notify_one();
            }
        });
        let waiting = u32::try_from(OPEN - open.available_permits()).expect("a few");
        // A late answer cuts it short, and so does one that arrived before: either way it is time to ask.
        let _ = timeout(SELDOM.min(EVERY * 2_u32.saturating_pow(waiting.saturating_sub(1))), late.notified()).await;
    }
    Ok(())
}

/// Writes while its promise lasts, as the README tells an application to.
async fn work(client: &Client) -> Result<(), String> {
    loop {
        let Some(held) = client.token().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let prepared = u64::try_from(PREPARES.as_nanos()).expect("milliseconds");
        while now() + prepared < held.until {
            // A client that is stopped between here and its write is the zombie that fences are for.
            sleep(PREPARES).await;
            for register in [Register::Fenced, Register::Unfenced] {
                client.write(register, held.token, now(), BTreeSet::new(), None).await;
            }
            sleep(EVERY).await;
        }
    }
}

/// Jepsen's lock on a set: reads it, is paused for longer than any lease, and writes it back with one element more,
/// without a look at its promise.
async fn lock_set(client: &Client, mut rng: Rng) -> Result<(), String> {
    const PAIR: [Register; 2] = [Register::FencedSet, Register::UnfencedSet];
    loop {
        let Some(held) = client.token().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let attempt = now();
        let mut sets = Vec::new();
        for register in PAIR {
            sets.push(client.exchange(register, held.token, attempt, None).await);
        }
        let pause = if rng.u8(..4) == 0 { rng.u64(..100) } else { rng.u64(..LONGEST_PAUSE_MS) };
        sleep(Duration::from_millis(pause)).await;
        for (register, read) in PAIR.into_iter().zip(sets) {
            // Without a set that was read there is none to add to.
            let Some(Answer { accepted: true, mut set }) = read else { continue };
            let element = format!("{}:{attempt}", client.name);
            set.insert(element.clone());
            client.write(register, held.token, attempt, set, Some(element)).await;
        }
    }
}

impl Client {
    async fn token(&self) -> Option<Held> {
        let ask = self.ask(&format!("/v1/elections/{}/token", self.election)).await;
        Some(Held { token: ask.claim()?, until: ask.promised_until()? })
    }

    /// Asks and records.
    async fn ask(&self, path: &str) -> Ask {
        let sent = now();
        let answer = self.daemon.send_within(PATIENCE, request(Method::GET, path, hyper::body::Bytes::new())).await;
        let heard = now();
        let (status, json) = answer.map_or((0, None), |a| (a.status, serde_json::from_slice(&a.body).ok()));
        let json: serde_json::Value = json.unwrap_or_default();
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| json[key].as_u64());
        let leader = json["holder"].as_str().or_else(|| json["leader"]["id"].as_str()).map(str::to_owned);
        let leads = status == 200;
        let ask = Ask {
            election: self.election.clone(),
            daemon: self.id.clone(),
            sent,
            heard,
            status,
            leader,
            token: number(["token", "generation"]).filter(|_| leads),
            // The probe's document only repeats what token answers promised.
            valid_for_ms: json["token"].as_u64().and(json["valid_for_ms"].as_u64()).filter(|_| leads),
        };
        self.history.record(&Record::Ask(ask.clone()));
        ask
    }

    /// Writes and records.
    async fn write(
        &self,
        register: Register,
        token: u64,
        attempt: u64,
        value: BTreeSet<String>,
        element: Option<String>,
    ) {
        let sent = now();
        let answer = self.exchange(register, token, attempt, Some(value)).await;
        let outcome = match answer {
            Some(Answer { accepted: true, .. }) => Outcome::Accepted,
            Some(Answer { accepted: false, .. }) => Outcome::Refused,
            None => Outcome::Unknown,
        };
        let (election, client, heard) = (self.election.clone(), self.name.clone(), now());
        let write = Write { election, client, register, token, sent, heard, outcome, element };
        self.history.record(&Record::Write(write));
    }

    /// One request to the register; none for an outcome that is not known.
    async fn exchange(
        &self,
        register: Register,
        token: u64,
        attempt: u64,
        set: Option<BTreeSet<String>>,
    ) -> Option<Answer> {
        let (election, client) = (self.election.clone(), self.name.clone());
        let request = Request { election, register, client, token, attempt, set };
        let mut line = serde_json::to_vec(&request).expect("requests are JSON");
        line.push(b'\n');
        let exchange = async {
            let mut stream = TcpStream::connect(&self.register).await?;
            stream.write_all(&line).await?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).await?;
            Ok::<Answer, std::io::Error>(serde_json::from_str(&answer)?)
        };
        timeout(REGISTER_PATIENCE, exchange).await.ok()?.ok()
    }
}
