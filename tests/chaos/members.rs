//! The etcd cluster: three members, each in its namespace and on a file system of its own that can be frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::net::Node;
use super::place::Place;
use super::sys::{Context, Done, Peer, Proc, bounded, finish, pause, succeeds, tool, until};

/// Enough for a small history, and quickly filled.
const QUOTA: &str = "16777216";
/// Sparse: etcd sets aside 64 MB for each file of its log.
const DISK: &str = "600M";
/// Entries of raft from one snapshot on the member's disk to the next.
const SNAPSHOT_COUNT: usize = 100;
const HEALTHY_WITHIN: Duration = Duration::from_secs(40);

/// Who signs in once authentication is on. The daemons have `app` and its password from the start.
pub const ROOT: &str = "root:root-secret";
pub const APP: (&str, &str) = ("app", "app-secret");

pub struct Cluster {
    pub members: Vec<Member>,
    pub auth: bool,
    token: String,
}

pub struct Member {
    pub node: Node,
    /// Of the etcd that runs: `3.5`.
    pub series: String,
    /// `new`, or `existing` for one that was added.
    state: &'static str,
    disk: PathBuf,
    log: PathBuf,
    process: Option<Proc>,
}

impl Cluster {
    /// Starts a new cluster on fresh disks; `token` sets it apart from the one before.
    pub fn start(nodes: &[Node], series: &str, token: &str, place: &Place, logs: &Path) -> Done<Self> {
        let member = |node: &Node| {
            let log = logs.join(format!("etcd-{}.log", node.name));
            let disk = mount(node, place)?;
            Ok(Member { node: node.clone(), series: series.to_owned(), state: "new", disk, log, process: None })
        };
        let members = nodes.iter().map(member).collect::<Done<_>>()?;
        let mut cluster = Self { members, auth: false, token: token.to_owned() };
        cluster.start_all(place)?;
        Ok(cluster)
    }

    /// Starts those that do not run and waits until all are healthy.
    pub fn start_all(&mut self, place: &Place) -> Done {
        for index in 0..self.members.len() {
            if self.members[index].process.is_none() {
                self.spawn(index, place)?;
            }
        }
        self.healthy()
    }

    pub fn spawn(&mut self, index: usize, place: &Place) -> Done {
        let args = self.args(index);
        let member = &mut self.members[index];
        let mut command = member.node.command(bin(&member.series)?.join("etcd"));
        // etcd takes flags from ETCD_* as well: none of ours may leak in.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(args);
        let process = Proc::spawn(&member.node.name, &mut command, &member.log)?;
        place.remember(process.id())?;
        member.process = Some(process);
        Ok(())
    }

    fn args(&self, index: usize) -> Vec<String> {
        let member = &self.members[index];
        let address = member.node.address();
        let mut args = vec![
            format!("--name={}", member.node.name),
            format!("--data-dir={}", member.data().display()),
            "--listen-client-urls=http://0.0.0.0:2379".to_owned(),
            format!("--advertise-client-urls=http://{address}:2379"),
            "--listen-peer-urls=http://0.0.0.0:2380".to_owned(),
            format!("--initial-advertise-peer-urls=http://{address}:2380"),
            format!("--initial-cluster={}", self.initial()),
            format!("--initial-cluster-state={}", member.state),
            format!("--initial-cluster-token={}", self.token),
            "--listen-metrics-urls=http://0.0.0.0:2381".to_owned(),
            "--heartbeat-interval=100".to_owned(),
            "--election-timeout=1000".to_owned(),
            format!("--snapshot-count={SNAPSHOT_COUNT}"),
            format!("--quota-backend-bytes={QUOTA}"),
            // At the default cost a login takes a core for 60 ms, and daemons whose tokens end after a second log in all the
            // time: on a busy machine they wait for one another for longer than anybody waits. It is tokens that are attacked.
            "--bcrypt-cost=4".to_owned(),
            "--logger=zap".to_owned(),
        ];
        if member.series != "3.4" {
            // Short, so that tokens run out on the members that a daemon does not ask for a second.
            args.push("--auth-token-ttl=1".to_owned());
        }
        args
    }

    fn initial(&self) -> String {
        let peers = self.members.iter().map(|m| format!("{}={}", m.node.name, m.peer_url()));
        peers.collect::<Vec<_>>().join(",")
    }

    /// Waits until a quorum answers linearizable reads, which is what etcd calls healthy. A member that fails is asked again.
    pub fn serves(&self) -> Done {
        until("a quorum of etcd that answers linearizable reads", HEALTHY_WITHIN, || {
            let well = self.members.iter().filter(|member| member.well()).count();
            (2 * well > self.members.len()).then_some(())
        })
    }

