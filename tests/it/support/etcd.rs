//! The real etcd, of the version asked for.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::logs::{Logs, scratch};
use super::member::{Common, Member, Ports, lost_its_port};
use super::peers::Peers;
use super::{Certs, Endpoints, eventually, free_port};

/// For one run of etcdctl; its own limits are longer than a test's patience.
const CTL_TIMEOUT: Duration = Duration::from_secs(20);

/// Ports are lost to other processes now and then, never five times in a row.
const STARTS: usize = 5;

/// What `root` signs in with once [`Etcd::enable_auth`] has run.
const ROOT: &str = "root:root-secret";

/// A running server or cluster, which ends with this handle.
pub struct Etcd {
    series: String,
    common: Common,
    // The order matters: members end before their directories go.
    members: Vec<Member>,
    /// What stands between the members, where something does.
    peers: Option<Peers>,
    logs: Logs,
    dir: TempDir,
    /// Set once authentication is on.
    root: Option<&'static str>,
}

/// What to start; made by [`Etcd::builder`].
pub struct EtcdBuilder {
    series: String,
    members: usize,
    tls: bool,
    /// Instead of certificates that are made for it.
    files: Option<Certs>,
    client_auth: bool,
    starvable: bool,
    args: Vec<String>,
}

impl Etcd {
    /// One server of the version that `TENURE_TEST_ETCD` names, 3.7 without it.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// One server of `series`: `"3.4"`, `"3.5"`, `"3.6"` or `"3.7"`.
    pub async fn start_version(series: &str) -> Self {
        Self::builder().version(series).start().await
    }

    /// Several members.
    pub async fn cluster(members: usize) -> Self {
        Self::builder().members(members).start().await
    }

    /// Everything else: TLS, further flags.
    pub fn builder() -> EtcdBuilder {
        let series = std::env::var("TENURE_TEST_ETCD").unwrap_or_else(|_| "3.7".to_owned());
        let (tls, client_auth, starvable) = (false, true, false);
        EtcdBuilder { series, members: 1, tls, files: None, client_auth, starvable, args: Vec::new() }
    }

    /// The URL of the first member.
    pub fn endpoint(&self) -> String {
        self.members[0].endpoint()
    }

    /// The series that runs, such as `3.7`.
    pub fn version(&self) -> &str {
        &self.series
    }

    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The files for a TLS client, if this one was started with TLS.
    pub fn certs(&self) -> Option<&Certs> {
        self.common.tls.as_ref()
    }

    /// What etcd made for itself with [`EtcdBuilder::auto_tls`].
    pub fn auto_certificate(&self) -> PathBuf {
        self.members[0].data_dir.join("fixtures/client/cert.pem")
    }

    /// Freezes every member, see [`Member::pause`].
    pub fn pause(&self) {
        self.members.iter().for_each(Member::pause);
    }

    /// Ends [`Etcd::pause`].
    pub fn resume(&self) {
        self.members.iter().for_each(Member::resume);
    }

    /// SIGKILL to every member.
    pub fn kill(&self) {
        self.members.iter().for_each(Member::kill);
    }

    /// Kills what runs and starts it again on the same ports and data; waits until it is healthy.
    pub async fn restart(&self) {
        self.kill();
        self.run().await;
    }

    /// Starts one killed member again; waits until it is healthy.
    pub async fn restart_member(&self, index: usize) {
        let member = &self.members[index];
        member.kill();
        member.spawn(&self.common, &self.logs);
        member.healthy(&self.logs).await.unwrap_or_else(|ended| panic!("{ended}"));
    }

    /// The same cluster, with the same `cluster_id`, and nothing in it: what an operator's `rm -r` leaves behind.
    pub async fn wipe_and_restart(&mut self) {
        self.kill();
        for member in &self.members {
            remove(&member.data_dir);
        }
        self.root = None;
        self.run().await;
    }

    /// Saves a snapshot of the first member.
    pub async fn snapshot_save(&self, path: &Path) {
        let file = path.display().to_string();
        // A snapshot is asked of exactly one endpoint.
        let output = self.output(&[self.endpoint()], &["snapshot", "save", &file]).await;
        succeed("etcdctl snapshot save", &output);
    }

    /// Puts every member back to a snapshot, as the disaster recovery guide tells an operator to.
    pub async fn restore_and_restart(&self, snapshot: &Path) {
        self.restore_with(snapshot, &[]).await;
    }

    /// [`Etcd::restore_and_restart`] with flags such as `--bump-revision` (from 3.6 and the later 3.5 on).
    pub async fn restore_with(&self, snapshot: &Path, flags: &[&str]) {
        self.kill();
        // https://etcd.io/docs/v3.6/op-guide/recovery/: etcdutl from 3.5 on, and in 3.6 nothing else can.
        let tool = if self.series == "3.4" { "etcdctl" } else { "etcdutl" };
        for member in &self.members {
            remove(&member.data_dir);
            let mut command = self.tool(tool);
            command.args(["snapshot", "restore"]).arg(snapshot).args(["--name", &member.name]);
            command.arg("--data-dir").arg(&member.data_dir);
            command.args(["--initial-cluster", &self.common.initial_cluster]);
            command.args(["--initial-advertise-peer-urls", &member.peer_url()]).args(flags);
            succeed(&format!("{tool} snapshot restore"), &bounded(&mut command).await);
        }
        self.run().await;
    }

