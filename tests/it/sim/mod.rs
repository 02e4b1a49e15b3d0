//! A small seeded simulation of the core: a few daemons, a model of etcd, and a network that delays, loses and reorders.
//!
//! It checks what transcripts cannot: that no schedule makes two leaders, reuses a token, or breaks a promise. The same seed
//! gives the same run; a failing one prints it. `make sim SEEDS=100000` runs many.

mod etcd;
mod node;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use etcd::{Event, Store, failure};
use fastrand::Rng;
use node::{Node, settings};
use tenure::clock::{Instant, Wall};
use tenure::election::Core;
use tenure::election::event::{Command, ElectionInput, Input, Output, SessionInput, Ticket};
use tenure::election::ids::{ElectionIndex, Generation};
use tenure::election::promise::Promises;
use tenure::election::record::Cell;
use tenure::election::role::Role;
use tenure::timing::{Timing, TimingSpec};

const E: ElectionIndex = ElectionIndex(0);
const MS: u64 = 1_000_000;
const TTL: Duration = Duration::from_secs(2);
/// etcd's election timeout: what a new leader adds to every lease.
const ELECTION_TIMEOUT: u64 = 1_000 * MS;

/// What a schedule may do to the daemons.
#[derive(Clone, Copy, PartialEq)]
enum Attack {
    /// Delays, losses, pauses, crashes, etcd leader changes with a deposed leader that goes on answering keep-alives.
    Faults,
    /// That, and keys deleted and leases revoked by hand, and etcd restored from a snapshot. These end a leadership before
    /// its guard, so only tokens are checked.
    OutOfBand,
}

/// Goal: invariants 1, 2 and 5, and the promise rule. Method: random faults, checked at every event.
#[test]
fn no_schedule_makes_two_leaders_reuses_a_token_or_breaks_a_promise() {
    for seed in seeds(1_000) {
        World::run(seed, Attack::Faults);
    }
}

/// Goal: invariant 2 under restores, deletions and revocations. Method: the same, with an operator who does his worst.
#[test]
fn tokens_only_grow_whatever_an_operator_does_to_etcd() {
    for seed in seeds(1_000) {
        World::run(seed, Attack::OutOfBand);
    }
}

/// `SIM_SEED` replays one seed; `SIM_SEEDS` sets how many are tried.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(default),
    }
}

/// A request, with what the edge adds to it.
#[derive(Clone, Debug)]
struct Request {
    output: Output,
    /// The value of the generation key that the daemon last read at the revision it compares with.
    value: Option<Wall>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    seq: u64,
}

enum What {
    /// A request reaches etcd; then its answer travels back.
    Reach(usize, u64, Instant, Box<Request>),
    Hear(usize, u64, Box<Input>),
    /// A hedged copy arrives late; nobody hears its answer.
    Late(usize, Box<Request>),
    Wake(usize),
    Mischief,
    Client(usize),
}

struct World {
    seed: u64,
    attack: Attack,
    rng: Rng,
    now: u64,
    seq: u64,
    due: BinaryHeap<Reverse<Due>>,
    what: BTreeMap<u64, What>,
    store: Store,
    snapshot: Option<Store>,
    nodes: Vec<Node>,
    timing: Timing,
    /// Every token that was led with.
    led: BTreeSet<Generation>,
    calm: bool,
    /// A deposed etcd leader goes on answering keep-alives, in its old term, until then.
    deposed_until: u64,
    leaderships: u64,
    /// Tells values of the generation key apart, across histories.
    stamps: u64,
    log: Vec<String>,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).expect("short")
}

impl World {
    fn run(seed: u64, attack: Attack) {
        let spec = TimingSpec { ttl: TTL, promise: Duration::from_millis(500), ..TimingSpec::default() };
        let mut rng = Rng::with_seed(seed);
        let timing = Timing::new(spec).expect("good timing");
        let nodes = (0..3).map(|_| Node::new(&timing, &mut rng)).collect();
        let keys = BTreeMap::new();
        let store = Store { revision: 1, term: 2, keys, generation: Cell::Absent, leases: BTreeMap::new() };
        let mut world = Self {
            seed,
            attack,
            rng,
            now: 0,
            seq: 0,
            due: BinaryHeap::new(),
            what: BTreeMap::new(),
            store,
            snapshot: None,
            nodes,
            timing,
            led: BTreeSet::new(),
            calm: false,
            deposed_until: 0,
            leaderships: 0,
            stamps: 0,
            log: Vec::new(),
        };
        world.play();
    }

