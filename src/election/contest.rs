//! One election as this daemon contests it: queue, wait, elect, lead. How leadership is given up is in `leaving.rs`.

use std::time::Duration;

use super::event::{ElectionInput, Output, Round, Transition};
use super::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, Revision};
use super::leaving::{Leaving, Release};
use super::mutant::{self, Mutant};
use super::pause::{Jitter, Pauses};
use super::role::{Reason, Role};
use super::seen::Seen;
use crate::clock::Instant;
use crate::timing::Timing;

/// What a contest needs to know of everything else while it handles one input.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) jitter: Jitter,
    pub(super) timing: &'a Timing,
    /// The lease, where leadership may rest on it now.
    pub(super) session: Option<LeaseId>,
    /// The lease that own keys hang on, whether or not leadership may rest on it.
    pub(super) lease: Option<LeaseId>,
    /// How long a lease lasts: as granted, or as it would be asked for.
    pub(super) ttl: Duration,
    /// Draining or stopping: nobody queues any more.
    pub(super) retiring: bool,
    pub(super) stopping: bool,
    /// Draining: until then, what was led waits for the application's word.
    pub(super) held_until: Option<Instant>,
    /// The highest generation that any history showed for this election.
    pub(super) floor: Generation,
    /// Whether generations follow the store's revision.
    pub(super) by_revision: bool,
    pub(super) out: &'a mut Vec<Output>,
}

/// The state machine of one election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Contest {
    pub(super) index: ElectionIndex,
    pub(super) state: State,
    pub(super) seen: Seen,
    /// Why the role is what it is.
    pub(super) reason: Reason,
    pub(super) look: Looking,
    /// Not queued before this moment: a cooldown, or the wait after a rewind.
    pub(super) queue_at: Instant,
    pub(super) raising: bool,
    pub(super) pauses: Pauses,
    /// When a new connection last showed that the generation went back.
    pub(super) went_back_at: Option<Instant>,
    /// Other keys are to be watched, from this revision on: the first for which the plan is wanted.
    pub(super) watch_from: Option<Revision>,
    /// The raised generation that was seen last, by its revision; and until when nobody is elected over it.
    pub(super) raised: (Revision, Instant),
    /// The newest generation that we led with, or that we saw raised.
    ///
    /// Invariant: none up to it is ever led with again. A key of ours that outlived its leadership may still be named.
    pub(super) spent: Generation,
    /// The application's term; a candidate behind the recorded one may not lead.
    pub(super) term: u64,
}

/// Where this daemon stands. Data that is legal in one state only lives in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Follows and reports.
    Observing,
    /// Not queued.
    Out,
    /// The own key was asked for.
    Queuing { lease: LeaseId },
    /// Queued.
    Waiting { key: CandidateKey, ahead: Ahead, bid: Bid },
    /// Leading, as long as the guard holds.
    Leading { key: CandidateKey, generation: Generation },
    /// No longer acting; giving up what is left in etcd.
    Leaving(Leaving),
}

/// What stands just ahead of the own key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ahead {
    /// Not known: a look is under way.
    Unknown,
    /// This key. `head`: it is the first, so that its end makes ours the first.
    Key { key: CandidateKey, head: bool },
    /// Nothing; ours may be elected from this moment on.
    Nothing { elect_at: Instant },
}

/// The elect transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bid {
    /// None under way.
    None,
    /// Sent.
    Sent,
    /// It failed, or its outcome is unknown; a look that began after this round tells.
    Unresolved { after: Round },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Looking {
    pub(super) round: Round,
    /// A look or feel is under way.
    pub(super) asked: bool,
    /// What is known may be old: a full look is wanted, not a feel.
    pub(super) full: bool,
    /// The next one, if nothing asks for it earlier.
    pub(super) next_at: Instant,
    /// Something other than the period asks for it, and may ask again and again: such reads are paced.
    pub(super) paced: bool,
}

