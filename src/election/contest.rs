//! One election as this daemon contests it: queue, wait, elect, lead. How leadership is given up is in `leaving.rs`.

use std::time::Duration;

use super::event::{ElectOutcome, ElectionInput, HandOverOutcome, Output, Round, Ticket, Transition};
use super::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, Revision};
use super::leaving::{Leaving, Release};
use super::record::{Cause, Cell, ElectTxn, GenerationRecord, Pulse, QueueEntry, View};
use super::role::{Reason, Role};
use super::seen::Seen;
use crate::clock::Instant;
use crate::timing::Timing;

/// Pause after etcd refused a request without applying it (no space, overload, no permission): no hot loop.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// What a contest needs to know of everything else while it handles one input.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) timing: &'a Timing,
    /// The lease, where leadership may rest on it now.
    pub(super) session: Option<LeaseId>,
    /// The lease that own keys hang on, whether or not leadership may rest on it.
    pub(super) lease: Option<LeaseId>,
    /// Draining or stopping: nobody queues any more.
    pub(super) retiring: bool,
    /// Stopping: nothing waits for the application's word.
    pub(super) stopping: bool,
    /// The highest generation that any history showed for this election.
    pub(super) floor: Generation,
    /// Whether generations follow the store's revision.
    pub(super) by_revision: bool,
    pub(super) out: &'a mut Vec<Output>,
}

/// The state machine of one election.
#[derive(Clone, Debug)]
pub(super) struct Contest {
    pub(super) index: ElectionIndex,
    pub(super) state: State,
    pub(super) seen: Seen,
    /// Why the role is what it is.
    pub(super) reason: Reason,
    look: Looking,
    /// Not queued before this moment: a cooldown, or the wait after a rewind.
    pub(super) queue_at: Instant,
    /// Queueing was refused without being applied; not tried again before.
    retry_at: Instant,
    raising: bool,
    /// The newest generation that we led with.
    ///
    /// Invariant: none up to it is ever led with again. A key of ours that outlived its leadership may still be named.
    spent: Generation,
    /// The application's term; a candidate behind the recorded one may not lead.
    term: u64,
}

/// Where this daemon stands. Data that is legal in one state only lives in it.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Not known: a look is under way.
    Unknown,
    /// This key. `head`: it is the first, so that its end makes ours the first.
    Key { key: CandidateKey, head: bool },
    /// Nothing; ours may be elected from this moment on.
    Nothing { elect_at: Instant },
}

/// The elect transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bid {
    /// None under way.
    None,
    /// Sent.
    Sent,
    /// Its outcome is unknown; a look that began after this round tells.
    Unresolved { after: Round },
}

#[derive(Clone, Copy, Debug)]
struct Looking {
    round: Round,
    /// A look or feel is under way.
    asked: bool,
    /// What is known may be old: a full look is wanted, not a feel.
    full: bool,
    /// The next one, if nothing asks for it earlier.
    next_at: Instant,
}

