//! The etcd of the target `election`: plausible for the most part, absurd now and then.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use tenure::clock::{Hlc, Instant, Wall};
use tenure::election::Core;
use tenure::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput};
use tenure::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, MemberId, RaftTerm, Revision};
use tenure::election::record::{
    CandidateInfo, Cause, Cell, ControlRecord, GenerationRecord, Header, Holder, OwnKey, Pulse, QueueEntry, View,
};
use tenure::election::txn::{ElectTxn, HandOverTxn};

const ABSURD: [i64; 6] = [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX];

pub struct Etcd<'a> {
    pub input: Unstructured<'a>,
    revision: i64,
    raft_term: u64,
    generation: u64,
}

impl<'a> Etcd<'a> {
    pub const fn new(input: Unstructured<'a>) -> Self {
        Self { input, revision: 1, raft_term: 2, generation: 0 }
    }

    /// The answer to a request that left at the first of two moments; the second is now.
    pub fn answer(&mut self, core: &Core, times: (Instant, Instant), request: &Output) -> Result<Input> {
        let failed = self.input.ratio(1, 8)?;
        let header = self.header(times)?;
        let session = |input| Ok(Input::Session(input));
        match *request {
            Output::Grant { .. } if failed => session(SessionInput::GrantFailed),
            Output::Grant { .. } => session(SessionInput::Granted { lease: self.lease()?, ttl: self.ttl(1)?, header }),
            Output::KeepAlive { lease, round, .. } if failed => session(SessionInput::KeepAliveFailed { lease, round }),
            Output::KeepAlive { lease, round, .. } => {
                session(SessionInput::KeepAliveAnswered { lease, round, ttl: self.ttl(0)?, header })
            }
            Output::Confirm { lease, round, .. } if failed => session(SessionInput::ConfirmFailed { lease, round }),
            Output::Confirm { lease, round, ref elections, .. } => {
                let mut keys = Vec::new();
                for election in elections {
                    keys.push(OwnKey { election: *election, created: self.own(core, *election)?.created });
                }
                session(SessionInput::Confirmed { lease, round, header, keys })
            }
            Output::Revoke { lease } if failed => session(SessionInput::RevokeFailed { lease }),
            Output::Revoke { lease } => session(SessionInput::Revoked { lease }),
            ref other => self.answer_election(core, header, failed, other),
        }
    }

