//! `etcdctl elect`: etcd's own election recipe, as other people's software runs it.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use super::{DEADLINE, Etcd};

/// A running `etcdctl elect`; it is killed when the handle is dropped.
pub struct Elect {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A leader that it showed.
#[derive(Clone, Debug)]
pub struct Shown {
    pub key: String,
    pub value: String,
}

impl Shown {
    /// The generation that the value carries.
    pub fn generation(&self) -> Option<u64> {
        serde_json::from_str::<Value>(&self.value).ok()?["generation"].as_u64()
    }

    /// The id that the value carries.
    pub fn id(&self) -> Option<String> {
        Some(serde_json::from_str::<Value>(&self.value).ok()?["id"].as_str()?.to_owned())
    }
}

impl Elect {
    /// `elect --listen`: shows every leader of an election, given by its prefix.
    pub fn listen(etcd: &Etcd, election: &str) -> Self {
        Self::run(etcd, &["elect", "--listen", election])
    }

    /// `elect`: a candidate with this value, which shows itself once it leads.
    pub fn candidate(etcd: &Etcd, election: &str, value: &str) -> Self {
        Self::run(etcd, &["elect", election, value])
    }

    fn run(etcd: &Etcd, args: &[&str]) -> Self {
        let mut command = etcd.ctl_command(args);
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("etcdctl starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// The next leader that it shows.
    pub async fn next(&mut self) -> Shown {
        let (key, value) = (self.line().await, self.line().await);
        Shown { key, value }
    }

    /// The next leader that it shows with a generation, past our candidates that have not got theirs yet.
    pub async fn next_generation(&mut self) -> (Shown, u64) {
        loop {
            let shown = self.next().await;
            if let Some(generation) = shown.generation() {
                return (shown, generation);
            }
        }
    }

    /// Ends a candidacy as Ctrl-C does: it resigns.
    pub async fn resign(mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, Signal::INT).expect("our own child takes signals");
        timeout(DEADLINE, self.child.wait()).await.expect("etcdctl ends").expect("our own child can be waited for");
    }

    async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("etcdctl elect showed nothing within {DEADLINE:?}"));
        line.expect("text").expect("etcdctl elect goes on")
    }
}
