//! A small seeded simulation of the core: a few daemons, a model of etcd, and a network that delays, loses and reorders.
//!
//! It checks what transcripts cannot: that no schedule makes two leaders, reuses a token, or breaks a promise. The same seed
//! gives the same run; a failing one prints it. `make sim SEEDS=100000` runs many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use tenure::clock::{Hlc, Instant, Wall};
use tenure::election::event::{
    Command, ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput, Ticket,
};
use tenure::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, RaftTerm, Revision};
use tenure::election::promise::Promises;
use tenure::election::record::{
    CandidateInfo, Cause, Cell, GenerationRecord, Header, HighWater, Holder, OwnKey, Pulse, QueueEntry, View,
};
use tenure::election::role::Role;
use tenure::election::{Core, Settings};
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

#[derive(Clone)]
struct Store {
    revision: i64,
    term: u64,
    keys: BTreeMap<String, Key>,
    generation: Cell<GenerationRecord>,
    leases: BTreeMap<i64, u64>,
}

#[derive(Clone)]
struct Key {
    created: i64,
    owner: usize,
}

#[derive(Clone, Debug)]
enum Event {
    Deleted(String),
    Generation(Cell<GenerationRecord>),
}

struct Node {
    core: Core,
    /// Bumped by a crash and by a rewind: answers to earlier requests are dropped.
    epoch: u64,
    rate: f64,
    offset: u64,
    paused_until: u64,
    cut_until: u64,
    wake_at: u64,
    queue: VecDeque<Input>,
    promises: Promises,
    promised: u64,
    watching: Vec<String>,
    down: bool,
    remembered: HighWater,
    /// The newest value of the generation key that it read.
    known: Option<(Revision, Wall)>,
    /// How long the virtual machine was paused with its clocks stopped, in all; and since when it is now.
    frozen: u64,
    frozen_since: Option<u64>,
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

    fn same_value(&self, request: &Request) -> bool {
        let present = self.store.generation.value().map(|r| r.elected_at);
        request.value.is_none_or(|value| present == Some(value))
    }

    fn header(&self, sent_at: Instant) -> Header {
        Header { sent_at, revision: Revision(self.store.revision), raft_term: RaftTerm(self.store.term) }
    }

