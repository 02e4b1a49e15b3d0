//! The demo's three daemons: this program, three times.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::client::{Client, Target};
use super::super::exit::Failure;
use super::super::output::cell;
use super::place::Place;
use super::view::{Actor, Scene, State};
use crate::clock;
use crate::config::effective_text;

const NAMES: [&str; 3] = ["demo-1", "demo-2", "demo-3"];
/// The one election.
pub const ELECTION: &str = "demo";
/// Short, so that a fail-over does not bore; not so short that a busy machine loses leaderships.
const TTL: &str = "3s";
/// A daemon on this machine answers at once or not at all.
const ANSWER: Duration = Duration::from_millis(300);
/// For the first of them to bind its listeners.
const READY: Duration = Duration::from_secs(10);
/// For handing over and revoking the leases, at the end.
const STOP: Duration = Duration::from_secs(5);

struct Candidate {
    name: &'static str,
    child: Child,
    config: PathBuf,
    ready: PathBuf,
    client: Client,
}

/// All three; what runs of them is killed with this value.
pub struct Candidates {
    all: Vec<Candidate>,
    program: PathBuf,
}

impl Candidates {
    pub fn start(place: &Place, etcd: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::failed(format!("own program: {e}")))?;
        let mut candidates = Self { all: Vec::new(), program };
        for name in NAMES {
            let socket = place.file(&format!("{name}.sock"));
            let config = place.write(&format!("{name}.yaml"), &config(name, etcd, &socket.to_string_lossy())?)?;
            let ready = place.file(&format!("{name}.ready"));
            let arguments: [OsString; 5] =
                ["run".into(), "-c".into(), config.clone().into(), "--ready-file".into(), ready.clone().into()];
            let child = place.spawn(name, &candidates.program, &arguments)?;
            let client = Client::new(Target::Unix(socket), None, ANSWER)?;
            candidates.all.push(Candidate { name, child, config, ready, client });
        }
        Ok(candidates)
    }

    /// What each of them is now.
    pub async fn look(&mut self) -> Scene {
        let ended: Vec<Option<String>> = self.all.iter_mut().map(Candidate::ended).collect();
        let looks = self.all.iter().zip(ended).map(|(candidate, ended)| candidate.look(ended, &self.program));
        Scene { actors: join_all(looks).await }
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        if let Some(candidate) = self.all.iter_mut().find(|c| c.name == name) {
            // It may have ended by itself meanwhile, which comes to the same.
            let _ = candidate.child.kill();
        }
    }

    /// Waits until the first one listens. If it never does, looking at it tells why.
    pub async fn ready(&self) {
        let began = clock::now();
        while self.all.first().is_some_and(|c| c.public().is_none()) && clock::now().since(began) < READY {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What there is to try.
    pub fn hints(&self) -> Vec<String> {
        let program = self.program.display();
        let Some(first) = self.all.first() else { return Vec::new() };
        let (control, pid) = (first.client.target(), first.child.id());
        let socket = control.to_string();
        let leader = first
            .public()
            .map(|at| format!("curl -i http://{at}/leader      # 200 from the leader, 503 from the others"));
        let mut hints = vec![
            format!("{program} status --watch --control {control}"),
            format!("{program} resign --control {control}      # or another's: 1, 2 or 3"),
            format!("{program} history --control {control}"),
            format!(
                "curl -s --unix-socket {} http://localhost/v1/elections/{ELECTION}/token",
                socket.trim_start_matches("unix:")
            ),
            format!("kill -9 {pid}      # {}; or kill -STOP, and later kill -CONT", first.name),
        ];
        hints.extend(leader);
        hints
    }

    /// SIGTERM to all, time to hand over, and SIGKILL to what is left.
    pub async fn stop(&mut self) {
        for candidate in &mut self.all {
            if candidate.ended().is_none() {
                candidate.signal(Signal::TERM);
                // One that was stopped for the fun of it must run to see the first.
                candidate.signal(Signal::CONT);
            }
        }
        let began = clock::now();
        while clock::now().since(began) < STOP && self.all.iter_mut().any(|c| c.ended().is_none()) {
            sleep(Duration::from_millis(20)).await;
        }
        self.kill_all();
    }

    fn kill_all(&mut self) {
        for candidate in &mut self.all {
            let _ = candidate.child.kill();
            let _ = candidate.child.wait();
        }
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        self.kill_all();
    }
}

impl Candidate {
    /// How it ended, if it did.
    fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already: then there is nobody to tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// The address of its public listener, once it has one.
    fn public(&self) -> Option<String> {
        let ready: Value = serde_json::from_slice(&std::fs::read(&self.ready).ok()?).ok()?;
        ready.get("public")?.as_str().map(str::to_owned)
    }

    async fn look(&self, ended: Option<String>, program: &std::path::Path) -> Actor {
        let path = format!("/v1/elections/{ELECTION}");
        let answer = self.client.get(&path, ANSWER).await.ok().filter(|a| a.status.is_success()).map(|a| a.body);
        // One that was started again is another process, and whoever started it knows which.
        let pid = if answer.is_some() && ended.is_some() { 0 } else { self.child.id() };
        let state = match (&answer, ended) {
            // Whoever answers lives: someone may have started it again.
            (Some(body), _) if cell(body, "/role") == "leader" => State::Leads,
            (Some(body), _) => State::Waits { role: cell(body, "/role"), queue: cell(body, "/queue_position") },
            (None, Some(how)) => {
                let again = format!("{} run -c {}", program.display(), self.config.display());
                State::Ended { how, again }
            }
            (None, None) if self.ready.exists() => State::Silent,
            (None, None) => State::Starts,
        };
        let token = answer.as_ref().and_then(|b| b.get("generation")).and_then(Value::as_u64).unwrap_or(0);
        Actor { name: self.name.to_owned(), pid, token, state }
    }
}

fn config(name: &str, etcd: &str, socket: &str) -> Result<String, Failure> {
    let config = json!({
        "id": name,
        "elections": [ELECTION],
        "etcd": {"endpoints": [etcd]},
        "session": {"ttl": TTL},
        "http": {"public": "127.0.0.1:0", "control": format!("unix:{socket}")},
    });
    effective_text(&config).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    #[test]
    fn the_generated_configuration_is_right_wherever_the_directory_lies() {
        let dir = tempfile::tempdir().expect("a directory");
        for socket in ["/tmp/x/demo-1.sock", "/tmp/a b: #${HOME}/'\"/demo-1.sock"] {
            let file = dir.path().join("demo-1.yaml");
            std::fs::write(&file, config("demo-1", "http://127.0.0.1:1234", socket).expect("YAML")).expect("the file");
            let (config, warnings) = config::load(Some(&file), &Overrides::default()).expect("right");
            assert_eq!(config.http.control, [config::Listen::Unix(socket.into())]);
            assert!(warnings.is_empty());
        }
    }
}
