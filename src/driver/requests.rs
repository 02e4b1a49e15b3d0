//! What HTTP and signals ask of the driver.

use super::questions::{Caller, Subject};
use super::{Driver, STOP_REQUESTS};
use crate::clock;
use crate::control::{ControlError, Request};
use crate::election::event::{Command, Input, Reply, Ticket};
use crate::snapshot::LeaderView;

impl Driver {
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Resign(election, cooldown, reply) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.resigning.insert(ticket, (election, reply));
                self.handle(Input::Command(Command::Resign { election, ticket, cooldown }));
            }
            Request::Drain(reply) => {
                self.handle(Input::Command(Command::Drain));
                let _ = reply.send(());
            }
            Request::Drained(election, reply) => {
                self.handle(Input::Command(Command::Drained { election }));
                let _ = reply.send(());
            }
            Request::Inquire(election, reply) => self.questions.ask(Subject::Queue(election), Caller::Inquire(reply)),
            Request::Candidates(election, reply) => {
                self.questions.ask(Subject::Queue(election), Caller::Candidates(reply));
            }
            Request::History(election, page, reply) => {
                self.questions.ask(Subject::History(election, page), Caller::History(reply));
            }
            Request::Shutdown => {
                let deadline = clock::now() + self.parts.promise + self.parts.request_timeout * STOP_REQUESTS;
                self.handle(Input::Command(Command::Shutdown { deadline }));
            }
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let Some((election, caller)) = self.resigning.remove(&ticket) else { return };
        let answer = match reply {
            Reply::Resigned { successor, .. } => {
                // As etcd records it: every daemon names the same time.
                let leader = self.parts.core.standing(election).leader;
                let named = leader.zip(successor).filter(|((_, holder), entry)| holder.key == entry.key);
                Ok(named.map(|((record, holder), _)| LeaderView {
                    id: holder.id.clone(),
                    url: holder.url.clone(),
                    generation: record.generation,
                    elected_at: record.elected_at,
                }))
            }
            Reply::NotLeader => Err(ControlError::NotLeader),
            Reply::Unknown => Err(ControlError::OutcomeUnknown("the session ended before etcd answered".to_owned())),
        };
        // A caller that went away does not want to know.
        let _ = caller.send(answer);
    }
}