    pub fn healthy(&mut self) -> Done {
        for member in &mut self.members {
            let name = member.node.name.clone();
            until(&format!("{name} healthy (log: {})", member.log.display()), HEALTHY_WITHIN, || {
                if let Some(status) = member.process.as_mut().and_then(Proc::ended) {
                    return Some(Err(format!("{name} ended by itself: {status}; log: {}", member.log.display())));
                }
                member.well().then_some(Ok(()))
            })??;
        }
        Ok(())
    }

    /// Whether the daemons wait a TTL after a vacancy. A deposed leader of the old etcd revokes leases that the new one has just
    /// renewed (etcd-io/etcd#15247): whoever waits so long keeps even then to one leader and its promises.
    pub fn grace(&self) -> bool {
        self.members[0].series == "3.4"
    }

    /// Which member leads the cluster, as they say themselves.
    pub fn leader(&self) -> Option<usize> {
        self.members.iter().position(Member::is_leader)
    }

    pub fn wait_leader(&self) -> Done<usize> {
        until("an etcd leader", HEALTHY_WITHIN, || self.leader())
    }

    /// etcdctl on all members.
    pub fn ctl(&self, args: &[&str]) -> Done<String> {
        let all: Vec<_> = self.members.iter().map(Member::client_url).collect();
        self.ctl_at(&all.join(","), args, b"")
    }

    /// etcdctl on some members, with standard input.
    pub fn ctl_at(&self, endpoints: &str, args: &[&str], input: &[u8]) -> Done<String> {
        let plain = self.ctl_command(endpoints, args)?;
        let mut command = bounded(plain.get_program(), "15");
        command.args(plain.get_args()).env("ETCDCTL_API", "3");
        finish(&format!("etcdctl {}", args.join(" ")), &mut command, input)
    }

    /// An etcdctl to run for as long as it likes.
    pub fn ctl_command(&self, endpoints: &str, args: &[&str]) -> Done<Command> {
        let mut command = Command::new(bin(&self.members[0].series)?.join("etcdctl"));
        // The oldest still knows another interface.
        // With authentication it logs in first.
        let limit = if self.auth { "--command-timeout=10s" } else { "--command-timeout=4s" };
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--dial-timeout=1s", limit]);
        if self.auth {
            command.args(["--user", ROOT]);
        }
        command.args(args);
        Ok(command)
    }

    /// Users from the start, so that authentication can be turned on at any time.
    pub fn add_users(&self) -> Done {
        // The oldest wants the root role made by hand; later versions have it already and say so.
        let _ = self.ctl(&["role", "add", "root"]);
        let app = format!("{}:{}", APP.0, APP.1);
        self.ctl(&["user", "add", ROOT])?;
        self.ctl(&["user", "grant-role", "root", "root"])?;
        self.ctl(&["role", "add", "app"])?;
        self.ctl(&["role", "grant-permission", "--prefix=true", "app", "readwrite", "/tenure"])?;
        self.ctl(&["user", "add", &app])?;
        self.ctl(&["user", "grant-role", "app", "app"]).map(|_| ())
    }

    /// Makes every member save a raft snapshot. etcd 3.7 cannot read some entries that 3.5 writes (it has no `Request` of the
    /// old interface any more, etcd-io/etcd#21263) and panics where it finds one behind the newest snapshot.
    pub fn save_snapshots(&self) -> Done {
        let before: Vec<_> = self.members.iter().map(Member::newest_snapshot).collect();
        let writer = Peer::Tcp(format!("{}:2379", self.members[0].node.address()));
        // `{"/fill/snapshot": "x"}` in the gateway's base64.
        let put = r#"{"key":"L2ZpbGwvc25hcHNob3Q=","value":"eA=="}"#;
        until("a new raft snapshot on every member", HEALTHY_WITHIN, || {
            for _ in 0..SNAPSHOT_COUNT {
                writer
                    .ask("POST", "/v3/kv/put", put, Duration::from_secs(3))
                    .ok()
                    .filter(|(status, _)| *status == 200)?;
            }
            let mut pairs = self.members.iter().zip(&before);
            pairs.all(|(member, before)| member.newest_snapshot() > *before).then_some(())
        })
    }

    /// The id of a member in this cluster, in hex as etcdctl wants it.
    pub fn id(&self, index: usize) -> Done<String> {
        let list = self.ctl(&["member", "list"])?;
        let url = self.members[index].peer_url();
        let line = list.lines().find(|line| line.contains(&url)).ok_or_else(|| format!("no {url} in {list}"))?;
        Ok(line.split(',').next().unwrap_or_default().to_owned())
    }

    pub fn revision(&self) -> Done<String> {
        let text = self.ctl(&["get", "-w", "json", "no such key"])?;
        let answer: Value = serde_json::from_str(&text).context(|| text.clone())?;
        Ok(answer["header"]["revision"].to_string())
    }

