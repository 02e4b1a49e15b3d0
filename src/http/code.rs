//! What a problem is, for programs.

/// Makes the enum, its words and the list of all, so that no code can be missing from `/openapi.json`.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)*) => {
        /// The `code` of a problem. Public interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

codes! {
    /// The request makes no sense.
    Malformed => "malformed",
    /// Nothing is served at this path of this listener.
    NotFound => "not_found",
    /// No election of this name is configured here.
    UnknownElection => "unknown_election",
    /// The path is right, the method is not.
    MethodNotAllowed => "method_not_allowed",
    /// The call needs the admin token.
    Unauthorized => "unauthorized",
    /// The request was not complete in time.
    RequestTimeout => "request_timeout",
    /// The body is larger than any that we read.
    TooLarge => "too_large",
    /// etcd did not answer, or not in time; nothing was changed.
    Unavailable => "unavailable",
    /// Too many wait for etcd already, or the house is full.
    Busy => "busy",
    /// The change may have been committed or not.
    OutcomeUnknown => "outcome_unknown",
    /// This daemon does not lead.
    NotLeader => "not_leader",
    /// Nothing is drained that could be undrained.
    NotDraining => "not_draining",
    /// It leads, and is about to stop.
    Draining => "draining",
    /// It led last, and nothing newer is known.
    GuardExpired => "guard_expired",
    /// No leader is known, or none that can be gone to.
    NoLeader => "no_leader",
    /// The token is not the newest.
    Stale => "stale",
    /// No such token was issued.
    NotIssued => "not_issued",
    /// The daemon's own loop stands still.
    NotLive => "not_live",
    /// The daemon has not met etcd yet, drains, or has lost etcd where that counts.
    NotReady => "not_ready",
    /// The daemon has not started yet.
    NotStarted => "not_started",
}
