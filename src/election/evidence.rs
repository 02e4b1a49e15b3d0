//! Which inputs show something of etcd's history, and what.

use super::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, SessionInput};
use super::ids::{ElectionIndex, Generation};
use super::record::{Cell, Header};

/// The header of an answer that went through raft or a quorum read, and the generation that it showed, if it showed one.
pub(super) fn linearizable(input: &Input) -> Option<(&Header, Option<(ElectionIndex, Generation)>)> {
    match input {
        // A keep-alive's answer is no quorum read: a deposed leader's may come from an older history, or term.
        Input::Tick | Input::Command(_) => None,
        Input::Session(input) => match input {
            SessionInput::Granted { header, .. } | SessionInput::Confirmed { header, .. } => Some((header, None)),
            SessionInput::GrantFailed
            | SessionInput::KeepAliveAnswered { .. }
            | SessionInput::KeepAliveFailed { .. }
            | SessionInput::ConfirmFailed { .. }
            | SessionInput::LeaseUnknown { .. }
            | SessionInput::Revoked { .. }
            | SessionInput::RevokeFailed { .. }
            | SessionInput::ClockJumped => None,
        },
        Input::Election(election, input) => match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view }, .. } => {
                // A value that we cannot read shows nothing, and nobody leads on it.
                let shown = match &view.generation {
                    Cell::Absent => Some(Generation(0)),
                    Cell::Valid { value, .. } => Some(value.generation),
                    Cell::Corrupt { .. } => None,
                };
                Some((&view.header, shown.map(|g| (*election, g))))
            }
            ElectionInput::Felt { pulse, .. } => Some((&pulse.header, None)),
            ElectionInput::Queued { header, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, .. }, .. }
            | ElectionInput::HandOverAnswered { outcome: HandOverOutcome::Done { header, .. }, .. } => {
                Some((header, None))
            }
            ElectionInput::LookFailed { .. }
            | ElectionInput::QueueFailed { .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Failed | ElectOutcome::Unknown, .. }
            | ElectionInput::HandOverAnswered {
                outcome: HandOverOutcome::Refused | HandOverOutcome::Unknown, ..
            }
            | ElectionInput::RaiseAnswered { .. }
            | ElectionInput::Sealed { .. }
            | ElectionInput::KeyDeleted { .. }
            | ElectionInput::GenerationChanged { .. }
            | ElectionInput::ControlChanged { .. }
            | ElectionInput::WatchBroken => None,
        },
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
