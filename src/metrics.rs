//! Metrics: counted where things happen, judged by the clock when somebody looks, never a global.
//!
//! Every series whose labels are known beforehand exists from the start, so that an alert on a rate sees the first event.
//! Labels are bounded by the configuration and by enums; a leader's identity or a token is never one.

mod families;
mod judged;
mod routing;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use routing::{RouteMetrics, RouteObject, RouteWrite};
pub use text::Format;

use crate::clock::{Instant, Reading};
use crate::election::event::Transition;
use crate::election::ids::{ElectionIndex, ElectionName};
use crate::snapshot::{Reader, Snapshot};
use families::Families;
use judged::Presence;

/// The answers of the gate, as its metric counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateAnswer {
    /// 200.
    Allowed,
    /// 403: this daemon does not lead.
    NotLeader,
    /// 403: the request's own token is out of date.
    Stale,
    /// 403: the request's own token is no number.
    Malformed,
}

impl GateAnswer {
    const ALL: [Self; 4] = [Self::Allowed, Self::NotLeader, Self::Stale, Self::Malformed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NotLeader => "not_leader",
            Self::Stale => "stale",
            Self::Malformed => "malformed",
        }
    }
}

/// Where an out-of-date token was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// At the gate.
    Gate,
    /// By `verify`.
    Verify,
}

impl Door {
    const ALL: [Self; 2] = [Self::Gate, Self::Verify];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Verify => "verify",
        }
    }
}

/// All metrics of one daemon; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    elections: Vec<ElectionName>,
    families: Families,
    /// Who was seen leading each election, for what is counted from one snapshot to the next.
    presence: Mutex<Vec<Presence>>,
    ttl: Duration,
}

impl Metrics {
    /// All series that can be known beforehand, at zero. `ttl` is the configured one; it stands until a session is granted.
    #[must_use]
    pub fn new(version: &str, revision: &str, elections: &[ElectionName], endpoints: &[String], ttl: Duration) -> Self {
        let families = Families::new();
        families.build_info.with_label_values(&[version, revision]).set(1);
        for election in elections {
            families.begin_election(election.as_str());
        }
        for endpoint in endpoints {
            families.endpoint_up.with_label_values(&[endpoint]);
            families.keepalive_failures.with_label_values(&[endpoint]);
        }
        let presence = Mutex::new(elections.iter().map(|_| Presence::default()).collect());
        Self(Arc::new(Inner { elections: elections.to_vec(), families, presence, ttl }))
    }

    /// To be called with every snapshot that is published: counts changes of leader and time without one, both of which
    /// must not depend on anybody looking.
    pub fn published(&self, snapshot: &Snapshot, now: Instant) {
        let mut presence = self.0.presence.lock().unwrap_or_else(PoisonError::into_inner);
        for ((view, presence), name) in snapshot.elections.iter().zip(presence.iter_mut()).zip(&self.0.elections) {
            let seen = presence.see(view, now);
            self.leaderless(name, seen.leaderless);
            if seen.changed {
                self.0.families.leader_changes.with_label_values(&[name.as_str()]).inc();
            }
        }
    }

    fn leaderless(&self, election: &ElectionName, more: Duration) {
        self.0.families.leaderless.with_label_values(&[election.as_str()]).inc_by(more.as_secs_f64());
    }

    /// A role changed.
    pub fn transition(&self, t: &Transition) {
        if let Some(name) = self.name(t.election) {
            let labels = [name, t.from.as_str(), t.to.as_str(), t.reason.as_str()];
            self.0.families.transitions.with_label_values(&labels).inc();
        }
    }

    /// A keep-alive was answered and confirmed, in that time since it was sent.
    pub fn keepalive(&self, took: Duration) {
        self.0.families.keepalive.observe(took.as_secs_f64());
    }

    /// We were elected, that long after the vacancy was seen.
    pub fn elected_after(&self, took: Duration) {
        self.0.families.elect.observe(took.as_secs_f64());
    }

    /// A hand-over committed, that long after we stopped acting.
    pub fn handed_over_after(&self, took: Duration) {
        self.0.families.handover.observe(took.as_secs_f64());
    }

    /// The driver's loop woke that much later than it meant to.
    pub fn loop_lag(&self, late: Duration) {
        self.0.families.loop_lag.observe(late.as_secs_f64());
    }

