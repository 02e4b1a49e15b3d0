//! How a contest gets to lead: queue, wait, elect.

use super::contest::{Ahead, Bid, Contest, Context, State};
use super::event::{ElectOutcome, Output};
use super::ids::{CandidateKey, Generation, LeaseId, Revision};
use super::leaving::Leaving;
use super::mutant::{self, Mutant};
use super::pause;
use super::record::{Cause, Cell, GenerationRecord};
use super::role::Reason;
use super::txn::ElectTxn;
use crate::clock::Instant;

impl Contest {
    pub(super) fn queue_if_due(&mut self, ctx: &mut Context<'_>) {
        let Some(lease) = ctx.session.filter(|_| !ctx.retiring) else { return };
        if ctx.now < self.queue_at || !self.pauses.queue.over(ctx.now) || self.raising {
            return;
        }
        self.pauses.queue.begin(ctx.now, ctx.jitter, pause::QUEUE);
        self.state = State::Queuing { lease };
        ctx.out.push(Output::Queue { election: self.index, lease });
    }

    pub(super) fn queued(&mut self, ctx: &mut Context<'_>, lease: LeaseId, created: Revision) {
        if !matches!(self.state, State::Queuing { lease: asked } if asked == lease) {
            return;
        }
        self.pauses.queue.succeeded();
        let key = CandidateKey::of(lease, created);
        self.become_(ctx, State::Waiting { key, ahead: Ahead::Unknown, bid: Bid::None }, Reason::Queued);
        self.look_again(ctx.now);
    }

    /// Whether what is known of the election allows a new leader.
    pub(super) fn electable(&self) -> bool {
        let behind = self.seen.generation.value().is_some_and(|r| r.term > self.term);
        let corrupt = matches!(self.seen.generation, Cell::Corrupt { .. });
        !self.seen.paused() && !behind && !corrupt && !self.raising
    }

    /// Takes note of a generation that was raised. It may be all that shows of a rewind that others noticed, to a daemon that
    /// has started since, or for which the new history caught up in time.
    pub(super) fn note_raise(&mut self, ctx: &Context<'_>) {
        let modified = self.seen.generation.modified();
        let Some(record) = self.seen.generation.value().filter(|r| r.cause == Cause::Raised) else { return };
        // A transaction of ours that the raise refused may come late, and commit where a restore took the raise back.
        self.spent = self.spent.max(record.generation);
        let broken = mutant::on(Mutant::RaiseWithoutWait) || mutant::on(Mutant::RewindWithoutWait);
        if self.raised.0 != modified && !broken {
            self.raised = (modified, ctx.now + ctx.ttl);
        }
    }

    /// When whoever led in a history that is lost has passed its guard, as far as the present generation tells.
    pub(super) fn raise_settles_at(&self) -> Instant {
        let (modified, until) = self.raised;
        if modified == self.seen.generation.modified() { until } else { Instant::default() }
    }

    pub(super) fn elect_if_due(&mut self, ctx: &mut Context<'_>) {
        let State::Waiting { key, ahead, bid } = &self.state else { return };
        let (key, lease) = match ctx.session {
            // The key hangs on the session's lease; without a usable one nothing may rest on it.
            Some(lease) => (key.clone(), lease),
            None => return,
        };
        if let Some(record) = self.seen.names(&key) {
            let record = record.clone();
            if record.generation > self.spent || mutant::on(Mutant::GenerationReused) {
                self.lead(ctx, key, &record);
            } else {
                self.become_(ctx, State::Leaving(Leaving::withdrawal(key, ctx.now)), Reason::Superseded);
            }
            return;
        }
        let Ahead::Nothing { elect_at } = *ahead else { return };
        let next = self.next_generation(ctx);
        let due = elect_at.max(self.pauses.elect.until()).max(self.raise_settles_at());
        if *bid != Bid::None || ctx.now < due || !self.electable() || next > Generation::MAX {
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
        self.pauses.elect.begin(ctx.now, ctx.jitter, pause::ELECT);
        ctx.out.push(Output::Elect { election: self.index, txn });
    }

    /// Above everything that was ever seen: in etcd, or remembered from a history that etcd has lost.
    pub(super) fn next_generation(&self, ctx: &Context<'_>) -> Generation {
        let revision = if ctx.by_revision { u64::try_from(self.seen.revision.0).unwrap_or(0) } else { 0 };
        let floor = if mutant::on(Mutant::CounterAfterRestore) { Generation(0) } else { ctx.floor };
        self.seen.newest().max(floor).max(Generation(revision)).next()
    }

    pub(super) fn leaderless_ms(&self, now: Instant) -> u64 {
        let since = self.seen.vacant_since.filter(|_| self.seen.newest() > Generation(0));
        since.map_or(0, |since| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn elect_answered(&mut self, ctx: &mut Context<'_>, asked: &CandidateKey, outcome: ElectOutcome) {
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
                match &mut self.state {
                    State::Waiting { .. }
                        if waiting
                            && record.generation > self.spent
                            && (ctx.session.is_some() || mutant::on(Mutant::WonOnVoidGuard)) =>
                    {
                        self.lead(ctx, asked.clone(), &record);
                    }
                    // The guard is in doubt: we are named, and lead once a renewal is confirmed, or never.
                    State::Waiting { bid, .. } => *bid = Bid::None,
                    State::Observing
                    | State::Out
                    | State::Queuing { .. }
                    | State::Leading { .. }
                    | State::Leaving(_) => {}
                }
            }
            (ElectOutcome::Refused { view, .. }, Some(bid)) => {
                *bid = Bid::None;
                if view.header.revision < self.seen.revision {
                    self.look_again(ctx.now);
                } else {
                    self.apply(ctx, &view);
                }
            }
            // Refused without a word about why, or nobody knows: nothing more is sent before a look.
            (ElectOutcome::Failed | ElectOutcome::Unknown, Some(bid)) => {
                *bid = Bid::Unresolved { after: self.look.round };
                self.look_again(ctx.now);
            }
            (ElectOutcome::Refused { .. } | ElectOutcome::Failed | ElectOutcome::Unknown, None) => {}
        }
    }

    /// Etcd holds a record that names our key, and the guard holds: we lead.
    pub(super) fn lead(&mut self, ctx: &mut Context<'_>, key: CandidateKey, record: &GenerationRecord) {
        let fresh = record.generation > self.spent || mutant::on(Mutant::GenerationReused);
        assert!(fresh, "a token is never issued twice");
        let reason = match record.cause {
            Cause::HandedOver => Reason::HandedOver,
            Cause::Elected | Cause::Raised => Reason::Elected,
        };
        self.spent = record.generation;
        self.become_(ctx, State::Leading { key, generation: record.generation }, reason);
        self.watch(ctx);
    }
}
