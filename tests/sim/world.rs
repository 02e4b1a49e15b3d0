//! The world of one schedule: virtual time, daemons, etcd, and what lies between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use super::invariants::{Violation, fenced_store, progress, tokens_grow};
use super::network::{kind, mix};
use super::node::{ELECTIONS, Node};
use super::plan::{MS, NEVER, Plan};
use super::stats::Stats;
use super::unaware::Heard;
use crate::clock::Instant;
use crate::edge::{Request, nanos};
use crate::election::event::{ElectionInput, Input, Output, SessionInput};
use crate::election::ids::ElectionIndex;
use crate::election::pause::Jitter;
use crate::election::role::Role;
use crate::etcd::{Event, Member, Store};
use crate::timing::{Timing, TimingSpec};

/// How often clients ask for tokens.
pub(super) const ASK_EVERY: u64 = 80 * MS;
/// Far more than any schedule needs: past it, something turns in circles.
const MOST_EVENTS: u64 = 60_000;

/// Something that is to happen.
pub(super) enum Due {
    /// A request reaches etcd; then its answer travels back.
    Reach {
        n: usize,
        run: u32,
        sent_at: Instant,
        count: u32,
        history: u32,
        request: Box<Request>,
    },
    /// A copy of it arrives late; nobody hears its answer.
    Copy {
        n: usize,
        history: u32,
        request: Box<Request>,
    },
    /// A daemon hears an answer or an event.
    Hear {
        n: usize,
        run: u32,
        input: Box<Input>,
    },
    Wake(usize),
    /// A fault of the plan begins, or ends.
    Fault(usize),
    Heal(usize),
    /// All clients ask for tokens.
    Ask,
    /// A write with a token reaches the fenced store.
    Write(fenced_store::Write),
    /// Somebody sets the wall clock of a machine right, by so much.
    SetClock(usize, u64),
    /// A member that applied nothing does so again; a stream is probed.
    CatchUp(usize),
    Probe(usize, u32),
    /// The storm is over.
    Calm,
}

pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) timing: Timing,
    pub(super) now: u64,
    pub(super) calm: bool,
    agenda: BinaryHeap<Reverse<(u64, u32, u32)>>,
    seq: u32,
    slots: Vec<Option<Due>>,
    free: Vec<u32>,
    pub(super) store: Store,
    /// Another cluster, of which nobody knows.
    pub(super) elsewhere: Store,
    /// What the newest request changed.
    pub(super) events: Vec<Event>,
    /// All that the present history told watchers.
    pub(super) history: Vec<Event>,
    pub(super) snapshot: Option<Store>,
    /// How often etcd lost some of its history.
    pub(super) histories: u32,
    /// Of which elections.
    pub(super) lost: [bool; ELECTIONS],
    pub(super) nodes: Vec<Node>,
    /// What an operator does the moment before the next transaction of an election: the fault's number.
    pub(super) traps: [Option<usize>; ELECTIONS],
    pub(super) tokens: tokens_grow::State,
    pub(super) fenced: fenced_store::State,
    pub(super) progress: progress::State,
    pub(super) stats: Stats,
    trace: Option<String>,
    pub(super) violation: Option<Violation>,
}

/// What came of a schedule.
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) stats: Stats,
    pub(super) trace: Option<String>,
    /// When it ended, in ms.
    pub(super) ended: u64,
}

impl<'a> World<'a> {
    /// Plays a plan to its end, or to the first violation.
    pub(super) fn play(plan: &'a Plan, traced: bool) -> Outcome {
        let mut world = Self::new(plan, traced);
        world.run();
        Outcome { violation: world.violation, stats: world.stats, trace: world.trace, ended: world.now / MS }
    }

    fn new(plan: &'a Plan, traced: bool) -> Self {
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let (ttl, promise, vacancy_grace) = (ms(plan.ttl), ms(plan.promise), ms(plan.grace));
        let spec = TimingSpec { ttl, promise, vacancy_grace, ..TimingSpec::default() };
        let timing = Timing::new(spec).expect("good timing");
        Self {
            plan,
            now: 0,
            calm: false,
            agenda: BinaryHeap::with_capacity(64),
            seq: 0,
            slots: Vec::with_capacity(64),
            free: Vec::new(),
            store: Store::new(plan.elections),
            elsewhere: Store::new(plan.elections),
            events: Vec::new(),
            history: Vec::new(),
            snapshot: None,
            histories: 0,
            lost: [false; ELECTIONS],
            nodes: (0..plan.daemons).map(|n| Node::new(plan, &timing, n)).collect(),
            traps: [None; ELECTIONS],
            tokens: tokens_grow::State::default(),
            fenced: fenced_store::State::default(),
            progress: progress::State::default(),
            stats: Stats::default(),
            trace: traced.then(String::new),
            violation: None,
            timing,
        }
    }

