//! An etcd that answers anything: whatever is well typed, true or not, consistent with what it said before or not.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::E;
use crate::clock::{Hlc, Instant, Wall};
use crate::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput};
use crate::election::ids::{CandidateKey, Generation, LeaseId, MemberId, RaftTerm, Revision};
use crate::election::record::{
    CandidateInfo, Cause, Cell, ControlRecord, GenerationRecord, Header, Holder, OwnKey, Pulse, QueueEntry, View,
};

/// What it may lie about. Each has its favourite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Site {
    Delay,
    Revision,
    Term,
    Member,
    Grant,
    Ttl,
    KeepAlive,
    Confirm,
    OwnKey,
    Revoke,
    Read,
    Feel,
    Queue,
    Elect,
    HandOver,
    Raise,
    Watch,
    Place,
    Generation,
    Holder,
    Control,
    Event,
}

pub(super) struct Liar {
    rng: Rng,
    /// How many answers of a hundred are the favourite.
    loyal: u32,
    favourites: BTreeMap<Site, u32>,
    noise: Option<Duration>,
    short_leases: bool,
    /// As told last.
    revision: i64,
    term: u64,
    generation: u64,
    leases: i64,
    /// The own key, as told last.
    own: Option<CandidateKey>,
}

impl Liar {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let noise = [None, None, Some(3), Some(20), Some(200), Some(3_000)][rng.usize(..6)];
        Self {
            loyal: [0, 60, 90, 100][rng.usize(..4)],
            noise: noise.map(Duration::from_millis),
            short_leases: rng.u8(..4) == 0,
            rng,
            favourites: BTreeMap::new(),
            revision: 10,
            term: 2,
            generation: 3,
            leases: 0,
            own: None,
        }
    }

    /// One time in so many.
    pub(super) fn chance(&mut self, of: u32) -> bool {
        self.rng.u32(..of) == 0
    }

    pub(super) fn number(&mut self) -> u64 {
        self.rng.u64(..)
    }

    /// How often it tells of something that nobody asked for.
    pub(super) const fn noise(&self) -> Option<Duration> {
        self.noise
    }

    /// Whether it grants less than it was asked for.
    pub(super) const fn short_leases(&self) -> bool {
        self.short_leases
    }

    /// One of so many answers.
    fn pick(&mut self, site: Site, of: u32) -> u32 {
        let favourite = self.rng.u32(..of);
        let favourite = *self.favourites.entry(site).or_insert(favourite) % of;
        if self.rng.u32(..100) < self.loyal { favourite } else { self.rng.u32(..of) }
    }

    /// The answer to a request, and when it comes; `None` where none is expected.
    pub(super) fn answer(&mut self, now: Instant, output: &Output) -> Option<(Duration, Input)> {
        let input = match output {
            Output::Grant { .. } | Output::KeepAlive { .. } | Output::Confirm { .. } | Output::Revoke { .. } => {
                Input::Session(self.of_session(now, output)?)
            }
            Output::Queue { lease, .. } if self.pick(Site::Queue, 4) == 0 => {
                Input::Session(SessionInput::LeaseUnknown { lease: *lease })
            }
            output => Input::Election(E, self.of_election(now, output)?),
        };
        let after = match self.pick(Site::Delay, 4) {
            0 | 1 => Duration::from_micros(10),
            2 => Duration::from_millis(1),
            _ => Duration::from_millis(self.rng.u64(..3_000)),
        };
        Some((after, input))
    }

    fn of_session(&mut self, now: Instant, output: &Output) -> Option<SessionInput> {
        let header = self.header(now);
        Some(match output {
            Output::Grant { .. } => {
                self.leases += 1;
                let (lease, ttl) = (LeaseId(self.leases), self.ttl());
                if self.pick(Site::Grant, 3) == 0 {
                    SessionInput::GrantFailed
                } else {
                    SessionInput::Granted { lease, ttl, header }
                }
            }
            Output::KeepAlive { lease, round, .. } => match self.pick(Site::KeepAlive, 5) {
                0 => SessionInput::KeepAliveFailed { lease: *lease, round: *round },
                1 => SessionInput::LeaseUnknown { lease: *lease },
                2 => SessionInput::KeepAliveAnswered { lease: *lease, round: *round, ttl: Duration::ZERO, header },
                _ => SessionInput::KeepAliveAnswered { lease: *lease, round: *round, ttl: self.ttl(), header },
            },
            Output::Confirm { lease, round, elections, .. } => {
                let created = match self.pick(Site::OwnKey, 3) {
                    0 => Revision(0),
                    1 => Revision(self.revision),
                    _ => self.own.as_ref().map_or(Revision(0), |own| own.created),
                };
                let keys = elections.iter().map(|e| OwnKey { election: *e, created }).collect();
                if self.pick(Site::Confirm, 4) == 0 {
                    SessionInput::ConfirmFailed { lease: *lease, round: *round }
                } else {
                    SessionInput::Confirmed { lease: *lease, round: *round, header, keys }
                }
            }
            Output::Revoke { lease } if self.pick(Site::Revoke, 2) == 0 => SessionInput::RevokeFailed { lease: *lease },
            Output::Revoke { lease } => SessionInput::Revoked { lease: *lease },
            _ => return None,
        })
    }

    fn of_election(&mut self, now: Instant, output: &Output) -> Option<ElectionInput> {
        Some(match output {
            Output::Look { round, .. } | Output::Feel { round, .. } if self.pick(Site::Read, 5) == 0 => {
                ElectionInput::LookFailed { round: *round }
            }
            Output::Look { round, lease, .. } => ElectionInput::Looked { round: *round, view: self.view(now, *lease) },
            Output::Feel { round, suffixes, .. } => {
                ElectionInput::Felt { round: *round, pulse: self.pulse(now, suffixes) }
            }
            Output::Queue { lease, .. } => {
                let header = self.header(now);
                let created = Revision(if self.chance(4) { self.revision - 5 } else { self.revision });
                if self.pick(Site::Queue, 4) == 1 {
                    return Some(ElectionInput::QueueFailed { lease: *lease });
                }
                self.own = Some(CandidateKey::of(*lease, created));
                ElectionInput::Queued { lease: *lease, created, header }
            }
            Output::Elect { txn, .. } => {
                let key = CandidateKey::of(txn.lease, txn.created);
                let outcome = match self.pick(Site::Elect, 4) {
                    0 => ElectOutcome::Refused { view: self.view(now, Some(txn.lease)), logged: self.chance(2) },
                    1 => ElectOutcome::Failed,
                    2 => ElectOutcome::Unknown,
                    _ => {
                        let header = self.header(now);
                        let record = self.record(txn.generation, Some(key.clone()), Cause::Elected);
                        ElectOutcome::Won { header, record, queue: self.queue() }
                    }
                };
                ElectionInput::ElectAnswered { key, outcome }
            }
            Output::HandOver { txn, .. } => {
                let outcome = match self.pick(Site::HandOver, 4) {
                    0 => HandOverOutcome::Refused,
                    1 => HandOverOutcome::Unknown,
                    _ => {
                        let header = self.header(now);
                        let named = txn.successor.as_ref();
                        let record =
                            named.map(|s| self.record(s.generation, Some(s.entry.key.clone()), Cause::HandedOver));
                        HandOverOutcome::Done { header, record }
                    }
                };
                ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome }
            }
            Output::Raise { .. } => ElectionInput::RaiseAnswered { raised: self.pick(Site::Raise, 2) == 0 },
            Output::Watch { .. } if self.pick(Site::Watch, 3) == 0 => ElectionInput::WatchBroken,
            _ => return None,
        })
    }

    /// Something that a watch tells.
    pub(super) fn event(&mut self) -> ElectionInput {
        let at = |liar: &mut Self| Revision(if liar.chance(50) { i64::MAX - 1 } else { liar.next_revision() });
        match self.pick(Site::Event, 5) {
            0 => {
                let own = self.own.as_ref().map(|own| own.suffix.clone()).unwrap_or_default();
                ElectionInput::KeyDeleted { suffix: own, revision: at(self) }
            }
            1 => ElectionInput::KeyDeleted { suffix: "other".to_owned(), revision: at(self) },
            2 => ElectionInput::GenerationChanged { revision: at(self), cell: self.generation() },
            3 => ElectionInput::ControlChanged { revision: at(self), cell: self.control() },
            _ => ElectionInput::WatchBroken,
        }
    }

    fn ttl(&mut self) -> Duration {
        let least = if self.short_leases { 1 } else { 10 };
        Duration::from_secs([least, least, 10, 20][self.pick(Site::Ttl, 4) as usize])
    }

    fn next_revision(&mut self) -> i64 {
        match self.pick(Site::Revision, 8) {
            0 => self.revision = (self.revision - 3).max(1),
            1 => self.revision = self.revision.saturating_add(1_000).min(i64::MAX / 2),
            2 | 3 => {}
            _ => self.revision += 1,
        }
        self.revision
    }

    fn header(&mut self, sent_at: Instant) -> Header {
        match self.pick(Site::Term, 8) {
            0 => self.term = self.term.saturating_sub(1),
            1 => self.term += 1,
            _ => {}
        }
        let (revision, raft_term) = (Revision(self.next_revision()), RaftTerm(self.term));
        Header { sent_at, revision, raft_term, member: MemberId(u64::from(self.pick(Site::Member, 4) / 3)) }
    }

    fn record(&mut self, generation: Generation, holder: Option<CandidateKey>, cause: Cause) -> GenerationRecord {
        self.generation = generation.0;
        GenerationRecord {
            generation,
            term: 0,
            holder: holder.map(|key| Holder { id: "somebody".to_owned(), url: String::new(), key }),
            cause,
            elected_at: Wall(self.rng.u64(..)),
            hlc: Hlc::default(),
            leaderless_ms: 0,
        }
    }

    fn generation(&mut self) -> Cell<GenerationRecord> {
        let modified = Revision(if self.chance(2) { self.revision } else { self.revision - self.rng.i64(..9) });
        let generation = match self.pick(Site::Generation, 8) {
            0 => return Cell::Absent,
            1 => return Cell::Corrupt { modified },
            2 => self.generation.saturating_sub(2),
            3 => Generation::MAX.0 - self.rng.u64(..4),
            4 | 5 => self.generation + 1,
            _ => self.generation,
        };
        let (holder, cause) = match self.pick(Site::Holder, 4) {
            0 => (None, Cause::Raised),
            1 => (self.own.clone(), Cause::HandedOver),
            _ => (Some(other()), Cause::Elected),
        };
        Cell::Valid { value: self.record(Generation(generation), holder, cause), modified }
    }

    fn control(&mut self) -> Cell<ControlRecord> {
        let modified = Revision(self.revision);
        match self.pick(Site::Control, 6) {
            0 => Cell::Corrupt { modified },
            1 => Cell::Valid { value: ControlRecord { paused: true }, modified },
            2 => Cell::Valid { value: ControlRecord { paused: false }, modified },
            _ => Cell::Absent,
        }
    }

    /// The queue, in which the own key stands somewhere or nowhere.
    fn queue(&mut self) -> Vec<QueueEntry> {
        let info = |id: &str| CandidateInfo {
            id: id.to_owned(),
            url: String::new(),
            term: 0,
            priority: 0,
            version: String::new(),
        };
        let foreign = QueueEntry {
            key: CandidateKey { suffix: "foreign".to_owned(), created: Revision(2) },
            lease: 0,
            candidate: None,
        };
        let candidate = QueueEntry { key: other(), lease: 77, candidate: Some(info("other")) };
        let own = self.own.clone().map(|key| QueueEntry { key, lease: self.leases, candidate: Some(info("own")) });
        let own: Vec<_> = own.into_iter().collect();
        match self.pick(Site::Place, 5) {
            0 => vec![],
            1 => [vec![candidate], own].concat(),
            2 => [vec![foreign, candidate], own].concat(),
            3 => [own, vec![candidate]].concat(),
            _ => own,
        }
    }

    fn view(&mut self, now: Instant, lease: Option<LeaseId>) -> View {
        let (header, queue) = (self.header(now), self.queue());
        let suffix = lease.map(|lease| lease.to_string());
        let own = queue.iter().position(|e| Some(&e.key.suffix) == suffix.as_ref());
        View {
            header,
            generation: self.generation(),
            control: self.control(),
            queued: queue.len(),
            own: own.map(|i| queue[i].key.clone()),
            ahead: own.filter(|i| *i > 0).map(|i| queue[i - 1].key.clone()),
            queue,
        }
    }

    fn pulse(&mut self, now: Instant, suffixes: &[String]) -> Pulse {
        let header = self.header(now);
        let honest = self.pick(Site::Feel, 2) == 0;
        let created = |suffix: &String| match &self.own {
            Some(own) if own.suffix == *suffix => own.created,
            _ => Revision(3),
        };
        let keys = suffixes.iter().map(|s| CandidateKey { suffix: s.clone(), created: created(s) }).collect();
        let generation = if honest { Revision(self.revision) } else { Revision(0) };
        Pulse { header, generation, control: Revision(0), keys }
    }
}

fn other() -> CandidateKey {
    CandidateKey { suffix: "other".to_owned(), created: Revision(3) }
}
