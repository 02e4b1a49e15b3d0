//! The simulation against faults that we know of: one that it lets pass would show that it checks nothing.

use super::plan::{Attack, Plan};
use super::run::{play, play_seeds};
use super::shrink::shrink;
use super::stats::Stats;
use crate::anything::CAUGHT_HERE;
use crate::election::mutant::{Mutant, switch};

/// Seeds that each mutant gets; and then as many of those that restore etcd, where the rarest coincidences are.
const SEEDS: u64 = 1_000;
const RESTORES: usize = 8_000;

/// What takes a coincidence that so few seeds do not have: caught by the plan in `pinned` that names it, which is tried there.
const PINNED: [Mutant; 1] = [Mutant::DoubtOfAnyMember];

/// Goal: every rule that the safety argument rests on is checked here. Method: break it, and see.
#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    let here = |mutant: &Mutant| !PINNED.contains(mutant) && !CAUGHT_HERE.contains(mutant);
    for mutant in Mutant::ALL.into_iter().filter(here) {
        let caught = switch::with(Some(mutant), || play_seeds(seeds(), &mut Stats::default()));
        match &caught {
            Some((seed, v)) => println!("{mutant:?}: {} at seed {seed}: {}", v.invariant, v.text),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

fn seeds() -> impl Iterator<Item = u64> {
    let restores = (SEEDS..).filter(|seed| Plan::of(*seed).attack == Attack::Restore);
    (0..SEEDS).chain(restores.take(RESTORES))
}

/// Goal: what a failure prints is small, and still fails. Method: with a fault that needs more than the network.
#[test]
fn a_failing_plan_shrinks_and_still_fails() {
    switch::with(Some(Mutant::GuardByTimer), || {
        let (seed, violation) = play_seeds(0..SEEDS, &mut Stats::default()).expect("caught");
        let whole = Plan::of(seed);
        let small = shrink(&whole, violation.invariant);
        assert_eq!(play(&small, false).violation.map(|v| v.invariant), Some(violation.invariant));
        assert!(small.faults.len() < whole.faults.len() && small.faults.len() <= 3, "{small}");
    });
}

/// A mutant by its name.
pub(super) fn find(word: &str) -> Mutant {
    let named = |mutant: &Mutant| format!("{mutant:?}") == word;
    Mutant::ALL.into_iter().find(named).unwrap_or_else(|| panic!("no mutant {word}"))
}
