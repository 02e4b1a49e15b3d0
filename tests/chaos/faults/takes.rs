//! What each fault takes by itself: how much later than promised somebody may lead once it has ended.
//!
//! Every figure follows from a setting of this suite, a rule of the daemon, or a constant of etcd, and the docs of its cause say
//! from which. A cause counts once in a round, however many faults bring it, and runs from the end of the latest that does.

use std::time::Duration;

use tenure::timing::EXPIRY_OVERSHOOT;

/// What an epoch begins with, before any fault.
pub const START: &str = "start";
/// What the daemons of a run are configured with, and what every etcd here grants: its least is 1.5 election timeouts, in whole seconds.
pub const TTL: Duration = Duration::from_secs(2);
/// The promise that the daemons give, which a graceful end waits out.
const PROMISE: Duration = Duration::from_millis(500);
/// A read, a commit or a watch delivery, on two cores that carry three members, five daemons and fifteen clients.
const MESSAGE: Duration = Duration::from_millis(250);
/// `--election-timeout` of the members. Timers are random between one and two of it.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// A pause that grew is forgotten 10 s after it has passed, and it is of 5 s at most (`src/election/pause.rs`).
pub const PAUSE_LASTS: Duration = Duration::from_secs(15);

/// How a fault may end a leadership, the gentlest way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// It does not touch who leads.
    Nothing,
    /// By a hand-over.
    Gracefully,
    /// By a lease that runs out.
    Suddenly,
}

impl Ends {
    /// By when there is a leader again, with nothing broken any more. This is invariant 5, and no fault is in it.
    fn promised(self, grace: Duration) -> Duration {
        match self {
            // Whoever asks has to be answered.
            Self::Nothing => 2 * MESSAGE,
            // The promise runs out; one read, one commit, one watch delivery.
            Self::Gracefully => PROMISE + 3 * MESSAGE,
            // The lease, etcd's overshoot, the grace; one commit, and whoever asks is answered.
            Self::Suddenly => TTL + EXPIRY_OVERSHOOT + grace + 2 * MESSAGE,
        }
    }
}

/// What a fault leaves behind that takes time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// etcd elects a leader, which needs up to two election timeouts, and who is elected starts each lease afresh and adds one
    /// (`Promote` in etcd's lessor).
    EtcdElects,
    /// Without pre-vote, as 3.4 has it, a member that comes back deposes the leader, and cannot win. It is the first to try again
    /// one time in three, and each time costs up to two election timeouts: three in a row are allowed.
    EtcdElectsAgain,
    /// A revoke that failed is tried again after 3 s (`expiredLeaseRetryInterval` in etcd's lessor).
    RevokeAgain,
    /// A member that answers and applies nothing serves the watch: the next renewal shows that, the second probe moves it.
    StaleWatch,
    /// A daemon that hears nothing, and is heard, renews its lease until its guard has passed.
    RenewsUnheard,
    /// Whoever saw history rewound keeps out of the queue for one TTL.
    Rewound,
    /// Nobody is elected over a generation that was raised before one TTL has passed.
    Raised,
    /// The guard is void until a renewal is confirmed: one period, and one limit each for renewal and confirmation.
    Unconfirmed,
    /// A login's own limit, `connect_timeout` and `request_timeout` of the daemons.
    Login,
    /// What all daemons tried in vain waits up to the largest step of its pause (`src/election/pause.rs`).
    Pause,
}

impl Cause {
    const fn takes(self) -> Duration {
        let (ttl, election) = (millis(TTL), millis(ELECTION_TIMEOUT));
        Duration::from_millis(match self {
            Self::EtcdElects => 3 * election,
            Self::EtcdElectsAgain => 6 * election,
            Self::RevokeAgain => 3_000,
            Self::StaleWatch | Self::Unconfirmed => ttl / 5 + 2 * (ttl / 10),
            Self::RenewsUnheard | Self::Rewound | Self::Raised => ttl,
            Self::Login => 2_000,
            Self::Pause => 5_000,
        })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "seconds")]
const fn millis(span: Duration) -> u64 {
    span.as_millis() as u64
}

/// What one kind of fault takes.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    pub ends: Ends,
    pub causes: &'static [Cause],
    /// Whether a leader is promised while it lasts: etcd is well, and so is every daemon that it does not hit.
    pub promised: bool,
}

