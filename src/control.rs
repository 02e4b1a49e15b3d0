//! Commands and questions from HTTP and signals to the driver, and their answers.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Hlc, Instant, Wall};
use crate::election::ids::{ElectionIndex, Generation, Revision};
use crate::election::record::{GenerationRecord, QueueEntry};
use crate::snapshot::LeaderView;

/// How many requests may wait for the driver; one more is answered `busy`.
pub const QUEUE: usize = 256;

/// A request to the driver, with where to send its answer.
#[derive(Debug)]
pub enum Request {
    /// `POST …/resign`.
    Resign(ElectionIndex, Resignation, oneshot::Sender<Result<Option<LeaderView>, ControlError>>),
    /// `POST /v1/drain`; for how long to hold what was led, where the caller says so.
    Drain(Option<Duration>, oneshot::Sender<Drain>),
    /// `POST /v1/undrain`.
    Undrain(oneshot::Sender<Result<(), ControlError>>),
    /// `POST …/drained`, of this generation only where one is named.
    Drained(ElectionIndex, Option<Generation>, oneshot::Sender<Result<(), ControlError>>),
    /// `POST …/verify` and `GET …/leader?linearizable=true`.
    Inquire(ElectionIndex, oneshot::Sender<Result<Current, ControlError>>),
    /// `GET …/candidates`.
    Candidates(ElectionIndex, oneshot::Sender<Result<Vec<QueueEntry>, ControlError>>),
    /// `GET …/history`.
    History(ElectionIndex, Page, oneshot::Sender<Result<Vec<HistoryRecord>, ControlError>>),
    /// A signal to stop.
    Shutdown,
}

/// How to resign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resignation {
    /// How long to stay out of the queue.
    pub cooldown: Duration,
    /// Only from the leadership with this generation.
    pub token: Option<Generation>,
}

/// What a drain holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// The elections that were led and are not handed over yet.
    pub held: Vec<ElectionIndex>,
    /// When that happens by itself; `None` where there is nothing to hand over.
    pub hands_over_at: Option<Wall>,
}

/// The part of a list that is asked for, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page {
    /// At most so many entries: 1 to 1,000.
    pub limit: usize,
    /// Only entries older than this generation or sequence number.
    pub before: Option<u64>,
}

/// What etcd holds at this moment, by a linearizable read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The newest generation; 0 before any.
    pub generation: Generation,
    /// Who leads with it; `None` in a vacancy and under a foreign leader.
    pub leader: Option<LeaderView>,
    /// Whether a client that is not Tenure leads.
    pub foreign: bool,
}

/// One record of the cluster-wide history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRecord {
    /// What was recorded.
    pub record: GenerationRecord,
    /// The revision that committed it.
    pub revision: Revision,
}

/// One line of this daemon's audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Counts this daemon's transitions from 1.
    pub seq: u64,
    /// When, for people.
    pub time: Wall,
    /// When, in causal order.
    pub hlc: Hlc,
    /// Which election.
    pub election: ElectionIndex,
    /// What changed and why.
    pub transition: crate::election::event::Transition,
    /// More about the reason; may be empty.
    pub detail: String,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// This daemon does not lead the election.
    #[error("this daemon does not lead")]
    NotLeader,
    /// It leads with another generation than the one that was named.
    #[error("this daemon leads with another token")]
    Stale,
    /// It does not drain.
    #[error("this daemon does not drain")]
    NotDraining,
    /// etcd did not answer, refused, or the daemon is stopping. Nothing was changed.
    #[error("{0}")]
    Unavailable(String),
    /// Too many wait already. Nothing was changed.
    #[error("the daemon is busy")]
    Busy,
    /// The change may have been committed or not.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
}

/// Reads the newest lines of the audit log; the log itself implements it.
pub trait AuditTrail: Send + Sync + std::fmt::Debug {
    /// The newest lines of one election, newest first.
    fn newest(&self, election: ElectionIndex, page: Page) -> Vec<AuditLine>;
}

/// The driver's end: requests in order, but a stop before all of them.
#[derive(Debug)]
pub struct Requests {
    queue: mpsc::Receiver<Request>,
    stop: mpsc::Receiver<()>,
}

impl Requests {
    /// The next request; none once every [`Control`] is gone. Loses nothing when dropped half-way.
    pub async fn recv(&mut self) -> Option<Request> {
        tokio::select! {
            biased;
            Some(()) = self.stop.recv() => Some(Request::Shutdown),
            request = self.queue.recv() => request,
        }
    }
}

