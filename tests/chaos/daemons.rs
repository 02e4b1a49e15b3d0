//! The daemons under test, and who asks them: the clients in the same namespaces, and the register that they write to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::members::{APP, Cluster, Member};
use super::net::Node;
use super::place::Place;
use super::sys::{Context, Done, Peer, Proc, until};

pub const ELECTION: &str = "orders";

/// Where a daemon's control listener is for the clients in its namespace.
const CONTROL: &str = "127.0.0.1:4791";
const REGISTER_PORT: u16 = 7000;
/// The grace on the oldest etcd: a TTL and 5 %.
pub const GRACE_MS: u64 = 2_100;
pub const DAEMONS: usize = 5;
/// Of each daemon.
const CLIENTS: [&str; 3] = ["poller", "worker", "lock-set"];

pub struct Daemon {
    pub node: Node,
    dir: PathBuf,
    log: PathBuf,
    process: Option<Proc>,
}

/// The clients of one daemon.
pub struct Crew(Vec<Proc>);

impl Daemon {
    /// Its configuration, with a memory of its own that survives restarts.
    pub fn new(node: &Node, cluster: &Cluster, epoch: &str, place: &Place, logs: &Path) -> Done<Self> {
        let members: Vec<_> = cluster.members.iter().map(Member::client_url).collect();
        let grace = format!("{}ms", if cluster.grace() { GRACE_MS } else { 0 });
        let dir = place.dir.join(format!("{epoch}-{}", node.name));
        fs::create_dir_all(dir.join("state")).context(|| dir.display().to_string())?;
        let path = |name: &str| dir.join(name).display().to_string();
        let config = json!({
            "id": node.name,
            "elections": [ELECTION],
            "etcd": {
                "endpoints": members,
                "username": APP.0,
                "password_file": path("password"),
                "connect_timeout": "1s",
                "request_timeout": "1s",
            },
            "session": {"ttl": "2s", "promise": "500ms", "vacancy_grace": grace},
            "http": {"public": "127.0.0.1:4790", "control": [format!("unix:{}", path("control.sock")), CONTROL]},
            "state_dir": path("state"),
            "audit": {"file": path("audit.jsonl")},
        });
        fs::write(dir.join("password"), APP.1).context(|| path("password"))?;
        // A JSON tree is YAML.
        fs::write(dir.join("config.yaml"), config.to_string()).context(|| path("config.yaml"))?;
        let log = logs.join(format!("{epoch}-{}.log", node.name));
        Ok(Self { node: node.clone(), dir, log, process: None })
    }

    /// Starts it and waits until its listeners are bound.
    pub fn start(&mut self, place: &Place) -> Done {
        let ready = self.dir.join("ready.json");
        let _ = fs::remove_file(&ready);
        let mut command = self.node.command(env!("CARGO_BIN_EXE_tenure"));
        command.args(["run", "-c"]).arg(self.dir.join("config.yaml")).arg("--ready-file").arg(&ready);
        let mut process = Proc::spawn(&self.node.name, &mut command, &self.log)?;
        place.remember(process.id())?;
        until(&format!("{} is ready", self.node.name), Duration::from_secs(20), || match process.ended() {
            Some(status) => Some(Err(format!("ended with {status} (log: {})", self.log.display()))),
            None => ready.exists().then_some(Ok(())),
        })??;
        self.process = Some(process);
        Ok(())
    }

    pub fn signal(&mut self, signal: Signal) -> Done {
        self.process.as_mut().map_or_else(|| Err(format!("{} does not run", self.node.name)), |p| p.signal(signal))
    }

    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Waits until it has ended after a SIGTERM; what it ended with.
    pub fn wait_exit(&mut self, limit: Duration) -> Done<String> {
        let Some(process) = self.process.take() else { return Err(format!("{} does not run", self.node.name)) };
        let status = process.wait(limit)?;
        if status.code().is_none_or(|code| code == 101) {
            return Err(format!("{} ended with {status} (log: {})", self.node.name, self.log.display()));
        }
        Ok(status.to_string())
    }

    /// What it did that no daemon may do, whatever was done to it.
    pub fn misbehaved(&mut self) -> Option<String> {
        if let Some(status) = self.process.as_mut().and_then(Proc::ended) {
            return Some(format!("{} ended by itself: {status} (log: {})", self.node.name, self.log.display()));
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("panicked"))?;
        Some(format!("{} panicked: {line}", self.node.name))
    }

    pub fn ask(&self, method: &str, path: &str, body: &str, limit: Duration) -> Done<(u16, Value)> {
        Peer::Unix(self.dir.join("control.sock")).ask(method, path, body, limit)
    }

    pub fn status(&self) -> Option<Value> {
        let path = format!("/v1/elections/{ELECTION}");
        let (code, document) = self.ask("GET", &path, "", Duration::from_millis(300)).ok()?;
        (code == 200).then_some(document)
    }

    /// The lease of its session, in hex, as etcdctl wants it.
    pub fn lease(&self) -> Option<String> {
        self.status()?["session"]["lease"].as_str().map(str::to_owned)
    }

    /// Steps down in favour of the next in the queue; the status code.
    pub fn resign(&self) -> Done<u16> {
        let path = format!("/v1/elections/{ELECTION}/resign");
        self.ask("POST", &path, "{}", Duration::from_secs(6)).map(|(code, _)| code)
    }

    pub fn audit(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }
}

impl Crew {
    /// One client of each kind beside the daemon.
    pub fn start(
        node: &Node,
        register: &Node,
        epoch: &str,
        place: &Place,
        history: &Path,
        rng: &mut Rng,
    ) -> Done<Self> {
        let start = |kind: &&str| {
            let name = format!("{epoch}-{}-{kind}", node.name);
            let mut command = node.command(std::env::current_exe().context(|| "our own binary".to_owned())?);
            command.args(["client", "--daemon", &format!("http://{CONTROL}"), "--id", &node.name, "--kind", kind]);
            command.args(["--seed", &rng.u64(..).to_string(), "--register"]);
            command.arg(format!("{}:{REGISTER_PORT}", register.address()));
            command.arg("--history").arg(history.join(format!("{name}.jsonl")));
            let process = Proc::spawn(&name, &mut command, &history.join("logs").join(format!("{name}.log")))?;
            place.remember(process.id())?;
            Ok(process)
        };
        CLIENTS.iter().map(start).collect::<Done<_>>().map(Self)
    }

    /// SIGTERM, and what it leaves behind is written.
    pub fn stop(mut self) -> Done {
        self.signal(Signal::TERM)?;
        self.0.into_iter().try_for_each(|client| client.wait(Duration::from_secs(5)).map(|_| ()))
    }

    pub fn signal(&mut self, signal: Signal) -> Done {
        self.0.iter_mut().try_for_each(|client| client.signal(signal))
    }

    /// A client that ended is a fault of this suite, not of the daemon.
    pub fn ended(&mut self) -> Option<String> {
        self.0.iter_mut().find_map(|client| client.ended().map(|status| format!("{} ended: {status}", client.name)))
    }
}

/// The storage that the clients write to.
pub fn start_register(node: &Node, epoch: &str, place: &Place, history: &Path) -> Done<Proc> {
    let mut command = node.command(std::env::current_exe().context(|| "our own binary".to_owned())?);
    let name = format!("{epoch}-register");
    command.args(["register", "--listen", &format!("{}:{REGISTER_PORT}", node.address()), "--history"]);
    command.arg(history.join(format!("{name}.jsonl")));
    let process = Proc::spawn(&name, &mut command, &history.join("logs").join(format!("{name}.log")))?;
    place.remember(process.id())?;
    Ok(process)
}
