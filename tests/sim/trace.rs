//! The same seed gives the same run.

use super::plan::Plan;
use super::run::play;

const SEEDS: u64 = 60;

/// Goal: the trace of a seed is the same to the byte, and noting it changes nothing. Method: both ways, and compare.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..SEEDS {
        let plan = Plan::of(seed);
        let (first, second, untraced) = (play(&plan, true), play(&plan, true), play(&plan, false));
        assert!(first.trace.is_some() && first.trace == second.trace, "seed {seed}");
        assert_eq!((first.stats, first.ended), (untraced.stats, untraced.ended), "seed {seed}");
    }
}

/// Goal: the same in another process: no address, no hash of one run, no time of day is in it. Method: ask a child.
#[test]
fn another_process_traces_the_same() {
    let child = std::process::Command::new(std::env::current_exe().expect("this very binary"))
        .args(["--exact", "sim::trace::print_the_fingerprint", "--nocapture"])
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&child.stdout);
    let expected = format!("fingerprint {:016x}", fingerprint());
    assert!(text.contains(&expected), "expected {expected} in: {text}");
}

#[test]
fn print_the_fingerprint() {
    println!("fingerprint {:016x}", fingerprint());
}

/// FNV-1a over the traces of a few seeds.
fn fingerprint() -> u64 {
    let traces = (0..10).map(|seed| play(&Plan::of(seed), true).trace.unwrap_or_default());
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    traces.fold(0xcbf2_9ce4_8422_2325, |hash, trace| trace.bytes().fold(hash, step))
}