impl Contest {
    pub(super) fn new(index: ElectionIndex, observe: bool, now: Instant) -> Self {
        Self {
            index,
            state: if observe { State::Observing } else { State::Out },
            seen: Seen::default(),
            reason: Reason::Started,
            look: Looking { round: Round(0), asked: false, full: true, next_at: now },
            queue_at: now,
            retry_at: now,
            raising: false,
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
                self.look.next_at = ctx.now + ctx.timing.try_limit();
            }
            // Answers to rounds that were given up on.
            ElectionInput::Looked { .. } | ElectionInput::Felt { .. } | ElectionInput::LookFailed { .. } => {}
            ElectionInput::Queued { lease, created, .. } => self.queued(ctx, lease, created),
            ElectionInput::QueueFailed { lease } => {
                if matches!(self.state, State::Queuing { lease: asked } if asked == lease) {
                    self.retry_at = ctx.now + REFUSED_PAUSE;
                    self.state = State::Out;
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

    /// History was rewound: nothing that was known holds. Stays out of the queue for one TTL, so that a leader of the lost
    /// history has passed its guard.
    pub(super) fn begin_anew(&mut self, ctx: &mut Context<'_>) {
        self.session_ended(ctx, Reason::HistoryRewound);
        self.seen = Seen::default();
        self.look = Looking { round: Round(self.look.round.0 + 1), asked: false, full: true, next_at: ctx.now };
        self.queue_at = self.queue_at.max(ctx.now + ctx.timing.ttl());
        self.raising = false;
        ctx.out.push(Output::Publish);
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
                if self.seen.newest() > generation {
                    self.step_down(ctx, key, generation, Reason::Superseded, Release::WhenSafe);
                }
            }
        }
        self.advance_leaving(ctx);
        self.look_if_due(ctx);
    }

    /// When `advance` next has something to do, if nothing else happens.
    pub(super) fn wake_at(&self, ctx_session: bool, retiring: bool) -> Option<Instant> {
        let look = (!self.look.asked).then_some(self.look.next_at);
        let own = match &self.state {
            State::Out if ctx_session && !retiring => Some(self.queue_at.max(self.retry_at)),
            State::Waiting { ahead: Ahead::Nothing { elect_at }, bid: Bid::None, .. } if self.electable() => {
                Some((*elect_at).max(self.retry_at))
            }
            State::Leaving(leaving) => leaving.wake_at(),
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } | State::Leading { .. } => {
                None
            }
        };
        [look, own].into_iter().flatten().min()
    }

    /// Steps down from leading: publishes it, then sees to the promises, then gives up the key.
    pub(super) fn step_down(
        &mut self,
        ctx: &mut Context<'_>,
        key: CandidateKey,
        generation: Generation,
        reason: Reason,
        release: Release,
    ) {
        self.become_(ctx, State::Leaving(Leaving::from_leading(key, generation, release, ctx.now)), reason);
        ctx.out.push(Output::SealPromises(self.index));
    }

