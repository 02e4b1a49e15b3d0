//! What goes wrong towards etcd, and what each failure means for a leader election.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::election::ids::ClusterId;

/// An operation that failed, where, and why. Logged once, where it is handled.
#[derive(Debug, Error)]
pub enum Error {
    /// A member refused it, or the connection to it broke.
    #[error("{operation} at {endpoint}: {source}")]
    Request {
        /// Which operation.
        operation: &'static str,
        /// Which member.
        endpoint: String,
        /// What it said.
        source: Cause,
    },
    /// A member kept silent.
    #[error("{operation} at {endpoint}: no answer within {limit:?}")]
    Silent {
        /// Which operation.
        operation: &'static str,
        /// Which member.
        endpoint: String,
        /// How long it was given.
        limit: Duration,
    },
    /// No member answered within the limit of the whole operation.
    #[error("{operation}: no member answered within {limit:?}{}", last.as_ref().map(|e| format!("; the last failure was {e}")).unwrap_or_default())]
    Exhausted {
        /// Which operation.
        operation: &'static str,
        /// How long all tries together were given.
        limit: Duration,
        /// The failure before, if any try had one.
        last: Option<Box<Self>>,
    },
    /// An answer that etcd's interface does not allow.
    #[error("{operation}: etcd's answer makes no sense: {what}")]
    Malformed {
        /// Which operation.
        operation: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another cluster answered there; its answer counts for nothing.
    #[error(
        "{operation} at {endpoint}: this is etcd cluster {found}, and ours is {pinned}: list the members of one cluster only"
    )]
    Foreign {
        /// Which operation.
        operation: &'static str,
        /// Which endpoint.
        endpoint: String,
        /// Who answered.
        found: ClusterId,
        /// Who is heeded.
        pinned: ClusterId,
    },
    /// Different clusters answer there in turn, so that none of them counts.
    #[error("{operation} at {endpoint}: this address is not one etcd: different clusters answer there in turn")]
    Mixed {
        /// Which operation.
        operation: &'static str,
        /// Which endpoint.
        endpoint: String,
    },
    /// It is not known which cluster is ours.
    #[error("{operation}: no majority of the endpoints belongs to one etcd cluster: {found}")]
    Undecided {
        /// Which operation.
        operation: &'static str,
        /// Who answers where.
        found: String,
    },
    /// Connections were dropped on purpose while it was under way.
    #[error("{operation}: given up, because history was rewound")]
    Reset {
        /// Which operation.
        operation: &'static str,
    },
    /// The own key is gone, so the write that it guards was not made.
    #[error("{operation}: this candidate's key is gone")]
    NotOurs {
        /// Which operation.
        operation: &'static str,
    },
    /// A file that the configuration names cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration cannot work.
    #[error("etcd configuration: {what}")]
    Settings {
        /// Why.
        what: String,
    },
}

impl Error {
    /// What this failure means.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request { source, .. } => source.kind,
            Self::Exhausted { last: Some(last), .. } => last.kind(),
            Self::Silent { .. } | Self::Exhausted { last: None, .. } | Self::Reset { .. } | Self::Malformed { .. } => {
                Kind::Unknown
            }
            Self::Foreign { .. } | Self::Mixed { .. } => Kind::Foreign,
            Self::Undecided { .. } => Kind::Undecided,
            Self::NotOurs { .. } | Self::File { .. } | Self::Settings { .. } => Kind::Invalid,
        }
    }

    /// The label of metrics: bounded, lower case.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Request { source, .. } => source.code,
            Self::Silent { .. } | Self::Exhausted { .. } => "timeout",
            Self::Malformed { .. } => "malformed",
            Self::Foreign { .. } | Self::Mixed { .. } => "foreign",
            Self::Undecided { .. } => "undecided",
            Self::Reset { .. } => "reset",
            Self::NotOurs { .. } => "not_ours",
            Self::File { .. } | Self::Settings { .. } => "local",
        }
    }

    /// Whether the member itself spoke, as opposed to the network; `None` where neither was at fault.
    pub(super) fn answered(&self) -> Option<bool> {
        match self {
            Self::Request { source, .. } => Some(source.answered),
            Self::Silent { .. } | Self::Exhausted { .. } | Self::Foreign { .. } | Self::Mixed { .. } => Some(false),
            Self::Malformed { .. }
            | Self::Reset { .. }
            | Self::Undecided { .. }
            | Self::NotOurs { .. }
            | Self::File { .. }
            | Self::Settings { .. } => None,
        }
    }
}