    #[allow(clippy::too_many_lines, reason = "one arm a request of the protocol")]
    fn serve(&mut self, n: usize, sent_at: Instant, request: &Request) -> Input {
        let election = |input| Input::Election(E, input);
        let same_value = self.same_value(request);
        match &request.output {
            Output::Grant { ttl } => {
                let lease = self.rng.i64(1..i64::MAX);
                self.store.leases.insert(lease, self.now + nanos(*ttl));
                Input::Session(SessionInput::Granted { lease: LeaseId(lease), ttl: *ttl, header: self.header(sent_at) })
            }
            Output::KeepAlive { lease, round, elsewhere } => {
                let mut header = self.header(sent_at);
                let deposed = self.deposed_until > self.now && !elsewhere && self.rng.bool();
                let ttl = if deposed {
                    // It answers from memory, and renews nothing that counts.
                    header.raft_term = RaftTerm(self.store.term - 1);
                    TTL
                } else if let Some(expiry) = self.store.leases.get_mut(&lease.0) {
                    *expiry = (*expiry).max(self.now + nanos(TTL));
                    TTL
                } else {
                    Duration::ZERO
                };
                Input::Session(SessionInput::KeepAliveAnswered { lease: *lease, round: *round, ttl, header })
            }
            Output::Confirm { lease, round, elections } => {
                let created = self.store.keys.get(&lease.to_string()).map_or(0, |k| k.created);
                let keys = elections.iter().map(|e| OwnKey { election: *e, created: Revision(created) }).collect();
                let header = self.header(sent_at);
                Input::Session(SessionInput::Confirmed { lease: *lease, round: *round, header, keys })
            }
            Output::Revoke { lease } => {
                self.revoke(lease.0);
                Input::Session(SessionInput::Revoked { lease: *lease })
            }
            Output::Look { round, lease, .. } => {
                election(ElectionInput::Looked { round: *round, view: self.view(sent_at, *lease) })
            }
            Output::Feel { round, suffixes, .. } => election(ElectionInput::Felt {
                round: *round,
                pulse: Pulse {
                    header: self.header(sent_at),
                    generation: self.store.generation.modified(),
                    control: Revision(0),
                    keys: suffixes
                        .iter()
                        .map(|s| CandidateKey {
                            suffix: s.clone(),
                            created: Revision(self.store.keys.get(s).map_or(0, |k| k.created)),
                        })
                        .collect(),
                },
            }),
            Output::Queue { lease, .. } => {
                if !self.store.leases.contains_key(&lease.0) {
                    return Input::Session(SessionInput::LeaseUnknown { lease: *lease });
                }
                if !self.store.keys.contains_key(&lease.to_string()) {
                    self.store.revision += 1;
                    let key = Key { created: self.store.revision, owner: n };
                    self.store.keys.insert(lease.to_string(), key);
                }
                let created = Revision(self.store.keys[&lease.to_string()].created);
                election(ElectionInput::Queued { lease: *lease, created, header: self.header(sent_at) })
            }
            Output::Elect { txn, .. } => {
                let key = CandidateKey::of(txn.lease, txn.created);
                let mine = self.store.keys.get(&key.suffix).is_some_and(|k| k.created == txn.created.0);
                let first = self.store.keys.values().all(|k| k.created >= txn.created.0);
                let same = same_value && self.store.generation.modified() == txn.generation_modified;
                let outcome = if mine && first && same {
                    let holder = Holder { id: n.to_string(), url: String::new(), key: key.clone() };
                    let record = self.commit_generation(txn.generation, Some(holder), Cause::Elected);
                    self.announce_generation();
                    let queue = self.queue();
                    ElectOutcome::Won { header: self.header(sent_at), record, queue }
                } else {
                    ElectOutcome::Refused { view: self.view(sent_at, Some(txn.lease)) }
                };
                election(ElectionInput::ElectAnswered { key, outcome })
            }
            Output::HandOver { txn, .. } => {
                let exists =
                    |k: &CandidateKey| self.store.keys.get(&k.suffix).is_some_and(|s| s.created == k.created.0);
                let fits = exists(&txn.key)
                    && txn.successor.as_ref().is_none_or(|s| {
                        exists(&s.entry.key)
                            && s.skipped.iter().all(&exists)
                            && same_value
                            && self.store.generation.modified() == s.generation_modified
                    });
                let outcome = if fits { self.hand_over(sent_at, txn) } else { HandOverOutcome::Refused };
                election(ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome })
            }
            Output::Raise { at_least, modified, .. } => {
                // The edge reads first, and compares with the very value that it read.
                let lower = self.store.generation.value().is_none_or(|r| r.generation < *at_least);
                let raised = lower && self.store.generation.modified() == *modified;
                if raised {
                    self.commit_generation(*at_least, None, Cause::Raised);
                    self.announce_generation();
                }
                election(ElectionInput::RaiseAnswered { raised })
            }
            other => unreachable!("{other:?} is no request"),
        }
    }

    fn hand_over(&mut self, sent_at: Instant, txn: &tenure::election::record::HandOverTxn) -> HandOverOutcome {
        let mut gone = vec![txn.key.suffix.clone()];
        self.store.revision += 1;
        let record = txn.successor.as_ref().map(|s| {
            gone.extend(s.skipped.iter().map(|k| k.suffix.clone()));
            self.store.revision -= 1;
            let holder = Holder { id: String::new(), url: String::new(), key: s.entry.key.clone() };
            self.commit_generation(s.generation, Some(holder), Cause::HandedOver)
        });
        for suffix in gone {
            self.store.keys.remove(&suffix);
            self.announce(&Event::Deleted(suffix));
        }
        if record.is_some() {
            self.announce_generation();
        }
        HandOverOutcome::Done { header: self.header(sent_at), record }
    }

    fn commit_generation(&mut self, generation: Generation, holder: Option<Holder>, cause: Cause) -> GenerationRecord {
        let before = self.store.generation.value().map_or(Generation(0), |r| r.generation);
        assert!(generation > before, "seed {}: {generation} committed after {before}\n{}", self.seed, self.tail());
        self.store.revision += 1;
        let record = GenerationRecord {
            generation,
            term: 0,
            holder,
            cause,
            elected_at: Wall(self.stamps),
            hlc: Hlc::default(),
            leaderless_ms: 0,
        };
        self.stamps += 1;
        self.store.generation = Cell::Valid { value: record.clone(), modified: Revision(self.store.revision) };
        record
    }

    fn announce_generation(&mut self) {
        self.announce(&Event::Generation(self.store.generation.clone()));
    }

    /// Tells whoever watches, each after a delay of its own; a watch may break instead.
    fn announce(&mut self, event: &Event) {
        let revision = Revision(self.store.revision);
        for n in 0..self.nodes.len() {
            let watched = match event {
                Event::Deleted(suffix) => self.nodes[n].watching.contains(suffix),
                Event::Generation(_) => true,
            };
            let broken = !self.calm && (self.nodes[n].cut_until > self.now || self.rng.u8(..) < 8);
            let input = match event {
                _ if broken => ElectionInput::WatchBroken,
                Event::Deleted(suffix) => ElectionInput::KeyDeleted { suffix: suffix.clone(), revision },
                Event::Generation(cell) => ElectionInput::GenerationChanged { cell: cell.clone(), revision },
            };
            // A silent watch tells nothing at all.
            if watched && (self.calm || self.rng.u8(..) > 12) {
                let at = self.now + self.delay();
                self.later(at, What::Hear(n, self.nodes[n].epoch, Box::new(Input::Election(E, input))));
            }
        }
    }

    fn queue(&self) -> Vec<QueueEntry> {
        let info = |owner: usize| CandidateInfo {
            id: owner.to_string(),
            url: String::new(),
            term: 0,
            priority: i32::try_from(owner % 2).unwrap_or(0),
            version: String::new(),
        };
        let mut queue: Vec<_> = self
            .store
            .keys
            .iter()
            .map(|(suffix, k)| QueueEntry {
                key: CandidateKey { suffix: suffix.clone(), created: Revision(k.created) },
                lease: i64::from_str_radix(suffix, 16).unwrap_or(0),
                candidate: Some(info(k.owner)),
            })
            .collect();
        queue.sort_by_key(|e| e.key.created);
        queue
    }

    fn view(&self, sent_at: Instant, lease: Option<LeaseId>) -> View {
        let queue = self.queue();
        let own = lease.and_then(|l| queue.iter().position(|e| e.key.suffix == l.to_string()));
        View {
            header: self.header(sent_at),
            generation: self.store.generation.clone(),
            control: Cell::Absent,
            queued: queue.len(),
            own: own.map(|i| queue[i].key.clone()),
            ahead: own.filter(|i| *i > 0).map(|i| queue[i - 1].key.clone()),
            queue,
        }
    }

    fn revoke(&mut self, lease: i64) {
        self.store.leases.remove(&lease);
        let suffix = LeaseId(lease).to_string();
        if self.store.keys.remove(&suffix).is_some() {
            self.store.revision += 1;
            self.announce(&Event::Deleted(suffix));
        }
    }

    fn expire_leases(&mut self) {
        let expired: Vec<_> = self.store.leases.iter().filter(|(_, at)| **at <= self.now).map(|(l, _)| *l).collect();
        for lease in expired {
            self.revoke(lease);
        }
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

    /// A new etcd leader starts every lease afresh; the old one may not have noticed yet.
    fn change_etcd_leader(&mut self) {
        self.store.term += 1;
        for expiry in self.store.leases.values_mut() {
            *expiry = self.now + nanos(TTL) + ELECTION_TIMEOUT;
        }
        self.deposed_until = self.now + self.rng.u64(0..6_000) * MS;
    }

    /// Takes a snapshot, or goes back to the last one: leases come back with it, watches end. Only a history that every
    /// daemon remembers is lost: one that knows nothing of it cannot mint above it, and nobody claims so.
    fn restore(&mut self) {
        let newest = self.store.generation.value().map_or(Generation(0), |r| r.generation);
        let knows = |n: &Node| {
            let mark = if n.down { n.remembered.clone() } else { n.core.high_water() };
            mark.generations.first().is_some_and(|g| *g >= newest)
        };
        if !self.nodes.iter().all(knows) {
            return;
        }
        match self.snapshot.take() {
            None => self.snapshot = Some(self.store.clone()),
            Some(mut old) => {
                old.term = 2;
                for expiry in old.leases.values_mut() {
                    *expiry = self.now + nanos(TTL) + ELECTION_TIMEOUT;
                }
                self.store = old;
                for n in 0..self.nodes.len() {
                    let broken = Input::Election(E, ElectionInput::WatchBroken);
                    self.later(self.now + 10 * MS, What::Hear(n, self.nodes[n].epoch, Box::new(broken)));
                }
            }
        }
    }
}

