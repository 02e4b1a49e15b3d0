//! Plays plans: one, or one for each of many seeds; and says what failed so that it can be played again.

use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::invariants::Violation;
use super::plan::Plan;
use super::shrink::shrink;
use super::stats::Stats;
use super::world::{Outcome, World};

/// What a panic of the core counts as: its asserts are its contract.
pub(super) const ASSERTION: &str = "the core's own asserts";
/// How much of a trace a failure shows.
const TAIL: usize = 60;

thread_local! { static QUIET: Cell<bool> = const { Cell::new(false) }; }

/// Plays a plan. A panic is a violation as any other, and is not printed.
pub(super) fn play(plan: &Plan, traced: bool) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                default(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| World::play(plan, traced)));
    QUIET.set(false);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        let violation = Some(Violation { invariant: ASSERTION, text });
        Outcome { violation, stats: Stats::default(), trace: None, ended: u64::from(plan.storm) }
    })
}

/// Plays the plans of these seeds. Returns the first violation with its seed.
pub(super) fn play_seeds(mut seeds: impl Iterator<Item = u64>, stats: &mut Stats) -> Option<(u64, Violation)> {
    seeds.find_map(|seed| {
        let outcome = play(&Plan::of(seed), false);
        *stats += &outcome.stats;
        outcome.violation.map(|violation| (seed, violation))
    })
}

/// A failure in full: the smallest plan that shows it, and the end of its trace.
pub(super) fn explain(plan: &Plan, violation: &Violation) -> String {
    let smaller = shrink(plan, violation.invariant);
    let outcome = play(&smaller, true);
    let Violation { invariant, text } = outcome.violation.unwrap_or_else(|| violation.clone());
    let trace = outcome.trace.unwrap_or_default();
    let lines: Vec<_> = trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let mut report = String::new();
    let _ = write!(
        report,
        "{tail}\n\n{invariant}: {text}\n(in full: {})\nSIM_SEED={} replays it whole; this is what is left of it, for SIM_PLAN=file or tests/sim/pinned:\n\n{smaller}",
        violation.text, plan.seed
    );
    report
}
