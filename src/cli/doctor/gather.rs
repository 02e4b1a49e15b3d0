//! Asking etcd and the clocks, all members at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::examine;
use super::{Clocks, Failed, Findings, Member, Namesake, Remark, Rights};
use crate::cli::client::{Client, Target};
use crate::cli::tls::TlsFiles;
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::election::ids::ElectionIndex;
use crate::etcd::{Etcd, Kind, Leases, Round, Step};

/// How many reads of each member are timed, and how far apart.
const READS: u32 = 8;
const APART: Duration = Duration::from_millis(100);
/// For the reads and the round of one member together.
const ROUND: Duration = Duration::from_millis(4_500);
/// Until when, from the start, a login is waited for; and until when rounds and reads are.
const LOGGED_IN: Duration = Duration::from_millis(7_500);
const ENOUGH: Duration = Duration::from_millis(9_200);
/// Less than this for a round would show nothing.
const ROUND_LEAST: Duration = Duration::from_millis(1_500);
/// The clocks are watched at least so long.
const WATCHED: Duration = Duration::from_secs(2);
/// How long lines about members wait for whether we are let in, which is to be said first.
const FIRST: Duration = Duration::from_secs(1);

/// Where remarks go.
pub(super) type Sink = mpsc::Sender<Remark>;

/// Asks everything. What is written goes again.
pub(super) async fn gather(config: &Config, etcd: &Etcd, leases: &Leases, sink: Sink) -> Findings {
    let (start, began) = (clock::now(), clock::rates());
    let tell = |remarks: Vec<Remark>| {
        for remark in remarks {
            // There is room for all, and the reader goes only with all of this.
            let _ = sink.try_send(remark);
        }
    };
    let door = Door::default();
    let endpoints = &config.etcd.endpoints;
    let probes = endpoints.iter().enumerate().map(|(index, endpoint)| {
        let (tell, door) = (&tell, &door);
        async move {
            let member = Box::pin(probe(config, etcd, (index, endpoint), door.patience(start))).await;
            door.answered(&member, config, tell).await;
            tell(examine::member(&member, endpoints.len(), door.refused()));
            member
        }
    });
    let mut findings = Findings { members: join_all(probes).await, ..Findings::default() };
    if door.refused() || !findings.members.iter().any(Member::serves) {
        tell(examine::members(&findings, config));
        return findings;
    }
    let serving: Vec<usize> = (0..endpoints.len()).filter(|i| findings.members[*i].serves()).collect();
    let round = ENOUGH.saturating_sub(clock::now().since(start)).clamp(ROUND_LEAST, ROUND);
    let rounds = serving.iter().enumerate().map(|(nth, index)| {
        let next = serving[(nth + 1) % serving.len()];
        visit(etcd, *index, next, (config.timing.ttl(), round), leases)
    });
    let mut read = Findings::default();
    let (rounds, rights, (), ()) = tokio::join!(
        join_all(rounds),
        rights(etcd, config, round),
        elections(etcd, config, round, &mut read),
        sleep(WATCHED.min(round))
    );
    for (index, (reads, round)) in serving.into_iter().zip(rounds) {
        (findings.members[index].reads, findings.members[index].round) = (reads, Some(round));
    }
    (findings.rights, findings.records, findings.namesakes) = (rights, read.records, read.namesakes);
    findings.clocks = clocks(began, clock::rates());
    tell(examine::members(&findings, config));
    tell(examine::rest(&findings, config));
    findings
}

/// Whether etcd lets us in: said once, and first.
#[derive(Default)]
struct Door {
    known: AtomicBool,
    refused: AtomicBool,
    opened: Notify,
}

impl Door {
    fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes note of what a member says of our rights to be there; waits a little where it says nothing, for others to.
    async fn answered(&self, member: &Member, config: &Config, tell: &impl Fn(Vec<Remark>)) {
        match &member.read {
            Err(failed) if failed.kind == Kind::Auth => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tell(vec![examine::not_let_in(failed, config)]);
                }
                self.open();
            }
            Err(_) if !member.serves() => {
                // Registered before the look, so that no wake-up is missed.
                let opened = self.opened.notified();
                if !self.known.load(Ordering::Relaxed) && config.etcd.endpoints.len() > 1 {
                    let _ = timeout(FIRST, opened).await;
                }
            }
            Ok(_) | Err(_) => self.open(),
        }
    }

    /// How long a login is waited for: as long as there is time, and where another member let us in, as long again as it took.
    async fn patience(&self, start: Instant) {
        let overtaken = async {
            // Registered before the look, as above.
            let opened = self.opened.notified();
            if !self.known.load(Ordering::Relaxed) {
                opened.await;
            }
            sleep(clock::now().since(start).max(super::REQUEST)).await;
        };
        let _ = timeout(LOGGED_IN.saturating_sub(clock::now().since(start)), overtaken).await;
    }

    fn open(&self) {
        self.known.store(true, Ordering::Relaxed);
        self.opened.notify_waiters();
    }
}

