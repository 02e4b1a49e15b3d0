//! "Nothing that etcd or anyone in it does makes a daemon write, queue or log in a hot loop": the real core against an etcd that
//! answers *anything* (`liar.rs`), at once, for minutes of virtual time. What it asks for, and what it makes its driver log, is
//! counted by kind, and stays below a bound in every minute.
//!
//! A liar has favourite answers, so that the same lie is told over and over: that is what makes loops.

mod liar;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use liar::Liar;

use crate::clock::Instant;
use crate::edge::nanos;
use crate::election::event::{ElectionInput, Input, Output};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::mutant::{Mutant, switch};
use crate::election::pause::Jitter;
use crate::election::record::HighWater;
use crate::election::{Core, Settings};
use crate::timing::Timing;

/// What only this test catches.
pub const CAUGHT_HERE: [Mutant; 2] = [Mutant::NoPause, Mutant::PauseEndedBySuccess];

const E: ElectionIndex = ElectionIndex(0);
const MINUTE: Duration = Duration::from_mins(1);
const MINUTES: u32 = 3;
const SEEDS: u64 = 1_500;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Grant,
    KeepAlive,
    Confirm,
    Revoke,
    /// Looks and feels.
    Read,
    Queue,
    Elect,
    HandOver,
    Raise,
    Watch,
    /// A change of role: one line of the log, and of the audit.
    Transition,
    /// One line of the log.
    Rewound,
}

/// The most of a kind in any minute, of one daemon with one election and the default TTL.
///
/// Each follows from `src/election/pause.rs`: with the most favourable jitter a pause is half as long, and what is paced up to
/// a ceiling of c comes 60 s / (c / 2) times a minute, and a few times more while the pause grows. What follows another thing is
/// bounded by that.
fn most(kind: Kind, short_leases: bool) -> usize {
    match kind {
        Kind::Grant | Kind::Revoke | Kind::Raise => 30,
        // Once more after each grant.
        Kind::Queue => 60,
        Kind::Elect | Kind::HandOver => 70,
        // The paced ones, and those of the period, which is a fifth of the TTL where no leader is known.
        Kind::Read => 170,
        Kind::Watch => 140,
        // A renewal each fifth of the TTL, and retries of a fortieth and more. An etcd that grants less than it was asked for, as
        // none does, is asked five times a second.
        Kind::KeepAlive | Kind::Confirm => {
            if short_leases {
                600
            } else {
                70
            }
        }
        // Into the queue, into leadership, and out of it.
        Kind::Transition => 180,
        // Each answer may show another history.
        Kind::Rewound => 300,
    }
}

fn kind_of(output: &Output) -> Option<Kind> {
    Some(match output {
        Output::Grant { .. } => Kind::Grant,
        Output::KeepAlive { .. } => Kind::KeepAlive,
        Output::Confirm { .. } => Kind::Confirm,
        Output::Revoke { .. } => Kind::Revoke,
        Output::Look { .. } | Output::Feel { .. } => Kind::Read,
        Output::Queue { .. } => Kind::Queue,
        Output::Elect { .. } => Kind::Elect,
        Output::HandOver { .. } => Kind::HandOver,
        Output::Raise { .. } => Kind::Raise,
        Output::Watch { .. } => Kind::Watch,
        Output::Transition(_) => Kind::Transition,
        Output::Rewound { .. } | Output::ElectionRewound(..) => Kind::Rewound,
        Output::Publish
        | Output::SealPromises(_)
        | Output::Remember(_)
        | Output::Reply { .. }
        | Output::Stopped { .. } => return None,
    })
}

/// The most of each kind that any minute held.
type Peaks = BTreeMap<Kind, usize>;