    fn run(&mut self) {
        for n in 0..self.nodes.len() {
            self.feed(n, Input::Tick);
        }
        for (i, fault) in self.plan.faults.iter().enumerate() {
            self.at(u64::from(fault.at) * MS, Due::Fault(i));
        }
        self.at(ASK_EVERY, Due::Ask);
        self.at(u64::from(self.plan.storm) * MS, Due::Calm);
        while let Some(Reverse((at, _, slot))) = self.agenda.pop() {
            self.now = at;
            self.stats.events += 1;
            self.expire_leases();
            let due = self.slots[slot as usize].take().expect("an event happens once");
            self.free.push(slot);
            self.happen(due);
            self.one_leader();
            self.self_fencing();
            if self.recovered() || self.violation.is_some() {
                return;
            }
            if self.stats.events > MOST_EVENTS {
                self.fail(progress::NAME, || "something turns in circles".to_owned());
            }
        }
    }

    /// Puts something on the agenda.
    pub(super) fn at(&mut self, at: u64, due: Due) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("few")
        });
        self.slots[slot as usize] = Some(due);
        self.seq += 1;
        self.agenda.push(Reverse((at, self.seq, slot)));
    }

    /// Notes a line of the trace, where there is one.
    pub(super) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>9.3} {}", Duration::from_nanos(self.now).as_secs_f64() * 1e3, line());
        }
    }

    /// Keeps the first violation.
    pub(super) fn fail(&mut self, invariant: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let text = text();
            self.trace(|| format!("violated: {invariant}: {text}"));
            self.violation = Some(Violation { invariant, text });
        }
    }

    pub(super) fn elections(&self) -> impl Iterator<Item = ElectionIndex> + use<> {
        (0..self.plan.elections).map(ElectionIndex)
    }

    /// The jump of the wall clock that voids a guard.
    pub(super) fn max_jump(&self) -> u64 {
        nanos(self.timing.slack())
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Reach { n, run, sent_at, count, history, request } => {
                let lost = history != self.histories;
                self.reach(n, run, (sent_at, lost), count, &request);
            }
            Due::Copy { n, history, request } => {
                self.trace(|| format!("late copy of n{n}: {request:?}"));
                let lost = history != self.histories;
                self.commit(n, (Instant::default(), lost), &request, Member::Good);
            }
            Due::Hear { n, run, input } if self.nodes[n].run == run => self.feed(n, *input),
            Due::Wake(n) => self.wake(n),
            Due::Fault(i) if !self.calm => self.strike(i),
            Due::Heal(i) if !self.calm => self.heal(i),
            // To a process that is gone, or after the storm.
            Due::Hear { .. } | Due::Fault(_) | Due::Heal(_) => {}
            Due::Ask => {
                for n in 0..self.nodes.len() {
                    self.ask(n);
                }
                self.at(self.now + ASK_EVERY, Due::Ask);
            }
            Due::Write(write) => self.write(write),
            Due::SetClock(n, by) => {
                self.nodes[n].clock.jump(by);
                self.feed(n, Input::Tick);
            }
            Due::CatchUp(n) => self.catch_up(n),
            Due::Probe(n, run) => self.probe(n, run),
            Due::Calm => self.become_calm(),
        }
    }

    /// A machine that stood still goes on, and its wall clock is set right: at once, soon, or never.
    pub(super) fn wake_machine(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(paused) = node.clock.thaw(now) else { return };
        match node.clock.set_after {
            0 => node.clock.jump(paused),
            after => {
                self.at_a_loss(n);
                if after <= NEVER {
                    self.at(now + u64::from(after) * MS, Due::SetClock(n, paused));
                }
            }
        }
    }

    fn wake(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.wake_set == self.now {
            node.wake_set = u64::MAX;
        }
        if node.wake_at <= self.now {
            self.feed(n, Input::Tick);
        } else if node.wake_at < node.wake_set {
            (node.wake_set) = node.wake_at;
            let at = node.wake_at;
            self.at(at, Due::Wake(n));
        }
    }

    /// An input reaches a daemon, if it runs.
    pub(super) fn feed(&mut self, n: usize, input: Input) {
        let node = &mut self.nodes[n];
        if node.turns(self.now) && node.inbox.is_empty() {
            self.turn_with(n, Some(input));
        } else if node.up {
            node.inbox.push_back(input);
            self.turn(n);
        }
    }

    /// The driver's loop turns until nothing waits.
    pub(super) fn turn(&mut self, n: usize) {
        if self.nodes[n].turns(self.now) {
            let first = self.nodes[n].inbox.pop_front();
            self.turn_with(n, first);
        }
    }

    fn turn_with(&mut self, n: usize, mut next: Option<Input>) {
        self.wake_machine(n);
        let now = self.nodes[n].clock.at(self.now);
        let max_jump = self.max_jump();
        while let Some(input) = next {
            let clock = &mut self.nodes[n].clock;
            if clock.wall.abs_diff(clock.wall_held) > max_jump {
                clock.wall_held = clock.wall;
                self.handle(n, now, Input::Session(SessionInput::ClockJumped));
            }
            self.handle(n, now, input);
            if !self.nodes[n].up {
                return;
            }
            next = self.nodes[n].inbox.pop_front();
        }
        let Some(at) = self.nodes[n].core.poll_timeout() else { return };
        let node = &mut self.nodes[n];
        node.wake_at = self.now + node.clock.true_span(nanos(at.since(now))) + 1;
        if node.wake_at < node.wake_set {
            node.wake_set = node.wake_at;
            let at = node.wake_at;
            self.at(at, Due::Wake(n));
        }
    }

    /// One input, and all that follows from it.
    fn handle(&mut self, n: usize, now: Instant, input: Input) {
        let (mut next, mut sealed) = (Some(input), VecDeque::new());
        while let Some(input) = next {
            self.trace(|| format!("n{n} <- {input:?}"));
            self.is_it_behind(n, &input);
            let node = &mut self.nodes[n];
            node.edge.note(&input);
            let deadline = |node: &Node| node.core.session().map(|s| s.guard.deadline());
            let guard = deadline(node);
            let ending = self.leads_on(n, &input);
            let heard = Heard::of(&input);
            let node = &mut self.nodes[n];
            let jitter = Jitter(mix(self.plan.seed, 7, n as u64, self.stats.events));
            node.core.handle(now, jitter, input);
            let grew = deadline(node) > guard;
            if grew {
                node.clock.wall_held = node.clock.wall_sent;
            }
            self.comes_to_know(n, &heard, grew);
            while let Some(output) = self.nodes[n].core.poll_output() {
                sealed.extend(self.carry_out(n, now, output));
            }
            self.has_ended(n, ending);
            self.audited(n);
            next = sealed.pop_front();
        }
    }

    /// Carries one output out. Returns what the core is to hear at once.
    fn carry_out(&mut self, n: usize, now: Instant, output: Output) -> Option<Input> {
        if output == Output::Publish {
            self.publish(n);
            return None;
        }
        self.trace(|| format!("n{n} -> {output:?}"));
        match output {
            Output::Publish | Output::Reply { .. } => {}
            Output::ElectionRewound(election, ..) => {
                self.stats.rewinds += 1;
                self.says_rewound(n, Some(election));
            }
            Output::Transition(transition) => {
                self.transition(n, &transition);
                self.ask(n);
            }
            Output::SealPromises(election) => {
                let node = &mut self.nodes[n];
                node.held[election.0].sealed = true;
                let until = node.ledgers[election.0].latest();
                // A client that is quicker than all else.
                self.ask(n);
                return Some(Input::Election(election, ElectionInput::Sealed { until }));
            }
            Output::Stopped { clean } => self.stopped(n, clean),
            Output::Remember(mark) => self.nodes[n].remembered = mark,
            Output::Rewound { again, .. } => {
                self.stats.rewinds += 1;
                self.says_rewound(n, None);
                self.stats.divided += u64::from(again);
                self.nodes[n].forget_connections();
            }
            Output::Watch { election, plan } => self.watch(n, election, plan.suffixes, plan.from.0),
            request => self.send(n, now, request),
        }
        None
    }

    fn publish(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let before = node.shown;
        node.shown.guard = node.core.session().map(|s| s.guard);
        node.shown.wall = node.clock.wall_held;
        for i in 0..self.plan.elections {
            let standing = node.core.standing(ElectionIndex(i));
            node.shown.roles[i] = (standing.role, standing.own.unwrap_or_default());
        }
        self.guard_is_earned(n);
        for election in self.elections() {
            let (role, own) = self.nodes[n].shown.roles[election.0];
            if role == Role::Leader && before.roles[election.0] != (role, own) {
                self.begins_to_lead(n, election);
            }
        }
    }

    fn send(&mut self, n: usize, sent_at: Instant, output: Output) {
        let kind = kind(&output);
        let node = &mut self.nodes[n];
        node.counts[kind] += 1;
        let count = node.counts[kind];
        if matches!(output, Output::Grant { .. } | Output::KeepAlive { .. }) {
            node.clock.wall_sent = node.clock.wall;
        }
        let (request, run, history) = (Box::new(node.edge.request(output)), node.run, self.histories);
        let fate = self.plan.fate(n, kind, count, self.calm);
        if let Some(after) = fate.copy.filter(|_| !request.reads()) {
            let at = (self.now + after).min(u64::from(self.plan.storm) * MS);
            self.at(at, Due::Copy { n, history, request: request.clone() });
        }
        self.at(self.now + fate.out, Due::Reach { n, run, sent_at, count, history, request });
    }
}
