//! The world of the model: daemons, etcd, and messages between them.
//!
//! Whatever is in flight arrives at once and in order, unless a *fault* holds it, loses it or copies it. So a run without faults
//! is one run only, and the search branches over where faults strike, and over how long each lasts.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::daemon::{Clock, Daemon, E, Health, MS};
use crate::clock::Instant;
use crate::edge::Request;
use crate::election::event::{Command, ElectionInput, Input, Output, SessionInput, Ticket};
use crate::election::ids::Generation;
use crate::election::pause::Jitter;
use crate::election::role::Role;
use crate::etcd::{Change, Event, Member, Store};
use crate::timing::{Timing, TimingSpec};

/// What etcd, daemons and the network are, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// True time, in nanoseconds.
    pub now: u64,
    pub etcd: Store,
    pub daemons: Vec<Daemon>,
    /// In flight, to arrive next.
    pub wire: VecDeque<Message>,
    /// In flight, to arrive whenever the search says so.
    pub held: Vec<Message>,
    /// Faults that may still strike.
    pub budget: u8,
    /// An etcd leader that was deposed and does not know it, as this daemon meets it.
    pub deposed: Option<(usize, Deposed)>,
    /// What a restore brings back.
    pub backup: Option<Box<Store>>,
    /// An operator did something that ends a leadership before its guard.
    pub interfered: bool,
    /// Etcd was restored: keys of the lost history are gone, though guards that they earned run on.
    pub rewound: bool,
    /// The last moment at which anything was out of order.
    pub troubled: u64,
    /// The highest generation that anyone led with.
    pub led: Generation,
    /// The highest token that storage accepted.
    pub fence: Generation,
    pub wrong: Option<Wrong>,
    pub busy: Busy,
}

/// Messages delivered at one moment. It says how a state came about, not what it is: no two states differ by it.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Busy(u16);

/// More of them at one moment are a loop without end: daemons that ask, and ask again.
const TOO_BUSY: u16 = 1_000;

impl PartialEq for Busy {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Hash for Busy {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Something on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// To etcd. A late copy's answer finds nobody.
    Request { from: usize, epoch: u32, sent_at: Instant, request: Request, copy: bool },
    /// To a daemon: an answer, or a watch's event.
    Input { to: usize, epoch: u32, input: Input },
}

/// How a daemon meets a deposed leader of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deposed {
    /// It reaches nobody else.
    Alone,
    /// Its member forwards keep-alives there, and has joined the new leader whenever it is asked for anything else.
    Forwards,
    /// The same, and the member caught up by a snapshot, so that it shows the term before. This is met only by a daemon that has
    /// seen the newer term: to another the protocol promises nothing here.
    CatchesUp,
    /// Its keep-alives go there, its confirming reads to a member that is right and shows the term before.
    Lagging,
}

/// A broken promise of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// Invariant 1: two guards for one election hold at once.
    TwoLeaders,
    /// Invariant 1's reason: a leader's guard holds, and its key is gone though nobody deleted it.
    GuardOutlivesKey,
    /// Invariant 2: a generation was committed that is not above the last, or led with that is not above all led with.
    TokenNotNewer,
    /// Invariant 3: storage refused a leader's token, having seen a higher one.
    LeaderRefused,
    /// Invariant 4: a daemon says that it leads past its guard, or having heard that its key is gone or that a newer generation
    /// stands.
    NotSelfFenced,
    /// Invariant 5: nobody leads, though all has been well for long enough; or a loop without end.
    NoProgress,
    /// Invariant 6: a role changed without a transition, or a generation has no history record.
    SomethingLost,
    /// Somebody leads while another daemon's promise runs, or a promise was given after the ledger's last reading.
    PromiseBroken,
    /// The core panicked.
    Panicked,
}

impl World {
    /// Daemons that start at once, with these clocks.
    pub fn new(timing: &Timing, ppm: &[i64], budget: u8) -> Self {
        let clock = |(n, ppm): (usize, &i64)| Clock::new(1_000 * MS * (n as u64 + 1), *ppm);
        let daemons = ppm.iter().enumerate().map(clock).map(|clock| Daemon::new(timing, clock, 0, None)).collect();
        let mut world = Self {
            now: 0,
            etcd: Store::new(1),
            daemons,
            wire: VecDeque::new(),
            held: Vec::new(),
            budget,
            deposed: None,
            backup: None,
            interfered: false,
            rewound: false,
            troubled: 0,
            led: Generation(0),
            fence: Generation(0),
            wrong: None,
            busy: Busy(0),
        };
        for n in 0..world.daemons.len() {
            world.feed(timing, n, Input::Tick);
        }
        world
    }