    /// etcd's history went backwards.
    pub fn rewound(&self) {
        self.0.families.store_changes.inc();
    }

    /// We lifted an election's generation.
    pub fn raised(&self, e: ElectionIndex) {
        if let Some(name) = self.name(e) {
            self.0.families.raised.with_label_values(&[name]).inc();
        }
    }

    /// An audit line could not be written.
    pub fn audit_dropped(&self) {
        self.0.families.audit_dropped.inc();
    }

    /// Makes the series of these requests to etcd exist, so that the first failure shows as a rate.
    pub fn etcd_methods(&self, methods: &[&'static str]) {
        for method in methods {
            self.0.families.etcd_requests.with_label_values(&[*method, "ok"]);
            self.0.families.etcd_seconds.with_label_values(&[*method]);
        }
    }

    /// A request to etcd ended.
    pub fn etcd_request(&self, method: &'static str, code: &'static str, took: Duration) {
        self.0.families.etcd_requests.with_label_values(&[method, code]).inc();
        self.0.families.etcd_seconds.with_label_values(&[method]).observe(took.as_secs_f64());
    }

    /// A member answers, or does not.
    pub fn endpoint_up(&self, endpoint: &str, up: bool) {
        self.0.families.endpoint_up.with_label_values(&[endpoint]).set(i64::from(up));
    }

    /// A keep-alive to this member was not answered in time.
    pub fn keepalive_failed(&self, endpoint: &str) {
        self.0.families.keepalive_failures.with_label_values(&[endpoint]).inc();
    }

    /// A watch had to be opened again.
    pub fn watch_restarted(&self, cause: &'static str) {
        self.0.families.watch_restarts.with_label_values(&[cause]).inc();
    }

    /// The gate answered.
    pub fn gate(&self, e: ElectionIndex, answer: GateAnswer) {
        if let Some(name) = self.name(e) {
            self.0.families.gate_answers.with_label_values(&[name, answer.as_str()]).inc();
        }
    }

    /// An out-of-date token was turned away.
    pub fn fenced(&self, e: ElectionIndex, door: Door) {
        if let Some(name) = self.name(e) {
            self.0.families.fenced.with_label_values(&[name, door.as_str()]).inc();
        }
    }

    /// Makes the series of these routes exist: templates, each with its usual method.
    pub fn serve_routes(&self, routes: impl Iterator<Item = (&'static str, &'static str)>) {
        for (route, method) in routes {
            self.0.families.http_requests.with_label_values(&[route, method, "200"]);
            self.0.families.http_seconds.with_label_values(&[route]);
        }
    }

    /// An HTTP request was answered. `route` is a template, or `other`; clients may make methods up, so those are bounded.
    pub fn http_request(&self, route: &'static str, method: &str, code: u16, took: Duration) {
        const METHODS: [&str; 9] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"];
        let method = METHODS.into_iter().find(|m| *m == method).unwrap_or("other");
        self.0.families.http_requests.with_label_values(&[route, method, &code.to_string()]).inc();
        self.0.families.http_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// Everything as text. What depends on the clock is judged at `at`.
    #[must_use]
    pub fn render(&self, reader: &Reader, at: Reading, format: Format) -> String {
        self.judge(reader, at);
        format.encode(&self.0.families.registry.gather())
    }

    fn judge(&self, reader: &Reader, at: Reading) {
        let log_dropped = &self.0.families.log_dropped;
        log_dropped.inc_by(crate::logging::dropped().saturating_sub(log_dropped.get()));
        let snapshot = reader.load();
        self.published(&snapshot, at.now);
        self.0.families.draining.set(i64::from(snapshot.draining));
        self.0.families.session_ttl.set(snapshot.session.map_or(self.0.ttl, |s| s.ttl).as_secs_f64());
        for (index, name) in self.0.elections.iter().enumerate().take(snapshot.elections.len()) {
            judged::judge(&self.0.families, reader, &snapshot, (ElectionIndex(index), name), at);
        }
    }

    fn name(&self, e: ElectionIndex) -> Option<&str> {
        self.0.elections.get(e.0).map(ElectionName::as_str)
    }
}

#[cfg(test)]
mod tests;
