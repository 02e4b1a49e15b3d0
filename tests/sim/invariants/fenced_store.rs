//! Invariant 3: a store that refuses tokens below the highest seen accepts writes in generation order, even from clients that
//! stood still and write late, and from writes that were long on their way.
//!
//! Under every attack: accepted writes come in the order in which etcd committed their generations, and no two leaderships
//! share one. Where promises hold (`promises.rs`), a write that arrives within its promise is accepted besides.

use crate::election::ids::{ElectionIndex, Generation};
use crate::sim::node::ELECTIONS;
use crate::sim::world::World;

const NAME: &str = "fenced_store";

/// The store, and what it accepted last.
#[derive(Default)]
pub(in crate::sim) struct State {
    highest: [Generation; ELECTIONS],
    last: [Option<Accepted>; ELECTIONS],
}

#[derive(Clone, Copy)]
struct Accepted {
    token: Generation,
    place: usize,
    /// Which daemon's which leadership.
    by: (usize, u32),
}

/// A write on its way.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Write {
    pub(in crate::sim) n: usize,
    pub(in crate::sim) election: ElectionIndex,
    pub(in crate::sim) token: Generation,
    /// The end of its promise.
    pub(in crate::sim) until: u64,
    /// The promise holds while its clients have not given it up since.
    pub(in crate::sim) given_up: u32,
    pub(in crate::sim) leadership: u32,
}

impl World<'_> {
    /// A write reaches the store.
    pub(in crate::sim) fn write(&mut self, write: Write) {
        let Write { n, election, token, until, given_up, leadership } = write;
        let highest = self.fenced.highest[election.0];
        let accepted = token >= highest;
        self.trace(|| format!("n{n}'s client writes with {token}: {}", if accepted { "accepted" } else { "refused" }));
        let holds = until > self.now && self.nodes[n].held[election.0].given_up == given_up && self.promises_hold(n);
        self.stats.within += u64::from(holds);
        if !accepted {
            self.stats.refused += 1;
            if holds {
                self.fail(NAME, || format!("{token} was refused within its promise: {highest} came before"));
            }
            return;
        }
        self.stats.accepted += 1;
        self.fenced.highest[election.0] = token;
        let Some(place) = self.tokens.order(election, token) else {
            self.fail(NAME, || format!("{token} was accepted, and never committed"));
            return;
        };
        let new = Accepted { token, place, by: (n, leadership) };
        if let Some(last) = self.fenced.last[election.0].replace(new) {
            if last.place > place {
                self.fail(NAME, || format!("{token} was accepted after {}, which came later", last.token));
            } else if last.place == place && last.by != new.by {
                self.fail(NAME, || format!("{token} was accepted of two leaderships: {:?} and {:?}", last.by, new.by));
            }
        }
    }
}