    /// `resign`.
    pub(super) fn resign(&mut self, ctx: &mut Context<'_>, ticket: Ticket, cooldown: Duration) {
        match &mut self.state {
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                self.queue_at = self.queue_at.max(ctx.now + cooldown);
                self.step_down(ctx, key, generation, Reason::Resigned, Release::WhenSafe);
                if let State::Leaving(leaving) = &mut self.state {
                    leaving.tickets.push(ticket);
                }
            }
            State::Leaving(leaving) if leaving.generation.is_some() => {
                leaving.release = leaving.release.no_later_than_safe();
                leaving.tickets.push(ticket);
            }
            State::Leaving(_) | State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } => {
                ctx.out.push(Output::Reply { ticket, reply: super::event::Reply::NotLeader });
            }
        }
    }

    /// `drained`: the application has stopped acting.
    pub(super) fn drained(&mut self, ctx: &mut Context<'_>) {
        match &mut self.state {
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                self.step_down(ctx, key, generation, Reason::Drained, Release::Now);
            }
            State::Leaving(leaving) => leaving.release = Release::Now,
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } => {}
        }
    }

    /// Asks for a full look, as soon as none is under way.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.look.asked {
            // What is under way may have been read too early to count.
            self.look.round.0 += 1;
            self.look.asked = false;
        }
        self.look.full = true;
        self.look.next_at = now;
    }

    /// Whether a full look is still to come.
    pub(super) const fn looking(&self) -> bool {
        self.look.full
    }

    fn look_if_due(&mut self, ctx: &mut Context<'_>) {
        if self.look.asked || self.look.next_at > ctx.now {
            return;
        }
        self.look.round.0 += 1;
        self.look.asked = true;
        let (election, round) = (self.index, self.look.round);
        // Without a known leader only a full look tells who heads the queue.
        let known = self.seen.leader().is_some() || self.seen.foreign.is_some();
        if self.look.full || !known {
            let lease = self.key().and(ctx.lease);
            ctx.out.push(Output::Look { election, round, lease });
        } else {
            let suffixes = self.relied_on().into_iter().map(|k| k.suffix).collect();
            ctx.out.push(Output::Feel { election, round, suffixes });
        }
    }

    fn looked(&mut self, ctx: &mut Context<'_>, view: &View) {
        self.look.asked = false;
        if view.header.revision < self.seen.revision {
            // Watch events were faster than this look, so it knows less than we do.
            self.look_again(ctx.now);
            return;
        }
        self.apply(ctx, view);
    }

    /// Takes over a view: from a look, or from an elect transaction that was refused.
    fn apply(&mut self, ctx: &mut Context<'_>, view: &View) {
        self.seen.replace(ctx.now, view);
        let known = self.seen.leader().is_some() || self.seen.foreign.is_some();
        let period = if known { ctx.timing.ttl() } else { ctx.timing.ttl() / 5 };
        self.look.full = false;
        self.look.next_at = ctx.now + period;
        ctx.out.push(Output::Publish);
        if self.key().is_some_and(|key| view.own.as_ref() != Some(key) && key.created <= view.header.revision) {
            self.own_key_gone(ctx);
            return;
        }
        if self.key().is_some_and(|key| view.own.as_ref() != Some(key)) {
            // Older than our own key.
            self.look_again(ctx.now);
            return;
        }
        if let State::Waiting { ahead, bid, .. } = &mut self.state {
            let grace = if self.seen.newest() == Generation(0) { Duration::ZERO } else { ctx.timing.vacancy_grace() };
            *ahead = match (&view.ahead, &*ahead) {
                (Some(next), _) => {
                    Ahead::Key { key: next.clone(), head: view.queue.first().is_some_and(|h| h.key == *next) }
                }
                (None, Ahead::Nothing { elect_at }) => Ahead::Nothing { elect_at: *elect_at },
                (None, Ahead::Unknown | Ahead::Key { .. }) => Ahead::Nothing { elect_at: ctx.now + grace },
            };
            if let Bid::Unresolved { after } = bid
                && self.look.round > *after
            {
                *bid = Bid::None;
            }
        }
        if let State::Leaving(leaving) = &mut self.state {
            leaving.looked();
        }
        self.watch(ctx);
    }

    fn felt(&mut self, ctx: &mut Context<'_>, pulse: &Pulse) {
        self.look.asked = false;
        self.look.next_at = ctx.now + ctx.timing.ttl();
        let keys = self.relied_on();
        let same = |k: &CandidateKey| pulse.keys.iter().any(|seen| seen == k);
        let fits = pulse.generation == self.seen.generation.modified() && pulse.control == self.seen.control.modified();
        if !fits || !keys.iter().all(same) {
            // Either an event is still on its way, or the watch keeps silent about it.
            self.look_again(ctx.now);
        }
    }

    fn relied_on(&self) -> Vec<CandidateKey> {
        let ahead = match &self.state {
            State::Waiting { ahead: Ahead::Key { key, .. }, .. } => Some(key),
            State::Observing
            | State::Out
            | State::Queuing { .. }
            | State::Waiting { .. }
            | State::Leading { .. }
            | State::Leaving(_) => None,
        };
        self.seen.relied_on(self.key(), ahead)
    }

    pub(super) fn watch(&self, ctx: &mut Context<'_>) {
        if !self.look.full {
            ctx.out.push(Output::Watch { election: self.index, plan: self.seen.plan(&self.relied_on()) });
        }
    }

    fn queue_if_due(&mut self, ctx: &mut Context<'_>) {
        let Some(lease) = ctx.session.filter(|_| !ctx.retiring) else { return };
        if ctx.now < self.queue_at.max(self.retry_at) || self.raising {
            return;
        }
        self.state = State::Queuing { lease };
        ctx.out.push(Output::Queue { election: self.index, lease });
    }

    fn queued(&mut self, ctx: &mut Context<'_>, lease: LeaseId, created: Revision) {
        if !matches!(self.state, State::Queuing { lease: asked } if asked == lease) {
            return;
        }
        let key = CandidateKey::of(lease, created);
        self.become_(ctx, State::Waiting { key, ahead: Ahead::Unknown, bid: Bid::None }, Reason::Queued);
        self.look_again(ctx.now);
    }

    fn key_deleted(&mut self, ctx: &mut Context<'_>, suffix: &str, revision: Revision) {
        if self.seen.key_deleted(suffix, revision, ctx.now) {
            ctx.out.push(Output::Publish);
            // A queue that goes on to a foreign client tells nobody: look, if nothing is heard by then.
            self.look.next_at = self.look.next_at.min(ctx.now + ctx.timing.ttl() / 10);
        }
        let gone = |key: &CandidateKey| key.suffix == suffix && key.created < revision;
        if self.key().is_some_and(gone) {
            self.own_key_gone(ctx);
            return;
        }
        let mut behind_another = false;
        if let State::Waiting { ahead, .. } = &mut self.state
            && let Ahead::Key { key, head } = &*ahead
            && gone(key)
        {
            behind_another = !head;
            *ahead =
                if *head { Ahead::Nothing { elect_at: ctx.now + ctx.timing.vacancy_grace() } } else { Ahead::Unknown };
        }
        if behind_another {
            self.look_again(ctx.now);
        }
    }

    /// The own key is gone, and it was not us; or it was our own hand-over, whose answer is still to come.
    fn own_key_gone(&mut self, ctx: &mut Context<'_>) {
        match &mut self.state {
            State::Leaving(leaving) => {
                if leaving.own_key_gone() {
                    self.released(ctx, None);
                }
            }
            State::Waiting { .. } | State::Leading { .. } => {
                self.become_(ctx, State::Out, Reason::KeyDeleted);
                self.look_again(ctx.now);
            }
            State::Observing | State::Out | State::Queuing { .. } => {}
        }
    }

    /// Whether what is known of the election allows a new leader.
    fn electable(&self) -> bool {
        let behind = self.seen.generation.value().is_some_and(|r| r.term > self.term);
        let corrupt = matches!(self.seen.generation, Cell::Corrupt { .. });
        !self.seen.paused() && !behind && !corrupt && !self.raising
    }

    fn elect_if_due(&mut self, ctx: &mut Context<'_>) {
        let State::Waiting { key, ahead, bid } = &self.state else { return };
        let (key, lease) = match ctx.session {
            // The key hangs on the session's lease; without a usable one nothing may rest on it.
            Some(lease) => (key.clone(), lease),
            None => return,
        };
        if let Some(record) = self.seen.names(&key) {
            let record = record.clone();
            if record.generation > self.spent {
                self.lead(ctx, key, &record);
            } else {
                self.become_(ctx, State::Leaving(Leaving::withdrawal(key, ctx.now)), Reason::Superseded);
            }
            return;
        }
        let Ahead::Nothing { elect_at } = *ahead else { return };
        let next = self.next_generation(ctx);
        if *bid != Bid::None || ctx.now < elect_at.max(self.retry_at) || !self.electable() || next > Generation::MAX {
            return;
        }
        let txn = ElectTxn {
            lease,
            created: key.created,
            generation_modified: self.seen.generation.modified(),
            control_modified: self.seen.control.modified(),
            generation: next,
            term: self.term,
            leaderless_ms: self.leaderless_ms(ctx.now),
        };
        if let State::Waiting { bid, .. } = &mut self.state {
            *bid = Bid::Sent;
        }
        ctx.out.push(Output::Elect { election: self.index, txn });
    }

    /// Above everything that was ever seen: in etcd, or remembered from a history that etcd has lost.
    pub(super) fn next_generation(&self, ctx: &Context<'_>) -> Generation {
        let revision = if ctx.by_revision { u64::try_from(self.seen.revision.0).unwrap_or(0) } else { 0 };
        self.seen.newest().max(ctx.floor).max(Generation(revision)).next()
    }

    fn leaderless_ms(&self, now: Instant) -> u64 {
        let since = self.seen.vacant_since.filter(|_| self.seen.newest() > Generation(0));
        since.map_or(0, |since| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
    }

    fn elect_answered(&mut self, ctx: &mut Context<'_>, asked: &CandidateKey, outcome: ElectOutcome) {
        let waiting = match &mut self.state {
            State::Waiting { key, bid, .. } if key == asked => Some(bid),
            // Named by the watch before the answer came, or already leaving: only what was read is news.
            State::Leading { key, .. } | State::Leaving(Leaving { key, .. }) if key == asked => None,
            State::Observing
            | State::Out
            | State::Queuing { .. }
            | State::Waiting { .. }
            | State::Leading { .. }
            | State::Leaving(_) => return,
        };
        match (outcome, waiting) {
            (ElectOutcome::Won { header, record, queue }, waiting) => {
                let waiting = waiting.is_some();
                let cell = Cell::Valid { value: record.clone(), modified: header.revision };
                self.seen.replace_generation(cell, header.revision, ctx.now);
                self.seen.queued = self.seen.queued.max(queue.len());
                self.seen.queue = queue;
                if waiting {
                    self.lead(ctx, asked.clone(), &record);
                }
            }
            (ElectOutcome::Refused { view }, Some(bid)) => {
                *bid = Bid::None;
                if view.header.revision < self.seen.revision {
                    self.look_again(ctx.now);
                } else {
                    self.apply(ctx, &view);
                }
            }
            (ElectOutcome::Failed, Some(bid)) => {
                *bid = Bid::None;
                self.retry_at = ctx.now + REFUSED_PAUSE;
                self.look_again(ctx.now);
            }
            (ElectOutcome::Unknown, Some(bid)) => {
                *bid = Bid::Unresolved { after: self.look.round };
                self.look_again(ctx.now);
            }
            (ElectOutcome::Refused { .. } | ElectOutcome::Failed | ElectOutcome::Unknown, None) => {}
        }
    }

    /// Etcd holds a record that names our key, and the guard holds: we lead.
    fn lead(&mut self, ctx: &mut Context<'_>, key: CandidateKey, record: &GenerationRecord) {
        assert!(record.generation > self.spent, "a token is never issued twice");
        let reason = match record.cause {
            Cause::HandedOver => Reason::HandedOver,
            Cause::Elected | Cause::Raised => Reason::Elected,
        };
        self.spent = record.generation;
        self.become_(ctx, State::Leading { key, generation: record.generation }, reason);
        self.watch(ctx);
    }

    fn hand_over_answered(&mut self, ctx: &mut Context<'_>, asked: &CandidateKey, outcome: HandOverOutcome) {
        let State::Leaving(leaving) = &mut self.state else { return };
        if leaving.key != *asked {
            return;
        }
        match outcome {
            HandOverOutcome::Done { header, record } => {
                let successor = record.as_ref().and_then(|_| leaving.named.clone());
                if let Some(record) = record {
                    let cell = Cell::Valid { value: record, modified: header.revision };
                    self.seen.replace_generation(cell, header.revision, ctx.now);
                }
                let suffix = asked.suffix.clone();
                self.seen.key_deleted(&suffix, header.revision, ctx.now);
                self.released(ctx, successor.as_ref());
            }
            HandOverOutcome::Refused | HandOverOutcome::Unknown => {
                leaving.refused(ctx.now, matches!(outcome, HandOverOutcome::Refused));
                self.look_again(ctx.now);
            }
        }
    }

    /// Nothing of ours is left in this election: answer whoever asked for it, and queue again when that is due.
    pub(super) fn released(&mut self, ctx: &mut Context<'_>, successor: Option<&QueueEntry>) {
        if let State::Leaving(leaving) = &mut self.state {
            leaving.reply_released(ctx.out, successor, self.seen.newest());
        }
        let reason = self.reason;
        self.become_(ctx, State::Out, reason);
        self.watch(ctx);
    }

    fn raise_if_below_floor(&mut self, ctx: &mut Context<'_>) {
        let known = self.seen.viewed > Revision(0) && !self.look.full;
        let corrupt = matches!(self.seen.generation, Cell::Corrupt { .. });
        if known && !self.raising && !corrupt && self.seen.newest() < ctx.floor {
            self.raising = true;
            let (at_least, modified) = (ctx.floor, self.seen.generation.modified());
            ctx.out.push(Output::Raise { election: self.index, at_least, modified });
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
