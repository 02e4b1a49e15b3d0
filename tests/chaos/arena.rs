//! One epoch: a cluster, its daemons and their clients, and what the faults do to them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use super::daemons::{Crew, Daemon, GRACE_MS, start_register};
use super::faults::Claim;
use super::history::{Fault, Healed, Phase, Record, Writer, now};
use super::members::Cluster;
use super::net::Net;
use super::place::Place;
use super::sys::{Context, Done, Proc, pause, succeeds, until};

/// Whether a leader comes in time the checker judges (`progress.rs`). Who has none for so long gets none.
const LEADER_AT_ALL: Duration = Duration::from_mins(1);
/// etcd's records are tried to be read for so long.
const RECORDS_WITHIN: Duration = Duration::from_secs(30);

pub struct Arena {
    // The order matters: whoever asks ends before what it asks.
    pub crews: Vec<Crew>,
    register: Proc,
    pub daemons: Vec<Daemon>,
    pub cluster: Cluster,
    pub net: Net,
    pub place: Rc<Place>,
    pub rng: Rng,
    pub busy: BTreeSet<Claim>,
    /// What the fault that ends has to say.
    pub remark: String,
    pub dir: PathBuf,
    epoch: String,
    writer: Writer,
    /// etcd's own records of the election, read at the end and before each restore.
    dumps: u32,
    rounds: u64,
}

/// What outlives an epoch.
pub struct Stage {
    pub place: Rc<Place>,
    pub writer: Writer,
    pub dir: PathBuf,
}

impl Arena {
    pub fn start(stage: &Stage, net: Net, mut rng: Rng, epoch: &str, series: &str) -> Done<Self> {
        let Stage { place, writer, dir } = stage;
        writer.record(&Record::Epoch { at: now(), name: epoch.to_owned() });
        let logs = dir.join("logs");
        let cluster = Cluster::start(&net.members, series, epoch, place, &logs)?;
        cluster.add_users()?;
        let register = start_register(&net.register, epoch, place, dir)?;
        let (mut daemons, mut crews) = (Vec::new(), Vec::new());
        for node in &net.daemons {
            let mut daemon = Daemon::new(node, &cluster, epoch, place, &logs)?;
            daemon.start(place)?;
            daemons.push(daemon);
            crews.push(Crew::start(node, &net.register, epoch, place, dir, &mut rng)?);
        }
        let mut arena = Self {
            crews,
            register,
            daemons,
            cluster,
            net,
            place: Rc::clone(place),
            rng,
            busy: BTreeSet::new(),
            remark: String::new(),
            dir: dir.clone(),
            epoch: epoch.to_owned(),
            writer: writer.clone(),
            dumps: 0,
            rounds: 0,
        };
        arena.recovered()?;
        Ok(arena)
    }

    /// Ends the epoch in peace; the network is for the next one.
    pub fn finish(mut self) -> Done<Net> {
        self.recovered()?;
        // Whoever was left with an unknown outcome finds out before the end.
        pause(Duration::from_secs(1))?;
        for crew in self.crews.drain(..) {
            crew.stop()?;
        }
        for daemon in &mut self.daemons {
            daemon.signal(rustix::process::Signal::TERM)?;
        }
        for daemon in &mut self.daemons {
            daemon.wait_exit(Duration::from_secs(15))?;
        }
        self.keep()?;
        Ok(self.net)
    }

    /// Puts what etcd and the daemons have written down into the history: first what needs no etcd. That etcd could not be read
    /// is in it as well, for else all that it holds would look lost.
    pub fn keep(&mut self) -> Done {
        for daemon in &self.daemons {
            let to = self.dir.join(format!("audit-{}-{}.jsonl", self.epoch, daemon.node.name));
            fs::copy(daemon.audit(), &to).context(|| to.display().to_string())?;
        }
        self.dump().inspect_err(|_| self.writer.record(&Record::Unread { at: now() }))
    }

    pub fn fault(&self, at: u64, kind: &str, target: &str, phase: Phase, detail: &str) {
        println!("  {} {kind} {target} {detail}", if phase == Phase::Begin { "begin" } else { "end  " });
        let text = |text: &str| text.to_owned();
        let (kind, target, detail) = (text(kind), text(target), text(detail));
        self.writer.record(&Record::Fault(Fault { at, by: now(), kind, target, phase, detail }));
    }

    pub fn round(&mut self) {
        self.rounds += 1;
        println!("round {}", self.rounds);
        self.writer.record(&Record::Round { at: now(), number: self.rounds });
    }

    /// Which daemon leads, as it says itself.
    pub fn leader(&self) -> Option<usize> {
        self.daemons.iter().position(|daemon| daemon.status().is_some_and(|status| status["role"] == "leader"))
    }

    /// One that leads, if that is to be had soon.
    pub fn wait_leader(&self) -> Done<usize> {
        until("a daemon that leads", Duration::from_secs(3), || self.leader())
    }

    /// All is healed: etcd is healthy, every process runs, and somebody leads.
    pub fn recovered(&mut self) -> Done {
        self.cluster.serves()?;
        let at = now();
        let grace = self.cluster.grace();
        self.writer.record(&Record::Healed(Healed { at, grace_ms: if grace { GRACE_MS } else { 0 } }));
        let led = until("a leader, with nothing broken any more", LEADER_AT_ALL, || self.leader()).map_err(|error| {
            let seen: Vec<_> = self.daemons.iter().map(|d| d.status().unwrap_or_default().to_string()).collect();
            format!("{error}\n{}", seen.join("\n"))
        });
        println!("  a leader after {} ms", (now() - at) / 1_000_000);
        for n in 0..self.daemons.len() {
            if let Some(what) = self.daemons[n].misbehaved().or_else(|| self.crews[n].ended()) {
                return Err(what);
            }
        }
        if let Some(status) = self.register.ended() {
            return Err(format!("the register ended: {status}"));
        }
        led?;
        self.cluster.healthy()
    }

    /// A daemon that no other fault has, more often the one that leads. It is then taken.
    pub fn take_daemon(&mut self) -> usize {
        let free: Vec<_> = (0..self.daemons.len()).filter(|n| !self.busy.contains(&Claim::Daemon(*n))).collect();
        let leader = self.leader().filter(|n| free.contains(n) && self.rng.u8(..10) < 7);
        let chosen =
            leader.unwrap_or_else(|| *self.rng.choice(&free).expect("there are more daemons than faults at once"));
        self.busy.insert(Claim::Daemon(chosen));
        chosen
    }

    /// A member, more often the one that leads.
    pub fn pick_member(&mut self) -> usize {
        let leader = self.cluster.leader().filter(|_| self.rng.u8(..10) < 6);
        leader.unwrap_or_else(|| self.rng.usize(..self.cluster.members.len()))
    }

    /// Reads etcd's records of the election.
    pub fn dump(&mut self) -> Done {
        let get = ["get", "--prefix", "/tenure/history/", "-w", "json"];
        let text = succeeds("etcd's records", RECORDS_WITHIN, || self.cluster.ctl(&get))?;
        self.dumps += 1;
        let to = self.dir.join(format!("etcd-history-{}-{}.json", self.epoch, self.dumps));
        fs::write(&to, text).context(|| to.display().to_string())
    }
}