impl Node {
    /// Ends a pause of the whole machine. `true` when there was one.
    fn thaw(&mut self, now: u64) -> bool {
        let since = self.frozen_since.take();
        self.frozen += since.map_or(0, |since| now - since);
        since.is_some()
    }

    /// What the edge remembers of the generation key's value.
    fn note(&mut self, input: &Input) {
        let Input::Election(_, input) = input else { return };
        let cell = match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view }, .. } => view.generation.clone(),
            ElectionInput::GenerationChanged { cell, .. } => cell.clone(),
            ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, record, .. }, .. }
            | ElectionInput::HandOverAnswered {
                outcome: HandOverOutcome::Done { header, record: Some(record) }, ..
            } => Cell::Valid { value: record.clone(), modified: header.revision },
            _ => return,
        };
        if let Some(record) = cell.value()
            && self.known.is_none_or(|(at, _)| at <= cell.modified())
        {
            self.known = Some((cell.modified(), record.elected_at));
        }
    }

    fn compared(&self, output: &Output) -> Option<Wall> {
        let modified = match output {
            Output::Elect { txn, .. } => txn.generation_modified,
            Output::HandOver { txn, .. } => txn.successor.as_ref()?.generation_modified,
            Output::Raise { modified, .. } => *modified,
            _ => return None,
        };
        self.known.filter(|(at, _)| *at == modified).map(|(_, value)| value)
    }

    fn new(timing: &Timing, rng: &mut Rng) -> Self {
        // Two clocks differ in rate by less than the drift bound of 1 %.
        let rate = 1.0 + (f64::from(rng.u32(..9_000)) - 4_500.0) / 1_000_000.0;
        let offset = rng.u64(1..1_000_000) * MS;
        Self {
            core: Core::new(settings(timing, None), Instant::from_nanos(offset)),
            epoch: 0,
            rate,
            offset,
            paused_until: 0,
            cut_until: 0,
            wake_at: 0,
            queue: VecDeque::new(),
            promises: Promises::default(),
            promised: 0,
            watching: Vec::new(),
            down: false,
            remembered: HighWater::default(),
            known: None,
            frozen: 0,
            frozen_since: None,
        }
    }
}