/// The way to the driver; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    requests: mpsc::Sender<Request>,
    /// Apart from the others, whose queue clients can fill: a signal to stop is never lost.
    stop: mpsc::Sender<()>,
    audit: Arc<dyn AuditTrail>,
    heartbeat: Heartbeat,
}

/// When the driver's loop last turned.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<std::sync::atomic::AtomicU64>);

impl Heartbeat {
    /// Called by the loop at every turn.
    pub fn beat(&self, now: Instant) {
        self.0.store(now.as_nanos(), std::sync::atomic::Ordering::Relaxed);
    }

    /// How long ago the loop last turned.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.since(Instant::from_nanos(self.0.load(std::sync::atomic::Ordering::Relaxed)))
    }
}

impl Control {
    /// Makes the handle and the driver's end of it.
    #[must_use]
    pub fn new(audit: Arc<dyn AuditTrail>, heartbeat: Heartbeat) -> (Self, Requests) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (stop, stopped) = mpsc::channel(1);
        (Self { requests, stop, audit, heartbeat }, Requests { queue, stop: stopped })
    }

    /// Steps down and hands over; answers once that is committed. `None` where nobody of ours was queued.
    ///
    /// # Errors
    /// As [`ControlError`] says; every variant is possible.
    pub async fn resign(&self, e: ElectionIndex, how: Resignation) -> Result<Option<LeaderView>, ControlError> {
        // Without an answer it may have happened: unlike the questions, it was not for nothing.
        let unknown = ControlError::OutcomeUnknown("the daemon is stopping".to_owned());
        self.ask(|reply| Request::Resign(e, how, reply), unknown).await?
    }

    /// Stops leading everywhere, and keeps the session. On return no reader sees a leader any more. What was led is handed over
    /// after `hold` at the latest, by default after `session.drain_timeout`; never before the last promise has run out.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] only.
    pub async fn drain(&self, hold: Option<Duration>) -> Result<Drain, ControlError> {
        self.ask(|reply| Request::Drain(hold, reply), stopping()).await
    }

    /// Takes part again. What a drain still held is handed over first.
    ///
    /// # Errors
    /// [`ControlError::NotDraining`] and [`ControlError::Unavailable`].
    pub async fn undrain(&self) -> Result<(), ControlError> {
        self.ask(Request::Undrain, stopping()).await?
    }

    /// The application has stopped acting: hand over without waiting for promises. With a token, only the leadership that has it.
    ///
    /// # Errors
    /// [`ControlError::NotLeader`] where there is nothing to hand over, [`ControlError::Stale`], [`ControlError::Unavailable`].
    pub async fn drained(&self, e: ElectionIndex, token: Option<Generation>) -> Result<(), ControlError> {
        self.ask(|reply| Request::Drained(e, token, reply), stopping()).await?
    }

    /// Asks etcd, linearizably, for the newest generation and its holder.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] when no quorum answers.
    pub async fn inquire(&self, e: ElectionIndex) -> Result<Current, ControlError> {
        self.ask(|reply| Request::Inquire(e, reply), stopping()).await?
    }

    /// The queue in order, from etcd.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] when no quorum answers.
    pub async fn candidates(&self, e: ElectionIndex) -> Result<Vec<QueueEntry>, ControlError> {
        self.ask(|reply| Request::Candidates(e, reply), stopping()).await?
    }

    /// The cluster-wide history, newest first, from etcd.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] when no quorum answers.
    pub async fn history(&self, e: ElectionIndex, page: Page) -> Result<Vec<HistoryRecord>, ControlError> {
        self.ask(|reply| Request::History(e, page, reply), stopping()).await?
    }

    /// This daemon's audit log, newest first, from memory.
    #[must_use]
    pub fn transitions(&self, e: ElectionIndex, page: Page) -> Vec<AuditLine> {
        self.audit.newest(e, page)
    }

    /// Asks the driver to stop; it drains first.
    pub fn shutdown(&self) {
        // It fails when one is waiting already, or when the driver has ended: both are as asked.
        let _ = self.stop.try_send(());
    }

    /// How long ago the driver's loop last turned.
    #[must_use]
    pub fn loop_age(&self, now: Instant) -> Duration {
        self.heartbeat.age(now)
    }

    /// Sends a request; `unanswered` where the driver drops it.
    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<T>) -> Request,
        unanswered: ControlError,
    ) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(make(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy,
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answer.await.map_err(|_| unanswered)
    }
}

fn stopping() -> ControlError {
    ControlError::Unavailable("the daemon is stopping".to_owned())
}