/// Who are you, and do you serve?
async fn probe(
    config: &Config,
    etcd: &Etcd,
    (index, endpoint): (usize, &str),
    patience: impl Future<Output = ()>,
) -> Member {
    let mut member = Member::new(endpoint);
    member.greeting = etcd.greet(index).await.map_err(Failed::from);
    if member.greeting.is_err() {
        return member;
    }
    let (admitted, plain_version) = tokio::join!(etcd.log_in(index, patience), plain_version(endpoint, config));
    member.plain_version = plain_version;
    if let Err(failed) = admitted.map_err(Failed::from) {
        (member.status, member.listed) = (Err(failed.clone()), Err(failed.clone()));
        (member.memory, member.read) = (Err(failed.clone()), Err(failed));
        return member;
    }
    let (status, listed, read, memory) = tokio::join!(
        etcd.status_of(index),
        etcd.members_of(index),
        etcd.read_of(index, true),
        etcd.read_of(index, false),
    );
    member.status = status.map_err(Failed::from);
    member.listed = listed.map_err(Failed::from);
    member.read = read.map(|(origin, _)| origin).map_err(Failed::from);
    member.memory = memory.map(|(origin, _)| origin).map_err(Failed::from);
    member
}

/// etcd's plain HTTP tells its version to anyone.
async fn plain_version(endpoint: &str, config: &Config) -> Option<String> {
    let limit = super::REQUEST;
    let tls = config.etcd.tls.clone().unwrap_or_default();
    let files = TlsFiles {
        ca_file: tls.ca_file,
        cert_file: tls.cert_file,
        key_file: tls.key_file,
        server_name: tls.server_name,
    };
    let client = Client::with(Target::parse(endpoint).ok()?, &files, None, limit).ok()?;
    let body = client.get("/version", limit).await.ok()?.body;
    body.get("etcdserver")?.as_str().map(str::to_owned)
}

/// Reads, and then all that a daemon does, through one member.
async fn visit(
    etcd: &Etcd,
    index: usize,
    next: usize,
    (ttl, limit): (Duration, Duration),
    leases: &Leases,
) -> (Vec<Result<Duration, Failed>>, Round) {
    let mut reads = Vec::new();
    let began = clock::now();
    for _ in 0..READS {
        let read = etcd.read_of(index, true).await.map(|(_, took)| took).map_err(Failed::from);
        let failed = read.is_err();
        reads.push(read);
        if failed || clock::now().since(began) > limit / 2 {
            break;
        }
        sleep(APART).await;
    }
    let left = limit.saturating_sub(clock::now().since(began));
    let late = || Round { failed: Some((Step::Grant, etcd.late(index, left))), ..Round::default() };
    let round = timeout(left, Box::pin(etcd.round(index, Some(next), ttl, leases))).await.unwrap_or_else(|_| late());
    (reads, round)
}

async fn rights(etcd: &Etcd, config: &Config, limit: Duration) -> Vec<(String, Rights)> {
    let observed: Vec<bool> = config.elections.iter().map(|e| e.observe).collect();
    let Ok(all) = timeout(limit, etcd.permissions(&observed)).await else {
        let unknown = Rights::Unknown("etcd is too slow".to_owned());
        return config.elections.iter().map(|e| (e.name.to_string(), unknown.clone())).collect();
    };
    let judged = |result: Result<Vec<String>, crate::etcd::Error>| match result {
        Ok(denied) if denied.is_empty() => Rights::Granted,
        Ok(denied) => Rights::Denied(denied.join(", ")),
        Err(e) => Rights::Unknown(e.to_string()),
    };
    let name = |e: ElectionIndex| config.elections.get(e.0).map(|e| e.name.to_string()).unwrap_or_default();
    all.into_iter().map(|(e, result)| (name(e), judged(result))).collect()
}

/// What each election holds: obstacles in its records, and candidates with our id.
async fn elections(etcd: &Etcd, config: &Config, limit: Duration, findings: &mut Findings) {
    // What was read before the time ran out stays.
    let look = async {
        for (index, election) in config.elections.iter().enumerate() {
            let name = election.name.to_string();
            let view = match etcd.examined(ElectionIndex(index)).await {
                Ok((view, obstacles)) => {
                    findings.records.push((name, Ok(obstacles)));
                    view
                }
                Err(error) => {
                    findings.records.push((name, Err(error.into())));
                    continue;
                }
            };
            for entry in view.queue {
                let Some(candidate) = entry.candidate.filter(|c| c.id == config.id) else { continue };
                let election = election.name.to_string();
                findings.namesakes.push(Namesake { election, lease: entry.lease, url: candidate.url });
            }
        }
    };
    let _ = timeout(limit, look).await;
    for election in &config.elections[findings.records.len()..] {
        let late = Failed { kind: Kind::Unknown, text: "etcd is too slow".to_owned() };
        findings.records.push((election.name.to_string(), Err(late)));
    }
}

fn clocks(before: clock::Rates, after: clock::Rates) -> Clocks {
    let (boot, raw) = (after.boot.since(before.boot), after.raw.saturating_sub(before.raw));
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    let slewed = nanos(boot).saturating_sub(nanos(raw)).saturating_mul(1_000_000) / nanos(raw).max(1);
    Clocks { watched: boot, moved_ms: after.offset_ms - before.offset_ms, slewed_ppm: slewed }
}
