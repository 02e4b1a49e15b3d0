//! The simulation: real cores, a model of etcd, and a plan of faults made from one seed, in virtual time.
//!
//! It checks what transcripts cannot: that no schedule breaks an invariant of the protocol. The same seed gives the same run, to
//! the byte of its trace. A failing seed prints the smallest plan that fails as well. `SIM_SEED` replays a seed, `SIM_PLAN` a plan,
//! and `SIM_MUTANT` breaks a rule (`election::mutant`), to see what comes of it.

mod clients;
mod etcd_side;
mod faults;
mod invariants;
mod mutants;
mod network;
mod node;
mod pinned;
mod plan;
mod run;
mod shrink;
mod stale;
mod stats;
mod text;
mod trace;
mod unaware;
mod world;

use std::ops::Range;
use std::time::Duration;

use mutants::find;
use plan::Plan;
use run::{explain, play, play_seeds};
use rustix::time::{ClockId, clock_gettime};
use stats::Stats;

use crate::election::mutant::switch;

/// Goal: all invariants, under every attack. Method: a plan for each seed, judged at every event.
#[test]
fn no_schedule_breaks_an_invariant() {
    let mutant = std::env::var("SIM_MUTANT").ok().map(|word| find(&word));
    let plan = std::env::var_os("SIM_PLAN").map(|path| std::fs::read_to_string(path).expect("a plan"));
    switch::with(mutant, || match plan {
        Some(text) => replay(&Plan::parse(&text)),
        None => search(seeds(6_000)),
    });
}

fn search(seeds: Range<u64>) {
    let (mut stats, began) = (Stats::default(), busy());
    let failed = play_seeds(seeds, &mut stats);
    let millis = busy().saturating_sub(began).as_millis().max(1);
    println!("{stats}\n{} schedules a minute of one core", u128::from(stats.schedules) * 60_000 / millis);
    if let Some((seed, violation)) = failed {
        panic!("seed {seed}\n{}", explain(&Plan::of(seed), &violation));
    }
}

fn replay(plan: &Plan) {
    let outcome = play(plan, true);
    print!("{}", outcome.trace.unwrap_or_default());
    println!("{}", outcome.stats);
    assert_eq!(outcome.violation, None);
}

/// What this thread has used of its core: others may be at work on the machine.
fn busy() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// `SIM_SEED` replays one seed; `SIM_SEEDS` sets how many are tried.
fn seeds(default: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(default),
    }
}
