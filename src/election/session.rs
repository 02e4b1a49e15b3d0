//! The session: one etcd lease, its renewals, and the guard that they earn.

use std::time::Duration;

use super::event::{Output, Round, SessionInput};
use super::guard::Guard;
use super::ids::{ElectionIndex, LeaseId, MemberId, RaftTerm};
use super::mutant::{self, Mutant};
use super::pause::{self, Jitter, Pause};
use super::record::{Header, OwnKey};
use super::role::Reason;
use crate::clock::Instant;
use crate::timing::Timing;

/// The least pause before a renewal is tried again. The pause is a fortieth of the TTL at first, which leaves room for many
/// tries before the guard, and grows to a tenth.
const RETRY_FLOOR: Duration = Duration::from_millis(50);
/// How often it doubles.
const RETRY_DOUBLINGS: u32 = 2;

/// The session's state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    state: State,
    /// Between one grant and the next.
    pause: Pause,
    /// A lease that was given up when its guard passed, until etcd answers.
    revoking: Option<LeaseId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// No lease; one is asked for once the pause is over.
    Absent,
    /// A lease was asked for. `void` once the clocks jumped: what was stamped before cannot earn a guard.
    Granting { void: bool },
    /// A lease is ours.
    Alive(Alive),
    /// It is being given up; none follows.
    Closing { lease: LeaseId },
    /// None, for good.
    Closed { clean: bool },
}

/// A lease that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Alive {
    pub(super) lease: LeaseId,
    pub(super) ttl: Duration,
    pub(super) guard: Guard,
    /// The clocks cannot be trusted to have counted a pause: the guard is void until a renewal is confirmed.
    suspended: bool,
    round: Round,
    renewal: Renewal,
    /// Renewals in a row that failed or were not confirmed.
    failures: u32,
    /// The last answer met a different raft term, or another member, at its confirmation.
    unconfirmed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Renewal {
    /// To be sent at this moment.
    Due(Instant),
    /// Sent.
    Asked,
    /// Answered, and now being confirmed. An answer by itself proves nothing: it does not pass through raft.
    Confirming { sent_at: Instant, ttl: Duration, raft_term: RaftTerm, member: MemberId },
}

/// What a session input means for the elections.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    /// Nothing, or only that the guard grew.
    None,
    /// A session began: queue.
    Began,
    /// It ended, for this reason.
    Ended(Reason),
    /// It goes on, but leaders on it must not.
    Suspended,
    /// A confirming read showed these own keys.
    Keys(Vec<OwnKey>),
}

impl Session {
    pub(super) fn new() -> Self {
        Self { state: State::Absent, pause: Pause::default(), revoking: None }
    }

    /// A daemon that only observes needs no lease.
    pub(super) fn none() -> Self {
        Self { state: State::Closed { clean: true }, pause: Pause::default(), revoking: None }
    }

    pub(super) const fn alive(&self) -> Option<&Alive> {
        match &self.state {
            State::Alive(alive) => Some(alive),
            State::Absent | State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => None,
        }
    }

    /// The lease, where leadership may rest on it at `now`.
    pub(super) fn usable(&self, now: Instant) -> Option<LeaseId> {
        self.alive().filter(|a| !a.suspended && a.guard.holds_at(now)).map(|a| a.lease)
    }

    /// Whether nothing is left to give up; with it, whether the lease is known to be gone.
    pub(super) const fn closed(&self) -> Option<bool> {
        if let State::Closed { clean } = self.state { Some(clean) } else { None }
    }