    /// Ends a member, takes it out of the cluster, and puts one with an empty disk in its place.
    pub fn replace(&mut self, index: usize, place: &Place) -> Done {
        let id = self.id(index)?;
        self.members[index].kill();
        // etcd refuses until the members that are left have been connected for 5 s.
        succeeds("the member is removed", Duration::from_secs(30), || self.ctl(&["member", "remove", &id]))?;
        let (name, url) = (self.members[index].node.name.clone(), self.members[index].peer_url());
        let add = ["member", "add", &name, "--peer-urls", &url];
        succeeds("the member is added", Duration::from_secs(30), || self.ctl(&add))?;
        self.members[index].wipe()?;
        self.members[index].state = "existing";
        self.spawn(index, place)
    }

    /// Puts every member back to a snapshot, as etcd's guide to disaster recovery has it. All must have ended.
    pub fn restore(&mut self, snapshot: &Path, place: &Place) -> Done {
        let initial = self.initial();
        for member in &mut self.members {
            member.wipe()?;
            let tool = if member.series == "3.4" { "etcdctl" } else { "etcdutl" };
            let mut command = bounded(bin(&member.series)?.join(tool), "15");
            command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
            command.args(["--name", &member.node.name, "--initial-cluster", &initial, "--data-dir"]).arg(member.data());
            command.args(["--initial-cluster-token", &self.token]);
            command.args(["--initial-advertise-peer-urls", &member.peer_url()]);
            finish(&format!("{tool} snapshot restore"), &mut command, b"")?;
            member.state = "new";
        }
        self.start_all(place)
    }
}

impl Member {
    pub fn client_url(&self) -> String {
        format!("http://{}:2379", self.node.address())
    }

    fn peer_url(&self) -> String {
        format!("http://{}:2380", self.node.address())
    }

    fn data(&self) -> PathBuf {
        self.disk.join("data")
    }

    /// The name of its newest raft snapshot, which begins with the term and the index of what is in it.
    fn newest_snapshot(&self) -> Option<String> {
        let files = fs::read_dir(self.data().join("member/snap")).ok()?;
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "snap")).max()
    }

    fn wipe(&self) -> Done {
        let data = self.data();
        fs::remove_dir_all(&data).context(|| data.display().to_string())
    }

    fn status(&self, path: &str) -> Done<(u16, Value)> {
        Peer::Tcp(format!("{}:2381", self.node.address())).get(path)
    }

    fn well(&self) -> bool {
        self.status("/health").is_ok_and(|(_, answer)| answer["health"] == "true")
    }

    fn is_leader(&self) -> bool {
        let Ok((200, Value::String(text))) = self.status("/metrics") else { return false };
        text.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    pub fn signal(&mut self, signal: Signal) -> Done {
        self.process.as_mut().map_or_else(|| Err(format!("{} does not run", self.node.name)), |p| p.signal(signal))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Every write to its disk waits from now on, and whoever writes cannot even be killed.
    pub fn freeze(&self) -> Done {
        tool("fsfreeze", &["-f", &self.disk.display().to_string()]).map(|_| ())
    }

    pub fn thaw(&self) -> Done {
        tool("fsfreeze", &["-u", &self.disk.display().to_string()]).map(|_| ())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Most are not frozen, and that is an error of the tool. A process that waits for its disk does not end.
        let _ = self.thaw();
        self.kill();
        for _ in 0..20 {
            if tool("umount", &[&self.disk.display().to_string()]).is_ok() || pause(Duration::from_millis(50)).is_err()
            {
                return;
            }
        }
    }
}

/// A file system in a file.
fn mount(node: &Node, place: &Place) -> Done<PathBuf> {
    let (image, disk) = (place.dir.join(format!("{}.ext4", node.name)), place.dir.join(&node.name));
    let (file, dir) = (image.display().to_string(), disk.display().to_string());
    // What an epoch before left is its own.
    let _ = fs::remove_file(&image);
    fs::create_dir_all(&disk).context(|| dir.clone())?;
    tool("truncate", &["-s", DISK, &file])?;
    tool("mkfs.ext4", &["-q", "-F", &file])?;
    tool("mount", &["-o", "loop", &file, &dir])?;
    Ok(disk)
}

/// Where `make` says that this version of etcd is.
fn bin(series: &str) -> Done<PathBuf> {
    let variable = format!("TENURE_ETCD_{}", series.replace('.', "_"));
    let dir = std::env::var_os(&variable).map(PathBuf::from);
    dir.filter(|dir| dir.join("etcd").is_file())
        .ok_or_else(|| format!("{variable} names no directory with an etcd: run `make chaos`, which sets it"))
}