    /// Runs etcdctl and returns what it printed.
    ///
    /// # Panics
    /// If it fails; see [`Etcd::try_ctl`].
    pub async fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).await.unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    /// Runs etcdctl; the error is what it said on its standard error.
    pub async fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let output = self.output(&self.endpoints(), args).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// An etcdctl to spawn and to talk with, such as `elect --listen`; it is killed when its handle is dropped.
    pub fn ctl_command(&self, args: &[&str]) -> Command {
        self.ctl_command_through(self, args)
    }

    /// [`Etcd::ctl_command`] by way of a link or one member. (A second `--endpoints` would add, not replace.)
    pub fn ctl_command_through(&self, endpoints: &impl Endpoints, args: &[&str]) -> Command {
        self.etcdctl(&endpoints.endpoints(), args)
    }

    /// Which member leads; waits while there is none.
    pub async fn leader_index(&self) -> usize {
        eventually("an etcd leader", async || {
            for (index, member) in self.members.iter().enumerate() {
                if member.is_leader().await {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// Makes another member etcd's leader, if this one is.
    pub async fn depose(&self, index: usize) {
        if self.leader_index().await != index {
            return;
        }
        let id = self.member_id((index + 1) % self.members.len()).await;
        let moved = self.ctl_command_through(self.member(index), &["move-leader", &id]).output().await;
        assert!(moved.expect("etcdctl runs").status.success());
        eventually("another leads", async || self.leader_index().await != index).await;
    }

    /// From now on this member hears its leader and gets no entries: it answers from memory, and applies nothing. `None` ends
    /// that. Takes [`EtcdBuilder::starvable`]; the member must not be etcd's leader.
    pub async fn starve(&self, index: Option<usize>) {
        let id = match index {
            Some(index) => Some(self.member_id(index).await),
            None => None,
        };
        self.peers.as_ref().expect("a cluster that is starvable").starve(id);
    }

    /// Runs etcdctl on one member; what it printed.
    pub async fn ctl_through(&self, member: usize, args: &[&str]) -> String {
        let output = self.output(&self.member(member).endpoints(), args).await;
        succeed(&format!("etcdctl {args:?}"), &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As etcd writes it: hexadecimal.
    async fn member_id(&self, index: usize) -> String {
        let name = format!("m{index}");
        let members = self.ctl(&["member", "list"]).await;
        // `ID, started, NAME, …`
        let mut lines = members.lines().map(|line| line.split(", ").collect::<Vec<_>>());
        lines.find_map(|fields| (fields[2] == name).then(|| fields[0].to_owned())).expect("it is a member")
    }

    /// Turns authentication on: `root` for [`Etcd::ctl`], and `user` with `password`, who may read and write all keys
    /// from `prefix` on.
    pub async fn enable_auth(&mut self, user: &str, password: &str, prefix: &str) {
        self.enable_auth_with(user, password, &[("readwrite", prefix, true)]).await;
    }

    /// [`Etcd::enable_auth`] with exactly these grants: `read`, `write` or `readwrite`, a key, and whether it is a prefix.
    pub async fn enable_auth_with(&mut self, user: &str, password: &str, grants: &[(&str, &str, bool)]) {
        let account = format!("{user}:{password}");
        // 3.4 wants the root role made by hand; later versions have it already and say so.
        let _ = self.try_ctl(&["role", "add", "root"]).await;
        self.ctl(&["user", "add", ROOT]).await;
        self.ctl(&["user", "grant-role", "root", "root"]).await;
        self.ctl(&["role", "add", "tests"]).await;
        for (kind, key, prefix) in grants {
            let prefix = format!("--prefix={prefix}");
            self.ctl(&["role", "grant-permission", &prefix, "tests", kind, key]).await;
        }
        self.ctl(&["user", "add", &account]).await;
        self.ctl(&["user", "grant-role", user, "tests"]).await;
        self.ctl(&["auth", "enable"]).await;
        self.root = Some(ROOT);
    }

    /// Starts every member and waits for all.
    async fn run(&self) {
        self.try_run().await.unwrap_or_else(|ended| panic!("{ended}"));
    }

    async fn try_run(&self) -> Result<(), String> {
        for member in &self.members {
            member.spawn(&self.common, &self.logs);
        }
        for member in &self.members {
            member.healthy(&self.logs).await?;
        }
        Ok(())
    }

    async fn output(&self, endpoints: &[String], args: &[&str]) -> Output {
        bounded(&mut self.etcdctl(endpoints, args)).await
    }

    fn etcdctl(&self, endpoints: &[String], args: &[&str]) -> Command {
        let mut command = self.tool("etcdctl");
        command.arg("--endpoints").arg(endpoints.join(","));
        if let Some(certs) = &self.common.tls {
            command.arg("--cacert").arg(&certs.ca);
            command.arg("--cert").arg(&certs.client_cert).arg("--key").arg(&certs.client_key);
        }
        if let Some(root) = self.root {
            command.args(["--user", root]);
        }
        command.args(args);
        command
    }

    /// etcd itself or one of its tools, to be given its arguments; it is killed when its handle is dropped.
    pub fn command(&self, name: &str) -> Command {
        self.tool(name)
    }

    /// `m0=http://127.0.0.1:12001,…`
    pub fn initial_cluster(&self) -> &str {
        &self.common.initial_cluster
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.common.bin.join(name));
        // 3.4 still knows the old interface, and 3.6 warns about the variable.
        command.env_clear().kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.series == "3.4" {
            command.env("ETCDCTL_API", "3");
        }
        command
    }
}

impl EtcdBuilder {
    #[must_use]
    pub fn version(mut self, series: &str) -> Self {
        series.clone_into(&mut self.series);
        self
    }

    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// Clients then need a certificate of [`Etcd::certs`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// As [`EtcdBuilder::tls`], but clients need no certificate.
    #[must_use]
    pub fn server_tls(mut self) -> Self {
        (self.tls, self.client_auth) = (true, false);
        self
    }

    /// As [`EtcdBuilder::tls`], with these files.
    #[must_use]
    pub fn tls_files(mut self, files: Certs) -> Self {
        (self.tls, self.files) = (true, Some(files));
        self
    }

    /// etcd makes its own certificate, of [`Etcd::auto_certificate`], and asks clients for none.
    #[must_use]
    pub fn auto_tls(mut self) -> Self {
        self.tls = true;
        self.arg("--auto-tls")
    }

    /// The members find each other through a proxy: see [`Etcd::starve`].
    #[must_use]
    pub fn starvable(mut self) -> Self {
        self.starvable = true;
        self
    }

    /// One more flag for every member: `--quota-backend-bytes=1000000`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it and waits until every member is healthy.
    pub async fn start(self) -> Etcd {
        let mut last = String::new();
        for _ in 0..STARTS {
            let etcd = self.build();
            match etcd.try_run().await {
                Ok(()) => return etcd,
                Err(ended) => assert!(lost_its_port(&ended), "{ended}"),
            }
            last = etcd.logs.path().display().to_string();
        }
        panic!("no {STARTS} starts in a row found free ports (last log: {last})");
    }

    fn build(&self) -> Etcd {
        let bin = bin_dir(&self.series);
        let (logs, dir) = (Logs::new("etcd"), scratch("tenure-etcd"));
        let auto = self.args.iter().any(|arg| arg == "--auto-tls");
        let make = || self.files.clone().unwrap_or_else(|| Certs::make(dir.path(), "tenure-test"));
        let tls = (self.tls && !auto).then(make);
        let ports = |_| Ports { client: free_port(), peer: free_port(), status: free_port() };
        let mut between = self.starvable.then(Peers::new);
        let member = |index| {
            let ports = ports(index);
            let advertised = between.as_mut().map_or(ports.peer, |between| between.front(ports.peer));
            Member::new(index, ports, advertised, dir.path(), self.tls)
        };
        let members: Vec<Member> = (0..self.members).map(member).collect();
        let peers: Vec<String> = members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        let (client_auth, args) = (self.client_auth, self.args.clone());
        let common = Common { bin, initial_cluster: peers.join(","), tls, client_auth, args };
        Etcd { series: self.series.clone(), common, members, peers: between, logs, dir, root: None }
    }
}

impl Endpoints for Etcd {
    fn endpoints(&self) -> Vec<String> {
        self.members.endpoints()
    }
}

/// Where `make` says that this version is.
fn bin_dir(series: &str) -> PathBuf {
    let variable = format!("TENURE_ETCD_{}", series.replace('.', "_"));
    let help = format!("run `make test`, or `eval \"$(dev/etcd env {series})\"`, which runs `dev/etcd path {series}`");
    let dir = std::env::var_os(&variable).unwrap_or_else(|| panic!("{variable} is not set: {help}"));
    let dir = PathBuf::from(dir);
    assert!(dir.join("etcd").is_file(), "{variable}={} holds no etcd: {help}", dir.display());
    dir
}

async fn bounded(command: &mut Command) -> Output {
    let output = tokio::time::timeout(CTL_TIMEOUT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} did not end within {CTL_TIMEOUT:?}"));
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {}: {said}", output.status);
}

fn remove(data_dir: &Path) {
    let removed = std::fs::remove_dir_all(data_dir);
    removed.unwrap_or_else(|error| panic!("remove {}: {error}", data_dir.display()));
}
