//! How everything begins anew when history went backwards: all of etcd's, or that of one election alone.

use std::time::Duration;

use super::Core;
use super::contest::{Contest, Context, Looking, State};
use super::event::{ElectionInput, Input, Output, Round, Sign};
use super::evidence::{Evidence, linearizable};
use super::ids::{ElectionIndex, Revision};
use super::leaving::{Leaving, Release};
use super::mutant::{self, Mutant};
use super::record::Header;
use super::role::Reason;
use super::seen::Seen;
use crate::clock::Instant;

/// For how many TTLs nobody queues where unrelated servers answered in turn.
const DIVIDED_TTLS: u32 = 10;

/// How an answer came matters no more, once it fits.
pub(super) fn plain(input: Input) -> Input {
    match input {
        Input::Election(election, ElectionInput::LookedAside { round, view }) => {
            Input::Election(election, ElectionInput::Looked { round, view })
        }
        other => other,
    }
}

impl Core {
    /// Holds a linearizable answer against the ratchet. When history went backwards, what it concerns begins anew, and the answer
    /// itself, which belongs to requests of the lost history, is dropped.
    pub(super) fn fits(&mut self, now: Instant, input: &Input, out: &mut Vec<Output>) -> bool {
        let Some(Evidence { header, generation, logged, aside }) = linearizable(input) else { return true };
        // When a new connection last showed that this election went back.
        let before = aside.and_then(|(e, _)| self.contests[e.0].went_back_at);
        let fits = self.ratchet.header_fits(now, header, logged);
        if !fits || aside.is_some_and(|(e, cell)| !self.contests[e.0].seen.agrees(cell)) {
            let sign = if fits { Sign::OtherRecord } else { Sign::WentBack };
            self.rewound_at = self.rewound_at.max(before);
            self.begin_anew(now, header, (sign, aside.is_some()), out);
            return false;
        }
        let Some((election, seen)) = generation else { return true };
        if self.ratchet.generation_fits(now, header, election, seen) {
            return true;
        }
        // What new connections show of one election twice within a TTL is no lost key: unrelated servers answer in turn.
        self.contests[election.0].went_back_at = aside.map(|_| now);
        if before.is_some_and(|before| now.since(before) <= self.timing.ttl()) {
            self.rewound_at = self.rewound_at.max(before);
        } else if !mutant::on(Mutant::OneRewindForAll) {
            let remembered = self.ratchet.floor(election);
            self.ratchet.election_begins_anew(now, election);
            self.contest(now, election, out, Contest::generation_went_back);
            out.push(Output::ElectionRewound(election, remembered, seen));
            return false;
        }
        self.begin_anew(now, header, (Sign::WentBack, aside.is_some()), out);
        false
    }

    /// The store has another history than before, which begins with this answer. Where that happens twice within a TTL, and a new
    /// connection shows it, unrelated servers answer in turn, and this daemon stays out of the queues until they have stopped
    /// for ten.
    pub(super) fn begin_anew(
        &mut self,
        now: Instant,
        first: &Header,
        (sign, aside): (Sign, bool),
        out: &mut Vec<Output>,
    ) {
        let remembered = self.ratchet.high_water();
        self.ratchet.begin_anew(now, first);
        let lost_ttl = self.session.alive().map_or(Duration::ZERO, |a| a.ttl);
        let ttl = lost_ttl.max(self.timing.ttl());
        let again = self.rewound_at.replace(now).is_some_and(|before| aside && now.since(before) <= ttl);
        self.session.abandon(self.stopping.is_some());
        for i in 0..self.contests.len() {
            let wait = if again { ttl * DIVIDED_TTLS } else { ttl };
            self.contest(now, ElectionIndex(i), out, |c, ctx| c.begin_anew(ctx, wait));
        }
        out.push(Output::Publish);
        out.push(Output::Rewound { remembered, seen: *first, sign, again });
    }
}

impl Contest {
    /// History was rewound: nothing that was known holds. Stays out of the queue for so long, one TTL at least, as etcd granted
    /// it, so that a leader of the lost history has passed its guard.
    pub(super) fn begin_anew(&mut self, ctx: &mut Context<'_>, wait: Duration) {
        self.session_ended(ctx, Reason::HistoryRewound);
        self.forget(ctx, wait);
        self.raising = false;
    }

    /// The generation of this election went back, and the rest of etcd did not. Whoever led with the lost one may go on until its
    /// guard: we keep out of the queue for one TTL, and lead no more. What we promised runs out first; a place in the queue goes.
    pub(super) fn generation_went_back(&mut self, ctx: &mut Context<'_>) {
        let reason = Reason::HistoryRewound;
        match &self.state {
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                self.step_down(ctx, key, generation, reason, Release::WhenSafe);
            }
            State::Waiting { key, .. } => {
                let leaving = Leaving::withdrawal(key.clone(), ctx.now);
                self.become_(ctx, State::Leaving(leaving), reason);
            }
            // Where the key is there by the time of an answer, a look finds it.
            State::Queuing { .. } => self.state = State::Out,
            State::Observing | State::Out | State::Leaving(_) => {}
        }
        self.forget(ctx, ctx.ttl);
    }

    /// Nothing that was known of etcd holds any more. Keeps out of the queue for so long, one TTL at least.
    fn forget(&mut self, ctx: &mut Context<'_>, wait: Duration) {
        self.seen = Seen::default();
        let round = Round(self.look.round.0 + 1);
        self.look = Looking { round, asked: false, full: true, next_at: ctx.now, paced: true };
        self.watch_from = None;
        let wait = if mutant::on(Mutant::RewindWithoutWait) { Duration::ZERO } else { wait.max(ctx.timing.ttl()) };
        self.queue_at = self.queue_at.max(ctx.now + wait);
        self.raised = (Revision(0), ctx.now);
        ctx.out.push(Output::Publish);
    }
}

#[cfg(test)]
#[path = "two_stores_tests.rs"]
mod two_stores_tests;