impl Contest {
    pub(super) fn new(index: ElectionIndex, observe: bool, now: Instant) -> Self {
        Self {
            index,
            state: if observe { State::Observing } else { State::Out },
            seen: Seen::default(),
            reason: Reason::Started,
            look: Looking { round: Round(0), asked: false, full: true, next_at: now, paced: true },
            queue_at: now,
            raising: false,
            pauses: Pauses::default(),
            went_back_at: None,
            watch_from: None,
            raised: (Revision(0), now),
            spent: Generation(0),
            term: 0,
        }
    }

    pub(super) const fn role(&self) -> Role {
        match self.state {
            State::Observing => Role::Observer,
            State::Out | State::Queuing { .. } | State::Leaving(_) => Role::Follower,
            State::Waiting { .. } => Role::Candidate,
            State::Leading { .. } => Role::Leader,
        }
    }

    pub(super) const fn own(&self) -> Generation {
        if let State::Leading { generation, .. } = self.state { generation } else { Generation(0) }
    }

    /// The own key, while one exists as far as we know.
    pub(super) const fn key(&self) -> Option<&CandidateKey> {
        match &self.state {
            State::Waiting { key, .. } | State::Leading { key, .. } | State::Leaving(Leaving { key, .. }) => Some(key),
            State::Observing | State::Out | State::Queuing { .. } => None,
        }
    }

    /// Whether nothing of ours is left in this election but perhaps what goes with the lease.
    pub(super) const fn idle(&self) -> bool {
        matches!(self.state, State::Observing | State::Out)
    }

    /// Moves to another state. Publishes, and records the transition, before whatever follows.
    ///
    /// # Panics
    /// On an edge that the protocol does not have.
    pub(super) fn become_(&mut self, ctx: &mut Context<'_>, state: State, reason: Reason) {
        let (from, old_generation) = (self.role(), self.own());
        self.state = state;
        let (to, new_generation) = (self.role(), self.own());
        ctx.out.push(Output::Publish);
        if from == to {
            return;
        }
        assert!(legal(from, to, reason), "illegal transition: {from:?} -> {to:?} because {reason:?}");
        self.reason = reason;
        let election = self.index;
        ctx.out.push(Output::Transition(Transition { election, from, to, old_generation, new_generation, reason }));
    }

    /// Applies an input.
    pub(super) fn handle(&mut self, ctx: &mut Context<'_>, input: ElectionInput) {
        match input {
            ElectionInput::Looked { round, view } if round == self.look.round => self.looked(ctx, &view),
            ElectionInput::Felt { round, pulse } if round == self.look.round => self.felt(ctx, &pulse),
            ElectionInput::LookFailed { round } if round == self.look.round => {
                self.look.asked = false;
                (self.look.next_at, self.look.paced) = (ctx.now + ctx.timing.try_limit(), true);
            }
            // Answers to rounds that were given up on.
            ElectionInput::Looked { .. }
            | ElectionInput::LookedAside { .. }
            | ElectionInput::Felt { .. }
            | ElectionInput::LookFailed { .. } => {}
            ElectionInput::Queued { lease, created, .. } => self.queued(ctx, lease, created),
            ElectionInput::QueueFailed { lease } => {
                if matches!(self.state, State::Queuing { lease: asked } if asked == lease) {
                    self.state = State::Out;
                    // It may have committed, or may yet.
                    self.look_again(ctx.now);
                }
            }
            ElectionInput::ElectAnswered { key, outcome } => self.elect_answered(ctx, &key, outcome),
            ElectionInput::HandOverAnswered { key, outcome } => self.hand_over_answered(ctx, &key, outcome),
            ElectionInput::RaiseAnswered { .. } => {
                self.raising = false;
                self.look_again(ctx.now);
            }
            ElectionInput::Sealed { until } => self.sealed(until),
            ElectionInput::KeyDeleted { suffix, revision } => self.key_deleted(ctx, &suffix, revision),
            ElectionInput::GenerationChanged { cell, revision } => {
                let refuted = cell.value().is_none_or(|r| r.generation <= self.seen.newest());
                if self.seen.replace_generation(cell, revision, ctx.now) {
                    self.note_raise(ctx);
                    ctx.out.push(Output::Publish);
                    self.watch(ctx);
                    if refuted {
                        // Not a step forward: deleted, corrupt or lower. Only a linearizable read may judge that.
                        self.look_again(ctx.now);
                    }
                }
            }
            ElectionInput::ControlChanged { cell, revision } => {
                if revision > self.seen.control.modified() && revision > self.seen.viewed {
                    self.seen.control = cell;
                    ctx.out.push(Output::Publish);
                }
            }
            ElectionInput::WatchBroken => self.look_again(ctx.now),
        }
    }

