//! Questions that need etcd: few at once, and each read is shared by all who asked before it began.
//!
//! Whoever asks while a read of the same is under way waits for the next one: the answer of a read that began before the
//! question may be older than the question, and a token that was superseded meanwhile would be called current.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::propagate;
use crate::control::{ControlError, Current, HistoryRecord, Page};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::{Cell, QueueEntry, View};
use crate::etcd::Etcd;
use crate::snapshot::LeaderView;

/// Reads at once.
const AT_ONCE: usize = 64;
/// Callers that may wait for the next read of the same.
const CALLERS: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, ControlError>>;
type Read<T> = Result<T, ControlError>;

/// What is read: one read of it at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Generation and queue.
    Queue(ElectionIndex),
    /// Of the history, this page.
    History(ElectionIndex, Page),
}

/// Who asked, and what of it.
#[derive(Debug)]
pub(super) enum Caller {
    Inquire(Reply<Current>),
    Candidates(Reply<Vec<QueueEntry>>),
    History(Reply<Vec<HistoryRecord>>),
}

impl Caller {
    fn has_gone(&self) -> bool {
        match self {
            Self::Inquire(reply) => reply.is_closed(),
            Self::Candidates(reply) => reply.is_closed(),
            Self::History(reply) => reply.is_closed(),
        }
    }

    async fn goes(&mut self) {
        match self {
            Self::Inquire(reply) => reply.closed().await,
            Self::Candidates(reply) => reply.closed().await,
            Self::History(reply) => reply.closed().await,
        }
    }

    /// A caller that went away does not want to know.
    fn tell(self, answer: &Read<Answer>) {
        match (self, answer) {
            (caller, Err(why)) => caller.refuse(why.clone()),
            (Self::Inquire(reply), Ok(Answer::Queue(view))) => drop(reply.send(current(view))),
            (Self::Candidates(reply), Ok(Answer::Queue(view))) => drop(reply.send(Ok(view.queue.clone()))),
            (Self::History(reply), Ok(Answer::History(records))) => drop(reply.send(Ok(records.clone()))),
            (caller @ (Self::Inquire(_) | Self::Candidates(_)), Ok(Answer::History(_)))
            | (caller @ Self::History(_), Ok(Answer::Queue(_))) => {
                unreachable!("{caller:?} asked about something else")
            }
        }
    }

    fn refuse(self, why: ControlError) {
        match self {
            Self::Inquire(reply) => drop(reply.send(Err(why))),
            Self::Candidates(reply) => drop(reply.send(Err(why))),
            Self::History(reply) => drop(reply.send(Err(why))),
        }
    }
}

/// What was read.
enum Answer {
    Queue(View),
    History(Vec<HistoryRecord>),
}

/// All that are under way.
pub(super) struct Questions {
    etcd: Etcd,
    reads: JoinSet<Subject>,
    /// What is being read now, with those who wait for the next read of it.
    next: BTreeMap<Subject, Vec<Caller>>,
}

impl Questions {
    pub(super) fn new(etcd: Etcd) -> Self {
        Self { etcd, reads: JoinSet::new(), next: BTreeMap::new() }
    }

    /// Reads, or has the caller wait for the next read of the same.
    pub(super) fn ask(&mut self, subject: Subject, caller: Caller) {
        if let Some(waiting) = self.next.get_mut(&subject) {
            waiting.retain(|caller| !caller.has_gone());
            if waiting.len() < CALLERS {
                waiting.push(caller);
            } else {
                caller.refuse(ControlError::Busy);
            }
        } else if self.next.len() < AT_ONCE {
            self.next.insert(subject, Vec::new());
            self.read(subject, vec![caller]);
        } else {
            caller.refuse(ControlError::Busy);
        }
    }

    /// The next read that ends; none while there is none. Loses nothing when dropped half-way.
    pub(super) async fn ended(&mut self) -> Option<Result<Subject, JoinError>> {
        self.reads.join_next().await
    }

    /// Begins the next read of what was read, for those who came meanwhile.
    pub(super) fn go_on(&mut self, ended: Result<Subject, JoinError>) {
        let Some(subject) = propagate(ended) else { return };
        let mut waiting = self.next.get_mut(&subject).map(std::mem::take).unwrap_or_default();
        waiting.retain(|caller| !caller.has_gone());
        if waiting.is_empty() {
            self.next.remove(&subject);
        } else {
            self.read(subject, waiting);
        }
    }

    fn read(&mut self, subject: Subject, mut callers: Vec<Caller>) {
        let etcd = self.etcd.clone();
        self.reads.spawn(async move {
            let answer = tokio::select! {
                answer = answer(&etcd, subject) => Some(answer),
                _ = join_all(callers.iter_mut().map(Caller::goes)) => None,
            };
            if let Some(answer) = answer {
                for caller in callers {
                    caller.tell(&answer);
                }
            }
            subject
        });
    }
}

async fn answer(etcd: &Etcd, subject: Subject) -> Read<Answer> {
    let read = match subject {
        Subject::Queue(election) => etcd.read(election).await.map(Answer::Queue),
        Subject::History(election, page) => etcd.history(election, page.limit as u64, page.before).await.map(|list| {
            Answer::History(list.into_iter().map(|(record, revision)| HistoryRecord { record, revision }).collect())
        }),
    };
    read.map_err(|e| ControlError::Unavailable(e.to_string()))
}

/// What the record says. One that cannot be read says nothing: to call a token stale or never issued by it would be a guess.
fn current(view: &View) -> Result<Current, ControlError> {
    if matches!(view.generation, Cell::Corrupt { .. }) {
        let what =
            "the record of this election's generation in etcd cannot be read, so that nothing can be said of a token";
        return Err(ControlError::Unavailable(what.to_owned()));
    }
    let record = view.generation.value();
    let head = view.queue.first();
    let holder = record.and_then(|r| r.holder.as_ref());
    let lives = head.zip(holder).is_some_and(|(head, holder)| head.key == holder.key);
    Ok(Current {
        generation: record.map_or(Generation(0), |r| r.generation),
        leader: record.zip(holder).filter(|_| lives).map(|(record, holder)| LeaderView {
            id: holder.id.clone(),
            url: holder.url.clone(),
            generation: record.generation,
            elected_at: record.elected_at,
        }),
        foreign: head.is_some_and(|h| h.candidate.is_none()),
    })
}
