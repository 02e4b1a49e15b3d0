//! The core, told anything at all by etcd.
//!
//! The input is read as a sequence of events: answers to what the core asked for, watch events, commands, and time passing.
//! Most values are such as an etcd would give, or nothing deep would ever be reached; the others are absurd.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use tenure::clock::Instant;
use tenure::election::event::{
    Command, ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, Ticket, Transition,
};
use tenure::election::ids::{CandidateKey, ElectionIndex, Generation, RaftTerm, Revision};
use tenure::election::pause::Jitter;
use tenure::election::record::{Cell, ControlRecord, GenerationRecord, HighWater, QueueEntry};
use tenure::election::role::Role;
use tenure::election::txn::{ElectTxn, HandOverTxn};
use tenure::election::{Core, Settings};
use tenure::timing::Timing;

use super::world::Etcd;

/// As many as there are kinds: one to lead, one that is only observed.
const OBSERVE: [bool; 2] = [false, true];
/// More than any sequence needs to be interesting.
const STEPS: usize = 400;
/// Requests that wait for their answer. Each event that makes a look doubtful asks for another one, and the core forgets the
/// older; more than this are not kept here either.
const OPEN: usize = 32;

/// Never panics, never leads but on a record that names its own key, never mints what it has seen.
pub fn run(data: &[u8]) {
    // An input that has run out ends the sequence.
    let _ = World::new(Unstructured::new(data)).and_then(World::play);
}

/// What the core was told and did in one election.
#[derive(Default)]
struct Known {
    /// The highest generation shown.
    seen: Generation,
    /// Which keys were named the holder of which generation.
    named: BTreeSet<(CandidateKey, Generation)>,
    /// The generation led with last.
    led: Generation,
    /// Revisions of the generation key at which a value was shown that can be read.
    readable: BTreeSet<Revision>,
    /// Revisions of the control key at which it did not pause.
    free: BTreeSet<Revision>,
    /// Keys of Tenure candidates.
    ours: BTreeSet<CandidateKey>,
    /// When the last promise ends, after a leadership.
    promised: Option<Instant>,
    /// The application has stopped acting.
    drained: bool,
}

struct World<'a> {
    etcd: Etcd<'a>,
    core: Core,
    now: Instant,
    known: [Known; 2],
    /// What was asked for, and when.
    open: Vec<(Instant, Output)>,
    tickets: BTreeMap<Ticket, ElectionIndex>,
    stopped: bool,
}

impl<'a> World<'a> {
    fn new(mut input: Unstructured<'a>) -> Result<Self> {
        let now = Instant::from_nanos(1_000_000_000);
        let by_revision = input.arbitrary()?;
        let remembered = input.arbitrary::<bool>()?.then(|| -> Result<HighWater> {
            let generations = vec![Generation(input.arbitrary()?), Generation(input.arbitrary()?)];
            Ok(HighWater {
                revision: Revision(input.arbitrary()?),
                raft_term: RaftTerm(input.arbitrary()?),
                generations,
            })
        });
        let settings = Settings {
            timing: Timing::default(),
            observe: OBSERVE.to_vec(),
            by_revision,
            remembered: remembered.transpose()?,
            moved: false,
        };
        let core = Core::new(settings, now);
        let known = [0, 1].map(|e| Known {
            seen: core.high_water().generations[e],
            readable: BTreeSet::from([Revision(0)]),
            free: BTreeSet::from([Revision(0)]),
            ..Known::default()
        });
        Ok(Self {
            etcd: Etcd::new(input),
            core,
            now,
            known,
            open: Vec::new(),
            tickets: BTreeMap::new(),
            stopped: false,
        })
    }