    /// Delivers all that is in flight.
    pub fn settle(&mut self, timing: &Timing) {
        while !self.wire.is_empty() && self.wrong.is_none() {
            self.deliver(timing);
        }
    }

    /// Delivers the next message.
    pub fn deliver(&mut self, timing: &Timing) {
        self.busy.0 += 1;
        self.expect(self.busy.0 < TOO_BUSY, Wrong::NoProgress);
        if self.busy.0.is_multiple_of(50) {
            // A request takes time after all: what is asked and asked again leaves later than what made it necessary.
            self.now += MS / 1_000;
        }
        match self.wire.pop_front() {
            Some(Message::Request { from, epoch, sent_at, request, copy }) => {
                self.serve((from, epoch, sent_at), &request, copy);
            }
            Some(Message::Input { to, epoch, input }) if epoch == self.daemons[to].epoch => {
                self.feed(timing, to, input);
            }
            Some(Message::Input { .. }) | None => {}
        }
        self.check(timing);
    }

    /// Loses the next message, or only its answer.
    pub fn lose(&mut self, timing: &Timing, carried_out: bool) {
        if let Some(Message::Request { from, epoch, sent_at, request, .. }) = self.wire.pop_front() {
            let input = request.unanswered();
            if carried_out {
                self.serve((from, epoch, sent_at), &request, true);
            }
            self.wire.push_back(Message::Input { to: from, epoch, input });
        }
        self.check(timing);
    }

    /// Moves on to the next moment at which anything is due, but not past `limit`.
    pub fn advance(&mut self, timing: &Timing, limit: u64) {
        let wakes = self.daemons.iter().filter_map(Daemon::wakes_at);
        let leases = self.etcd.leases.values().map(|lease| lease.expires);
        let next = wakes.chain(leases).min().unwrap_or(limit);
        self.now = next.min(limit).max(self.now);
        self.busy = Busy(0);
        let mut events = Vec::new();
        self.etcd.expire(self.now, &mut events);
        self.announce(&events);
        for n in 0..self.daemons.len() {
            if self.daemons[n].wakes_at().is_some_and(|at| at <= self.now) {
                self.feed(timing, n, Input::Tick);
            }
        }
        self.check(timing);
    }

    /// A request reaches etcd.
    fn serve(&mut self, (from, epoch, sent_at): (usize, u32, Instant), request: &Request, silent: bool) {
        let member = match (self.deposed, &request.output) {
            (Some((n, Deposed::Forwards | Deposed::CatchesUp)), Output::KeepAlive { .. }) if n == from => {
                Some(Member::Forwarding)
            }
            (Some((n, Deposed::CatchesUp)), Output::Confirm { .. }) if n == from && self.knows_the_term(n) => {
                Some(Member::CaughtUp)
            }
            (Some((n, _)), Output::KeepAlive { .. }) if n == from => Some(Member::Deposed),
            (Some((n, _)), _) if n == from && request.asks_nobody() => Some(Member::Deposed),
            (Some((n, Deposed::Lagging)), Output::Confirm { .. }) if n == from => Some(Member::Lagging),
            (Some((n, Deposed::Alone)), _) if n == from => None,
            _ => Some(Member::Good),
        };
        let member = member.filter(|_| self.daemons[from].cut.is_none() || silent);
        let mut events = Vec::new();
        let before = self.etcd.newest(E);
        let input = match member {
            Some(member) => self.etcd.serve(self.now, from, sent_at, request, member, &mut events),
            None => request.unanswered(),
        };
        let newest = self.etcd.newest(E);
        if events.iter().any(|e| matches!(e.change, Change::Generation(_))) {
            self.expect(newest > before, Wrong::TokenNotNewer);
            self.expect(self.etcd.keys(E).history.contains_key(&newest), Wrong::SomethingLost);
        }
        self.announce(&events);
        if !silent {
            self.wire.push_back(Message::Input { to: from, epoch, input });
        }
    }

    fn knows_the_term(&self, n: usize) -> bool {
        self.daemons[n].core.high_water().raft_term.0 >= self.etcd.term
    }

    /// Tells whoever watches.
    pub fn announce(&mut self, events: &[Event]) {
        for event in events {
            for n in 0..self.daemons.len() {
                let daemon = &mut self.daemons[n];
                let watched = match &event.change {
                    Change::Deleted(suffix) => daemon.watching.contains(suffix),
                    Change::Generation(_) | Change::Control(_) => true,
                };
                let reached = self.deposed != Some((n, Deposed::Alone));
                if let Some(missed) = &mut daemon.cut {
                    *missed |= watched;
                } else if watched && reached && daemon.health != Health::Down {
                    self.wire.push_back(Message::Input { to: n, epoch: daemon.epoch, input: event.input() });
                }
            }
        }
    }

