//! The core: who leads, decided without a clock, I/O, async, randomness or errors.
//!
//! The caller owns time and the world. The contract:
//!
//! 1. Every event goes to [`Core::handle`] with the time at which it is handled; time never runs backwards.
//! 2. Then [`Core::poll_output`] is drained, and each output carried out *in order*: [`Output::Publish`] comes before the
//!    effects that follow it. A request ends in exactly one answering input, within bounded time; but after
//!    [`Output::Rewound`] no answer to an earlier request may follow.
//! 3. No later than [`Core::poll_timeout`], `handle` is called again, with [`Input::Tick`] if nothing else happened.
//!
//! | role | becomes | when |
//! |---|---|---|
//! | follower | candidate | its key is in the queue |
//! | candidate | leader | its elect transaction committed, or a hand-over named it; and the guard holds |
//! | candidate | follower | guard passed, lease or key lost, history rewound, draining, stopping |
//! | leader | follower | guard passed, lease or key lost, superseded, clocks jumped, history rewound, resigned, draining, stopping |
//!
//! An observer stays one. Any other edge is a bug, and asserts. Leadership itself is judged by readers, against the guard.

mod anew;
mod command;
mod contest;
mod electing;
pub mod event;
mod evidence;
pub mod guard;
pub mod ids;
mod leaving;
mod looking;
pub mod mutant;
pub mod one_cluster;
pub mod pause;
pub mod promise;
pub mod ratchet;
pub mod record;
pub mod role;
mod seen;
mod session;
mod standing;
pub mod txn;

pub use standing::Standing;

use std::collections::VecDeque;
use std::time::Duration;

use self::contest::{Contest, Context, State};
use self::event::{Command, Input, Output, SessionInput, Sign};
use self::evidence::{shown_generation, told};
use self::guard::Guard;
use self::ids::{ElectionIndex, LeaseId, Revision};
use self::leaving::Release;
use self::mutant::Mutant;
use self::pause::Jitter;
use self::ratchet::Ratchet;
use self::record::{Header, HighWater};
use self::role::Reason;
use self::session::{Effect, Session};
use crate::clock::Instant;
use crate::timing::Timing;

/// What the core is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// All of its timing.
    pub timing: Timing,
    /// For each election, whether it is only observed.
    pub observe: Vec<bool>,
    /// Whether generations follow the store's revision.
    pub by_revision: bool,
    /// What an earlier run remembered.
    pub remembered: Option<HighWater>,
    /// What was remembered is of another store: the operator says that it was moved.
    pub moved: bool,
}

/// One session and the elections on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    timing: Timing,
    by_revision: bool,
    session: Session,
    contests: Vec<Contest>,
    ratchet: Ratchet,
    /// When the store was last found to have another history.
    rewound_at: Option<Instant>,
    /// A drain, and until when what it holds waits for the application's word.
    draining: Option<Instant>,
    stopping: Option<Instant>,
    stopped: bool,
    /// The time of the newest input: what was due by then has been seen to.
    now: Instant,
    /// What came in with it.
    jitter: Jitter,
    outputs: VecDeque<Output>,
}

/// The session, for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionState {
    /// The lease.
    pub lease: LeaseId,
    /// As etcd granted it.
    pub ttl: Duration,
    /// What the newest confirmed renewal earned.
    pub guard: Guard,
}

