//! Explicit-state model checking of the real core, with `stateright`: `make model`.
//!
//! Two or three daemons run `src/election` as it is against a model of etcd (`tests/prove/etcd.rs`). What is in flight arrives at
//! once and in order, unless a fault strikes: a message held for as long as the search likes, lost, answered in vain or copied; a
//! daemon stopped, frozen with its clocks, crashed, cut off; etcd's leader deposed, with the old one still answering keep-alives;
//! etcd restored or wiped; elections paused; resigning and draining. The search is exhaustive: **every** place at which a fault
//! may strike, every choice of so many faults, and every moment at which each may end, until a horizon past which all is well.
//!
//! Why that is enough of time: without faults a session is periodic (a renewal each TTL/5), so a first fault in the first period
//! stands for all later ones, and the horizon leaves room for a lease to expire and for another leader to be deposed.
//!
//! Daemons start one after the other and their clocks differ, so no two runs are the same but for names: the symmetry that a
//! checker would have to reduce is not there.

mod daemon;
mod mutants;
mod search;
mod transactions;
mod world;

use std::time::Instant;

use search::{Action, Kinds, Search};
use stateright::{Checker, HasDiscoveries, Model};

/// Two daemons, the one that leads first on the slower clock, and the other way round: together at the drift bound.
const TWO: &[&[i64]] = &[&[-4_900, 4_900], &[4_900, -4_900]];
const THREE: &[&[i64]] = &[&[-4_900, 4_900, 0]];

/// Searches to the end, or to the first failure.
fn search(search: &Search) -> (usize, Option<Failure>) {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = search.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_dfs().join();
    let failure = checker.discoveries().into_iter().next().map(|(property, path)| (property, path.into_actions()));
    (checker.unique_state_count(), failure)
}

/// A broken property, and the way there.
type Failure = (&'static str, Vec<Action>);

fn holds(name: &str, bounds: &Search) {
    let began = Instant::now();
    let (states, failure) = search(bounds);
    println!("model: {name}, at most {} faults: {states} states in {:.1?}", bounds.faults, began.elapsed());
    if let Some((property, actions)) = failure {
        panic!("{name}: \"{property}\" is broken\n{}", bounds.tell(&actions).join("\n"));
    }
}

/// The depth of the search: `make model` sets MODEL=full.
fn full() -> bool {
    std::env::var("MODEL").is_ok_and(|model| model == "full")
}

/// Goal: every invariant, whatever nature, network and application do. Method: exhaustive search.
#[test]
fn nothing_breaks_an_invariant_between_two_daemons() {
    holds("two daemons, nature", &Search::new(TWO, if full() { 2 } else { 1 }, Kinds::Nature));
}

/// Goal: the same from the very start, when both daemons ask for their first lease. Method: exhaustive search.
#[test]
fn nothing_breaks_an_invariant_while_they_start() {
    let bounds = Search::new(TWO, if full() { 2 } else { 1 }, Kinds::Nature);
    holds("two daemons from their start", &bounds.while_starting());
}

/// Goal: the same among three, where a successor is chosen. Method: exhaustive search.
#[test]
fn nothing_breaks_an_invariant_among_three_daemons() {
    holds("three daemons, nature", &Search::new(THREE, 1, Kinds::Nature));
}

/// Goal: one leader and growing tokens across restores of etcd. Method: exhaustive search.
#[test]
fn a_restored_or_wiped_etcd_makes_no_second_leader_and_repeats_no_token() {
    holds("two daemons, restores", &Search::new(TWO, if full() { 2 } else { 1 }, Kinds::Restore));
}

/// Goal: tokens grow and somebody leads again, whatever is deleted or revoked by hand. Method: exhaustive search.
#[test]
fn keys_deleted_and_leases_revoked_by_hand_repeat_no_token() {
    holds("two daemons, by hand", &Search::new(TWO, if full() { 2 } else { 1 }, Kinds::ByHand));
}

/// Goal: the search is of something. Method: without faults one leads and the other waits; with one, leadership moves.
#[test]
fn leadership_moves_in_the_model() {
    let still = Search::new(TWO, 0, Kinds::Nature);
    let worlds = still.init_states();
    assert!(worlds.iter().all(|w| w.daemons[0].leads(w.now).is_some() && w.daemons[1].leads(w.now).is_none()));
    let moved = Search::new(TWO, 2, Kinds::Nature);
    let mut world = moved.next_state(&moved.init_states()[0], Action::Resign(0)).expect("a state");
    for _ in 0..60 {
        assert!(world.daemons[0].leads(world.now).is_none(), "it resigned");
        if world.daemons[1].leads(world.now).is_some() {
            return;
        }
        world = moved.next_state(&world, Action::Go).expect("a state");
    }
    panic!("nobody took over");
}