impl Error {
    /// Whether etcd itself says that our user lacks a right on a key or range.
    pub(super) fn is_lack_of_rights(&self) -> bool {
        /// Of `rpctypes.ErrPermissionDenied`; a proxy that refuses with the same code has words of its own.
        const WORDS: &str = "etcdserver: permission denied";
        matches!(self, Self::Request { source, .. } if source.kind == Kind::Permission && source.text.contains(WORDS))
    }

    /// Whether a member that fails so does not serve. What is said of one lease, key or request is no matter of the member; what
    /// it refuses may be one right or one size among others, so that of refusals the roll call's decide: it asks for the least.
    pub(super) fn disables(&self, operation: &str) -> bool {
        match self {
            Self::NotOurs { .. } | Self::File { .. } | Self::Settings { .. } | Self::Reset { .. } => false,
            _ => match self.kind() {
                Kind::LeaseUnknown | Kind::LeaseExists | Kind::Revision | Kind::TooLarge | Kind::Undecided => false,
                // Whoever stands in between and refuses everything is of no use; etcd that names a right serves.
                Kind::Permission => operation == "roll_call" && !self.is_lack_of_rights(),
                Kind::NoSpace | Kind::Corrupt | Kind::Busy | Kind::Invalid => operation == "roll_call",
                Kind::Unreachable | Kind::Unknown | Kind::Auth | Kind::WrongMember | Kind::Foreign => true,
            },
        }
    }
}

/// What a failure means for an election. Codes and texts: etcd's `api/v3rpc/rpctypes/error.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No connection: nothing was sent.
    Unreachable,
    /// It may have been applied, or may be yet.
    Unknown,
    /// Too many requests: not applied.
    Busy,
    /// The NOSPACE alarm: nobody new can win, but a leader stays.
    NoSpace,
    /// The CORRUPT alarm.
    Corrupt,
    /// The revision is compacted, or not there yet.
    Revision,
    /// The answer was larger than we accept.
    TooLarge,
    /// No such lease.
    LeaseUnknown,
    /// That lease id is taken.
    LeaseExists,
    /// The token is not accepted (any more), or the password is wrong.
    Auth,
    /// The etcd user lacks a permission.
    Permission,
    /// This member cannot serve it (a learner), another one can.
    WrongMember,
    /// Another cluster's member answered: in ours nothing was applied.
    Foreign,
    /// Which cluster is ours is not known yet, and what was sent may have been applied in it.
    Undecided,
    /// The request, or our configuration, is wrong.
    Invalid,
}

impl Kind {
    /// Whether a write that ended so may have been applied.
    #[must_use]
    pub const fn may_commit(self) -> bool {
        matches!(self, Self::Unknown | Self::TooLarge | Self::Undecided)
    }

    /// Whether another member would say the same.
    pub(super) const fn is_final(self) -> bool {
        match self {
            Self::NoSpace | Self::Revision | Self::TooLarge | Self::LeaseUnknown | Self::Permission | Self::Invalid => {
                true
            }
            // Of these, `LeaseExists` is a matter of the try: each try of a grant asks for another id.
            Self::LeaseExists
            | Self::Unreachable
            | Self::Unknown
            | Self::Busy
            | Self::Corrupt
            | Self::Auth
            | Self::Foreign
            | Self::Undecided
            | Self::WrongMember => false,
        }
    }
}

/// What a member said, with its chain of causes. Keeps the client library's types inside this module.
#[derive(Debug)]
pub struct Cause {
    kind: Kind,
    code: &'static str,
    text: String,
    /// The member said it, not the network or we.
    answered: bool,
}

impl Cause {
    /// A failure of our own making.
    pub(super) fn local(kind: Kind, text: impl Into<String>) -> Self {
        // Of these, only a refused login is remembered rather than met.
        Self { kind, code: "local", text: text.into(), answered: matches!(kind, Kind::Auth) }
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}

impl From<etcd_client::Error> for Cause {
    fn from(error: etcd_client::Error) -> Self {
        match &error {
            etcd_client::Error::GRpcStatus(status) => {
                let (code, name) = (i32::from(status.code()), name_of(i32::from(status.code())));
                let text = chain(status.message(), status);
                // What a server sent has no source; what tonic makes of a broken connection does (its `Status::from_error`).
                let answered = status.source().is_none();
                Self { kind: classify(code, &text), code: name, text: format!("{name}: {text}"), answered }
            }
            // The crate's answer to a first keep-alive with TTL <= 0 (its `rpc/lease.rs`), the one text that is not a status.
            etcd_client::Error::LeaseKeepAliveError(text) if text == "lease not found" => {
                Self { kind: Kind::LeaseUnknown, code: "not_found", text: text.clone(), answered: true }
            }
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
                Self::local(Kind::Invalid, error.to_string())
            }
            other => Self::local(Kind::Unknown, chain(&other.to_string(), other)),
        }
    }
}

