//! The families: their names, their help, their series at the start.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::{Door, GateAnswer};
use crate::election::role::{Reason, Role};

/// From a commit on loopback to a fail-over that had to wait for a lease.
const WAITS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// One request, to etcd or to us.
const REQUESTS: &[f64] = &[0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0];
/// What makes a watch start anew.
const WATCH_CAUSES: [&str; 8] = ["compacted", "canceled", "auth", "silent", "stale", "broken", "no_leader", "reset"];
/// The changes of role that occur, with their reasons; another one would be counted too.
const TRANSITIONS: [(Role, Role, &[Reason]); 4] = [
    (Role::Follower, Role::Candidate, &[Reason::Queued]),
    (Role::Candidate, Role::Leader, &[Reason::Elected, Reason::HandedOver]),
    (Role::Candidate, Role::Follower, LOSSES),
    (Role::Leader, Role::Follower, LOSSES),
];
const LOSSES: &[Reason] = &[
    Reason::GuardExpired,
    Reason::LeaseLost,
    Reason::KeyDeleted,
    Reason::Superseded,
    Reason::Resigned,
    Reason::Drained,
    Reason::Shutdown,
    Reason::ClockJumped,
    Reason::HistoryRewound,
];

/// Every family, in a registry of its own.
#[derive(Debug)]
pub struct Families {
    pub registry: Registry,
    pub build_info: IntGaugeVec,
    pub is_leader: IntGaugeVec,
    pub master_status: IntGaugeVec,
    pub role: IntGaugeVec,
    pub generation: IntGaugeVec,
    pub observed_generation: IntGaugeVec,
    pub transitions: IntCounterVec,
    pub leader_changes: IntCounterVec,
    pub leaderless: CounterVec,
    pub candidates: IntGaugeVec,
    pub queue_position: IntGaugeVec,
    pub session_ttl: Gauge,
    pub draining: IntGauge,
    pub guard_deadline: GaugeVec,
    pub guard_remaining: GaugeVec,
    pub promise_outstanding: GaugeVec,
    pub keepalive: Histogram,
    pub keepalive_failures: IntCounterVec,
    pub elect: Histogram,
    pub handover: Histogram,
    pub loop_lag: Histogram,
    pub etcd_requests: IntCounterVec,
    pub etcd_seconds: HistogramVec,
    pub endpoint_up: IntGaugeVec,
    pub watch_restarts: IntCounterVec,
    pub store_changes: IntCounter,
    pub raised: IntCounterVec,
    pub fenced: IntCounterVec,
    pub gate_answers: IntCounterVec,
    pub http_requests: IntCounterVec,
    pub http_seconds: HistogramVec,
    pub audit_dropped: IntCounter,
    pub log_dropped: IntCounter,
}

/// Registers families, each under a name that no other has.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    /// Names, labels and buckets are all constants of this file: one test that makes them shows that none is refused.
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("names, labels and buckets are well-formed constants");
        self.0.register(Box::new(family.clone())).expect("each name is used once");
        family
    }

    pub(super) fn gauges(&self, name: &str, labels: &[&str], help: &str) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(opts(name, help), labels))
    }

    fn floats(&self, name: &str, help: &str) -> GaugeVec {
        self.keep(GaugeVec::new(opts(name, help), &["election"]))
    }

    pub(super) fn counters(&self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.keep(Histogram::with_opts(buckets(name, help, WAITS)))
    }

    fn histograms(&self, name: &str, label: &str, help: &str) -> HistogramVec {
        self.keep(HistogramVec::new(buckets(name, help, REQUESTS), &[label]))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    // One name is not ours to choose: Kubernetes' dashboards know it.
    let namespace = if name.starts_with("leader_election") { "" } else { "tenure" };
    Opts::new(name, help).namespace(namespace)
}

fn buckets(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts { common_opts: opts(name, help), buckets: bounds.to_vec() }
}