use Cause::{EtcdElects, Login, Pause, Raised, RenewsUnheard, RevokeAgain, Rewound, StaleWatch, Unconfirmed};
use Ends::{Gracefully, Nothing, Suddenly};

impl Takes {
    fn causes(self, grace: Duration) -> impl Iterator<Item = Cause> {
        let again = !grace.is_zero() && self.causes.contains(&EtcdElects);
        self.causes.iter().copied().chain(again.then_some(Cause::EtcdElectsAgain))
    }

    /// After so long it is not felt any more, but for pauses.
    pub fn all(self, grace: Duration) -> Duration {
        self.ends.promised(grace) + self.causes(grace).map(Cause::takes).sum::<Duration>()
    }
}

/// A kind of fault, by its name in the history.
///
/// # Errors
/// For one that nobody has given a figure.
pub fn takes(kind: &str) -> Result<Takes, String> {
    let (promised, ends, causes): (bool, Ends, &'static [Cause]) = match kind {
        // The applications' own affairs.
        "cut-register" | "stop-client" => (true, Nothing, &[]),
        "resign" | "term-daemon" => (true, Gracefully, &[]),
        // Nobody led before; the lease went behind the leader's back; or a daemon was hit, whose lease lives on.
        START
        | "key-deleted"
        | "lease-revoked"
        | "cut-daemon"
        | "cut-daemon-out"
        | "cut-daemon-reset"
        | "cut-daemon-unreachable"
        | "one-member-only"
        | "stop-daemon"
        | "stop-both"
        | "kill-daemon" => (true, Suddenly, &[]),
        "cut-daemon-in" => (true, Suddenly, &[RenewsUnheard]),
        // It may be elected and lose that again, time after time.
        "slow-daemon" => (false, Suddenly, &[RenewsUnheard]),
        "clock-jump" => (false, Suddenly, &[Unconfirmed]),
        // One member of etcd, often its leader.
        "move-leader" | "kill-member" | "kill-etcd-leader" | "compact-restart" | "upgrade" | "replace-member" => {
            (false, Suddenly, &[EtcdElects])
        }
        // The same, of a member that may go on answering, and that others hear of late. A defragmentation stops a member.
        "partition-member"
        | "partition-member-in"
        | "partition-member-out"
        | "partition-peers"
        | "slow-peers"
        | "stop-member"
        | "defrag" => (false, Suddenly, &[EtcdElects, StaleWatch]),
        // All daemons tried in vain meanwhile, and etcd could not revoke.
        "freeze-disk" | "stale-keep-alive" | "stop-quorum" => (false, Suddenly, &[EtcdElects, StaleWatch, Pause]),
        "nospace" | "corrupt" => (false, Suddenly, &[RevokeAgain, Pause]),
        "auth" => (false, Suddenly, &[Login, Pause]),
        "restore" => (false, Suddenly, &[EtcdElects, Rewound, Raised, Pause]),
        _ => return Err(format!("nobody has said what {kind} takes: faults/takes.rs")),
    };
    Ok(Takes { ends, causes, promised })
}

/// By when somebody must lead, counted from when the last of these faults has begun or ended; and what of it the faults take themselves.
///
/// Each kind comes with the time since its own end, which is when what it takes began to run; none, while it lasts. `tried` are the kinds before them
/// whose pauses may still be in force. There is a grace on the oldest etcd alone, which is the one without pre-vote.
///
/// # Errors
/// For a kind without a figure.
pub fn bound(ended: &[(&str, Duration)], tried: &[&str], grace: Duration) -> Result<(Duration, Vec<Cause>), String> {
    let mut latest_first = ended.to_vec();
    latest_first.sort_by_key(|(_, since)| *since);
    let (mut ends, mut own, mut seen, mut felt) = (Nothing, Duration::ZERO, Vec::new(), Vec::new());
    for (kind, since) in latest_first {
        let takes = takes(kind)?;
        ends = ends.max(takes.ends);
        let new: Vec<Cause> = takes.causes(grace).filter(|cause| !seen.contains(cause)).collect();
        let left = new.iter().map(|cause| cause.takes()).sum::<Duration>().saturating_sub(since);
        seen.extend(&new);
        if !left.is_zero() {
            own += left;
            felt.extend(new);
        }
    }
    for kind in tried {
        if takes(kind)?.causes.contains(&Pause) && ends == Suddenly && !felt.contains(&Pause) {
            own += Pause.takes();
            felt.push(Pause);
        }
    }
    Ok((ends.promised(grace) + own, felt))
}