    fn play(mut self) -> Result<()> {
        self.feed(&Input::Tick);
        for _ in 0..STEPS {
            if self.stopped || self.etcd.input.is_empty() {
                break;
            }
            let input = self.event()?;
            self.feed(&input);
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Input> {
        let e = ElectionIndex(usize::from(self.etcd.input.ratio(1, 4)?));
        Ok(match self.etcd.input.int_in_range(0..=15)? {
            0..=9 if !self.open.is_empty() => {
                let (asked, request) = self.open.remove(self.etcd.input.choose_index(self.open.len())?);
                self.etcd.answer(&self.core, (asked, self.now), &request)?
            }
            0..=12 => {
                self.pass()?;
                Input::Tick
            }
            13 | 14 => self.etcd.tell(&self.core, e)?,
            _ => self.command(e)?,
        })
    }

    fn pass(&mut self) -> Result<()> {
        let due = self.core.poll_timeout().unwrap_or(self.now);
        self.now = match self.etcd.input.int_in_range(0..=7)? {
            0..=4 => due,
            5 | 6 => self.now + Duration::from_millis(self.etcd.input.int_in_range(0..=5_000)?),
            _ => self.now + Duration::from_nanos(self.etcd.input.arbitrary()?),
        };
        Ok(())
    }

    fn command(&mut self, election: ElectionIndex) -> Result<Input> {
        let time = Duration::from_millis(self.etcd.input.arbitrary()?);
        Ok(Input::Command(match self.etcd.input.int_in_range(0..=8)? {
            0..=3 => {
                let ticket = Ticket(u64::try_from(self.tickets.len()).unwrap_or(u64::MAX));
                self.tickets.insert(ticket, election);
                Command::Resign { election, ticket, cooldown: time, token: self.token(election)? }
            }
            4 | 5 => {
                let ticket = Ticket(u64::try_from(self.tickets.len()).unwrap_or(u64::MAX));
                self.tickets.insert(ticket, election);
                let token = self.token(election)?;
                let known = &mut self.known[election.0];
                known.drained |= token.is_none_or(|token| token == known.led);
                Command::Drained { election, ticket, token }
            }
            6 => Command::Drain { until: self.now + time },
            7 => Command::Undrain,
            _ => Command::Shutdown { deadline: self.now + time },
        }))
    }

    /// The generation that a command means: the present one, the one before, or none in particular.
    fn token(&mut self, election: ElectionIndex) -> Result<Option<Generation>> {
        let led = self.known[election.0].led;
        Ok(match self.etcd.input.int_in_range(0..=2)? {
            0 => None,
            1 => Some(led),
            _ => Some(Generation(led.0.saturating_sub(1))),
        })
    }

    /// Hands an input to the core, and judges what comes of it.
    fn feed(&mut self, input: &Input) {
        let won =
            matches!(input, Input::Election(_, ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { .. }, .. }));
        self.core.handle(self.now, Jitter(self.now.as_nanos().rotate_right(20)), input.clone());
        let outputs: Vec<_> = std::iter::from_fn(|| self.core.poll_output()).collect();
        if !outputs.iter().any(|output| matches!(output, Output::Rewound { .. } | Output::ElectionRewound(..))) {
            self.note(input);
        }
        let published = outputs.iter().rposition(|output| *output == Output::Publish);
        assert!(published.is_none_or(|at| at == 0), "a publication comes first, and once: {outputs:?}");
        let mut seals = Vec::new();
        for output in outputs {
            if let Output::SealPromises(election) = output {
                seals.push(election);
            }
            self.judge(output, won);
        }
        for e in 0..OBSERVE.len() {
            let standing = self.core.standing(ElectionIndex(e));
            assert_eq!(standing.own.is_some(), standing.role == Role::Leader);
            if standing.key.is_none() {
                // Somebody else deleted it: no promise can be kept any more.
                self.known[e].promised = None;
            }
            let guarded = self.core.session().is_some_and(|session| session.guard.holds_at(self.now));
            assert!(standing.role != Role::Leader || guarded, "leads without a guard");
        }
        assert!(self.core.poll_timeout().is_none_or(|at| at > self.now), "asks to be called at once");
        for election in seals {
            let until = self.etcd.sealed(self.now);
            self.known[election.0].promised = Some(until);
            self.feed(&Input::Election(election, ElectionInput::Sealed { until }));
        }
    }

    fn judge(&mut self, output: Output, won: bool) {
        match output {
            Output::Publish | Output::Watch { .. } | Output::Remember(_) | Output::ElectionRewound(..) => {}
            Output::Transition(transition) => self.judge_transition(&transition, won),
            Output::SealPromises(e) => self.known[e.0].promised = Some(Instant::from_nanos(u64::MAX)),
            // No answer to an earlier request may follow.
            Output::Rewound { .. } => self.open.clear(),
            Output::Reply { ticket, .. } => assert!(self.tickets.remove(&ticket).is_some(), "answered twice"),
            Output::Stopped { .. } => {
                assert!(!self.stopped, "stopped twice");
                self.stopped = true;
            }
            request => {
                match &request {
                    Output::Elect { election, txn } => self.judge_elect(*election, txn),
                    Output::HandOver { election, txn } => self.judge_hand_over(*election, txn),
                    Output::Raise { election, modified, .. } => {
                        assert!(self.known[election.0].readable.contains(modified), "raises what it cannot read");
                    }
                    _ => {}
                }
                self.open.push((self.now, request));
                if self.open.len() > OPEN {
                    let look = |(_, o): &(_, Output)| matches!(o, Output::Look { .. } | Output::Feel { .. });
                    let oldest = self.open.iter().position(look).expect("nothing else is asked for without end");
                    self.open.remove(oldest);
                }
            }
        }
    }

    fn judge_transition(&mut self, transition: &Transition, won: bool) {
        let Transition { election, to, new_generation, .. } = *transition;
        let (known, standing) = (&mut self.known[election.0], self.core.standing(election));
        if to == Role::Candidate {
            known.promised = None;
        }
        if to != Role::Leader {
            return;
        }
        assert!(!OBSERVE[election.0], "an observer leads");
        let key = standing.key.expect("a leader has its key").clone();
        assert!(known.named.contains(&(key, new_generation)), "leads with {new_generation}, which names it not");
        assert!(new_generation > known.led, "leads twice with {new_generation}");
        if !won && standing.role == Role::Leader {
            assert_eq!(standing.observed, new_generation, "leads on a record that it cannot read any more");
        }
        (known.led, known.promised, known.drained) = (new_generation, None, false);
    }

    fn judge_elect(&self, e: ElectionIndex, txn: &ElectTxn) {
        let known = &self.known[e.0];
        known.judge_generation(txn.generation, txn.generation_modified);
        assert!(known.free.contains(&txn.control_modified), "elected under a pause");
        assert!(self.core.session().is_some_and(|session| session.lease == txn.lease), "not on the session's lease");
    }

    fn judge_hand_over(&self, e: ElectionIndex, txn: &HandOverTxn) {
        let known = &self.known[e.0];
        assert!(known.drained || known.promised.is_none_or(|until| until <= self.now), "a promise is broken");
        let Some(to) = &txn.successor else { return };
        known.judge_generation(to.generation, to.generation_modified);
        assert!(to.entry.candidate.is_some() && to.entry.key != txn.key, "hands over to {:?}", to.entry);
        assert!(to.skipped.iter().all(|key| known.ours.contains(key)), "deletes keys of others: {:?}", to.skipped);
    }

    /// What an input shows of etcd.
    fn note(&mut self, input: &Input) {
        let Input::Election(e, input) = input else { return };
        let known = &mut self.known[e.0];
        match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view, .. }, .. } => {
                known.generation(&view.generation);
                known.control(&view.control);
                known.queue(&view.queue);
            }
            ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, record, queue }, .. } => {
                known.record(record, header.revision);
                known.queue(queue);
            }
            ElectionInput::HandOverAnswered {
                outcome: HandOverOutcome::Done { header, record: Some(record) }, ..
            } => known.record(record, header.revision),
            ElectionInput::GenerationChanged { cell, .. } => known.generation(cell),
            ElectionInput::ControlChanged { cell, .. } => known.control(cell),
            _ => {}
        }
    }
}

impl Known {
    fn judge_generation(&self, minted: Generation, modified: Revision) {
        assert!(minted > self.seen, "mints {minted}, and has seen {}", self.seen);
        assert!(minted <= Generation::MAX, "mints {minted}, which nobody would accept");
        assert!(self.readable.contains(&modified), "mints over a record that it cannot read");
    }

    fn generation(&mut self, cell: &Cell<GenerationRecord>) {
        if let Cell::Valid { value, modified } = cell {
            self.record(value, *modified);
        }
    }

    fn record(&mut self, record: &GenerationRecord, modified: Revision) {
        self.readable.insert(modified);
        self.seen = self.seen.max(record.generation);
        self.named.extend(record.holder.iter().map(|holder| (holder.key.clone(), record.generation)));
    }

    fn control(&mut self, cell: &Cell<ControlRecord>) {
        if let Cell::Valid { value: ControlRecord { paused: false }, modified } = cell {
            self.free.insert(*modified);
        }
    }

    fn queue(&mut self, queue: &[QueueEntry]) {
        self.ours.extend(queue.iter().filter(|entry| entry.candidate.is_some()).map(|entry| entry.key.clone()));
    }
}
