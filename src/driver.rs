//! The one loop: next event → core → outputs, in order.
//!
//! It never waits for etcd: each request is a bounded task that comes back as an input. What readers see is published
//! before anything that follows from it.

mod draining;
mod losses;
mod questions;
mod requests;
mod store;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::audit::Audit;
use crate::clock::{self, HlcClock, Instant, Reading, Wall};
use crate::control::{AuditLine, Heartbeat, Requests};
use crate::election::Core;
use crate::election::event::{ElectionInput, Input, Output, SessionInput, Ticket, Transition};
use crate::election::ids::{ElectionIndex, ElectionName};
use crate::election::pause::Jitter;
use crate::election::record::View;
use crate::election::role::Role;
use crate::etcd::{Etcd, Stamp, Watcher};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::snapshot::{ElectionView, Publisher, SessionView, Snapshot};
use crate::timing::{GraceLost, Timing};
use questions::Questions;

/// Events that may wait for the loop. Tasks and the watch wait for room; nothing is dropped.
const EVENTS: usize = 1024;
/// The loop turns at least this often: it is what `/livez` asks for, and how a jump of the clocks is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// History is trimmed at our first election of a run and at every so many generations.
const TRIM_EVERY: u64 = 16;
/// Room for the requests of a stop, on top of promises running out: a hand-over, a look at its outcome, a revoke.
const STOP_REQUESTS: u32 = 3;

/// What the driver is built from.
pub struct Parts {
    /// The candidate's id.
    pub id: String,
    /// The elections, in the order of the configuration.
    pub elections: Vec<ElectionName>,
    /// The state machine.
    pub core: Core,
    /// The way to etcd.
    pub etcd: Etcd,
    /// What readers see.
    pub publisher: Publisher,
    /// Requests from HTTP and signals.
    pub requests: Requests,
    /// Shows that the loop turns.
    pub heartbeat: Heartbeat,
    /// Role changes go here.
    pub audit: Audit,
    /// The high-water mark's place on disk.
    pub memory: Option<Memory>,
    /// Counters.
    pub metrics: Metrics,
    /// A jump of the wall clock beyond its slack ends the guard.
    pub timing: Timing,
    /// How long a drain holds what was led, where its caller does not say.
    pub drain_timeout: Duration,
    /// Limit of one request to etcd.
    pub request_timeout: Duration,
    /// The daemon's one generator of randomness for pauses.
    pub jitter: fastrand::Rng,
    /// History records of each election that are kept.
    pub history_limit: u64,
}

/// The loop.
pub struct Driver {
    parts: Parts,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    watcher: Watcher,
    store: store::Store,
    tasks: JoinSet<()>,
    questions: Questions,
    /// What nobody waits for.
    chores: JoinSet<()>,
    callers: BTreeMap<Ticket, requests::Waiting>,
    tickets: u64,
    hlc: HlcClock,
    notes: Vec<view::Note>,
    /// Wall clock minus boot clock when the request left that earned the guard.
    offset_ms: i64,
    /// The same for the newest such request.
    offset_sent_ms: i64,
    etcd_seen: Option<Instant>,
    seq: u64,
    stopped: Option<bool>,
    /// What was last said of a drain.
    drained: Option<draining::Told>,
    /// What was said last of the vacancy grace.
    grace_lost: Option<GraceLost>,
}

