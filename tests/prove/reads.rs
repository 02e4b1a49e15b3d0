//! What reads of the model of etcd show.

use crate::clock::Instant;
use crate::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, SessionInput};
use crate::election::ids::{CandidateKey, ElectionIndex, LeaseId, Revision};
use crate::election::record::{CandidateInfo, Header, Pulse, QueueEntry, View};
use crate::etcd::{Key, Store};

impl Store {
    pub(crate) fn queue(&self, election: ElectionIndex) -> Vec<QueueEntry> {
        let info = |owner: usize| CandidateInfo {
            id: owner.to_string(),
            url: String::new(),
            term: 0,
            priority: i32::try_from(owner % 2).unwrap_or(0),
            version: String::new(),
        };
        let entry = |(suffix, k): (&String, &Key)| QueueEntry {
            key: CandidateKey { suffix: suffix.clone(), created: Revision(k.created) },
            lease: k.lease,
            candidate: k.owner.map(info),
        };
        let mut queue: Vec<_> = self.keys(election).queue.iter().map(entry).collect();
        queue.sort_by_key(|e| e.key.created);
        queue
    }

    pub(crate) fn view(&self, election: ElectionIndex, sent_at: Instant, lease: Option<LeaseId>) -> View {
        let queue = self.queue(election);
        let own = lease.and_then(|l| queue.iter().position(|e| e.key.suffix == l.to_string()));
        View {
            header: self.header(sent_at),
            generation: self.keys(election).generation.clone(),
            control: self.keys(election).control.clone(),
            queued: queue.len(),
            own: own.map(|i| queue[i].key.clone()),
            ahead: own.filter(|i| *i > 0).map(|i| queue[i - 1].key.clone()),
            queue,
        }
    }

    pub(crate) fn pulse(&self, election: ElectionIndex, sent_at: Instant, suffixes: &[String]) -> Pulse {
        let key = |s: &String| CandidateKey { suffix: s.clone(), created: Revision(self.created(election, s)) };
        Pulse {
            header: self.header(sent_at),
            generation: self.keys(election).generation.modified(),
            control: self.keys(election).control.modified(),
            keys: suffixes.iter().map(key).collect(),
        }
    }
}

/// The header of an answer from etcd, where it has one.
pub(crate) fn header_of(answer: &mut Input) -> Option<&mut Header> {
    match answer {
        Input::Session(
            SessionInput::Granted { header, .. }
            | SessionInput::KeepAliveAnswered { header, .. }
            | SessionInput::Confirmed { header, .. },
        ) => Some(header),
        Input::Election(_, input) => match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view, .. }, .. } => {
                Some(&mut view.header)
            }
            ElectionInput::Felt { pulse, .. } => Some(&mut pulse.header),
            ElectionInput::Queued { header, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, .. }, .. }
            | ElectionInput::HandOverAnswered { outcome: HandOverOutcome::Done { header, .. }, .. } => Some(header),
            _ => None,
        },
        Input::Session(_) | Input::Tick | Input::Command(_) => None,
    }
}
