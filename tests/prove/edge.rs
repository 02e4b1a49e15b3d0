//! What the daemon's edge adds to the core's requests: the value of the generation key that it read last.

use std::time::Duration;

use crate::clock::Wall;
use crate::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, SessionInput};
use crate::election::ids::{CandidateKey, ElectionIndex, Generation, Revision};
use crate::election::record::{Cell, GenerationRecord};

/// A request on its way to etcd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What the core asked for.
    pub output: Output,
    /// The value of the generation key that the daemon last read at the revision it compares with.
    pub known: Option<Known>,
}

/// A value of the generation key, as far as a compare of values tells two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// No two writes share one: the writer's clock, holder and all.
    pub stamp: Wall,
    /// The generation in it.
    pub generation: Generation,
}

/// The newest value of each election's generation key that this daemon read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    known: Vec<Option<(Revision, Known)>>,
}

impl Edge {
    /// For so many elections.
    pub fn new(elections: usize) -> Self {
        Self { known: vec![None; elections] }
    }

    /// Takes note of what an answer or event shows.
    pub fn note(&mut self, input: &Input) {
        let Input::Election(ElectionIndex(election), input) = input else { return };
        let (modified, record) = match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view, .. }, .. } => {
                match &view.generation {
                    Cell::Valid { value, modified } => (*modified, value),
                    Cell::Absent | Cell::Corrupt { .. } => return,
                }
            }
            ElectionInput::GenerationChanged { cell: Cell::Valid { value, modified }, .. } => (*modified, value),
            ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, record, .. }, .. }
            | ElectionInput::HandOverAnswered {
                outcome: HandOverOutcome::Done { header, record: Some(record) }, ..
            } => (header.revision, record),
            _ => return,
        };
        // A watch may tell later what a look has overtaken.
        if self.known[*election].is_none_or(|(at, _)| at <= modified) {
            self.known[*election] = Some((modified, Known::of(record)));
        }
    }

    /// Makes a request of an output.
    pub fn request(&self, output: Output) -> Request {
        let compared = match &output {
            Output::Elect { election, txn } => Some((*election, txn.generation_modified)),
            Output::HandOver { election, txn } => txn.successor.as_ref().map(|s| (*election, s.generation_modified)),
            Output::Raise { election, modified, .. } => Some((*election, *modified)),
            _ => None,
        };
        let known = compared.and_then(|(ElectionIndex(election), modified)| {
            self.known[election].filter(|(at, _)| *at == modified).map(|(_, known)| known)
        });
        Request { output, known }
    }
}

impl Known {
    /// Of a record in etcd.
    pub const fn of(record: &GenerationRecord) -> Self {
        Self { stamp: record.elected_at, generation: record.generation }
    }
}

impl Request {
    /// Whether it only reads, or makes what nobody else can touch.
    pub const fn reads(&self) -> bool {
        matches!(
            self.output,
            Output::Look { .. }
                | Output::Feel { .. }
                | Output::Confirm { .. }
                | Output::Grant { .. }
                | Output::KeepAlive { .. }
        )
    }

    /// Whether any member answers it from its memory, without a quorum: to etcd a transaction without reads is serializable.
    pub fn asks_nobody(&self) -> bool {
        matches!(&self.output, Output::Confirm { elections, anchor: None, .. } if elections.is_empty())
    }

    /// What the edge reports when no answer came.
    pub fn unanswered(&self) -> Input {
        let session = Input::Session;
        match &self.output {
            Output::Grant { .. } => session(SessionInput::GrantFailed),
            Output::KeepAlive { lease, round, .. } => {
                session(SessionInput::KeepAliveFailed { lease: *lease, round: *round })
            }
            Output::Confirm { lease, round, .. } => {
                session(SessionInput::ConfirmFailed { lease: *lease, round: *round })
            }
            Output::Revoke { lease } => session(SessionInput::RevokeFailed { lease: *lease }),
            Output::Look { election, round, .. } | Output::Feel { election, round, .. } => {
                Input::Election(*election, ElectionInput::LookFailed { round: *round })
            }
            Output::Queue { election, lease } => {
                Input::Election(*election, ElectionInput::QueueFailed { lease: *lease })
            }
            Output::Elect { election, txn } => {
                let key = CandidateKey::of(txn.lease, txn.created);
                Input::Election(*election, ElectionInput::ElectAnswered { key, outcome: ElectOutcome::Unknown })
            }
            Output::HandOver { election, txn } => Input::Election(
                *election,
                ElectionInput::HandOverAnswered { key: txn.key.clone(), outcome: HandOverOutcome::Unknown },
            ),
            Output::Raise { election, .. } => {
                Input::Election(*election, ElectionInput::RaiseAnswered { raised: false })
            }
            other => unreachable!("{other:?} is no request"),
        }
    }
}

/// A duration in the nanoseconds of virtual time.
pub fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).expect("short")
}
