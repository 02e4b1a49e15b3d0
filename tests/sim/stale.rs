//! A watch that is served by a member which answers, and applies nothing (its disk is frozen); and what the edge does about it
//! (`src/etcd/progress.rs`): it holds what the stream shows against what linearizable answers showed, and the second probe that is
//! behind moves the stream to another member.

use super::world::{Due, World};
use crate::edge::nanos;
use crate::election::event::Input;
use crate::election::mutant::{self, Mutant};
use crate::reads::header_of;

impl World<'_> {
    /// The watch of daemon `n` goes stale.
    pub(super) fn become_stale(&mut self, n: usize, until: u64) {
        let revision = self.store.revision;
        let node = &mut self.nodes[n];
        if node.trouble.stale <= self.now {
            (node.stale_at, node.behind) = (revision, None);
        }
        node.trouble.stale = node.trouble.stale.max(until);
        let until = node.trouble.stale;
        self.at(until, Due::CatchUp(n));
    }

    /// The member applies again: the watch tells all that it has not told yet.
    pub(super) fn catch_up(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let over = node.trouble.stale > 0 && (node.trouble.stale <= self.now || self.calm);
        if !over {
            return;
        }
        node.trouble.stale = 0;
        let from = node.stale_at;
        let missed: Vec<_> = self.history.iter().filter(|e| e.revision.0 > from).cloned().collect();
        for event in missed {
            if self.nodes[n].watches(&event) {
                self.deliver(n, &event);
            }
        }
    }

    /// How long the edge lets a stream be behind before it asks, and asks again.
    pub(super) fn lag(&self) -> u64 {
        nanos(self.timing.try_limit())
    }

    /// Daemon `n` hears something: does it show that its watch is behind?
    pub(super) fn is_it_behind(&mut self, n: usize, input: &Input) {
        let node = &mut self.nodes[n];
        if node.trouble.stale <= self.now || node.behind.is_some() {
            return;
        }
        if header_of(&mut input.clone()).is_some_and(|header| header.revision.0 > node.stale_at) {
            node.behind = Some(0);
            let (at, run) = (self.now + self.lag(), self.nodes[n].run);
            self.at(at, Due::Probe(n, run));
        }
    }

    /// A probe of the stream is answered: the second one that is behind moves it.
    pub(super) fn probe(&mut self, n: usize, run: u32) {
        let node = &mut self.nodes[n];
        if node.run != run || node.trouble.stale <= self.now || mutant::on(Mutant::StaleWatchTrusted) {
            return;
        }
        let Some(strikes) = node.behind else { return };
        if strikes == 0 {
            node.behind = Some(1);
            let at = self.now + self.lag();
            self.at(at, Due::Probe(n, run));
        } else {
            (node.trouble.stale, node.behind) = (0, None);
            self.break_watches(n);
        }
    }
}