/// A daemon and the etcd that it believes in.
struct World {
    core: Core,
    liar: Liar,
    now: Instant,
    end: Instant,
    /// What is to be heard: when, and in which order. Dropped where history was rewound since.
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    inputs: BTreeMap<u64, Input>,
    seq: u64,
    /// When each kind was last done, within a minute.
    done: BTreeMap<Kind, VecDeque<Instant>>,
    peaks: Peaks,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut liar = Liar::new(seed);
        let remembered =
            liar.chance(4).then(|| HighWater { generations: vec![Generation(1_000)], ..HighWater::default() });
        let settings = Settings {
            timing: Timing::default(),
            observe: vec![liar.chance(8)],
            by_revision: liar.chance(5),
            remembered,
            moved: liar.chance(16),
        };
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            core: Core::new(settings, now),
            liar,
            now,
            end: now + MINUTE * MINUTES,
            agenda: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            seq: 0,
            done: BTreeMap::new(),
            peaks: Peaks::new(),
        }
    }

    /// The highest counts; or the first kind that was done too often.
    fn play(mut self) -> Result<Peaks, String> {
        self.feed(Input::Tick)?;
        let mut noise_at = self.liar.noise().map_or(self.end, |every| self.now + every);
        loop {
            let heard = self.agenda.peek().map_or(self.end, |Reverse((at, _))| *at);
            let due = self.core.poll_timeout().unwrap_or(self.end);
            let next = heard.min(due).min(noise_at);
            if next >= self.end {
                return Ok(self.peaks);
            }
            self.now = next.max(self.now);
            if next == heard {
                let Some(Reverse((_, seq))) = self.agenda.pop() else { continue };
                if let Some(input) = self.inputs.remove(&seq) {
                    self.feed(input)?;
                }
            } else if next == due {
                self.feed(Input::Tick)?;
            } else if let Some(every) = self.liar.noise() {
                noise_at = self.now + every;
                let event = self.liar.event();
                self.feed(Input::Election(E, event))?;
            }
        }
    }

    fn hear(&mut self, after: Duration, input: Input) {
        self.seq += 1;
        self.agenda.push(Reverse((self.now + after, self.seq)));
        self.inputs.insert(self.seq, input);
    }

    fn feed(&mut self, input: Input) -> Result<(), String> {
        let jitter = Jitter(self.liar.number());
        self.core.handle(self.now, jitter, input);
        while let Some(output) = self.core.poll_output() {
            if let Some(kind) = kind_of(&output) {
                self.count(kind)?;
            }
            match output {
                Output::SealPromises(e) => {
                    let until = self.now + Duration::from_millis(self.liar.number() % 1_000);
                    self.hear(Duration::ZERO, Input::Election(e, ElectionInput::Sealed { until }));
                }
                // No answer to an earlier request may follow.
                Output::Rewound { .. } => self.inputs.clear(),
                output => {
                    if let Some((after, input)) = self.liar.answer(self.now, &output) {
                        self.hear(after, input);
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: Kind) -> Result<(), String> {
        let done = self.done.entry(kind).or_default();
        done.push_back(self.now);
        while done.front().is_some_and(|at| *at + MINUTE <= self.now) {
            done.pop_front();
        }
        let peak = self.peaks.entry(kind).or_default();
        *peak = done.len().max(*peak);
        let (most, seconds) = (most(kind, self.liar.short_leases()), nanos(self.now.since(done[0])) / 1_000_000_000);
        if done.len() > most {
            return Err(format!("{} of {kind:?} within {seconds} s, and a minute may hold {most}", done.len()));
        }
        Ok(())
    }
}

/// The peaks of these seeds; or the first that went too far.
fn play(seeds: u64) -> Result<Peaks, String> {
    let mut peaks = Peaks::new();
    for seed in 0..seeds {
        let of_seed = World::new(seed).play().map_err(|e| format!("seed {seed}: {e}"))?;
        for (kind, n) in of_seed {
            let peak = peaks.entry(kind).or_default();
            *peak = n.max(*peak);
        }
    }
    Ok(peaks)
}

/// Goal: no hot loop. Method: liars of every kind, each for minutes.
#[test]
fn whatever_etcd_answers_requests_and_log_lines_stay_under_a_bound() {
    let seeds = std::env::var("LIARS").map_or(SEEDS, |n| n.parse().expect("a number"));
    match play(seeds) {
        Ok(peaks) => println!("the most in a minute of {seeds} liars: {peaks:?}"),
        Err(e) => panic!("{e}"),
    }
}

/// Goal: the bounds bite. Method: without pauses, and with pauses that a single success ends, they do not hold.
#[test]
fn pauses_that_are_missing_or_end_too_early_are_caught() {
    for mutant in CAUGHT_HERE {
        let caught = switch::with(Some(mutant), || play(SEEDS));
        println!("{mutant:?}: {caught:?}");
        assert!(caught.is_err(), "{mutant:?} is not caught");
    }
}

/// Goal: the liars reach everything. Method: each kind of request was made, and somebody led.
#[test]
fn liars_let_the_daemon_get_everywhere() {
    let peaks = play(200).expect("within bounds");
    assert_eq!(peaks.len(), 12, "{peaks:?}");
}
