//! What HTTP and signals ask of the driver.

use tokio::sync::oneshot;

use super::questions::{Caller, Subject};
use super::{Driver, STOP_REQUESTS};
use crate::clock;
use crate::control::{ControlError, Request, Resignation};
use crate::election::event::{Command, Input, Reply, Ticket};
use crate::election::ids::ElectionIndex;
use crate::election::record::QueueEntry;
use crate::snapshot::LeaderView;

impl Driver {
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Resign(election, Resignation { cooldown, token }, reply) => {
                let ticket = self.ticket(Waiting::Resigning(election, reply));
                self.handle(Input::Command(Command::Resign { election, ticket, cooldown, token }));
            }
            Request::Drain(hold, reply) => {
                let _ = reply.send(self.drain(hold));
            }
            Request::Undrain(reply) => {
                let _ = reply.send(self.undrain());
            }
            Request::Drained(election, token, reply) => {
                let ticket = self.ticket(Waiting::Drained(reply));
                self.handle(Input::Command(Command::Drained { election, ticket, token }));
            }
            Request::Inquire(election, reply) => self.questions.ask(Subject::Queue(election), Caller::Inquire(reply)),
            Request::Candidates(election, reply) => {
                self.questions.ask(Subject::Queue(election), Caller::Candidates(reply));
            }
            Request::History(election, page, reply) => {
                self.questions.ask(Subject::History(election, page), Caller::History(reply));
            }
            Request::Shutdown => {
                let deadline = clock::now() + self.parts.timing.promise() + self.parts.request_timeout * STOP_REQUESTS;
                self.handle(Input::Command(Command::Shutdown { deadline }));
            }
        }
    }

    fn ticket(&mut self, caller: Waiting) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.callers.insert(ticket, caller);
        ticket
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let refusal = match reply {
            Reply::Resigned { .. } | Reply::HandingOver => None,
            Reply::NotLeader => Some(ControlError::NotLeader),
            Reply::Stale => Some(ControlError::Stale),
            Reply::Unknown => Some(ControlError::OutcomeUnknown("the session ended before etcd answered".to_owned())),
        };
        // A caller that went away does not want to know.
        let _ = match self.callers.remove(&ticket) {
            None => return,
            Some(Waiting::Drained(caller)) => caller.send(refusal.map_or(Ok(()), Err)).is_ok(),
            Some(Waiting::Resigning(election, caller)) => {
                let successor = if let Reply::Resigned { successor, .. } = reply { successor } else { None };
                let named = || Ok(successor.and_then(|entry| self.named(election, &entry)));
                caller.send(refusal.map_or_else(named, Err)).is_ok()
            }
        };
    }

    /// The successor as etcd records it: every daemon names the same time.
    fn named(&self, election: ElectionIndex, successor: &QueueEntry) -> Option<LeaderView> {
        let (record, holder) = self.parts.core.standing(election).leader?;
        (holder.key == successor.key).then(|| LeaderView {
            id: holder.id.clone(),
            url: holder.url.clone(),
            generation: record.generation,
            elected_at: record.elected_at,
        })
    }
}

/// Who waits for the answer to a command.
pub(super) enum Waiting {
    Resigning(ElectionIndex, oneshot::Sender<Result<Option<LeaderView>, ControlError>>),
    Drained(oneshot::Sender<Result<(), ControlError>>),
}
