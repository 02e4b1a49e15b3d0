//! What the doctor finds, before it is judged.

use std::time::Duration;

use crate::config::duration_text;
use crate::etcd::{EndpointStatus, Error, Kind, ListedMember, Obstacle, Origin, Round};
use crate::tls::Facts;

/// Everything.
#[derive(Debug, Default)]
pub struct Findings {
    /// Every configured endpoint.
    pub members: Vec<Member>,
    /// For each election whether all that the protocol needs may be read and written.
    pub rights: Vec<(String, Rights)>,
    /// Candidates in the queues that have our id: election, lease, url.
    pub namesakes: Vec<Namesake>,
    /// For each election what in its records keeps it without a leader; or why they could not be read.
    pub records: Vec<(String, Result<Vec<Obstacle>, Failed>)>,
    /// The clocks of this machine.
    pub clocks: Clocks,
}

/// No answer, or a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What it means.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), text: words(&error) }
    }
}

/// Why, without where: that stands before it. The words are the log's, but for silence, whose cause is examined here.
#[must_use]
pub fn words(error: &Error) -> String {
    match error {
        Error::Silent { limit, .. } => format!("no answer within {}", duration_text(*limit)),
        other => other.reason().text,
    }
}

impl Failed {
    /// The same will be said again, whenever it is asked.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        matches!(self.kind, Kind::Auth | Kind::Permission | Kind::WrongMember | Kind::Invalid)
    }
}

impl Default for Failed {
    fn default() -> Self {
        Self { kind: Kind::Unknown, text: "not asked".to_owned() }
    }
}

/// One endpoint.
#[derive(Debug)]
pub struct Member {
    /// As configured.
    pub endpoint: String,
    /// The certificates that it showed, its own first; or why there is no connection.
    pub greeting: Result<Vec<Facts>, Failed>,
    /// What it says of itself.
    pub status: Result<EndpointStatus, Failed>,
    /// Its version, where it tells that by HTTP alone.
    pub plain_version: Option<String>,
    /// Whom it lists as members.
    pub listed: Result<(Origin, Vec<ListedMember>), Failed>,
    /// A read from the quorum.
    pub read: Result<Origin, Failed>,
    /// A read from its own memory.
    pub memory: Result<Origin, Failed>,
    /// Further reads from the quorum, each with its time.
    pub reads: Vec<Result<Duration, Failed>>,
    /// The whole round of a daemon.
    pub round: Option<Round>,
}

impl Member {
    /// Nothing known yet.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            greeting: Err(Failed::default()),
            status: Err(Failed::default()),
            plain_version: None,
            listed: Err(Failed::default()),
            read: Err(Failed::default()),
            memory: Err(Failed::default()),
            reads: Vec::new(),
            round: None,
        }
    }

    /// Its version, from whichever source.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.status.as_ref().ok().map(|s| s.version.as_str()).or(self.plain_version.as_deref())
    }

    /// It answered something, if only by a refusal.
    #[must_use]
    pub fn answers(&self) -> bool {
        let refused = |failed: &Failed| !matches!(failed.kind, Kind::Unknown | Kind::Unreachable);
        self.status.as_ref().map_or_else(refused, |_| true)
            || self.read.as_ref().map_or_else(refused, |_| true)
            || self.memory.as_ref().map_or_else(refused, |_| true)
    }

    /// It serves what is needed; a missing right is no matter of the member.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.read.as_ref().map_or_else(|failed| failed.kind == Kind::Permission, |_| true)
    }

    /// Who it is: cluster and member, where any answer says so.
    #[must_use]
    pub fn identity(&self) -> Option<Origin> {
        let told = [
            self.read.as_ref().ok().copied(),
            self.status.as_ref().ok().map(|s| s.origin),
            self.memory.as_ref().ok().copied(),
        ];
        told.into_iter().flatten().find(|origin| origin.cluster != 0)
    }
}

/// Whether an election's keys may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Yes.
    Granted,
    /// No: what is missing.
    Denied(String),
    /// Could not be found out.
    Unknown(String),
}

/// A candidate with our id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namesake {
    /// Where it is queued.
    pub election: String,
    /// Its lease: one a daemon.
    pub lease: i64,
    /// Where it is reached, as it says.
    pub url: String,
}

/// The clocks of this machine, watched for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// For how long.
    pub watched: Duration,
    /// By how much the wall clock moved against the boot clock meanwhile.
    pub moved_ms: i64,
    /// How much faster the boot clock ran than the oscillator below it, in millionths: what slewing does to it.
    pub slewed_ppm: i64,
}
