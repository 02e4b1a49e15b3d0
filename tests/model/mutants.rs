//! Each rule of the safety argument, broken on purpose: a check that lets one pass checks nothing.

use std::time::Instant;

use super::search::{Kinds, Search};
use super::{TWO, full, search, transactions};
use crate::anything::CAUGHT_HERE;
use crate::election::mutant::{Mutant, switch};

/// Searches ever deeper for the faults that the broken rule guards against, since most are caught by a single one.
fn hunt(mutant: Mutant, faults: u8) -> Option<String> {
    let kinds = match mutant {
        Mutant::RewindWithoutWait | Mutant::RaiseWithoutWait => Kinds::Restore,
        Mutant::OwnKeyLossIgnored => Kinds::ByHand,
        _ => Kinds::Nature,
    };
    let from = if mutant == Mutant::GrantFromAnswer { 0 } else { Search::new(TWO, 0, kinds).from };
    (1..=faults).find_map(|faults| {
        let bounds = Search { mutant: Some(mutant), from, ..Search::new(TWO, faults, kinds) };
        let (states, failure) = search(&bounds);
        failure.map(|(property, _)| format!("\"{property}\", {faults} faults, {states} states"))
    })
}

/// What needs more faults than this model has, or a restore that loses less: the simulator catches these.
const LEFT_TO_THE_SIMULATOR: &[Mutant] = &[
    Mutant::GenerationReused,
    Mutant::SupersededIgnored,
    // The model's watches are never stale; it has no grace, one election, and one member that shows an old term.
    Mutant::GraceIgnored,
    Mutant::StaleWatchTrusted,
    Mutant::OneRewindForAll,
    Mutant::DoubtOfAnyMember,
    Mutant::CounterAfterRestore,
    Mutant::WonOnVoidGuard,
    Mutant::GenerationByRevision,
    // A resign or a restart, then a deposed leader of etcd, then an election on the guard that it gave.
    Mutant::EmptyConfirm,
    // Its etcd is one cluster.
    Mutant::ForeignClusterHeeded,
    // The model's slack is more than its drift.
    Mutant::DriftIgnored,
];

/// What needs two faults: hunted by `make model` only.
const TWO_FAULTS: &[Mutant] =
    &[Mutant::DeadlineFromAnswer, Mutant::GrantFromAnswer, Mutant::RewindWithoutWait, Mutant::RaiseWithoutWait];

/// Goal: the checks bite. Method: every mutant is switched on, and must be caught; the quick form tries those that one fault is
/// enough for.
#[test]
fn every_mutant_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut escaped = Vec::new();
    let elsewhere = |m: &Mutant| LEFT_TO_THE_SIMULATOR.contains(m) || CAUGHT_HERE.contains(m);
    let hunted = |m: &Mutant| !elsewhere(m) && (full() || !TWO_FAULTS.contains(m));
    for mutant in Mutant::ALL.into_iter().filter(hunted) {
        let began = Instant::now();
        let caught = if transactions::CAUGHT_HERE.contains(&mutant) {
            switch::with(Some(mutant), transactions::wrong_commit).map(|_| "transactions".to_owned())
        } else {
            hunt(mutant, 1 + u8::from(TWO_FAULTS.contains(&mutant)))
        };
        println!("mutant {mutant:?}: {} in {:.1?}", caught.as_deref().unwrap_or("not caught"), began.elapsed());
        escaped.extend(caught.is_none().then_some(mutant));
    }
    let _ = std::panic::take_hook();
    assert_eq!(escaped, [], "not caught");
}