fn settings(timing: &Timing, remembered: Option<HighWater>) -> Settings {
    Settings { timing: timing.clone(), observe: vec![false], by_revision: false, remembered }
}

/// What the edge reports when no answer came.
fn failure(request: &Output) -> Input {
    let election = |input| Input::Election(E, input);
    match request {
        Output::Grant { .. } => Input::Session(SessionInput::GrantFailed),
        Output::KeepAlive { lease, round, .. } => {
            Input::Session(SessionInput::KeepAliveFailed { lease: *lease, round: *round })
        }
        Output::Confirm { lease, round, .. } => {
            Input::Session(SessionInput::ConfirmFailed { lease: *lease, round: *round })
        }
        Output::Revoke { lease } => Input::Session(SessionInput::RevokeFailed { lease: *lease }),
        Output::Look { round, .. } | Output::Feel { round, .. } => {
            election(ElectionInput::LookFailed { round: *round })
        }
        Output::Queue { lease, .. } => election(ElectionInput::QueueFailed { lease: *lease }),
        Output::Elect { txn, .. } => election(ElectionInput::ElectAnswered {
            key: CandidateKey::of(txn.lease, txn.created),
            outcome: ElectOutcome::Unknown,
        }),
        Output::HandOver { txn, .. } => {
            election(ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome: HandOverOutcome::Unknown })
        }
        Output::Raise { .. } => election(ElectionInput::RaiseAnswered { raised: false }),
        other => unreachable!("{other:?} is no request"),
    }
}
