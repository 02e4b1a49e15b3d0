//! The store has another history than the one that was known: noticed, and begun anew with.

use std::time::Duration;

use super::Core;
use super::event::{ElectionInput, Input, Output, Sign};
use super::evidence::{Evidence, linearizable};
use super::ids::ElectionIndex;
use super::record::Header;
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
    /// Holds a linearizable answer against the ratchet. When history went backwards, everything begins anew, and the answer
    /// itself, which belongs to requests of the lost history, is dropped.
    pub(super) fn fits(&mut self, now: Instant, input: &Input, out: &mut Vec<Output>) -> bool {
        let Some(Evidence { header, generation, logged, aside }) = linearizable(input) else { return true };
        let fits = self.ratchet.header_fits(now, header, logged)
            && generation.is_none_or(|(e, seen)| self.ratchet.generation_fits(now, header, e, seen));
        let same = aside.is_none_or(|(e, cell)| self.contests[e.0].seen.agrees(cell));
        if !fits || !same {
            let sign = if fits { Sign::OtherRecord } else { Sign::WentBack };
            self.begin_anew(now, header, (sign, aside.is_some()), out);
        }
        fits && same
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

#[cfg(test)]
#[path = "two_stores_tests.rs"]
mod two_stores_tests;
