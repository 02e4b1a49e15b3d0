//! The real daemon, as its users run it: a config file, two listeners, signals.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::http::{Answer, Failed, Target};
use super::logs::{Logs, scratch};
use super::{Endpoints, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_tenure");

/// For one run of the command line.
const CLI_TIMEOUT: Duration = Duration::from_secs(30);

/// Ids without a wish of their own: `pod-0`, `pod-1`, …
static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

/// A running daemon; the process is killed when the handle is dropped.
pub struct Daemon {
    id: String,
    election: String,
    public: Target,
    control: Target,
    config: PathBuf,
    child: Mutex<Child>,
    logs: Logs,
    _dir: TempDir,
}

/// What to start; made by [`Daemon::builder`].
pub struct DaemonBuilder {
    id: String,
    elections: Vec<String>,
    config: Value,
    env: Vec<(String, String)>,
    shell: Option<String>,
    dir: TempDir,
}

impl Daemon {
    /// A candidate for `orders` with an id of its own.
    pub async fn start(etcd: &(impl Endpoints + ?Sized)) -> Self {
        let id = format!("pod-{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
        Self::builder(&id, etcd).start().await
    }

    /// Any other candidate.
    pub fn builder(id: &str, etcd: &(impl Endpoints + ?Sized)) -> DaemonBuilder {
        let dir = scratch("tenure-daemon");
        let config = json!({
            "id": id,
            "elections": ["orders"],
            "etcd": {"endpoints": etcd.endpoints()},
            "session": {"ttl": "5s"},
            "http": {"public": "127.0.0.1:0", "control": format!("unix:{}", dir.path().join("control.sock").display())},
        });
        DaemonBuilder {
            id: id.to_owned(),
            elections: vec!["orders".to_owned()],
            config,
            env: Vec::new(),
            shell: None,
            dir,
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public listener.
    pub fn public(&self) -> &Target {
        &self.public
    }

    /// The control socket.
    pub fn control(&self) -> &Target {
        &self.control
    }

    /// The file it runs with, for the command line's `-c`.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// GET from the public listener.
    pub async fn get(&self, path: &str) -> Result<Answer, Failed> {
        self.public.get(path).await
    }

    /// Asks the gate as a client that brings a token.
    pub async fn gate_with(&self, token: u64) -> u16 {
        self.public.get_with("/gate", "fencing-token", &token.to_string()).await.expect("an answer").status
    }

    /// POST to the control socket.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failed> {
        self.control.post(path, body).await
    }

    /// A verb of the first election: `verb("resign", &json!({}))`.
    pub async fn verb(&self, verb: &str, body: &Value) -> Result<Answer, Failed> {
        self.post(&format!("/v1/elections/{}/{verb}", self.election), body).await
    }

    /// The status code of a probe such as `/leader`; None if there was no answer.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        self.get(path).await.ok().map(|answer| answer.status)
    }

    pub async fn leader_status(&self) -> Option<u16> {
        self.probe("/leader").await
    }

    pub async fn is_leader(&self) -> bool {
        self.leader_status().await == Some(200)
    }

    /// The fencing token, while this daemon leads.
    pub async fn token(&self) -> Option<u64> {
        let answer = self.control.get(&format!("/v1/elections/{}/token", self.election)).await.ok()?;
        (answer.status == 200).then(|| answer.json()["token"].as_u64().expect("a token is a u64"))
    }

    /// The status document of the first election.
    pub async fn status(&self) -> Option<Value> {
        let answer = self.get(&format!("/v1/elections/{}", self.election)).await.ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// The audit log of this daemon, newest first.
    pub async fn transitions(&self) -> Vec<Value> {
        let path = format!("/v1/elections/{}/transitions?limit=1000", self.election);
        let answer = self.control.get(&path).await.expect("the control socket answers");
        answer.json()["transitions"].as_array().expect("a list").clone()
    }

    /// The newest transition that matches, once there is one.
    pub async fn transition(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.transitions().await.into_iter().find(|line| matches(line))).await
    }

    /// The time of the newest transition to leader; RFC 3339 in UTC with fixed digits sorts as text.
    pub async fn elected_at(&self) -> String {
        time(&self.transition("an election", |line| line["to"] == "leader").await)
    }

    /// The time of the newest transition away from leader.
    pub async fn stepped_down_at(&self) -> String {
        time(&self.transition("a step-down", |line| line["from"] == "leader").await)
    }

    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn sigkill(&self) {
        let mut child = self.child();
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_exit(&self) -> ExitStatus {
        eventually("the daemon exits", async || self.ended()).await
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Standard output and standard error so far.
    pub fn logs(&self) -> String {
        self.logs.read("out") + &self.logs.read("err")
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("our own child can be waited for")
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // A child that has been waited for is gone, and its number may be another's.
        let ended = child.try_wait().expect("our own child can be waited for");
        assert!(ended.is_none(), "{} has ended: {ended:?}", self.id);
        kill_process(Pid::from_child(&child), signal).expect("our own child takes signals");
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic elsewhere must not keep `drop` from ending the process.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut child = self.child();
        // It may have ended by itself; either way nothing is left to do here.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl DaemonBuilder {
    #[must_use]
    pub fn elections(mut self, names: &[&str]) -> Self {
        self.elections = names.iter().map(ToString::to_string).collect();
        self.set("elections", names)
    }

    #[must_use]
    pub fn ttl(self, ttl: &str) -> Self {
        self.set("session.ttl", ttl)
    }

    #[must_use]
    pub fn promise(self, promise: &str) -> Self {
        self.set("session.promise", promise)
    }

    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        self.set("etcd.prefix", prefix)
    }

    #[must_use]
    pub fn state_dir(self, dir: &Path) -> Self {
        self.set("state_dir", dir.display().to_string())
    }

    /// Any key, with its path: `set("session.slack", "100ms")`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let tree = path.rsplit('.').fold(value.into(), |value, key| {
            Value::Object(Map::from_iter([(key.to_owned(), value)])) //
        });
        merge(&mut self.config, tree);
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// A line of shell that becomes the daemon: `umask 077; exec "$@"`.
    #[must_use]
    pub fn shell(mut self, line: impl Into<String>) -> Self {
        self.shell = Some(line.into());
        self
    }

    /// Any part of a config file, laid over what is there.
    #[must_use]
    pub fn yaml(mut self, text: &str) -> Self {
        let tree = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        merge(&mut self.config, tree);
        self
    }

    /// Starts it and waits until its listeners are bound.
    ///
    /// # Panics
    /// If it exits instead, with what it wrote.
    pub async fn start(self) -> Daemon {
        let (config, ready) = (self.dir.path().join("config.yaml"), self.dir.path().join("ready.json"));
        let text = serde_yaml::to_string(&self.config).expect("a JSON tree is YAML");
        std::fs::write(&config, text).expect("the directory is ours");
        let logs = Logs::new(&format!("tenure-{}", self.id));
        let mut command = Command::new(if self.shell.is_some() { "sh" } else { BINARY });
        if let Some(line) = &self.shell {
            command.args(["-c", line, "sh", BINARY]);
        }
        command.args(["run", "-c"]).arg(&config).arg("--ready-file").arg(&ready);
        command.envs(self.env);
        command.stdin(Stdio::null()).stdout(logs.append("out")).stderr(logs.append("err"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let listeners = eventually(&format!("{} is ready (log: {})", self.id, logs.path().display()), async || {
            // Found out early: there is no point in waiting for a process that is gone.
            let ended = child.try_wait().expect("our own child can be waited for");
            assert!(ended.is_none(), "{} ended with {ended:?}: {}{}", self.id, logs.tail("out"), logs.tail("err"));
            let text = std::fs::read(&ready).ok()?;
            Some(serde_json::from_slice::<Value>(&text).expect("the ready file is written whole"))
        })
        .await;
        let address = |value: &Value| Target::parse(value.as_str().expect("an address is a string"));
        Daemon {
            id: self.id,
            election: self.elections.into_iter().next().expect("a daemon has an election"),
            public: address(&listeners["public"]),
            control: address(&listeners["control"][0]),
            config,
            child: Mutex::new(child),
            logs,
            _dir: self.dir,
        }
    }
}

/// Runs the command line to its end: `tenure(&["config", "check", "file"])`.
pub async fn tenure(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CLI_TIMEOUT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("tenure {args:?} did not end within {CLI_TIMEOUT:?}"));
    output.unwrap_or_else(|error| panic!("tenure {args:?}: {error}"))
}

fn time(transition: &Value) -> String {
    transition["time"].as_str().expect("a transition has its time").to_owned()
}

/// Lays `over` on `base`: maps are merged, everything else is replaced.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}
