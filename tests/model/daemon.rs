//! One daemon of the model: the real core, its clock, and what its driver, readers and clients would keep.

use crate::clock::Instant;
use crate::edge::{Edge, nanos};
use crate::election::event::{ElectionInput, Input};
use crate::election::guard::Guard;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::promise::Promises;
use crate::election::record::{Cell, HighWater};
use crate::election::role::Role;
use crate::election::{Core, Settings};
use crate::timing::Timing;

/// A millisecond of virtual time.
pub const MS: u64 = 1_000_000;
/// How much too slow a clock may be, in parts per million: half the drift.
const SLOWEST: u64 = 4_900;
/// The one election.
pub const E: ElectionIndex = ElectionIndex(0);

/// A daemon, and the application beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Daemon {
    pub core: Core,
    pub edge: Edge,
    pub clock: Clock,
    /// What readers see: changed by `Publish` only.
    pub shown: Shown,
    /// The role that the newest transition reported.
    pub told: Role,
    pub ledger: Promises,
    /// The ledger was read for the last time of this leadership.
    pub sealed: bool,
    /// The end of the longest promise given, in true time.
    pub promised_until: u64,
    pub health: Health,
    /// Cut off from etcd; `true` once it missed an event.
    pub cut: Option<bool>,
    /// Bumped by a crash and by a rewind: answers to earlier requests find nobody.
    pub epoch: u32,
    /// What arrived while it could not listen.
    pub inbox: Vec<Input>,
    pub watching: Vec<String>,
    pub remembered: HighWater,
}

/// What readers see of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    pub role: Role,
    pub own: Option<Generation>,
    pub guard: Option<Guard>,
}

/// Whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    Up,
    /// Stopped, with its clock running (SIGSTOP, a long garbage collection next door).
    Paused,
    /// The whole machine stands still, its clocks with it, since this moment of true time.
    Frozen(u64),
    Down,
}

/// A boot clock that runs a little too fast or too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    offset: u64,
    /// Parts per million too fast.
    ppm: i64,
    /// True time that it did not count.
    pub missed: u64,
}

impl Clock {
    pub const fn new(offset: u64, ppm: i64) -> Self {
        Self { offset, ppm, missed: 0 }
    }

    const fn rate(self) -> u128 {
        (1_000_000 + self.ppm).unsigned_abs() as u128
    }

    /// What it shows at a moment of true time.
    pub fn at(self, now: u64) -> Instant {
        let run = u128::from(now - self.missed) * self.rate() / 1_000_000;
        Instant::from_nanos(self.offset + u64::try_from(run).expect("short"))
    }

    /// The first moment of true time at which it shows this much.
    pub fn when(self, shows: Instant) -> u64 {
        let run = u128::from(shows.as_nanos().saturating_sub(self.offset));
        self.missed + u64::try_from((run * 1_000_000).div_ceil(self.rate())).expect("short")
    }
}

impl Daemon {
    pub fn new(timing: &Timing, clock: Clock, now: u64, remembered: Option<HighWater>) -> Self {
        let settings =
            Settings { timing: timing.clone(), observe: vec![false], by_revision: false, remembered, moved: false };
        Self {
            core: Core::new(settings, clock.at(now)),
            edge: Edge::new(1),
            clock,
            shown: Shown { role: Role::Follower, own: None, guard: None },
            told: Role::Follower,
            ledger: Promises::default(),
            sealed: false,
            promised_until: 0,
            health: Health::Up,
            cut: None,
            epoch: 0,
            inbox: Vec::new(),
            watching: Vec::new(),
            remembered: HighWater::default(),
        }
    }

    pub fn publish(&mut self) {
        let standing = self.core.standing(E);
        // A new leadership opens the ledger again.
        self.sealed &= standing.own.is_none() || standing.own == self.shown.own;
        self.shown =
            Shown { role: standing.role, own: standing.own, guard: self.core.session().map(|session| session.guard) };
    }

    /// Whether this event says that its leadership is over.
    pub fn hears_of_its_end(&self, input: &Input) -> bool {
        let standing = self.core.standing(E);
        let (Some(own), Some(key)) = (standing.own, standing.key) else { return false };
        match input {
            Input::Election(_, ElectionInput::KeyDeleted { suffix, revision }) => {
                key.suffix == *suffix && key.created < *revision
            }
            Input::Election(_, ElectionInput::GenerationChanged { cell: Cell::Valid { value, modified }, .. }) => {
                value.generation > own && *modified > standing.revision
            }
            _ => false,
        }
    }

    /// The generation that readers take it to lead with, judged when they ask. A paused process cannot answer, but what it last
    /// said counts for as long as its guard; a frozen machine's application does not run either.
    pub fn leads(&self, now: u64) -> Option<(Generation, Guard)> {
        if matches!(self.health, Health::Down | Health::Frozen(_)) || self.shown.role != Role::Leader {
            return None;
        }
        let guard = self.shown.guard.filter(|guard| guard.holds_at(self.clock.at(now)))?;
        Some((self.shown.own?, guard))
    }

    /// A greedy client asks for the token. `false` when a promise was given that the ledger's last reading misses.
    pub fn ask(&mut self, now: u64, timing: &Timing) -> bool {
        if self.health != Health::Up {
            return true;
        }
        let Some((_, guard)) = self.leads(now) else { return true };
        let told = nanos(self.ledger.give(self.clock.at(now), guard, timing));
        // The client counts on a clock of its own: the slowest that there may be.
        let until = now + (told * 1_000_000).div_ceil(1_000_000 - SLOWEST);
        self.promised_until = self.promised_until.max(until);
        !self.sealed || told == 0
    }

    /// For a person to read.
    pub fn tell(&self, n: usize, now: u64) -> String {
        let until = self.shown.guard.map(|guard| self.clock.when(guard.deadline()) / MS);
        let (role, leads) = (self.shown.role, self.leads(now).map(|(generation, _)| generation.0));
        let promised = self.promised_until / MS;
        format!(
            "         daemon {n}: {:?} {role:?} guard until {until:?} promised {promised} leads {leads:?}",
            self.health
        )
    }

    /// When it next wants to run, in true time.
    pub fn wakes_at(&self) -> Option<u64> {
        let at = self.core.poll_timeout().filter(|_| self.health == Health::Up)?;
        Some(self.clock.when(at))
    }
}
