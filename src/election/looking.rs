//! How a contest learns what etcd holds: full looks, cheap feels, and what to watch in between.

use std::time::Duration;

use super::contest::{Ahead, Bid, Contest, Context, Looking, State};
use super::event::Output;
use super::ids::{CandidateKey, Generation, LeaseId, Revision};
use super::leaving::Leaving;
use super::mutant::{self, Mutant};
use super::pause;
use super::record::{Cell, Pulse, View};
use super::seen::Seen;
use crate::clock::Instant;

impl Contest {
    /// Asks for a full look, as soon as none is under way and the pause is over.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.look.asked {
            // What is under way may have been read too early to count.
            self.look.round.0 += 1;
            self.look.asked = false;
        }
        self.look.full = true;
        (self.look.next_at, self.look.paced) = (now, true);
    }

    /// When the next look or feel is due, if none is under way.
    pub(super) fn look_at(&self) -> Instant {
        let Looking { next_at, paced, .. } = self.look;
        if paced { next_at.max(self.pauses.read.until()) } else { next_at }
    }

    /// Whether a full look is still to come.
    pub(super) const fn looking(&self) -> bool {
        self.look.full
    }

    pub(super) fn look_if_due(&mut self, ctx: &mut Context<'_>) {
        if self.look.asked || self.look_at() > ctx.now {
            return;
        }
        if self.look.paced {
            self.pauses.read.begin(ctx.now, ctx.jitter, pause::READ);
        }
        self.look.round.0 += 1;
        self.look.asked = true;
        let (election, round) = (self.index, self.look.round);
        // Without a known leader only a full look tells who heads the queue; and the leader, who is one, knows its successors.
        let known = self.seen.leader().is_some() || self.seen.foreign.is_some();
        if self.look.full || !known || matches!(self.state, State::Leading { .. }) {
            // Without a key that we know of, too: a late copy of a request may have made one.
            ctx.out.push(Output::Look { election, round, lease: ctx.lease });
        } else {
            let suffixes = self.relied_on(ctx.lease).into_iter().map(|k| k.suffix).collect();
            ctx.out.push(Output::Feel { election, round, suffixes });
        }
    }

    pub(super) fn looked(&mut self, ctx: &mut Context<'_>, view: &View) {
        self.look.asked = false;
        if view.header.revision < self.seen.revision {
            // Watch events were faster than this look, so it knows less than we do.
            self.look_again(ctx.now);
            return;
        }
        self.apply(ctx, view);
    }

    /// Takes over a view: from a look, or from an elect transaction that was refused.
    pub(super) fn apply(&mut self, ctx: &mut Context<'_>, view: &View) {
        self.seen.replace(ctx.now, view);
        self.note_raise(ctx);
        let known = self.seen.leader().is_some() || self.seen.foreign.is_some();
        let period = if known { ctx.timing.ttl() } else { ctx.timing.ttl() / 5 };
        self.look.full = false;
        (self.look.next_at, self.look.paced) = (ctx.now + period, false);
        self.pauses.read.succeeded();
        // What was to be watched before this view is part of it.
        self.watch_from = None;
        ctx.out.push(Output::Publish);
        if self.key().is_some_and(|key| view.own.as_ref() != Some(key) && key.created <= view.header.revision) {
            if let State::Leaving(leaving) = &mut self.state {
                leaving.looked();
            }
            self.own_key_gone(ctx);
            return;
        }
        if self.key().is_some_and(|key| view.own.as_ref() != Some(key)) {
            // Older than our own key.
            self.look_again(ctx.now);
            return;
        }
        // Where nobody ever led nobody is waited for.
        let first = matches!(self.seen.generation, Cell::Absent) && ctx.floor == Generation(0);
        let grace = if first { Duration::ZERO } else { Self::vacancy_grace(ctx) };
        if let State::Waiting { ahead, bid, .. } = &mut self.state {
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
        if let (State::Out, Some(stray)) = (&self.state, &view.own) {
            // A key of ours that nothing of ours stands for would block the queue for as long as the session lives.
            self.state = State::Leaving(Leaving::withdrawal(stray.clone(), ctx.now));
        }
        self.watch(ctx);
    }

    /// How long a vacancy stays one, in case somebody ended a leadership out of band.
    pub(super) fn vacancy_grace(ctx: &Context<'_>) -> Duration {
        if mutant::on(Mutant::GraceIgnored) { Duration::ZERO } else { ctx.timing.vacancy_grace() }
    }

    pub(super) fn felt(&mut self, ctx: &mut Context<'_>, pulse: &Pulse) {
        self.look.asked = false;
        (self.look.next_at, self.look.paced) = (ctx.now + ctx.timing.ttl(), false);
        ctx.out.push(Output::Publish); // Contact with etcd is news in itself.
        let keys = self.relied_on(ctx.lease);
        let same = |k: &CandidateKey| pulse.keys.iter().any(|seen| seen == k);
        let fits = pulse.generation == self.seen.generation.modified() && pulse.control == self.seen.control.modified();
        if !fits || !keys.iter().all(same) {
            // Either an event is still on its way, or the watch keeps silent about it.
            self.look_again(ctx.now);
        }
    }

    /// The keys that matter, as they should be; one of ours that should not be there has no creation.
    pub(super) fn relied_on(&self, lease: Option<LeaseId>) -> Vec<CandidateKey> {
        let ahead = match &self.state {
            State::Waiting { ahead: Ahead::Key { key, .. }, .. } => Some(key),
            State::Observing
            | State::Out
            | State::Queuing { .. }
            | State::Waiting { .. }
            | State::Leading { .. }
            | State::Leaving(_) => None,
        };
        let absent = lease.filter(|_| matches!(self.state, State::Out)).map(|l| CandidateKey::of(l, Revision(0)));
        self.seen.relied_on(self.key().or(absent.as_ref()), ahead)
    }

    /// Other keys matter from now on.
    pub(super) fn watch(&mut self, ctx: &mut Context<'_>) {
        if !self.look.full {
            self.watch_from.get_or_insert(Revision(self.seen.revision.0.saturating_add(1)));
            self.watch_if_due(ctx);
        }
    }

    /// Sends the plan. What a look under way shows comes with a plan of its own.
    pub(super) fn watch_if_due(&mut self, ctx: &mut Context<'_>) {
        let Some(from) = self.watch_from.filter(|_| !self.look.full && self.pauses.watch.over(ctx.now)) else { return };
        self.watch_from = None;
        self.pauses.watch.begin(ctx.now, ctx.jitter, pause::WATCH);
        ctx.out.push(Output::Watch { election: self.index, plan: Seen::plan(&self.relied_on(None), from) });
    }

    pub(super) fn raise_if_below_floor(&mut self, ctx: &mut Context<'_>) {
        let known = self.seen.viewed > Revision(0) && !self.look.full;
        let corrupt = matches!(self.seen.generation, Cell::Corrupt { .. });
        if known && !self.raising && !corrupt && self.seen.newest() < ctx.floor && self.pauses.raise.over(ctx.now) {
            self.raising = true;
            self.pauses.raise.begin(ctx.now, ctx.jitter, pause::RAISE);
            let (at_least, modified) = (ctx.floor, self.seen.generation.modified());
            ctx.out.push(Output::Raise { election: self.index, at_least, modified });
        }
    }
}
