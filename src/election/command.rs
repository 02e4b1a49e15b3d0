//! Commands from operators and the application, and their answers.

use std::time::Duration;

use super::ids::{ElectionIndex, Generation};
use super::record::QueueEntry;
use crate::clock::Instant;

/// Names the caller of a command, so that its answer finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Step down, hand over, and queue again after the cooldown.
    Resign {
        /// Which election.
        election: ElectionIndex,
        /// Whom to answer.
        ticket: Ticket,
        /// How long to stay out of the queue.
        cooldown: Duration,
        /// Only the leadership with this generation is meant.
        token: Option<Generation>,
    },
    /// Stop leading in every election and keep the session. What was led is handed over by `Drained`, `Undrain` and `Shutdown`,
    /// and by itself from this moment on.
    Drain {
        /// The moment.
        until: Instant,
    },
    /// Take part again: what a drain still holds is handed over first.
    Undrain,
    /// The application has stopped acting: hand over without waiting for promises.
    Drained {
        /// Which election.
        election: ElectionIndex,
        /// Whom to answer.
        ticket: Ticket,
        /// Only the leadership with this generation is meant.
        token: Option<Generation>,
    },
    /// Stop: hand over, revoke the lease. `Stopped` follows no later than `deadline`.
    Shutdown {
        /// When to give up waiting for etcd.
        deadline: Instant,
    },
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The hand-over committed; `successor` is whom it named.
    Resigned {
        /// `None` where nobody of ours was queued.
        successor: Option<QueueEntry>,
        /// The successor's generation, or our own where there is none.
        generation: Generation,
    },
    /// The hand-over waits for promises no longer.
    HandingOver,
    /// This daemon does not lead.
    NotLeader,
    /// It leads with another generation than the command meant.
    Stale,
    /// The session ended before the hand-over was known to have committed.
    Unknown,
}
