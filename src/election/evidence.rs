//! Which inputs show something of etcd's history, and what.

use super::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, SessionInput};
use super::ids::{ElectionIndex, Generation, Revision};
use super::record::{Cell, GenerationRecord, Header};

/// What an answer shows of etcd's history.
pub(super) struct Evidence<'a> {
    pub(super) header: &'a Header,
    /// The newest generation, where it was read.
    pub(super) generation: Option<(ElectionIndex, Generation)>,
    /// Whether it went through etcd's log, not only through a quorum read.
    pub(super) logged: bool,
    /// The generation key, where a new connection read it.
    pub(super) aside: Option<(ElectionIndex, &'a Cell<GenerationRecord>)>,
}

/// What an input shows, if it is an answer that went through the log or a quorum read.
pub(super) fn linearizable(input: &Input) -> Option<Evidence<'_>> {
    match input {
        Input::Tick | Input::Command(_) => None,
        Input::Session(input) => match input {
            SessionInput::Granted { header, .. } => {
                Some(Evidence { header, generation: None, logged: true, aside: None })
            }
            SessionInput::Confirmed { header, .. } => {
                Some(Evidence { header, generation: None, logged: false, aside: None })
            }
            // A keep-alive's answer is no quorum read: a deposed leader's may come from an older history, or term.
            SessionInput::GrantFailed
            | SessionInput::KeepAliveAnswered { .. }
            | SessionInput::KeepAliveFailed { .. }
            | SessionInput::ConfirmFailed { .. }
            | SessionInput::LeaseUnknown { .. }
            | SessionInput::Revoked { .. }
            | SessionInput::RevokeFailed { .. }
            | SessionInput::ClockJumped
            | SessionInput::StoreMoved => None,
        },
        Input::Election(election, input) => of_election(*election, input),
    }
}

fn of_election(election: ElectionIndex, input: &ElectionInput) -> Option<Evidence<'_>> {
    match input {
        ElectionInput::Looked { view, .. } | ElectionInput::LookedAside { view, .. } => Some(Evidence {
            header: &view.header,
            generation: shown(&view.generation).map(|g| (election, g)),
            logged: false,
            aside: matches!(input, ElectionInput::LookedAside { .. }).then_some((election, &view.generation)),
        }),
        ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view, logged }, .. } => Some(Evidence {
            header: &view.header,
            generation: shown(&view.generation).map(|g| (election, g)),
            logged: *logged,
            aside: None,
        }),
        ElectionInput::Felt { pulse, .. } => {
            Some(Evidence { header: &pulse.header, generation: None, logged: false, aside: None })
        }
        ElectionInput::Queued { header, .. }
        | ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, .. }, .. }
        | ElectionInput::HandOverAnswered { outcome: HandOverOutcome::Done { header, .. }, .. } => {
            Some(Evidence { header, generation: None, logged: true, aside: None })
        }
        ElectionInput::LookFailed { .. }
        | ElectionInput::QueueFailed { .. }
        | ElectionInput::ElectAnswered { outcome: ElectOutcome::Failed | ElectOutcome::Unknown, .. }
        | ElectionInput::HandOverAnswered { outcome: HandOverOutcome::Refused | HandOverOutcome::Unknown, .. }
        | ElectionInput::RaiseAnswered { .. }
        | ElectionInput::Sealed { .. }
        | ElectionInput::KeyDeleted { .. }
        | ElectionInput::GenerationChanged { .. }
        | ElectionInput::ControlChanged { .. }
        | ElectionInput::WatchBroken => None,
    }
}

/// A value that we cannot read shows nothing, and nobody leads on it.
fn shown(cell: &Cell<GenerationRecord>) -> Option<Generation> {
    match cell {
        Cell::Absent => Some(Generation(0)),
        Cell::Valid { value, .. } => Some(value.generation),
        Cell::Corrupt { .. } => None,
    }
}

/// A generation that an input shows to be committed, besides what `linearizable` finds.
pub(super) fn shown_generation(input: &ElectionInput) -> Option<Generation> {
    match input {
        ElectionInput::GenerationChanged { cell, .. } => cell.value().map(|r| r.generation),
        ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { record, .. }, .. } => Some(record.generation),
        ElectionInput::HandOverAnswered { outcome: HandOverOutcome::Done { record, .. }, .. } => {
            record.as_ref().map(|r| r.generation)
        }
        ElectionInput::ElectAnswered { .. }
        | ElectionInput::HandOverAnswered { .. }
        | ElectionInput::Looked { .. }
        | ElectionInput::LookedAside { .. }
        | ElectionInput::Felt { .. }
        | ElectionInput::LookFailed { .. }
        | ElectionInput::Queued { .. }
        | ElectionInput::QueueFailed { .. }
        | ElectionInput::RaiseAnswered { .. }
        | ElectionInput::Sealed { .. }
        | ElectionInput::KeyDeleted { .. }
        | ElectionInput::ControlChanged { .. }
        | ElectionInput::WatchBroken => None,
    }
}

/// The revision of a watch event.
pub(super) const fn told(input: &ElectionInput) -> Option<Revision> {
    match input {
        ElectionInput::KeyDeleted { revision, .. }
        | ElectionInput::GenerationChanged { revision, .. }
        | ElectionInput::ControlChanged { revision, .. } => Some(*revision),
        ElectionInput::ElectAnswered { .. }
        | ElectionInput::HandOverAnswered { .. }
        | ElectionInput::Looked { .. }
        | ElectionInput::LookedAside { .. }
        | ElectionInput::Felt { .. }
        | ElectionInput::LookFailed { .. }
        | ElectionInput::Queued { .. }
        | ElectionInput::QueueFailed { .. }
        | ElectionInput::RaiseAnswered { .. }
        | ElectionInput::Sealed { .. }
        | ElectionInput::WatchBroken => None,
    }
}