impl Families {
    /// All of them.
    #[rustfmt::skip] // One line a family: the table is what one reads here.
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub fn new() -> Self {
        let registry = Registry::new();
        // Where there is no /proc, there are no process metrics.
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        let m = Maker(&registry);
        let e: &[&str] = &["election"];
        Self {
            build_info: m.gauges("build_info", &["version", "revision"], "The program that runs; always 1."),
            is_leader: m.gauges("is_leader", e, "1 while this daemon leads, judged by its guard at this very moment."),
            master_status: m.gauges("leader_election_master_status", &["name"], "The same, under the name that Kubernetes components use."),
            role: m.gauges("role", &["election", "role"], "1 for the role that this daemon has, 0 for the others."),
            generation: m.gauges("generation", e, "The generation (fencing token) that this daemon leads with, 0 while it does not."),
            observed_generation: m.gauges("observed_generation", e, "The newest generation (fencing token) seen, whoever holds it."),
            transitions: m.counters("transitions_total", &["election", "from", "to", "reason"], "Changes of this daemon's role."),
            leader_changes: m.counters("leader_changes_observed_total", e, "Changes of leader that this daemon saw, its own included."),
            leaderless: m.keep(CounterVec::new(opts("leaderless_seconds_total", "Time during which this daemon knew of no leader."), e)),
            candidates: m.gauges("candidates", e, "Candidates in the queue at the last full look, the leader included."),
            queue_position: m.gauges("queue_position", e, "Place in the queue, 0 for the leader, -1 while not queued."),
            session_ttl: m.keep(Gauge::with_opts(opts("session_ttl_seconds", "The TTL that etcd granted; the configured one without a session."))),
            draining: m.keep(IntGauge::with_opts(opts("draining", "1 while this daemon drains or stops: it takes part in no election."))),
            guard_deadline: m.floats("guard_deadline_timestamp_seconds", "When the guard of this leadership ends, in Unix time; 0 while not leading."),
            guard_remaining: m.floats("guard_remaining_seconds", "What is left of the guard of this leadership; 0 while not leading."),
            promise_outstanding: m.floats("promise_outstanding_seconds", "What is left of the last promise given to an application."),
            keepalive: m.histogram("keepalive_seconds", "From sending a keep-alive to its confirmation."),
            keepalive_failures: m.counters("keepalive_failures_total", &["endpoint"], "Keep-alives that this member did not answer in time."),
            elect: m.histogram("elect_seconds", "From seeing a vacancy to being elected."),
            handover: m.histogram("handover_seconds", "From ceasing to act to the commit of the hand-over."),
            loop_lag: m.histogram("loop_lag_seconds", "How much later than meant the daemon's own loop woke."),
            etcd_requests: m.counters("etcd_requests_total", &["method", "code"], "Requests to etcd that ended."),
            etcd_seconds: m.histograms("etcd_request_seconds", "method", "How long requests to etcd took, over all tries."),
            endpoint_up: m.gauges("etcd_endpoint_up", &["endpoint"], "1 while this member of etcd serves linearizable reads."),
            watch_restarts: m.counters("watch_restarts_total", &["cause"], "Watches that had to be opened again."),
            store_changes: m.counter("store_identity_changes_total", "Times that etcd's history went backwards: restored from a backup, or wiped."),
            raised: m.counters("generation_raised_total", e, "Times that this daemon lifted the generation to a remembered one."),
            fenced: m.counters("fenced_total", &["election", "door"], "Out-of-date tokens that were turned away."),
            gate_answers: m.counters("gate_answers_total", &["election", "answer"], "Answers of the gate."),
            http_requests: m.counters("http_requests_total", &["route", "method", "code"], "HTTP requests answered."),
            http_seconds: m.histograms("http_request_seconds", "route", "How long HTTP requests took to answer, long polls included."),
            audit_dropped: m.counter("audit_dropped_total", "Audit lines that could not be written."),
            log_dropped: m.counter("log_dropped_total", "Lines of the log that standard error did not take."),
            registry: registry.clone(),
        }
        .with_causes()
    }

    fn with_causes(self) -> Self {
        for cause in WATCH_CAUSES {
            self.watch_restarts.with_label_values(&[cause]);
        }
        self
    }

    /// Makes the series of one election exist that count; gauges come to exist when they are first judged.
    pub fn begin_election(&self, election: &str) {
        for (from, to, reasons) in TRANSITIONS {
            for reason in reasons {
                self.transitions.with_label_values(&[election, from.as_str(), to.as_str(), reason.as_str()]);
            }
        }
        for family in [&self.leader_changes, &self.raised] {
            family.with_label_values(&[election]);
        }
        self.leaderless.with_label_values(&[election]);
        for door in Door::ALL {
            self.fenced.with_label_values(&[election, door.as_str()]);
        }
        for answer in GateAnswer::ALL {
            self.gate_answers.with_label_values(&[election, answer.as_str()]);
        }
    }
}