    fn answer_election(&mut self, core: &Core, header: Header, failed: bool, request: &Output) -> Result<Input> {
        let (election, input) = match request {
            Output::Look { election, round, .. } | Output::Feel { election, round, .. } if failed => {
                (election, ElectionInput::LookFailed { round: *round })
            }
            Output::Look { election, round, lease } => {
                let view = self.view(core, *election, header, lease.is_some())?;
                (election, ElectionInput::Looked { round: *round, view })
            }
            Output::Feel { election, round, suffixes } => {
                let mut keys = Vec::new();
                for suffix in suffixes {
                    keys.push(CandidateKey { suffix: suffix.clone(), created: self.own(core, *election)?.created });
                }
                let (generation, control) = (self.revision()?, self.revision()?);
                (election, ElectionInput::Felt { round: *round, pulse: Pulse { header, generation, control, keys } })
            }
            Output::Queue { election, lease } if failed => (election, ElectionInput::QueueFailed { lease: *lease }),
            Output::Queue { election, lease } => {
                (election, ElectionInput::Queued { lease: *lease, created: self.revision()?, header })
            }
            Output::Elect { election, txn } => {
                let key = CandidateKey::of(txn.lease, txn.created);
                let outcome = self.elected(core, *election, header, failed, txn)?;
                (election, ElectionInput::ElectAnswered { key, outcome })
            }
            Output::HandOver { election, txn } => {
                let outcome = self.handed_over(header, failed, txn)?;
                (election, ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome })
            }
            Output::Raise { election, .. } => (election, ElectionInput::RaiseAnswered { raised: !failed }),
            other => unreachable!("{other:?} is no request"),
        };
        Ok(Input::Election(*election, input))
    }

    /// What nobody asked for.
    pub fn tell(&mut self, core: &Core, election: ElectionIndex) -> Result<Input> {
        let revision = self.revision()?;
        let input = match self.input.int_in_range(0..=7)? {
            0..=2 => ElectionInput::GenerationChanged { cell: self.generation_cell(core, election)?, revision },
            3 => ElectionInput::ControlChanged { cell: self.control_cell()?, revision },
            4 | 5 => ElectionInput::KeyDeleted { suffix: self.own(core, election)?.suffix, revision },
            6 => ElectionInput::WatchBroken,
            _ if self.input.arbitrary()? => return Ok(Input::Session(SessionInput::ClockJumped)),
            _ => {
                let lease = core.session().map_or(LeaseId(0), |session| session.lease);
                return Ok(Input::Session(SessionInput::LeaseUnknown { lease }));
            }
        };
        Ok(Input::Election(election, input))
    }

    /// When the last promise ends: within the longest one, or before now.
    pub fn sealed(&mut self, now: Instant) -> Instant {
        let ahead = self.input.int_in_range(0..=1_000).unwrap_or(0);
        now + Duration::from_millis(ahead)
    }

    fn elected(
        &mut self,
        core: &Core,
        election: ElectionIndex,
        header: Header,
        failed: bool,
        txn: &ElectTxn,
    ) -> Result<ElectOutcome> {
        Ok(match self.input.int_in_range(0..=7)? {
            0 => ElectOutcome::Failed,
            1 => ElectOutcome::Unknown,
            2 | 3 => ElectOutcome::Refused {
                view: self.view(core, election, header, true)?,
                logged: self.input.arbitrary()?,
            },
            _ if failed => ElectOutcome::Unknown,
            _ => {
                self.generation = txn.generation.0;
                let key = CandidateKey::of(txn.lease, txn.created);
                let record = record(txn.generation, txn.term, Some(key), Cause::Elected);
                ElectOutcome::Won { header, record, queue: self.queue(core, election)? }
            }
        })
    }

    fn handed_over(&mut self, header: Header, failed: bool, txn: &HandOverTxn) -> Result<HandOverOutcome> {
        Ok(match self.input.int_in_range(0..=3)? {
            0 => HandOverOutcome::Refused,
            _ if failed => HandOverOutcome::Unknown,
            _ => {
                let named = txn.successor.as_ref();
                let record =
                    named.map(|to| record(to.generation, to.term, Some(to.entry.key.clone()), Cause::HandedOver));
                self.generation = record.as_ref().map_or(self.generation, |record| record.generation.0);
                HandOverOutcome::Done { header, record }
            }
        })
    }

    fn header(&mut self, (asked, now): (Instant, Instant)) -> Result<Header> {
        let sent_at = if self.input.ratio(7, 8)? { asked } else { now };
        self.raft_term += u64::from(self.input.ratio(1, 16)?);
        let raft_term = if self.input.ratio(15, 16)? { self.raft_term } else { self.input.arbitrary()? };
        let member = MemberId::default();
        Ok(Header { sent_at, revision: self.revision()?, raft_term: RaftTerm(raft_term), member })
    }

    fn revision(&mut self) -> Result<Revision> {
        Ok(Revision(match self.input.arbitrary::<u8>()? {
            0..=199 => {
                self.revision = self.revision.saturating_add(self.input.int_in_range(0..=2)?);
                self.revision
            }
            200..=229 => self.revision.saturating_sub(self.input.int_in_range(0..=9)?),
            230..=249 => *self.input.choose(&ABSURD)?,
            _ => self.input.arbitrary()?,
        }))
    }

    fn lease(&mut self) -> Result<LeaseId> {
        Ok(LeaseId(match self.input.arbitrary::<u8>()? {
            0..=223 => self.input.int_in_range(0x100..=0x10f)?,
            224..=239 => *self.input.choose(&ABSURD)?,
            _ => self.input.arbitrary()?,
        }))
    }

    fn ttl(&mut self, least: u64) -> Result<Duration> {
        Ok(Duration::from_secs(match self.input.arbitrary::<u8>()? {
            0..=239 => 10,
            _ => self.input.arbitrary::<u64>()?.max(least),
        }))
    }

    /// The own key for the most part; where there is none, or now and then, any other.
    fn own(&mut self, core: &Core, election: ElectionIndex) -> Result<CandidateKey> {
        let own = core.standing(election).key.cloned();
        match own {
            Some(own) if self.input.ratio(7, 8)? => Ok(own),
            own => self.key(own),
        }
    }

    /// Another one, that stands behind the own key.
    fn behind(&mut self, core: &Core, election: ElectionIndex) -> Result<CandidateKey> {
        let own = core.standing(election).key.map_or(0, |key| key.created.0);
        let created = Revision(own.saturating_add(self.input.int_in_range(1..=9)?));
        Ok(CandidateKey { suffix: self.lease()?.to_string(), created })
    }

    fn key(&mut self, own: Option<CandidateKey>) -> Result<CandidateKey> {
        let suffix = match (self.input.int_in_range(0..=3)?, own) {
            (0, Some(own)) => own.suffix,
            (0 | 1, _) => self.lease()?.to_string(),
            (2, _) => (*self.input.choose(&["", "foreign", "\0xff", "ff", "-1"])?).to_owned(),
            (_, _) => self.input.arbitrary::<&str>()?.chars().take(8).collect(),
        };
        Ok(CandidateKey { suffix, created: self.revision()? })
    }

    fn generation_cell(&mut self, core: &Core, election: ElectionIndex) -> Result<Cell<GenerationRecord>> {
        let modified = self.revision()?;
        Ok(match self.input.int_in_range(0..=7)? {
            0 | 1 => Cell::Absent,
            2 => Cell::Corrupt { modified },
            _ => Cell::Valid { value: self.record(core, election)?, modified },
        })
    }

    fn record(&mut self, core: &Core, election: ElectionIndex) -> Result<GenerationRecord> {
        let generation = match self.input.arbitrary::<u8>()? {
            0..=239 => {
                self.generation = self.generation.saturating_add(self.input.int_in_range(0..=1)?);
                self.generation
            }
            // What is higher is corrupt.
            240..=247 => Generation::MAX.0 - self.input.int_in_range(0..=1)?,
            _ => self.input.int_in_range(0..=Generation::MAX.0)?,
        };
        let holder = if self.input.ratio(3, 4)? { Some(self.own(core, election)?) } else { None };
        let cause = *self.input.choose(&[Cause::Elected, Cause::HandedOver, Cause::Raised])?;
        let term = if self.input.ratio(7, 8)? { 0 } else { self.input.arbitrary()? };
        Ok(record(Generation(generation.min(Generation::MAX.0)), term, holder, cause))
    }

    fn control_cell(&mut self) -> Result<Cell<ControlRecord>> {
        let modified = self.revision()?;
        Ok(match self.input.int_in_range(0..=15)? {
            0 => Cell::Corrupt { modified },
            1 | 2 => Cell::Valid { value: ControlRecord { paused: self.input.arbitrary()? }, modified },
            _ => Cell::Absent,
        })
    }

    /// In any order, and with entries that no etcd would give twice.
    fn queue(&mut self, core: &Core, election: ElectionIndex) -> Result<Vec<QueueEntry>> {
        let mut queue = Vec::new();
        for _ in 0..self.input.int_in_range(0..=5)? {
            let key = if self.input.arbitrary()? { self.behind(core, election)? } else { self.own(core, election)? };
            let ours = self.input.ratio(3, 4)?;
            let candidate = ours.then(|| -> Result<CandidateInfo> {
                let (term, priority) = (self.input.int_in_range(0..=1)?, self.input.arbitrary()?);
                Ok(CandidateInfo { id: "x".to_owned(), url: String::new(), term, priority, version: String::new() })
            });
            queue.push(QueueEntry { key, lease: self.lease()?.0, candidate: candidate.transpose()? });
        }
        Ok(queue)
    }

    fn view(&mut self, core: &Core, election: ElectionIndex, header: Header, asked: bool) -> Result<View> {
        let queue = self.queue(core, election)?;
        let key = core.standing(election).key.cloned();
        let own = if self.input.ratio(7, 8)? { key } else { Some(self.key(key)?) };
        let ahead = if self.input.ratio(3, 4)? { None } else { Some(self.own(core, election)?) };
        let queued = if self.input.ratio(7, 8)? { queue.len() } else { self.input.arbitrary()? };
        let (generation, control) = (self.generation_cell(core, election)?, self.control_cell()?);
        Ok(View { header, generation, control, queue, queued, own: own.filter(|_| asked), ahead })
    }
}

fn record(generation: Generation, term: u64, key: Option<CandidateKey>, cause: Cause) -> GenerationRecord {
    let holder = key.map(|key| Holder { id: "x".to_owned(), url: String::new(), key });
    let (elected_at, hlc) = (Wall(0), Hlc::default());
    GenerationRecord { generation, term, holder, cause, elected_at, hlc, leaderless_ms: 0 }
}
