//! One etcd process: started, stopped, frozen, killed, and asked how it is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::http::{Target, request};
use super::logs::Logs;
use super::{Certs, Endpoints, eventually_within};

/// A member answers within a second or two of its start; on two busy cores, a cluster of three takes a few.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// A question to the member's own status port; longer means that it is frozen or gone.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// What all members of one cluster are started with.
#[derive(Debug)]
pub struct Common {
    /// The directory of etcd, etcdctl and, from 3.5 on, etcdutl.
    pub bin: PathBuf,
    /// `m0=http://127.0.0.1:12001,…`
    pub initial_cluster: String,
    pub tls: Option<Certs>,
    /// Whether clients need a certificate too.
    pub client_auth: bool,
    pub args: Vec<String>,
}

/// The three ports of a member.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub client: u16,
    pub peer: u16,
    /// Plain HTTP whatever the client port speaks, so that health and metrics need neither certificate nor password.
    pub status: u16,
}

/// A handle to one member; the process ends with it.
pub struct Member {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    ports: Ports,
    /// Where the others find its peer port: a proxy's, where there is one.
    advertised: u16,
    scheme: &'static str,
    log: String,
    /// None while killed.
    child: Mutex<Option<Child>>,
}

impl Member {
    pub(super) fn new(index: usize, ports: Ports, advertised: u16, dir: &Path, tls: bool) -> Self {
        let name = format!("m{index}");
        Self {
            data_dir: dir.join(&name),
            log: format!("{name}.log"),
            name,
            ports,
            advertised,
            scheme: if tls { "https" } else { "http" },
            child: Mutex::new(None),
        }
    }

    /// The URL that clients use.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports.client)
    }

    /// As the other members know it.
    pub(super) fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.advertised)
    }

    /// Freezes the process: its sockets stay open, connections are still accepted by the kernel, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Member::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    pub(super) fn spawn(&self, common: &Common, logs: &Logs) {
        let mut command = Command::new(common.bin.join("etcd"));
        // etcd takes flags from ETCD_* as well: none of ours may leak in.
        command.env_clear().args(self.args(common)).stdin(Stdio::null());
        command.stdout(logs.append(&self.log)).stderr(logs.append(&self.log));
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let earlier = self.child().replace(child);
        assert!(earlier.is_none(), "{} was started twice", self.name);
    }

    /// The exit status and the end of the log, if the process has ended by itself.
    pub(super) fn ended(&self, logs: &Logs) -> Option<String> {
        let status = self.child().as_mut()?.try_wait().expect("our own child can be waited for")?;
        Some(format!("{} ended with {status}:\n{}", self.name, logs.tail(&self.log)))
    }

    /// Waits until the member says that it is healthy, which takes a leader and a quorum.
    pub(super) async fn healthy(&self, logs: &Logs) -> Result<(), String> {
        let what = format!("{} healthy (log: {})", self.name, logs.path().display());
        eventually_within(&what, HEALTHY_WITHIN, async || match self.ended(logs) {
            // Found out early: there is no point in waiting for a process that is gone.
            Some(ended) => Ok(Err(ended)),
            None => match self.status("/health").await {
                Some(text) if text.contains(r#""health":"true""#) => Ok(Ok(())),
                answer => Err(answer),
            },
        })
        .await
    }

    /// Does this member take itself for the leader of the cluster? A frozen or dead one does not say so.
    pub async fn is_leader(&self) -> bool {
        let metrics = self.status("/metrics").await.unwrap_or_default();
        metrics.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    /// The body that the status port answers with 200.
    pub async fn status(&self, path: &str) -> Option<String> {
        let target = Target::Tcp(format!("127.0.0.1:{}", self.ports.status));
        let request = request(hyper::Method::GET, path, hyper::body::Bytes::new());
        let answer = target.send_within(STATUS_TIMEOUT, request).await.ok()?;
        (answer.status == 200).then(|| answer.text())
    }

    fn args(&self, common: &Common) -> Vec<String> {
        let (client, peer) = (self.endpoint(), self.peer_url());
        let listen_peer = format!("http://127.0.0.1:{}", self.ports.peer);
        let mut args: Vec<String> = [
            "--name",
            &self.name,
            "--data-dir",
            &self.data_dir.display().to_string(),
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &listen_peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &common.initial_cluster,
            "--listen-metrics-urls",
            &format!("http://127.0.0.1:{}", self.ports.status),
            "--heartbeat-interval",
            "100",
            "--election-timeout",
            "1000",
            "--logger",
            "zap",
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(certs) = &common.tls {
            let mut files = vec![("--cert-file", &certs.server_cert), ("--key-file", &certs.server_key)];
            if common.client_auth {
                files.push(("--trusted-ca-file", &certs.ca));
                args.push("--client-cert-auth".to_owned());
            }
            for (flag, file) in files {
                args.extend([flag.to_owned(), file.display().to_string()]);
            }
        }
        args.extend(common.args.iter().cloned());
        args
    }

    fn signal(&self, signal: Signal) {
        let child = self.child();
        let child = child.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name));
        // The handle has not been waited for, so the number still means our process.
        kill_process(Pid::from_child(child), signal).expect("our own child takes signals");
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic elsewhere must not keep `drop` from ending the process.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoints for Member {
    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            // It may have ended by itself; either way nothing is left to do here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Did the member end because somebody else has its port? Then others are worth a try.
pub(super) fn lost_its_port(ended: &str) -> bool {
    ended.contains("address already in use")
}