impl Core {
    /// A daemon that has just started.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let Settings { timing, observe, by_revision, remembered, moved } = settings;
        let session = if observe.iter().all(|o| *o) { Session::none() } else { Session::new() };
        let contest = |(i, observe): (usize, &bool)| Contest::new(ElectionIndex(i), *observe, now);
        let mut core = Self {
            timing,
            by_revision,
            session,
            ratchet: Ratchet::new(observe.len(), remembered),
            rewound_at: None,
            contests: observe.iter().enumerate().map(contest).collect(),
            draining: None,
            stopping: None,
            stopped: false,
            now,
            jitter: Jitter::default(),
            outputs: VecDeque::new(),
        };
        if moved {
            let mut out = Vec::new();
            core.begin_anew(now, &Header::unknown(now), (Sign::Moved, false), &mut out);
            core.outputs.extend(publish_first(out));
        }
        core
    }

    /// Applies one input. Reads no clock, does no I/O, cannot fail. `jitter` is a new random number each time.
    pub fn handle(&mut self, now: Instant, jitter: Jitter, input: Input) {
        debug_assert!(now >= self.now, "time runs backwards");
        (self.now, self.jitter) = (now, jitter);
        let mut out = Vec::new();
        let remembered = self.ratchet.high_water().generations;
        // First: a late renewal must not revive a guard that has lapsed.
        let mut revoke = Vec::new();
        let expired = self.session.expire(now, &mut revoke);
        self.take_effect(now, &expired, &mut out);
        out.append(&mut revoke);
        if self.fits(now, &input, &mut out) {
            self.apply(now, anew::plain(input), &mut out);
        }
        self.advance(now, &mut out);
        // A rewind even where no generation was known: else each start would take a revision of the lost history for another.
        let rewound = out.iter().any(|o| matches!(o, Output::Rewound { .. }));
        if rewound || self.ratchet.high_water().generations != remembered {
            out.push(Output::Remember(self.ratchet.high_water()));
        }
        self.outputs.extend(publish_first(out));
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle` again at the latest: always later than the newest input, since what is due and still undone
    /// waits for an answer, not for time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let usable = self.session.alive().is_some();
        let contests = self.contests.iter().filter_map(|c| c.wake_at(self.now, usable, self.draining()));
        let stop = self.stopping.filter(|_| !self.stopped);
        contests.chain(self.session.wake_at()).chain(stop).chain(self.draining).filter(|at| *at > self.now).min()
    }

    /// The session, while there is one and its guard is not in doubt.
    #[must_use]
    pub fn session(&self) -> Option<SessionState> {
        self.session.alive().filter(|a| !a.suspended()).map(|a| SessionState {
            lease: a.lease,
            ttl: a.ttl,
            guard: a.guard,
        })
    }

    /// Whether a drain or a stop has begun.
    #[must_use]
    pub const fn draining(&self) -> bool {
        self.draining.is_some() || self.stopping.is_some()
    }

    /// A drain that nothing else has overtaken: until when what it holds waits for the application's word.
    #[must_use]
    pub fn drained_until(&self) -> Option<Instant> {
        self.draining.filter(|_| self.stopping.is_none())
    }

    /// What to remember across a restart.
    #[must_use]
    pub fn high_water(&self) -> HighWater {
        self.ratchet.high_water()
    }

    fn apply(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => {}
            Input::Session(SessionInput::StoreMoved) => {
                // A guard that the store of before granted holds to its end: somebody else may be told so, and nobody else leads.
                if self.session.alive().is_none() {
                    self.begin_anew(now, &Header::unknown(now), (Sign::Moved, false), out);
                }
            }
            Input::Session(input) => {
                let revision =
                    if let SessionInput::Confirmed { header, .. } = &input { header.revision } else { Revision(0) };
                let contests = &self.contests;
                let with_keys = || contests.iter().filter(|c| c.key().is_some()).map(|c| c.index).collect();
                match self.session.handle(now, input, (&self.timing, self.ratchet.raft_term()), with_keys, out) {
                    Effect::Keys(keys) => {
                        out.push(Output::Publish); // The guard grew.
                        for key in keys {
                            self.contest(now, key.election, out, |c, ctx| c.own_key_seen(ctx, key.created, revision));
                        }
                    }
                    effect => self.take_effect(now, &effect, out),
                }
            }
            Input::Election(election, input) => {
                if let Some(revision) = told(&input) {
                    self.ratchet.heard(now, revision);
                }
                if let Some(seen) = shown_generation(&input) {
                    self.ratchet.raise(now, election, seen);
                }
                self.contest(now, election, out, |c, ctx| c.handle(ctx, input));
            }
            Input::Command(command) => self.command(now, command, out),
        }
    }

    fn command(&mut self, now: Instant, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Resign { election, ticket, cooldown, token } => {
                self.contest(now, election, out, |c, ctx| c.resign(ctx, ticket, cooldown, token));
            }
            Command::Drained { election, ticket, token } => {
                self.contest(now, election, out, |c, ctx| c.drained(ctx, ticket, token));
            }
            Command::Drain { until } => {
                self.draining = Some(until);
                self.step_down_all(now, Reason::Drained, Release::Held, out);
                out.push(Output::Publish);
            }
            Command::Undrain => {
                self.draining = None;
                if mutant::on(Mutant::UndrainLeadsOn) {
                    let contests = 0..self.contests.len();
                    contests.for_each(|i| self.contest(now, ElectionIndex(i), out, Contest::lead_on));
                }
                out.push(Output::Publish);
            }
            Command::Shutdown { deadline } => {
                self.stopping = Some(self.stopping.map_or(deadline, |d| d.min(deadline)));
                self.step_down_all(now, Reason::Shutdown, Release::WhenSafe, out);
                out.push(Output::Publish);
            }
        }
    }

    fn take_effect(&mut self, now: Instant, effect: &Effect, out: &mut Vec<Output>) {
        match effect {
            Effect::None | Effect::Keys(_) => {}
            Effect::Began => out.push(Output::Publish),
            Effect::Ended(reason) => {
                for i in 0..self.contests.len() {
                    self.contest(now, ElectionIndex(i), out, |c, ctx| c.session_ended(ctx, *reason));
                }
                out.push(Output::Publish);
            }
            Effect::Suspended => {
                self.step_down_all(now, Reason::ClockJumped, Release::WhenSafe, out);
                out.push(Output::Publish);
            }
        }
    }

    fn step_down_all(&mut self, now: Instant, reason: Reason, release: Release, out: &mut Vec<Output>) {
        for i in 0..self.contests.len() {
            self.contest(now, ElectionIndex(i), out, |c, ctx| {
                if let State::Leading { key, generation } = &c.state {
                    let (key, generation) = (key.clone(), *generation);
                    c.step_down(ctx, key, generation, reason, release);
                }
            });
        }
    }

    /// Everything that time, or what was just learnt, makes due.
    fn advance(&mut self, now: Instant, out: &mut Vec<Output>) {
        for i in 0..self.contests.len() {
            let election = ElectionIndex(i);
            self.contest(now, election, out, Contest::advance);
            let own = self.contests[i].own();
            self.ratchet.raise(now, election, own);
        }
        if let Some(deadline) = self.stopping {
            self.stop(now, deadline, out);
        } else {
            self.session.advance(now, self.jitter, &self.timing, out);
        }
    }

    fn stop(&mut self, now: Instant, deadline: Instant, out: &mut Vec<Output>) {
        if self.stopped {
            return;
        }
        if self.contests.iter().all(Contest::idle) {
            self.session.close(out);
        } else {
            // Promises are still running out, so the lease is still needed.
            self.session.advance(now, self.jitter, &self.timing, out);
        }
        let closed = self.session.closed();
        if closed.is_some() || deadline <= now {
            self.stopped = true;
            out.push(Output::Remember(self.ratchet.high_water()));
            out.push(Output::Stopped { clean: closed == Some(true) });
        }
    }

    fn contest(
        &mut self,
        now: Instant,
        election: ElectionIndex,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Contest, &mut Context<'_>),
    ) {
        let mut ctx = Context {
            now,
            jitter: self.jitter.of(election.0),
            timing: &self.timing,
            session: self.session.usable(now),
            lease: self.session.alive().map(|a| a.lease),
            ttl: self.session.alive().map_or(self.timing.ttl(), |a| a.ttl),
            retiring: self.draining.is_some() || self.stopping.is_some(),
            stopping: self.stopping.is_some(),
            held_until: self.drained_until(),
            floor: self.ratchet.floor(election),
            by_revision: self.by_revision,
            out,
        };
        if let Some(contest) = self.contests.get_mut(election.0) {
            act(contest, &mut ctx);
        }
    }
}

/// Keeps one publication, before everything else: the caller publishes the state as it is after the whole input, so one is
/// enough, and no effect may precede it.
fn publish_first(out: Vec<Output>) -> impl Iterator<Item = Output> {
    let publish = out.contains(&Output::Publish).then_some(Output::Publish);
    let (publish, late) = if mutant::on(Mutant::PublishAfterEffect) { (None, publish) } else { (publish, None) };
    publish.into_iter().chain(out.into_iter().filter(|o| *o != Output::Publish)).chain(late)
}
