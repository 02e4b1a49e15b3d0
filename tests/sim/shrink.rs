//! Makes a failing plan smaller while it goes on failing in the same way.

use super::plan::{Fault, LEADER, Net, Plan};
use super::run::play;

/// Bounds the work: about a second.
const MOST_RUNS: u32 = 1_500;

struct Shrinker {
    best: Plan,
    invariant: &'static str,
    runs: u32,
}

/// The smallest plan found that violates the same invariant.
pub(super) fn shrink(plan: &Plan, invariant: &'static str) -> Plan {
    let mut shrinker = Shrinker { best: plan.clone(), invariant, runs: 0 };
    loop {
        let before = shrinker.best.clone();
        shrinker.drop_faults();
        shrinker.settings();
        shrinker.times();
        if shrinker.best == before || shrinker.runs >= MOST_RUNS {
            return shrinker.best;
        }
    }
}

impl Shrinker {
    /// Takes the change over, if what comes of it still fails.
    fn try_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        if plan == self.best || self.runs >= MOST_RUNS {
            return false;
        }
        self.runs += 1;
        let fails = play(&plan, false).violation.is_some_and(|v| v.invariant == self.invariant);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Delta debugging: drops ever smaller runs of faults.
    fn drop_faults(&mut self) {
        let mut size = self.best.faults.len();
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let to = (from + size).min(self.best.faults.len());
                if !self.try_with(|plan| drop(plan.faults.drain(from..to))) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn settings(&mut self) {
        self.try_with(|plan| plan.net = Net::default());
        self.try_with(|plan| plan.net.slow = 0);
        self.try_with(|plan| plan.net.lost = 0);
        self.try_with(|plan| plan.net.late = 0);
        self.try_with(|plan| plan.net.broken = 0);
        self.try_with(|plan| plan.net.silent = 0);
        self.try_with(|plan| plan.grace = 0);
        self.try_with(|plan| plan.by_revision = false);
        self.try_with(|plan| plan.elections = 1);
        self.try_with(|plan| plan.rates.fill(0));
        self.try_with(|plan| plan.clients.fill(0));
        while self.best.daemons > 1 && self.try_with(Plan::drop_daemon) {}
        let ended = u32::try_from(play(&self.best, false).ended).unwrap_or(u32::MAX);
        self.try_with(|plan| plan.storm = plan.storm.min(ended + 1));
    }

    /// Round times, and short spans.
    fn times(&mut self) {
        for i in 0..self.best.faults.len() {
            self.try_fault(i, |fault| fault.arg = 0);
            self.try_fault(i, |fault| fault.election = 0);
            for unit in [1_000, 100, 10] {
                self.try_fault(i, |fault| fault.at -= fault.at % unit);
                self.try_fault(i, |fault| fault.span -= fault.span % unit);
            }
            while self.best.faults[i].span > 100 && self.try_fault(i, |fault| fault.span /= 2) {}
        }
    }

    fn try_fault(&mut self, i: usize, change: impl FnOnce(&mut Fault)) -> bool {
        self.try_with(|plan| change(&mut plan.faults[i]))
    }
}

impl Plan {
    fn drop_daemon(&mut self) {
        self.daemons -= 1;
        self.rates.pop();
        self.clients.pop();
        let gone = u8::try_from(self.daemons).unwrap_or(LEADER);
        self.faults.retain(|fault| fault.node != gone);
    }
}