    /// An input reaches a daemon.
    pub fn feed(&mut self, timing: &Timing, n: usize, input: Input) {
        match self.daemons[n].health {
            Health::Up => {}
            Health::Paused | Health::Frozen(_) => return self.daemons[n].inbox.push(input),
            Health::Down => return,
        }
        let now = self.daemons[n].clock.at(self.now);
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let daemon = &mut self.daemons[n];
            daemon.edge.note(&input);
            if matches!(input, Input::Command(Command::Drained { token: None, .. })) {
                // By saying so the application gives its promises up; what it says of an earlier leadership gives up none.
                daemon.promised_until = 0;
            }
            let ended = daemon.hears_of_its_end(&input);
            // Without jitter every pause is as long as it may be.
            daemon.core.handle(now, Jitter(0), input);
            while let Some(output) = self.daemons[n].core.poll_output() {
                self.carry_out(n, now, output, &mut inputs);
                // Between any two outputs somebody may ask.
                let kept = self.daemons[n].ask(self.now, timing);
                self.expect(kept, Wrong::PromiseBroken);
            }
            self.expect(!ended || self.daemons[n].shown.role != Role::Leader, Wrong::NotSelfFenced);
            let daemon = &self.daemons[n];
            let role = daemon.core.standing(E).role;
            self.expect(role == daemon.told && role == daemon.shown.role, Wrong::SomethingLost);
        }
    }

    fn carry_out(&mut self, n: usize, now: Instant, output: Output, inputs: &mut VecDeque<Input>) {
        let daemon = &mut self.daemons[n];
        match output {
            Output::Publish => daemon.publish(),
            Output::Transition(t) => {
                let in_order = daemon.told == t.from;
                daemon.told = t.to;
                if t.to == Role::Leader {
                    let fresh = self.interfered || t.new_generation > self.led;
                    self.expect(fresh, Wrong::TokenNotNewer);
                    self.led = self.led.max(t.new_generation);
                }
                self.expect(in_order, Wrong::SomethingLost);
            }
            Output::SealPromises(e) => {
                daemon.sealed = true;
                inputs.push_back(Input::Election(e, ElectionInput::Sealed { until: daemon.ledger.latest() }));
            }
            Output::Remember(mark) => daemon.remembered = mark,
            Output::Rewound { .. } => {
                daemon.epoch += 1;
                daemon.inbox.clear();
                daemon.watching.clear();
                daemon.edge = crate::edge::Edge::new(1);
            }
            Output::Watch { plan, .. } => {
                daemon.watching = plan.suffixes;
                if plan.from.0 <= self.etcd.revision {
                    let broken = Input::Election(E, ElectionInput::WatchBroken);
                    self.wire.push_back(Message::Input { to: n, epoch: daemon.epoch, input: broken });
                }
            }
            Output::ElectionRewound(..) | Output::Reply { .. } | Output::Stopped { .. } => {}
            output => {
                let request = daemon.edge.request(output);
                let epoch = daemon.epoch;
                self.wire.push_back(Message::Request { from: n, epoch, sent_at: now, request, copy: false });
            }
        }
    }

    /// The invariants that are about one moment.
    fn check(&mut self, timing: &Timing) {
        let leaders: Vec<_> =
            (0..self.daemons.len()).filter_map(|n| Some((n, self.daemons[n].leads(self.now)?))).collect();
        for (n, (generation, guard)) in &leaders {
            let daemon = &self.daemons[*n];
            let in_time = daemon.clock.at(self.now) < guard.deadline();
            let key = daemon.core.standing(E).key.cloned();
            let stands = key.is_some_and(|k| self.etcd.created(E, &k.suffix) == k.created.0);
            let promised = self.daemons.iter().enumerate().any(|(m, d)| m != *n && d.promised_until > self.now);
            let refused = *generation < self.fence;
            self.expect(in_time, Wrong::NotSelfFenced);
            if !self.interfered {
                self.expect(stands || self.rewound, Wrong::GuardOutlivesKey);
                self.expect(!promised, Wrong::PromiseBroken);
                self.expect(!refused, Wrong::LeaderRefused);
            }
            self.fence = self.fence.max(*generation);
        }
        self.expect(leaders.len() < 2 || self.interfered, Wrong::TwoLeaders);
        for n in 0..self.daemons.len() {
            let kept = self.daemons[n].ask(self.now, timing);
            self.expect(kept, Wrong::PromiseBroken);
        }
    }

    /// Keeps the first thing that went wrong.
    pub fn expect(&mut self, right: bool, wrong: Wrong) {
        if !right && self.wrong.is_none() {
            self.wrong = Some(wrong);
        }
    }

    /// Whether elections are paused.
    pub fn paused(&self) -> bool {
        self.etcd.keys(E).control.value().is_some_and(|c| c.paused)
    }

    /// Only a history whose newest generation everybody remembers is lost: who knows nothing of it cannot mint above it.
    pub fn restorable(&self) -> bool {
        let newest = self.etcd.newest(E);
        self.daemons.iter().all(|d| {
            let known = if d.health == Health::Down { d.remembered.clone() } else { d.core.high_water() };
            known.generations.first().is_some_and(|g| *g >= newest)
        })
    }

    /// Elections are paused, or resumed.
    pub fn control(&mut self, paused: bool) {
        let mut events = Vec::new();
        self.etcd.control(E, paused, &mut events);
        self.announce(&events);
    }

    /// Etcd is restored from the backup, or from nothing.
    pub fn restore(&mut self, timing: &Timing, wiped: bool) {
        // It takes a moment: no daemon asks twice within one nanosecond.
        self.advance(timing, self.now + MS);
        let empty = Store::new(1);
        let old = if wiped { &empty } else { self.backup.as_deref().expect("there is a backup") };
        self.etcd = self.etcd.restored(old, self.now);
        self.rewound = true;
        // Watches end with the members that served them.
        for (to, daemon) in self.daemons.iter().enumerate() {
            let input = Input::Election(E, ElectionInput::WatchBroken);
            self.wire.push_back(Message::Input { to, epoch: daemon.epoch, input });
        }
    }

    /// Ends a stop, a freeze, a crash or a cut.
    pub fn recover(&mut self, timing: &Timing, n: usize) {
        self.troubled = self.now;
        let now = self.now;
        let daemon = &mut self.daemons[n];
        let mut inputs = std::mem::take(&mut daemon.inbox);
        match std::mem::replace(&mut daemon.health, Health::Up) {
            Health::Up if daemon.cut.take() == Some(true) => {
                inputs.push(Input::Election(E, ElectionInput::WatchBroken));
            }
            Health::Up | Health::Paused => {}
            Health::Frozen(since) => {
                daemon.clock.missed += now - since;
                // The driver looks at the clocks before anything else.
                inputs.insert(0, Input::Session(SessionInput::ClockJumped));
            }
            Health::Down => {
                let (epoch, clock) = (daemon.epoch + 1, daemon.clock);
                let promised_until = daemon.promised_until;
                let mut fresh = Daemon::new(timing, clock, now, Some(daemon.remembered.clone()));
                fresh.remembered = daemon.remembered.clone();
                *daemon = Daemon { epoch, promised_until, cut: daemon.cut, ..fresh };
                inputs = vec![Input::Tick];
            }
        }
        let epoch = self.daemons[n].epoch;
        for input in inputs {
            // What a rewind made void meanwhile is not heard.
            if self.daemons[n].epoch == epoch {
                self.feed(timing, n, input);
            }
        }
        self.check(timing);
    }

    /// Gives a command.
    pub fn command(&mut self, timing: &Timing, n: usize, command: Command) {
        self.feed(timing, n, Input::Command(command));
        self.check(timing);
    }

    /// Whether nothing is out of order right now.
    pub fn healthy(&self) -> bool {
        let well = |d: &Daemon| d.health == Health::Up && d.cut.is_none() && !d.core.draining();
        !self.paused()
            && self.daemons.iter().all(well)
            && self.held.is_empty()
            && self.wire.is_empty()
            && self.deposed.is_none()
    }
}

/// TTL 2 s, the shortest that etcd grants: everything else follows from it.
pub fn timing() -> Timing {
    let ms = std::time::Duration::from_millis;
    let spec = TimingSpec { ttl: ms(2_000), promise: ms(500), ..TimingSpec::default() };
    Timing::new(spec).expect("good timing")
}

/// The command to resign.
pub const RESIGN: Command =
    Command::Resign { election: E, ticket: Ticket(0), cooldown: std::time::Duration::ZERO, token: None };

/// The application's word that it has stopped.
pub const DRAINED: Command = Command::Drained { election: E, ticket: Ticket(0), token: None };

/// How long a drain holds what was led: less than a promise, which it must keep all the same.
pub const HELD: std::time::Duration = std::time::Duration::from_millis(300);