    fn play(&mut self) {
        for n in 0..self.nodes.len() {
            self.feed(n, Input::Tick);
            self.later(self.now + 50 * MS, What::Client(n));
        }
        self.later(100 * MS, What::Mischief);
        let storm = 20_000 * MS;
        // Enough for a dead leader's lease, a rewind's wait, and a few refusals.
        let end = storm + 6 * nanos(TTL) + 4 * ELECTION_TIMEOUT;
        while let Some(Reverse(Due { at, seq })) = self.due.pop() {
            if at > end {
                break;
            }
            self.now = at;
            if at > storm && !self.calm {
                self.calm = true;
                self.deposed_until = 0;
                for n in 0..self.nodes.len() {
                    (self.nodes[n].paused_until, self.nodes[n].cut_until) = (0, 0);
                    if self.nodes[n].down {
                        self.start(n);
                    }
                    self.drain(n);
                }
            }
            self.expire_leases();
            if let Some(what) = self.what.remove(&seq) {
                self.happen(what);
            }
            self.check();
        }
        let leaders = (0..self.nodes.len()).filter(|n| self.leads(*n).is_some()).count();
        assert_eq!(leaders, 1, "seed {}: no single leader after the storm\n{}", self.seed, self.tail());
        assert!(self.leaderships > 0, "seed {}: nobody ever led", self.seed);
    }

    fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(200)..].join("\n")
    }

    fn later(&mut self, at: u64, what: What) {
        self.seq += 1;
        self.due.push(Reverse(Due { at, seq: self.seq }));
        self.what.insert(self.seq, what);
    }

    fn local(&self, n: usize) -> Instant {
        let node = &self.nodes[n];
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a clock"
        )]
        let run = ((node.frozen_since.unwrap_or(self.now) - node.frozen) as f64 * node.rate) as u64;
        Instant::from_nanos(node.offset + run)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Reach(n, epoch, sent_at, request) => self.reach(n, epoch, sent_at, &request),
            What::Late(n, request) => {
                self.log.push(format!("{:>8} late copy of n{n}: {request:?}", self.now / MS));
                self.serve(n, Instant::from_nanos(0), &request);
            }
            What::Hear(n, epoch, input) if self.nodes[n].epoch == epoch => self.feed(n, *input),
            What::Wake(n) if self.nodes[n].wake_at <= self.now => self.feed(n, Input::Tick),
            What::Hear(..) | What::Wake(_) => {}
            What::Mischief => self.mischief(),
            What::Client(n) => {
                self.ask_for_token(n);
                let at = self.now + self.rng.u64(20..400) * MS;
                self.later(at, What::Client(n));
            }
        }
    }

    /// An input reaches a daemon, if it runs.
    fn feed(&mut self, n: usize, input: Input) {
        if self.nodes[n].down {
            return;
        }
        self.nodes[n].queue.push_back(input);
        if self.nodes[n].paused_until <= self.now {
            self.drain(n);
        }
    }

    fn drain(&mut self, n: usize) {
        if self.nodes[n].thaw(self.now) {
            // The driver looks at the clocks before anything else.
            self.nodes[n].queue.push_front(Input::Session(SessionInput::ClockJumped));
        }
        let now = self.local(n);
        while let Some(input) = self.nodes[n].queue.pop_front() {
            self.nodes[n].note(&input);
            self.log.push(format!("{:>8} n{n} <- {input:?}", self.now / MS));
            if matches!(input, Input::Command(Command::Drained { .. })) {
                // By saying so the application gives its promises up.
                self.nodes[n].promised = 0;
            }
            self.nodes[n].core.handle(now, input);
            while let Some(output) = self.nodes[n].core.poll_output() {
                self.carry_out(n, now, output);
            }
        }
        if let Some(at) = self.nodes[n].core.poll_timeout() {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a clock"
            )]
            let wait = (nanos(at.since(now)) as f64 / self.nodes[n].rate) as u64 + 1;
            self.nodes[n].wake_at = self.now + wait;
            self.later(self.now + wait, What::Wake(n));
        }
    }

    fn carry_out(&mut self, n: usize, now: Instant, output: Output) {
        if output != Output::Publish {
            self.log.push(format!("{:>8} n{n} -> {output:?}", self.now / MS));
        }
        match output {
            Output::Publish | Output::Reply { .. } | Output::Stopped { .. } => {}
            Output::Transition(t) => {
                if t.to == Role::Leader {
                    self.leaderships += 1;
                    // Who was deposed by hand may hear late that it had won. It leads with a token that storage refuses; what
                    // holds even then is that no token is led with twice, and that they grow in commit order.
                    let newest = self.led.last().is_none_or(|led| t.new_generation > *led);
                    let fresh = self.led.insert(t.new_generation);
                    let well = if self.attack == Attack::Faults { newest } else { fresh };
                    assert!(
                        well,
                        "seed {}: token {} after {:?}\n{}",
                        self.seed,
                        t.new_generation,
                        self.led,
                        self.tail()
                    );
                    self.check_promises(n);
                }
            }
            Output::SealPromises(e) => {
                let until = self.nodes[n].promises.latest();
                self.nodes[n].queue.push_back(Input::Election(e, ElectionInput::Sealed { until }));
            }
            Output::Remember(mark) => self.nodes[n].remembered = mark,
            Output::Rewound { .. } => {
                self.nodes[n].epoch += 1;
                self.nodes[n].queue.clear();
                self.nodes[n].watching.clear();
                self.nodes[n].known = None;
            }
            Output::Watch { plan, .. } => {
                // The model delivers from now on; what happened since the look is found by the periodic look.
                let missed = plan.from.0 <= self.store.revision;
                self.nodes[n].watching = plan.suffixes;
                if missed {
                    let broken = Input::Election(E, ElectionInput::WatchBroken);
                    self.later(self.now + 5 * MS, What::Hear(n, self.nodes[n].epoch, Box::new(broken)));
                }
            }
            output => {
                let at = self.now + self.delay();
                let epoch = self.nodes[n].epoch;
                let value = self.nodes[n].compared(&output);
                let request = Request { output, value };
                let reads = matches!(
                    request.output,
                    Output::Look { .. } | Output::Feel { .. } | Output::Confirm { .. } | Output::Grant { .. }
                );
                if !self.calm && !reads && self.rng.u8(..) < 40 {
                    let late = self.now + self.rng.u64(1..8_000) * MS;
                    self.later(late, What::Late(n, Box::new(request.clone())));
                }
                self.later(at, What::Reach(n, epoch, now, Box::new(request)));
            }
        }
    }

    fn delay(&mut self) -> u64 {
        let storm = !self.calm && self.rng.u8(..) < 24;
        if storm { self.rng.u64(1..1_500) * MS } else { self.rng.u64(1..40) * MS / 10 }
    }

    /// A request arrives at etcd: it is lost, or carried out; then the answer is lost, or travels back.
    fn reach(&mut self, n: usize, epoch: u64, sent_at: Instant, request: &Request) {
        let cut = self.nodes[n].cut_until > self.now;
        let lost = !self.calm && self.rng.u8(..) < 6;
        let answer_lost = !self.calm && self.rng.u8(..) < 6;
        let input = if cut || lost { failure(&request.output) } else { self.serve(n, sent_at, request) };
        let input = if answer_lost { failure(&request.output) } else { input };
        let wait = if cut || lost || answer_lost { 300 * MS } else { self.delay() };
        self.later(self.now + wait, What::Hear(n, epoch, Box::new(input)));
    }

    fn leads(&self, n: usize) -> Option<Generation> {
        let node = &self.nodes[n];
        let guard = node.core.session()?.guard;
        let standing = node.core.standing(E);
        (!node.down && node.frozen_since.is_none() && standing.role == Role::Leader && guard.holds_at(self.local(n)))
            .then_some(standing.own?)
    }

    /// Invariant 1, at this instant.
    fn check(&self) {
        if self.attack == Attack::OutOfBand {
            return;
        }
        let leaders: Vec<_> = (0..self.nodes.len()).filter_map(|n| self.leads(n).map(|g| (n, g))).collect();
        assert!(leaders.len() < 2, "seed {} at {}: {leaders:?}\n{}", self.seed, self.now / MS, self.tail());
    }

    /// The promise rule: whoever leads now, no other daemon's promise is still running.
    fn check_promises(&self, leader: usize) {
        if self.attack == Attack::OutOfBand {
            return;
        }
        for (n, node) in self.nodes.iter().enumerate().filter(|(n, _)| *n != leader) {
            assert!(
                node.promised <= self.now,
                "seed {}: n{leader} leads within n{n}'s promise\n{}",
                self.seed,
                self.tail()
            );
        }
    }

    fn ask_for_token(&mut self, n: usize) {
        if self.leads(n).is_none() || self.nodes[n].paused_until > self.now {
            return;
        }
        let now = self.local(n);
        let guard = self.nodes[n].core.session().expect("a leader has one").guard;
        let valid = self.nodes[n].promises.give(now, guard, self.timing.promise());
        // The caller shares the daemon's clock, and its rate.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a clock"
        )]
        let until = self.now + (nanos(valid) as f64 / self.nodes[n].rate) as u64;
        self.nodes[n].promised = self.nodes[n].promised.max(until);
    }

    fn mischief(&mut self) {
        if self.calm {
            return;
        }
        let n = self.rng.usize(..self.nodes.len());
        let span = self.rng.u64(10..4_000) * MS;
        self.log.push(format!("{:>8} mischief", self.now / MS));
        match self.rng.u8(..if self.attack == Attack::OutOfBand { 11 } else { 8 }) {
            0 => {
                self.nodes[n].paused_until = self.now + span;
                self.later(self.now + span, What::Wake(n));
            }
            1 => self.nodes[n].cut_until = self.now + span,
            2 => {
                let ticket = Ticket(self.seq);
                let cooldown = Duration::from_millis(self.rng.u64(0..500));
                self.feed(n, Input::Command(Command::Resign { election: E, ticket, cooldown }));
            }
            3 => self.crash(n),
            4 if self.nodes[n].down => self.start(n),
            4 => self.feed(n, Input::Session(SessionInput::ClockJumped)),
            5 => self.change_etcd_leader(),
            6 => self.feed(n, Input::Command(Command::Drained { election: E })),
            7 => {
                // The whole machine stands still, and its clocks with it; the wall clock shows it afterwards. The application's
                // clock as well: no promise on it can be kept, and none is claimed to be.
                let node = &mut self.nodes[n];
                node.paused_until = node.paused_until.max(self.now + span);
                node.frozen_since.get_or_insert(self.now);
                (node.wake_at, node.promised) = (0, 0);
                let at = node.paused_until;
                self.later(at, What::Wake(n));
            }
            8 => {
                let victim = self.store.keys.keys().next().cloned();
                if let Some(suffix) = victim {
                    self.store.revision += 1;
                    self.store.keys.remove(&suffix);
                    self.announce(&Event::Deleted(suffix));
                }
            }
            9 => {
                if let Some(lease) = self.store.leases.keys().next().copied() {
                    self.revoke(lease);
                }
            }
            _ => self.restore(),
        }
        let at = self.now + self.rng.u64(50..1_500) * MS;
        self.later(at, What::Mischief);
    }

    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.down = true;
        node.epoch += 1;
        node.queue.clear();
        node.watching.clear();
    }

    fn start(&mut self, n: usize) {
        let fresh = Node::new(&self.timing, &mut self.rng);
        let node = &mut self.nodes[n];
        let settings = settings(&self.timing, Some(node.remembered.clone()));
        (node.rate, node.offset, node.down, node.paused_until) = (fresh.rate, fresh.offset, false, 0);
        node.known = None;
        node.thaw(self.now);
        node.promises = Promises::default();
        let now = self.local(n);
        self.nodes[n].core = Core::new(settings, now);
        self.feed(n, Input::Tick);
    }
}
