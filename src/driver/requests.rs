//! What HTTP and signals ask of the driver.

use tokio::sync::oneshot;

use super::{Driver, STOP_REQUESTS};
use crate::clock;
use crate::control::{ControlError, Current, HistoryRecord, Page, Request};
use crate::election::event::{Command, Input, Reply, Ticket};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::View;
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
            Request::Inquire(election, reply) => self.ask(election, reply, |view| current(&view)),
            Request::Candidates(election, reply) => self.ask(election, reply, |view| view.queue),
            Request::History(election, page, reply) => self.history(election, page, reply),
            Request::Shutdown => {
                let deadline = clock::now() + self.parts.promise + self.parts.request_timeout * STOP_REQUESTS;
                self.handle(Input::Command(Command::Shutdown { deadline }));
            }
        }
    }

    fn ask<T: Send + 'static>(
        &mut self,
        election: ElectionIndex,
        reply: oneshot::Sender<Result<T, ControlError>>,
        pick: impl FnOnce(View) -> T + Send + 'static,
    ) {
        let etcd = self.parts.etcd.clone();
        self.questions.spawn(async move {
            let answer = etcd.read(election).await.map(pick).map_err(|e| ControlError::Unavailable(e.to_string()));
            let _ = reply.send(answer);
        });
    }

    fn history(
        &mut self,
        election: ElectionIndex,
        page: Page,
        reply: oneshot::Sender<Result<Vec<HistoryRecord>, ControlError>>,
    ) {
        let etcd = self.parts.etcd.clone();
        self.questions.spawn(async move {
            let records = etcd.history(election, page.limit as u64, page.before).await;
            let answer = records
                .map(|l| l.into_iter().map(|(record, revision)| HistoryRecord { record, revision }).collect())
                .map_err(|e| ControlError::Unavailable(e.to_string()));
            let _ = reply.send(answer);
        });
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

fn current(view: &View) -> Current {
    let record = view.generation.value();
    let head = view.queue.first();
    let holder = record.and_then(|r| r.holder.as_ref());
    let lives = head.zip(holder).is_some_and(|(head, holder)| head.key == holder.key);
    Current {
        generation: record.map_or(Generation(0), |r| r.generation),
        leader: record.zip(holder).filter(|_| lives).map(|(record, holder)| LeaderView {
            id: holder.id.clone(),
            url: holder.url.clone(),
            generation: record.generation,
            elected_at: record.elected_at,
        }),
        foreign: head.is_some_and(|h| h.candidate.is_none()),
    }
}