/// `text`, followed by the causes that it does not mention yet: tonic hides address and operating system error there.
fn chain(text: &str, error: &dyn std::error::Error) -> String {
    /// Nobody reads further, and a cycle must not hang us.
    const DEPTH: usize = 8;
    /// tonic's own word for "see the cause".
    const SAYS_NOTHING: &str = "transport error";
    let mut all = if text == SAYS_NOTHING { String::new() } else { text.to_owned() };
    let mut next = error.source();
    for _ in 0..DEPTH {
        let Some(cause) = next else { break };
        let line = cause.to_string();
        if line != SAYS_NOTHING && !all.contains(&line) {
            all = if all.is_empty() { line } else { format!("{all}: {line}") };
        }
        next = cause.source();
    }
    if all.is_empty() { SAYS_NOTHING.to_owned() } else { all }
}

/// Texts before codes: etcd changed the code of several of them between releases, but never the text.
const TEXTS: [(&str, Kind); 18] = [
    ("revision of auth store is old", Kind::Auth),
    ("revision in header is old", Kind::Auth),
    ("invalid auth token", Kind::Auth),
    ("user name is empty", Kind::Auth),
    ("user name not found", Kind::Auth),
    ("authentication failed", Kind::Auth),
    ("permission denied", Kind::Permission),
    ("requested lease not found", Kind::LeaseUnknown),
    ("lease already exists", Kind::LeaseExists),
    ("database space exceeded", Kind::NoSpace),
    ("too many requests", Kind::Busy),
    ("corrupt cluster", Kind::Corrupt),
    // 3.4 says it with the code of a connection that broke.
    ("not supported for learner", Kind::WrongMember),
    ("message length too large", Kind::TooLarge),
    ("tcp connect error", Kind::Unreachable),
    ("dns error", Kind::Unreachable),
    ("TLS handshake timeout", Kind::Unreachable),
    ("invalid peer certificate", Kind::Unreachable),
];

fn classify(code: i32, text: &str) -> Kind {
    if let Some((_, kind)) = TEXTS.iter().find(|(part, _)| text.contains(part)) {
        return *kind;
    }
    match code {
        3 => Kind::Invalid,
        5 => Kind::LeaseUnknown,
        7 => Kind::Permission,
        8 => Kind::Busy,
        9 | 12 => Kind::WrongMember,
        11 => Kind::Revision,
        15 => Kind::Corrupt,
        16 => Kind::Auth,
        // Unavailable, DeadlineExceeded, Cancelled, Unknown, Internal, Aborted: the request may have been proposed.
        _ => Kind::Unknown,
    }
}

/// The status codes of gRPC (`statuscodes.md` of the gRPC core documentation), as labels.
fn name_of(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];
    usize::try_from(code).ok().and_then(|i| NAMES.get(i)).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outcomes_that_etcd_vouches_for_count_as_not_applied() {
        let table = [
            (14, "etcdserver: request timed out, possibly due to previous leader failure", Kind::Unknown),
            (14, "etcdserver: leader changed", Kind::Unknown),
            (2, "context deadline exceeded", Kind::Unknown),
            (8, "etcdserver: too many requests", Kind::Busy),
            (8, "etcdserver: mvcc: database space exceeded", Kind::NoSpace),
            (15, "etcdserver: corrupt cluster", Kind::Corrupt),
            (5, "etcdserver: requested lease not found", Kind::LeaseUnknown),
            (9, "etcdserver: lease already exists", Kind::LeaseExists),
            (9, "etcdserver: rpc not supported for learner", Kind::WrongMember),
            (3, "etcdserver: revision of auth store is old", Kind::Auth),
            (2, "auth: revision in header is old", Kind::Auth),
            (3, "etcdserver: user name is empty", Kind::Auth),
            (16, "etcdserver: invalid auth token", Kind::Auth),
            (7, "etcdserver: permission denied", Kind::Permission),
            (11, "etcdserver: mvcc: required revision has been compacted", Kind::Revision),
        ];
        for (code, text, kind) in table {
            assert_eq!(classify(code, text), kind, "{text}");
            assert_eq!(classify(code, text).may_commit(), kind == Kind::Unknown, "{text}");
        }
    }
}
