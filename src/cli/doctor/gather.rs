//! Asking etcd and the clocks.

use std::time::Duration;

use super::{Clocks, Findings, Member, MemberStatus, Permission};
use crate::cli::client::{Client, Target};
use crate::clock;
use crate::config::Config;

/// How many reads are timed, and how far apart: two seconds in all, for the clocks are watched meanwhile.
const READS: u32 = 20;
const APART: Duration = Duration::from_millis(100);

/// The questions that only etcd can answer. The etcd edge answers them; [`PlainHttp`] does what can be done without it.
trait Questions {
    /// What each member says of itself.
    async fn members(&self) -> Vec<Member>;
    /// A linearizable read.
    async fn read(&self) -> Result<(), String>;
    /// Whether each election's keys may be used.
    async fn permissions(&self) -> Vec<(String, Permission)>;
}

/// Asks everything.
pub(super) async fn gather(config: &Config) -> Findings {
    ask(&PlainHttp { config }).await
}

async fn ask(etcd: &impl Questions) -> Findings {
    let members = etcd.members().await;
    if members.iter().all(|m| m.status.is_err()) {
        return Findings { members, ..Findings::default() };
    }
    let before = clock::reading();
    let mut reads = Vec::new();
    for _ in 0..READS {
        let began = clock::now();
        reads.push(etcd.read().await.map(|()| clock::now().since(began)));
        tokio::time::sleep(APART).await;
    }
    let after = clock::reading();
    let clocks = Clocks { watched: after.now.since(before.now), moved_ms: after.offset_ms - before.offset_ms };
    Findings { members, reads, permissions: etcd.permissions().await, clocks }
}

/// etcd's plain HTTP: `/version` needs no authentication, and `/health` makes a linearizable read.
struct PlainHttp<'c> {
    config: &'c Config,
}

impl PlainHttp<'_> {
    async fn get(&self, endpoint: &str, path: &str) -> Result<serde_json::Value, String> {
        let target = Target::parse(endpoint)?;
        let limit = self.config.etcd.request_timeout;
        let client = Client::new(target, None, limit).map_err(|f| f.message)?;
        let answer = client.get(path, limit).await.map_err(|e| e.failure(false).message)?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(format!("{path} answered {}", answer.status)) }
    }
}

impl Questions for PlainHttp<'_> {
    async fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for endpoint in &self.config.etcd.endpoints {
            let status = self.get(endpoint, "/version").await.map(|body| MemberStatus {
                version: body.get("etcdserver").and_then(|v| v.as_str()).map(str::to_owned),
                ..MemberStatus::default()
            });
            members.push(Member { endpoint: endpoint.clone(), status });
        }
        members
    }

    async fn read(&self) -> Result<(), String> {
        let mut last = String::new();
        for endpoint in &self.config.etcd.endpoints {
            match self.get(endpoint, "/health").await {
                Ok(_) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn permissions(&self) -> Vec<(String, Permission)> {
        let unknown = || Permission::Unknown("this build does not ask".to_owned());
        self.config.elections.iter().map(|e| (e.name.to_string(), unknown())).collect()
    }
}