    /// The session ended: leadership and place in the queue went with it.
    pub(super) fn session_ended(&mut self, ctx: &mut Context<'_>, reason: Reason) {
        // The next lease comes after a pause of its own.
        self.pauses.queue.skip(ctx.now);
        if let State::Leaving(leaving) = &mut self.state {
            leaving.reply_unknown(ctx.out);
        }
        match self.state {
            State::Observing | State::Out => {}
            State::Queuing { .. } | State::Waiting { .. } | State::Leading { .. } | State::Leaving(_) => {
                self.become_(ctx, State::Out, reason);
                self.look_again(ctx.now);
            }
        }
    }

    /// A confirming read at `revision` showed the own key as created at `created` (0: not there).
    pub(super) fn own_key_seen(&mut self, ctx: &mut Context<'_>, created: Revision, revision: Revision) {
        if self.key().is_some_and(|key| key.created <= revision && key.created != created) {
            self.own_key_gone(ctx);
        }
    }

    /// Carries on with whatever the state allows now.
    pub(super) fn advance(&mut self, ctx: &mut Context<'_>) {
        self.raise_if_below_floor(ctx);
        match &self.state {
            State::Observing | State::Queuing { .. } | State::Leaving(_) => {}
            State::Out => self.queue_if_due(ctx),
            State::Waiting { key, .. } if ctx.retiring => {
                let leaving = Leaving::withdrawal(key.clone(), ctx.now);
                let reason = if ctx.stopping { Reason::Shutdown } else { Reason::Drained };
                self.become_(ctx, State::Leaving(leaving), reason);
            }
            State::Waiting { .. } => self.elect_if_due(ctx),
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                // Our own number in another's hand, too: raised by hand, in a history that a restore began.
                let taken = self.seen.newest() == generation && self.seen.names(&key).is_none();
                if (self.seen.newest() > generation || taken) && !mutant::on(Mutant::SupersededIgnored) {
                    self.step_down(ctx, key, generation, Reason::Superseded, Release::WhenSafe);
                }
            }
        }
        self.advance_leaving(ctx);
        self.look_if_due(ctx);
        self.watch_if_due(ctx);
    }

    /// When, later than `now`, `advance` next has something to do if nothing else happens. What was due by now and is not done
    /// waits for an answer, and must not hide what comes later.
    pub(super) fn wake_at(&self, now: Instant, ctx_session: bool, retiring: bool) -> Option<Instant> {
        let look = (!self.look.asked).then(|| self.look_at());
        let raise = (!self.raising).then(|| self.pauses.raise.until());
        let watch = self.watch_from.map(|_| self.pauses.watch.until());
        let own = match &self.state {
            State::Out if ctx_session && !retiring => Some(self.queue_at.max(self.pauses.queue.until())),
            State::Waiting { ahead: Ahead::Nothing { elect_at }, bid: Bid::None, .. } if self.electable() => {
                Some((*elect_at).max(self.pauses.elect.until()).max(self.raise_settles_at()))
            }
            State::Leaving(leaving) => leaving.wake_at(self.pauses.hand_over),
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } | State::Leading { .. } => {
                None
            }
        };
        [look, raise, watch, own].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn key_deleted(&mut self, ctx: &mut Context<'_>, suffix: &str, revision: Revision) {
        if self.seen.key_deleted(suffix, revision, ctx.now) {
            ctx.out.push(Output::Publish);
            // A queue that goes on to a foreign client tells nobody: look, if nothing is heard by then.
            let soon = ctx.now + ctx.timing.ttl() / 10;
            if soon < self.look.next_at {
                (self.look.next_at, self.look.paced) = (soon, true);
            }
        }
        let gone = |key: &CandidateKey| key.suffix == suffix && key.created < revision;
        if self.key().is_some_and(gone) {
            self.own_key_gone(ctx);
            return;
        }
        // Whoever stood there may have led, though we have not heard of it yet.
        let grace = Self::vacancy_grace(ctx);
        let mut behind_another = false;
        if let State::Waiting { ahead, .. } = &mut self.state
            && let Ahead::Key { key, head } = &*ahead
            && gone(key)
        {
            behind_another = !head;
            *ahead = if *head { Ahead::Nothing { elect_at: ctx.now + grace } } else { Ahead::Unknown };
        }
        if behind_another {
            self.look_again(ctx.now);
        }
    }

    /// The own key is gone, and it was not us; or it was our own hand-over, whose answer is still to come.
    pub(super) fn own_key_gone(&mut self, ctx: &mut Context<'_>) {
        match &mut self.state {
            State::Leaving(leaving) => {
                if leaving.own_key_gone() {
                    // Our own transaction may have done it, and its answer was lost: then the record names whom it named.
                    let named = leaving.named.clone().filter(|entry| self.seen.names(&entry.key).is_some());
                    if named.is_none() && leaving.to_be_found_out() {
                        return;
                    }
                    self.released(ctx, named.as_ref());
                }
            }
            State::Leading { .. } if mutant::on(Mutant::OwnKeyLossIgnored) => {}
            State::Waiting { .. } | State::Leading { .. } => {
                self.become_(ctx, State::Out, Reason::KeyDeleted);
                self.look_again(ctx.now);
            }
            State::Observing | State::Out | State::Queuing { .. } => {}
        }
    }
}