impl Driver {
    /// Builds the loop; it turns when [`Driver::run`] is awaited.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (sender, inputs) = mpsc::channel(EVENTS);
        let mut hlc = HlcClock::default();
        let started = clock::wall();
        let note = view::Note::new(started, hlc.tick(started));
        Self {
            watcher: parts.etcd.watch(sender.clone()),
            store: store::Store::of(&parts.etcd),
            notes: vec![note; parts.elections.len()],
            offset_ms: clock::reading().offset_ms,
            offset_sent_ms: clock::reading().offset_ms,
            tasks: JoinSet::new(),
            questions: Questions::new(parts.etcd.clone()),
            chores: JoinSet::new(),
            callers: BTreeMap::new(),
            tickets: 0,
            etcd_seen: None,
            seq: parts.audit.last_seq(),
            stopped: None,
            drained: None,
            grace_lost: None,
            parts,
            inputs,
            sender,
            hlc,
        }
    }

    /// Turns until stopped. `true` when nothing of ours is left in etcd.
    ///
    /// # Panics
    /// When one of its tasks panicked: a half-dead leader is worse than none.
    pub async fn run(mut self) -> bool {
        self.handle(Input::Tick);
        loop {
            if let Some(clean) = self.stopped {
                return clean;
            }
            let now = clock::now();
            let due = self.parts.core.poll_timeout().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
            tokio::select! {
                Some(input) = self.inputs.recv() => self.handle(input),
                Some(request) = self.parts.requests.recv() => self.request(request),
                Some(done) = self.tasks.join_next() => drop(propagate(done)),
                Some(done) = self.questions.ended() => self.questions.go_on(done),
                Some(done) = self.chores.join_next() => drop(propagate(done)),
                news = self.store.next() => self.store_news(news),
                () = tokio::time::sleep(due) => {
                    self.parts.metrics.loop_lag(clock::now().since(now + due));
                    self.handle(Input::Tick);
                }
            }
        }
    }

    /// Feeds one input and carries out all that follows from it.
    fn handle(&mut self, input: Input) {
        let reading = clock::reading();
        self.parts.heartbeat.beat(reading.now);
        let mut inputs = VecDeque::from([input]);
        if self.jumped(reading) {
            tracing::warn!(
                "the wall clock jumped against the boot clock: the guard is void until a renewal is confirmed"
            );
            self.offset_ms = reading.offset_ms;
            inputs.push_front(Input::Session(SessionInput::ClockJumped));
        }
        while let Some(input) = inputs.pop_front() {
            self.take_note(&input, reading);
            let guard = self.parts.core.session().map(|s| s.guard.deadline());
            self.parts.core.handle(reading.now, Jitter(self.parts.jitter.u64(..)), input);
            if self.parts.core.session().map(|s| s.guard.deadline()) > guard {
                // The guard counts from when its request left, so the clocks are held against what they were then: slewing
                // before that is no jump.
                self.offset_ms = self.offset_sent_ms;
            }
            while let Some(output) = self.parts.core.poll_output() {
                inputs.extend(self.carry_out(output, reading));
            }
        }
        self.remind_of_drain(reading.now);
        for _ in 0..self.parts.audit.take_dropped() {
            self.parts.metrics.audit_dropped();
        }
    }

    fn jumped(&self, reading: Reading) -> bool {
        u128::from(reading.offset_ms.abs_diff(self.offset_ms)) > self.parts.timing.slack().as_millis()
    }

    /// Bookkeeping on what comes in.
    fn take_note(&mut self, input: &Input, reading: Reading) {
        if let Input::Session(SessionInput::Granted { ttl, .. }) = input {
            self.weigh_grace(*ttl);
        }
        match input {
            Input::Session(SessionInput::Granted { .. } | SessionInput::Confirmed { .. }) => {
                self.etcd_seen = Some(reading.now);
            }
            Input::Election(election, input) => {
                let wall = clock::wall();
                let note = &mut self.notes[election.0];
                match input {
                    ElectionInput::Looked { .. } | ElectionInput::LookedAside { .. } | ElectionInput::Felt { .. } => {
                        self.etcd_seen = Some(reading.now);
                        note.last_update = Some(wall);
                    }
                    ElectionInput::GenerationChanged { cell, .. } => {
                        note.last_update = Some(wall);
                        if let Some(record) = cell.value() {
                            self.hlc.observe(record.hlc, wall);
                        }
                    }
                    ElectionInput::HandOverAnswered { outcome, .. } => {
                        if let (crate::election::event::HandOverOutcome::Done { .. }, Some(left)) = (outcome, note.left)
                        {
                            self.parts.metrics.handed_over_after(reading.now.since(left));
                            note.left = None;
                        }
                    }
                    ElectionInput::RaiseAnswered { raised: true } => self.parts.metrics.raised(*election),
                    _ => {}
                }
                if let Some(record) = viewed(input).and_then(|v| v.generation.value()) {
                    self.hlc.observe(record.hlc, wall);
                }
            }
            Input::Tick | Input::Session(_) | Input::Command(_) => {}
        }
    }

    /// Carries out one output; requests to etcd become tasks. Returns what the core is to hear at once.
    fn carry_out(&mut self, output: Output, reading: Reading) -> Option<Input> {
        let now = reading.now;
        let etcd = self.parts.etcd.clone();
        match output {
            Output::Publish => self.publish(now),
            Output::Transition(transition) => self.transition(&transition, now),
            Output::SealPromises(election) => {
                let until = self.parts.publisher.last_promise(election);
                return Some(Input::Election(election, ElectionInput::Sealed { until }));
            }
            Output::Grant { ttl } => {
                self.offset_sent_ms = reading.offset_ms;
                self.task(async move { etcd.grant(ttl).await });
            }
            Output::KeepAlive { lease, round, elsewhere } => {
                self.offset_sent_ms = reading.offset_ms;
                let metrics = self.parts.metrics.clone();
                self.task(async move {
                    let input = etcd.keep_alive(lease, round, elsewhere).await;
                    metrics.keepalive(clock::now().since(now));
                    input
                });
            }
            Output::Confirm { lease, round, elections, anchor } => {
                self.task(async move { etcd.confirm(lease, round, &elections, anchor).await });
            }
            Output::Revoke { lease } => self.task(async move { etcd.revoke(lease).await }),
            Output::Look { election, round, lease } => {
                self.task(async move { etcd.look(election, round, lease).await });
            }
            Output::Feel { election, round, suffixes } => {
                self.task(async move { etcd.feel(election, round, &suffixes).await });
            }
            Output::Queue { election, lease } => self.task(async move { etcd.queue(election, lease).await }),
            Output::Elect { election, txn } => {
                let since = now.before(Duration::from_millis(txn.leaderless_ms));
                self.notes[election.0].vacant = Some(since);
                let stamp = self.stamp();
                self.task(async move { etcd.elect(election, &txn, stamp).await });
            }
            Output::HandOver { election, txn } => {
                let stamp = self.stamp();
                self.task(async move { etcd.hand_over(election, &txn, stamp).await });
            }
            Output::Raise { election, at_least, modified } => {
                tracing::warn!(election = %self.parts.elections[election.0], %at_least, "raising the generation to what is remembered");
                let stamp = self.stamp();
                self.task(async move { etcd.raise(election, at_least, modified, stamp).await });
            }
            Output::Watch { election, plan } => self.watcher.plan(election, plan),
            Output::Remember(mark) => self.remember(mark),
            Output::Rewound { remembered, seen, sign, again } => self.rewound(&remembered, &seen, sign, again),
            Output::ElectionRewound(election, known, seen) => self.election_rewound(election, known, seen),
            Output::Reply { ticket, reply } => self.reply(ticket, reply),
            Output::Stopped { clean } => self.stopped = Some(clean),
        }
        None
    }

    fn task(&mut self, work: impl Future<Output = Input> + Send + 'static) {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            // The receiver is gone only when this history, or the daemon, is done with.
            let _ = sender.send(work.await).await;
        });
    }

    fn stamp(&mut self) -> Stamp {
        let wall = clock::wall();
        Stamp { wall, hlc: self.hlc.tick(wall) }
    }

    fn transition(&mut self, transition: &Transition, now: Instant) {
        let Transition { election, from, to, old_generation, new_generation, reason } = *transition;
        let note = &mut self.notes[election.0];
        let detail = match (to, self.parts.core.standing(election).leader) {
            (Role::Follower | Role::Candidate, Some((record, holder))) if !note.is_ours(&holder.key) => {
                format!("{} leads with {}", holder.id, record.generation)
            }
            _ => String::new(),
        };
        note.left = (from == Role::Leader).then_some(now);
        if to == Role::Leader {
            if let Some(vacant) = note.vacant.take() {
                self.parts.metrics.elected_after(now.since(vacant));
            }
            let due = !note.trimmed || new_generation.0.is_multiple_of(TRIM_EVERY);
            note.trimmed = true;
            if due {
                self.trim(election);
            }
        }
        let note = &self.notes[election.0];
        let name = &self.parts.elections[election.0];
        tracing::info!(hlc = %note.hlc, election = %name, id = %self.parts.id, from = from.as_str(), to = to.as_str(),
            old_generation = old_generation.0, new_generation = new_generation.0, reason = reason.as_str(), detail,
            "transition");
        self.seq += 1;
        self.parts.metrics.transition(transition);
        self.parts.audit.record(AuditLine {
            seq: self.seq,
            time: note.since,
            hlc: note.hlc,
            election,
            transition: transition.clone(),
            detail,
        });
        self.note_loss(transition, now);
    }

    fn trim(&mut self, election: ElectionIndex) {
        let Some(key) = self.parts.core.standing(election).key.cloned() else { return };
        let (etcd, keep) = (self.parts.etcd.clone(), self.parts.history_limit);
        self.chores.spawn(async move {
            if let Err(e) = etcd.trim_history(election, &key, keep).await {
                tracing::debug!("history was not trimmed: {e}");
            }
        });
    }

    fn publish(&mut self, now: Instant) {
        let wall = clock::wall();
        let elections = (0..self.notes.len()).map(|i| self.view(ElectionIndex(i), wall)).collect();
        let core = &self.parts.core;
        let snapshot = Snapshot {
            id: self.parts.id.clone(),
            session: core.session().map(|s| SessionView { lease: s.lease, ttl: s.ttl, guard: s.guard }),
            elections,
            draining: core.draining(),
            joined: self.notes.iter().all(|note| note.joined),
            offset_ms: self.offset_ms,
            max_jump: self.parts.timing.slack(),
            etcd_seen: self.etcd_seen.filter(|seen| *seen <= now),
        };
        self.parts.metrics.published(&snapshot, now);
        self.parts.publisher.publish(snapshot);
    }

    fn view(&mut self, election: ElectionIndex, wall: Wall) -> ElectionView {
        let standing = self.parts.core.standing(election);
        let note = &mut self.notes[election.0];
        note.join(standing.role);
        note.note_key(standing.key);
        let shown = self.parts.publisher.shown(election);
        if shown.is_some_and(|(role, own)| (role, own) != (standing.role, standing.own)) {
            (note.since, note.hlc) = (wall, self.hlc.tick(wall));
        }
        view::view_of(&self.parts.elections[election.0], &standing, note)
    }
}

/// A panic in a task ends the loop, and with it the process. `None` for a task that was called off.
fn propagate<T>(done: Result<T, JoinError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => None,
    }
}

fn viewed(input: &ElectionInput) -> Option<&View> {
    match input {
        ElectionInput::Looked { view, .. } | ElectionInput::LookedAside { view, .. } => Some(view),
        _ => None,
    }
}
