//! What a run leaves behind: one JSON line a record, each process in a file of its own, all on one clock.
//!
//! The checker reads nothing else. The clock is `CLOCK_BOOTTIME`, which all processes of a run share and nobody can set:
//! the wall clock is under attack.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One line. `at`, `sent` and `heard` are [`now`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A new etcd, register and clients: tokens start anew, and nothing is compared with what was before.
    Epoch {
        at: u64,
        name: String,
    },
    Round {
        at: u64,
        number: u64,
    },
    Fault(Fault),
    Healed(Healed),
    /// etcd's records could not be read at the end: what they hold is not known.
    Unread {
        at: u64,
    },
    Ask(Ask),
    Write(Write),
    Apply(Apply),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub at: u64,
    /// When all that it does was done.
    #[serde(default)]
    pub by: u64,
    pub kind: String,
    pub target: String,
    pub phase: Phase,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// All faults have ended, and a quorum of etcd answers linearizable reads. The daemons have this grace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Healed {
    pub at: u64,
    pub grace_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Begin,
    End,
}

/// A question to a daemon, and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    pub election: String,
    /// The id of the daemon that was asked.
    pub daemon: String,
    pub sent: u64,
    pub heard: u64,
    /// 0 for no answer.
    pub status: u16,
    /// Who leads, by this answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Only in an answer that claims leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The promise, where the answer gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_ms: Option<u64>,
}

/// A write as its client saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub election: String,
    pub client: String,
    pub register: Register,
    pub token: u64,
    pub sent: u64,
    pub heard: u64,
    pub outcome: Outcome,
    /// What a lock-set client added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Accepted,
    Refused,
    Unknown,
}

/// A read or a write as the register saw it, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Apply {
    pub election: String,
    pub client: String,
    pub register: Register,
    pub write: bool,
    pub at: u64,
    pub token: u64,
    /// The highest token that this register accepted before; 0 for none.
    pub highest_before: u64,
    pub accepted: bool,
    /// Elements that an accepted write brought, and those that it left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// What the store holds for each election: a value and a set, each once with a fence and once without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Register {
    Fenced,
    Unfenced,
    FencedSet,
    UnfencedSet,
}

impl Register {
    pub const fn has_fence(self) -> bool {
        matches!(self, Self::Fenced | Self::FencedSet)
    }
}

impl Ask {
    /// The token under which the daemon says that it leads.
    pub fn claim(&self) -> Option<u64> {
        self.token.filter(|_| self.status == 200)
    }

    /// When the promise ends: it counts from when the caller sent its request.
    pub fn promised_until(&self) -> Option<u64> {
        self.claim().and(self.valid_for_ms).map(|ms| self.sent + ms * 1_000_000)
    }
}

/// Nanoseconds since boot; suspended time counts.
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).expect("the boot clock is not negative");
    part(t.tv_sec) * 1_000_000_000 + part(t.tv_nsec)
}

/// Appends records to one file; every clone to the same one.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Mutex<File>>);

impl Writer {
    /// The harness's own file in the directory of a history, which is made.
    pub fn create(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Self::open(&dir.join("harness.jsonl"))
    }

    /// A file of a client or a register, which a restart goes on with.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// The line is with the kernel when this returns: whoever is killed next loses none.
    ///
    /// # Panics
    /// If it cannot be written: a history with holes proves nothing.
    pub fn record(&self, record: &Record) {
        let mut line = serde_json::to_vec(record).expect("records are JSON");
        line.push(b'\n');
        let mut file = self.0.lock().expect("nobody panicked while writing");
        file.write_all(&line).expect("the history can be written");
    }
}