/// The edges of the transition table, each with the reasons that may take it.
fn legal(from: Role, to: Role, reason: Reason) -> bool {
    use Reason as R;
    match (from, to) {
        (Role::Follower, Role::Candidate) => reason == R::Queued,
        (Role::Candidate, Role::Leader) => matches!(reason, R::Elected | R::HandedOver),
        (Role::Candidate, Role::Follower) => matches!(
            reason,
            R::GuardExpired
                | R::LeaseLost
                | R::KeyDeleted
                | R::Superseded
                | R::Drained
                | R::Shutdown
                | R::HistoryRewound
        ),
        (Role::Leader, Role::Follower) => !matches!(reason, R::Started | R::Queued | R::Elected | R::HandedOver),
        (Role::Follower | Role::Observer, _)
        | (Role::Leader, Role::Leader | Role::Candidate | Role::Observer)
        | (Role::Candidate, Role::Candidate | Role::Observer) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illegal_edge_asserts() {
        let mut legal_edges = 0;
        for (from, to) in Role::ALL.iter().flat_map(|from| Role::ALL.map(|to| (*from, to))) {
            legal_edges += Reason::ALL.iter().filter(|reason| legal(from, to, **reason)).count();
        }
        assert_eq!(legal_edges, 1 + 2 + 7 + 9, "queue, elect, leave the queue, step down");

        let (timing, mut out) = (Timing::default(), Vec::new());
        let now = Instant::default();
        let mut contest = Contest::new(ElectionIndex(0), false, now);
        let illegal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut ctx = Context {
                now,
                jitter: Jitter(0),
                timing: &timing,
                session: None,
                lease: None,
                ttl: timing.ttl(),
                retiring: false,
                stopping: false,
                held_until: None,
                floor: Generation(0),
                by_revision: false,
                out: &mut out,
            };
            let key = CandidateKey { suffix: "a".to_owned(), created: Revision(1) };
            contest.become_(&mut ctx, State::Leading { key, generation: Generation(1) }, Reason::Elected);
        }));
        assert!(illegal.is_err(), "a follower became leader without having been a candidate");
    }
}
