//! Asking etcd and the clocks.

use std::sync::Arc;
use std::time::Duration;

use super::{Clocks, Findings, Member, MemberStatus, Permission};
use crate::cli::client::{Client, Target};
use crate::cli::exit::{Exit, Failure};
use crate::clock;
use crate::config::Config;
use crate::election::ids::ElectionIndex;
use crate::etcd::{EndpointStatus, Error, Etcd, Identity, Kind, Telemetry};

/// How many reads are timed, and how far apart: two seconds in all, for the clocks are watched meanwhile.
const READS: u32 = 20;
const APART: Duration = Duration::from_millis(100);

/// Asks everything; writes nothing.
pub(super) async fn gather(config: &Config) -> Result<Findings, Failure> {
    let identity = Identity {
        id: config.id.clone(),
        url: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        elections: config.elections.iter().map(|e| (e.name.clone(), e.priority)).collect(),
    };
    // The seed is for jitter of retries; one doctor does not need to differ from another.
    let etcd = Etcd::new(&config.etcd, identity, &config.timing, Arc::new(Unheard), 0)
        .map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
    let members = members(&etcd, config).await;
    if members.iter().all(|m| m.status.is_err()) {
        return Ok(Findings { members, ..Findings::default() });
    }
    let before = clock::reading();
    let mut reads = Vec::new();
    for _ in 0..READS {
        let began = clock::now();
        let read = etcd.read(ElectionIndex(0)).await;
        reads.push(read.map(|_| clock::now().since(began)).map_err(|e| e.to_string()));
        tokio::time::sleep(APART).await;
    }
    let after = clock::reading();
    let clocks = Clocks { watched: after.now.since(before.now), moved_ms: after.offset_ms - before.offset_ms };
    Ok(Findings { members, reads, permissions: permissions(&etcd, config).await, clocks })
}

async fn members(etcd: &Etcd, config: &Config) -> Vec<Member> {
    let mut members = Vec::new();
    for (endpoint, status) in etcd.versions().await {
        let status = match status {
            Ok(EndpointStatus { version, leader, errors, .. }) => {
                Ok(MemberStatus { version: Some(version), leader: Some(leader), errors })
            }
            // It answered, and will not say: with authentication on, some versions tell root only.
            Err(e) if matches!(e.kind(), Kind::Permission | Kind::Auth) => {
                Ok(MemberStatus { version: plain_version(&endpoint, config).await, ..MemberStatus::default() })
            }
            Err(e) => Err(e.to_string()),
        };
        members.push(Member { endpoint, status });
    }
    members
}

/// etcd's plain HTTP tells its version to anyone.
async fn plain_version(endpoint: &str, config: &Config) -> Option<String> {
    let limit = config.etcd.request_timeout;
    let client = Client::new(Target::parse(endpoint).ok()?, None, limit).ok()?;
    let body = client.get("/version", limit).await.ok()?.body;
    body.get("etcdserver")?.as_str().map(str::to_owned)
}

async fn permissions(etcd: &Etcd, config: &Config) -> Vec<(String, Permission)> {
    let judged = |result: Result<Vec<String>, Error>| match result {
        Ok(denied) if denied.is_empty() => Permission::Granted,
        Ok(denied) => Permission::Denied(format!("etcd's role lacks {}", denied.join(", "))),
        Err(e) if e.kind() == Kind::Auth => Permission::Denied(e.to_string()),
        Err(e) => Permission::Unknown(e.to_string()),
    };
    let name = |e: ElectionIndex| config.elections.get(e.0).map(|e| e.name.to_string()).unwrap_or_default();
    etcd.permissions().await.into_iter().map(|(e, result)| (name(e), judged(result))).collect()
}

/// Nobody counts the doctor's requests.
struct Unheard;

impl Telemetry for Unheard {
    fn request(&self, _method: &'static str, _code: &'static str, _took: Duration) {}
    fn endpoint_up(&self, _endpoint: &str, _up: bool) {}
    fn keepalive_failed(&self, _endpoint: &str) {}
    fn watch_restarted(&self, _cause: &'static str) {}
}
