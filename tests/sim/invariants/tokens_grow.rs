//! Invariant 2: in commit order generations strictly increase; a token is never issued twice, and led with once, by whom etcd
//! names.
//!
//! Holds under every attack. After a restore only because every daemon remembers: "a fresh daemon cannot know", so a plan
//! neither restores what a daemon does not know nor lets one forget what etcd has lost. A transaction of the lost history that
//! comes late, and finds everything as its sender did, cannot be told from a new one: it may mint its token once more, and then
//! nobody leads with that. That tokens are also *led with* in their
//! order holds where no leadership ends before its guard: whoever was deposed by hand may hear late that it had won.

use crate::edge::{Known, Request};
use crate::election::event::Output;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::{Cell, GenerationRecord};
use crate::sim::node::ELECTIONS;
use crate::sim::plan::Attack;
use crate::sim::world::World;

const NAME: &str = "tokens_grow";

/// Every generation that etcd ever committed, over all histories.
#[derive(Default)]
pub(in crate::sim) struct State {
    committed: [Vec<Commit>; ELECTIONS],
    last_led: [Generation; ELECTIONS],
    /// The record that was there before nonsense took its place.
    aside: [Option<GenerationRecord>; ELECTIONS],
}

struct Commit {
    generation: Generation,
    /// Whom it names.
    holder: Option<usize>,
    led: bool,
}

impl State {
    /// The highest generation ever.
    pub(in crate::sim) fn highest(&self, election: ElectionIndex) -> Generation {
        self.committed[election.0].last().map_or(Generation(0), |c| c.generation)
    }

    /// The place of a token in commit order.
    pub(in crate::sim) fn order(&self, election: ElectionIndex, token: Generation) -> Option<usize> {
        self.committed[election.0].iter().rposition(|c| c.generation == token)
    }

    pub(in crate::sim) fn put_aside(&mut self, election: ElectionIndex, record: GenerationRecord) {
        self.aside[election.0] = Some(record);
    }

    pub(in crate::sim) fn take_back(&mut self, election: ElectionIndex) -> Option<GenerationRecord> {
        self.aside[election.0].take()
    }

    fn commit(&mut self, election: ElectionIndex, record: &GenerationRecord) {
        let holder = record.holder.as_ref().and_then(|h| h.id.parse().ok());
        self.committed[election.0].push(Commit { generation: record.generation, holder, led: false });
    }
}

impl World<'_> {
    /// Whether a request that was sent before etcd lost history finds the very value that its sender saw.
    pub(in crate::sim) fn replays(&self, request: &Request) -> bool {
        let (Output::Elect { election, .. } | Output::HandOver { election, .. } | Output::Raise { election, .. }) =
            &request.output
        else {
            return false;
        };
        let election = *election;
        let present = self.store.keys(election).generation.value().map(Known::of);
        request.known == present
    }

    /// A daemon's transaction wrote a generation. `right` says whether its holder might be elected, `replayed` whether it is one
    /// of a lost history that found everything as its sender did.
    pub(in crate::sim) fn committed(
        &mut self,
        election: ElectionIndex,
        cell: &Cell<GenerationRecord>,
        (right, replayed): (bool, bool),
    ) {
        let Some(record) = cell.value() else { return };
        let (generation, highest) = (record.generation, self.tokens.highest(election));
        // A raise issues no token. Two histories may be raised to the same floor, each above all that anybody led with.
        let floor = record.holder.is_none() && generation == highest;
        if generation <= highest && replayed {
            // It is not noted here: were it led with, `leads_with` would tell.
            return;
        }
        if generation <= highest && !floor {
            self.fail(NAME, || format!("{generation} was committed after {highest}"));
        }
        if !right {
            self.wrongly_elected(election);
        }
        if !floor {
            self.tokens.commit(election, record);
        }
        self.recorded(election, record);
    }

    /// Somebody wrote under the generation key by hand: a floor, if it is higher.
    pub(in crate::sim) fn raised_by_hand(&mut self, election: ElectionIndex, cell: &Cell<GenerationRecord>) {
        if let Some(record) = cell.value().filter(|r| r.generation > self.tokens.highest(election)) {
            self.tokens.commit(election, record);
        }
    }

    /// Daemon `n` says that it leads with this token.
    pub(in crate::sim) fn leads_with(&mut self, n: usize, election: ElectionIndex, token: Generation) {
        let Some(place) = self.tokens.order(election, token) else {
            self.fail(NAME, || format!("n{n} leads with {token}, which etcd never committed"));
            return;
        };
        let commit = &mut self.tokens.committed[election.0][place];
        let again = std::mem::replace(&mut commit.led, true);
        let holder = commit.holder;
        if again {
            self.fail(NAME, || format!("n{n} leads with {token}, which was led with before"));
        }
        if holder != Some(n) {
            self.fail(NAME, || format!("n{n} leads with {token}, which names {holder:?}"));
        }
        let last = std::mem::replace(&mut self.tokens.last_led[election.0], token);
        let aware = self.nodes[n].unaware.is_none();
        if token < last && aware && matches!(self.plan.attack, Attack::Quiet | Attack::Faults) {
            self.fail(NAME, || format!("n{n} leads with {token} after {last}"));
        }
    }
}