    /// Ends the session whose guard has passed. First of all, at every input: a late renewal must not revive it.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Output>) -> Effect {
        match &self.state {
            State::Alive(alive) if alive.guard.deadline() <= now => {
                // Every promise ends with the guard, so the keys may go at once; and if etcd is out of reach, it expires.
                let lease = alive.lease;
                out.push(Output::Revoke { lease });
                self.revoking = Some(lease);
                self.state = State::Absent;
                Effect::Ended(Reason::GuardExpired)
            }
            State::Alive(_) | State::Absent | State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => {
                Effect::None
            }
        }
    }

    /// Forgets the session without a word to etcd: its history was rewound, and the lease belonged to the other one.
    pub(super) fn abandon(&mut self, stopping: bool) {
        self.revoking = None; // Its answer would come from the lost history, and none of that is listened to.
        match self.state {
            State::Alive(_) | State::Granting { .. } if stopping => self.state = State::Closed { clean: false },
            State::Alive(_) | State::Absent | State::Granting { .. } => self.state = State::Absent,
            State::Closing { .. } => self.state = State::Closed { clean: false },
            State::Closed { .. } => {}
        }
    }

    /// Gives the lease up, for good. Call it when nothing of ours rests on it any more.
    pub(super) fn close(&mut self, out: &mut Vec<Output>) {
        match &self.state {
            State::Alive(alive) => {
                out.push(Output::Revoke { lease: alive.lease });
                self.state = State::Closing { lease: alive.lease };
            }
            State::Absent => {
                self.state = self.revoking.map_or(State::Closed { clean: true }, |lease| State::Closing { lease });
            }
            // While a grant is under way its answer is awaited: a lease nobody knows of would linger for its TTL.
            State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => {}
        }
    }

    /// Sends what is due.
    pub(super) fn advance(&mut self, now: Instant, jitter: Jitter, timing: &Timing, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Absent if self.pause.over(now) => {
                self.pause.begin(now, jitter, pause::GRANT);
                self.state = State::Granting { void: false };
                out.push(Output::Grant { ttl: timing.ttl() });
            }
            State::Alive(alive) => {
                if let Renewal::Due(at) = alive.renewal
                    && at <= now
                {
                    alive.round = Round(alive.round.0 + 1);
                    alive.renewal = Renewal::Asked;
                    out.push(Output::KeepAlive {
                        lease: alive.lease,
                        round: alive.round,
                        elsewhere: std::mem::take(&mut alive.unconfirmed),
                    });
                }
            }
            State::Absent | State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => {}
        }
    }

    /// When `advance` or `expire` next has something to do.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match &self.state {
            State::Absent => Some(self.pause.until()),
            State::Alive(alive) => Some(match alive.renewal {
                Renewal::Due(at) => at.min(alive.guard.deadline()),
                Renewal::Asked | Renewal::Confirming { .. } => alive.guard.deadline(),
            }),
            State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => None,
        }
    }

    /// Applies an input. `with_keys` are the elections in which we have a key; `newest_term` is the highest that etcd showed.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        input: SessionInput,
        (timing, newest_term): (&Timing, RaftTerm),
        with_keys: impl FnOnce() -> Vec<ElectionIndex>,
        out: &mut Vec<Output>,
    ) -> Effect {
        match input {
            SessionInput::Granted { lease, ttl, header } => {
                let from = if mutant::on(Mutant::GrantFromAnswer) { now } else { header.sent_at };
                self.granted(now, lease, ttl, Guard::new(from, ttl, timing), timing, out)
            }
            SessionInput::GrantFailed => {
                if let State::Granting { .. } = self.state {
                    self.state = State::Absent;
                }
                Effect::None
            }
            SessionInput::KeepAliveAnswered { lease, round, ttl, header } => match self.of(lease) {
                Some(_) if ttl.is_zero() => self.lost(),
                Some(alive) if alive.round == round && matches!(alive.renewal, Renewal::Asked) => {
                    let sent_at = if mutant::on(Mutant::DeadlineFromAnswer) { now } else { header.sent_at };
                    let Header { raft_term, member, .. } = header;
                    alive.renewal = Renewal::Confirming { sent_at, ttl, raft_term, member };
                    if mutant::on(Mutant::UnconfirmedRenewal) {
                        alive.guard = alive.guard.extended_by(Guard::new(sent_at, ttl, timing));
                    }
                    let elections = with_keys();
                    let bare = elections.is_empty() && !mutant::on(Mutant::EmptyConfirm);
                    out.push(Output::Confirm { lease, round, elections, anchor: bare.then_some(ElectionIndex(0)) });
                    Effect::None
                }
                Some(_) | None => Effect::None,
            },
            SessionInput::Confirmed { lease, round, header, keys } => {
                self.confirmed(now, (lease, round), &header, (timing, newest_term), keys)
            }
            SessionInput::KeepAliveFailed { lease, round } | SessionInput::ConfirmFailed { lease, round } => {
                if let Some(alive) = self.of(lease).filter(|a| a.round == round) {
                    alive.retry(now);
                }
                Effect::None
            }
            SessionInput::LeaseUnknown { lease } => match self.of(lease) {
                Some(_) => self.lost(),
                None => Effect::None,
            },
            SessionInput::Revoked { lease } => self.revoked(lease, true),
            SessionInput::RevokeFailed { lease } => self.revoked(lease, false),
            // The core begins anew by itself.
            SessionInput::StoreMoved => Effect::None,
            SessionInput::ClockJumped if mutant::on(Mutant::ClockJumpIgnored) => Effect::None,
            SessionInput::ClockJumped => match &mut self.state {
                State::Alive(alive) => {
                    alive.suspended = true;
                    // A round under way was stamped before the pause that no clock counted: a fresh one replaces it.
                    alive.renewal = Renewal::Due(now);
                    Effect::Suspended
                }
                State::Granting { void } => {
                    *void = true;
                    Effect::None
                }
                State::Absent | State::Closing { .. } | State::Closed { .. } => Effect::None,
            },
        }
    }

    fn granted(
        &mut self,
        now: Instant,
        lease: LeaseId,
        ttl: Duration,
        guard: Guard,
        timing: &Timing,
        out: &mut Vec<Output>,
    ) -> Effect {
        let State::Granting { void } = self.state else {
            // An answer to a grant that was given up on: nothing rests on that lease.
            if self.alive().is_none_or(|a| a.lease != lease) {
                out.push(Output::Revoke { lease });
            }
            return Effect::None;
        };
        if void || !guard.holds_at(now) {
            out.push(Output::Revoke { lease });
            self.state = State::Absent;
            return Effect::None;
        }
        self.pause.succeeded();
        let renewal = Renewal::Due(now + timing.renew_every(ttl));
        self.state = State::Alive(Alive {
            lease,
            ttl,
            guard,
            suspended: false,
            round: Round(0),
            renewal,
            failures: 0,
            unconfirmed: false,
        });
        Effect::Began
    }

    fn confirmed(
        &mut self,
        now: Instant,
        of: (LeaseId, Round),
        &Header { raft_term, member, .. }: &Header,
        (timing, newest_term): (&Timing, RaftTerm),
        keys: Vec<OwnKey>,
    ) -> Effect {
        let Some(alive) = self.of(of.0).filter(|a| a.round == of.1) else { return Effect::None };
        let Renewal::Confirming { sent_at, ttl, raft_term: answered, member: by } = alive.renewal else {
            return Effect::None;
        };
        // A member that caught up by a snapshot may show an old term around both: what is known to be newer tells.
        let same = raft_term == answered || mutant::on(Mutant::TermsNotCompared);
        // Another member's old term says nothing about the leader that this one follows.
        let same = same && (member == by || mutant::on(Mutant::MembersNotCompared));
        if same && (raft_term >= newest_term || mutant::on(Mutant::OldTermBelieved)) {
            // Equal terms around a quorum read: the leader that renewed still led when the read began. A later leader of
            // etcd starts every lease afresh (`server/lease/lessor.go`, Promote), so the lease lives at least this long.
            alive.guard = alive.guard.extended_by(Guard::new(sent_at, ttl, timing));
            alive.ttl = ttl;
            alive.suspended = false;
            alive.failures = 0;
            alive.renewal = Renewal::Due(sent_at + timing.renew_every(ttl));
        } else {
            alive.unconfirmed = true;
            alive.retry(now);
        }
        Effect::Keys(keys)
    }

    fn revoked(&mut self, lease: LeaseId, clean: bool) -> Effect {
        self.revoking = self.revoking.filter(|ours| *ours != lease);
        match self.state {
            State::Closing { lease: ours } if ours == lease => self.state = State::Closed { clean },
            State::Closing { .. } | State::Closed { .. } | State::Absent | State::Granting { .. } | State::Alive(_) => {
            }
        }
        Effect::None
    }

    fn lost(&mut self) -> Effect {
        self.state = State::Absent;
        Effect::Ended(Reason::LeaseLost)
    }

    fn of(&mut self, lease: LeaseId) -> Option<&mut Alive> {
        match &mut self.state {
            State::Alive(alive) if alive.lease == lease => Some(alive),
            State::Alive(_) | State::Absent | State::Granting { .. } | State::Closing { .. } | State::Closed { .. } => {
                None
            }
        }
    }
}

impl Alive {
    /// Whether the guard is in doubt until a renewal is confirmed.
    pub(super) const fn suspended(&self) -> bool {
        self.suspended
    }

    /// Another round soon.
    fn retry(&mut self, now: Instant) {
        let pause = (self.ttl / 40).max(RETRY_FLOOR) * 2_u32.pow(self.failures.min(RETRY_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.renewal = Renewal::Due(now + pause);
    }
}
