//! Roles, and the reasons for leaving or taking one.

/// What a daemon is in one election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Not queued: starting, leaving, in cooldown, draining, or without a session.
    Follower,
    /// Queued, and waiting for its turn.
    Candidate,
    /// Leading, for as long as the guard holds.
    Leader,
    /// Follows and reports; never queues.
    Observer,
}

impl Role {
    /// Every role, in the order of the metric's state set.
    pub const ALL: [Self; 4] = [Self::Follower, Self::Candidate, Self::Leader, Self::Observer];

    /// The word of the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Observer => "observer",
        }
    }
}

/// Why a role changed. Public interface: log, audit, metrics and status documents carry [`Reason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The daemon started.
    Started,
    /// The candidate's key is in the queue.
    Queued,
    /// Won by the elect transaction.
    Elected,
    /// Named as the successor in a predecessor's hand-over.
    HandedOver,
    /// The guard passed before a renewal was confirmed.
    GuardExpired,
    /// etcd no longer knows the lease.
    LeaseLost,
    /// The own key was deleted by someone else.
    KeyDeleted,
    /// A higher generation was seen.
    Superseded,
    /// Asked to resign.
    Resigned,
    /// Asked to drain.
    Drained,
    /// The daemon is stopping.
    Shutdown,
    /// The wall clock jumped against the boot clock: a pause that no clock counted.
    ClockJumped,
    /// etcd's history went backwards: it was restored or wiped.
    HistoryRewound,
}

impl Reason {
    /// Every reason, so that each has its metric series from the start.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::Queued,
        Self::Elected,
        Self::HandedOver,
        Self::GuardExpired,
        Self::LeaseLost,
        Self::KeyDeleted,
        Self::Superseded,
        Self::Resigned,
        Self::Drained,
        Self::Shutdown,
        Self::ClockJumped,
        Self::HistoryRewound,
    ];

    /// Whether somebody asked for it.
    #[must_use]
    pub const fn is_wish(self) -> bool {
        matches!(self, Self::Resigned | Self::Drained | Self::Shutdown)
    }

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Queued => "queued",
            Self::Elected => "elected",
            Self::HandedOver => "handed_over",
            Self::GuardExpired => "guard_expired",
            Self::LeaseLost => "lease_lost",
            Self::KeyDeleted => "key_deleted",
            Self::Superseded => "superseded",
            Self::Resigned => "resigned",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
            Self::ClockJumped => "clock_jumped",
            Self::HistoryRewound => "history_rewound",
        }
    }
}
