//! The JSON documents.

use serde::Serialize;

use super::app::App;
use super::moment::Moment;
use crate::clock::{self, Wall};
use crate::control::{AuditLine, HistoryRecord};
use crate::election::ids::ElectionIndex;
use crate::election::record::QueueEntry;
use crate::snapshot::{LeaderView, Snapshot};

/// Whole milliseconds, rounded down: what is promised must not be more than what is.
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Who leads.
#[derive(Clone, Debug, Serialize)]
pub struct LeaderDocument {
    id: String,
    url: String,
    generation: u64,
    elected_at: String,
}

impl From<&LeaderView> for LeaderDocument {
    fn from(l: &LeaderView) -> Self {
        let (id, url) = (l.id.clone(), l.url.clone());
        Self { id, url, generation: l.generation.0, elected_at: l.elected_at.rfc3339() }
    }
}

/// The leader object, or null.
pub fn leader(leader: Option<&LeaderView>) -> Option<LeaderDocument> {
    leader.map(LeaderDocument::from)
}

/// The status document.
#[derive(Debug, Serialize)]
pub struct StatusDocument {
    election: String,
    id: String,
    name: String,
    role: &'static str,
    generation: u64,
    term: u64,
    leader: Option<LeaderDocument>,
    foreign: bool,
    /// Ours, and null unless we lead: nobody takes a follower's view of the leader's number for a token.
    token: Option<u64>,
    version: u64,
    guard_ms: u64,
    promised_ms: u64,
    reason: &'static str,
    since: String,
    hlc: String,
    paused: bool,
    session: Option<SessionDocument>,
    etcd: EtcdDocument,
    queue_position: Option<usize>,
    observed_revision: i64,
    last_update: Option<String>,
}

#[derive(Debug, Serialize)]
struct SessionDocument {
    lease: String,
    ttl_ms: u64,
}

/// Whether etcd answers this daemon: what it says of others is as old as the last answer.
#[derive(Debug, Serialize)]
struct EtcdDocument {
    reachable: bool,
    /// Of an outage: when etcd answered last, or else when we began to serve.
    since: Option<String>,
    for_ms: Option<u64>,
    /// Of an outage: what each member that does not serve says.
    last_error: Option<String>,
}

fn etcd(app: &App, moment: &Moment) -> EtcdDocument {
    let at = |silent| Wall(clock::wall().0.saturating_sub(silent)).rfc3339();
    let for_ms = moment.silent.map(millis);
    let last_error = for_ms.map(|_| app.service.reader.etcd().reasons()).filter(|reasons| !reasons.is_empty());
    EtcdDocument { reachable: for_ms.is_none(), since: for_ms.map(at), for_ms, last_error }
}

/// What is true of one election now.
///
/// `promised_ms` is what is left of promises that token answers gave: this document gives none itself, since anyone may read it
/// as often as they like, and promises delay a hand-over.
pub fn status(app: &App, moment: &Moment, e: ElectionIndex) -> StatusDocument {
    let view = moment.view(e);
    let now = moment.at.now;
    let (token, guard) = moment.leading(e).unzip();
    let who = moment.leader(e);
    StatusDocument {
        election: view.name.to_string(),
        id: moment.snapshot.id.clone(),
        name: who.as_ref().map(|l| l.id.clone()).unwrap_or_default(),
        role: moment.role(e).as_str(),
        generation: view.observed.0,
        term: view.term,
        leader: leader(who.as_ref()),
        foreign: view.foreign,
        token: token.map(|generation| generation.0),
        version: app.versions.of(moment, e),
        guard_ms: guard.map_or(0, |guard| millis(guard.remaining(now))),
        promised_ms: millis(app.service.reader.promised(e, now)),
        reason: moment.reason(e).as_str(),
        since: view.since.rfc3339(),
        hlc: view.hlc.to_string(),
        paused: view.paused,
        etcd: etcd(app, moment),
        session: moment.session().map(|s| SessionDocument { lease: s.lease.to_string(), ttl_ms: millis(s.ttl) }),
        queue_position: view.queue_position,
        observed_revision: view.observed_revision.0,
        last_update: view.last_update.map(Wall::rfc3339),
    }
}

/// A transition line.
#[derive(Debug, Serialize)]
pub struct TransitionDocument {
    seq: u64,
    time: String,
    hlc: String,
    election: String,
    id: String,
    from: &'static str,
    to: &'static str,
    old_generation: u64,
    new_generation: u64,
    reason: &'static str,
    detail: String,
}

/// The line for `line`.
pub fn transition(line: AuditLine, snapshot: &Snapshot) -> TransitionDocument {
    let t = &line.transition;
    TransitionDocument {
        seq: line.seq,
        time: line.time.rfc3339(),
        hlc: line.hlc.to_string(),
        election: snapshot.elections.get(line.election.0).map(|e| e.name.to_string()).unwrap_or_default(),
        id: snapshot.id.clone(),
        from: t.from.as_str(),
        to: t.to.as_str(),
        old_generation: t.old_generation.0,
        new_generation: t.new_generation.0,
        reason: t.reason.as_str(),
        detail: line.detail,
    }
}

/// A history record.
#[derive(Debug, Serialize)]
pub struct HistoryDocument {
    generation: u64,
    term: u64,
    holder: Option<String>,
    url: Option<String>,
    cause: &'static str,
    elected_at: String,
    hlc: String,
    revision: i64,
    leaderless_ms: u64,
}

impl From<HistoryRecord> for HistoryDocument {
    fn from(HistoryRecord { record, revision }: HistoryRecord) -> Self {
        let (holder, url) = record.holder.map(|h| (h.id, h.url)).unzip();
        Self {
            generation: record.generation.0,
            term: record.term,
            holder,
            url,
            cause: record.cause.as_str(),
            elected_at: record.elected_at.rfc3339(),
            hlc: record.hlc.to_string(),
            revision: revision.0,
            leaderless_ms: record.leaderless_ms,
        }
    }
}

/// One place of the queue.
#[derive(Debug, Serialize)]
pub struct CandidateDocument {
    position: usize,
    id: Option<String>,
    url: Option<String>,
    term: Option<u64>,
    priority: Option<i32>,
    lease: String,
    create_revision: i64,
    foreign: bool,
}

/// The entry at `position`. What a foreign client does not say of itself is null.
pub fn candidate((position, entry): (usize, QueueEntry)) -> CandidateDocument {
    let info = entry.candidate;
    CandidateDocument {
        position,
        term: info.as_ref().map(|c| c.term),
        priority: info.as_ref().map(|c| c.priority),
        foreign: info.is_none(),
        lease: format!("{:x}", entry.lease),
        create_revision: entry.key.created.0,
        url: info.as_ref().map(|c| c.url.clone()),
        id: info.map(|c| c.id),
    }
}
