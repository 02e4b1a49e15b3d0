//! The fuzz targets without a fuzzer: over the committed corpora, and over seeded mutations of them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::targets::TARGETS;

/// How long one target's mutations may take. The corpus is run to its end, always.
const BUDGET: Duration = Duration::from_millis(1_500);
/// How many mutations at the most: a fast machine must not find what a slow one has not seen for years.
const MUTATIONS: usize = 3_000;

thread_local! {
    /// Panics on this thread, those included that a server's task keeps to itself.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// The committed inputs of a target, each with its path.
pub fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("a file"));
    paths.into_iter().map(read).collect()
}

/// A few changes such as a fuzzer makes.
fn mutate(rng: &mut Rng, inputs: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    const TOKENS: [&[u8]; 8] = [b"0", b"-1", b"18446744073709551615", b"\0", b"\xff", b"\r\n", b"[", b"${SECRET}"];
    let pick = |rng: &mut Rng| inputs[rng.usize(..inputs.len())].1.clone();
    let mut bytes = pick(rng);
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + rng.usize(..8)).min(bytes.len()))),
            3 => bytes.extend(pick(rng).drain(..).skip(at)),
            _ => drop(bytes.splice(at..at, TOKENS[rng.usize(..TOKENS.len())].iter().copied())),
        }
    }
    bytes
}

fn judge(what: &str, target: fn(&[u8]), input: &[u8]) {
    PANICS.set(0);
    let unwound = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    assert!(!unwound && PANICS.get() == 0, "{what} fails on {:?}", String::from_utf8_lossy(input));
}

fn run(name: &str) {
    static COUNT: Once = Once::new();
    COUNT.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    let target = TARGETS.iter().find(|(target, _)| *target == name).expect("a target").1;
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (path, input) in &inputs {
        judge(&path.display().to_string(), target, input);
    }
    let (began, mut rng) = (Instant::now(), Rng::with_seed(42));
    for n in 0..MUTATIONS {
        if began.elapsed() > BUDGET {
            break;
        }
        judge(&format!("mutation {n} of {name}"), target, &mutate(&mut rng, &inputs));
    }
}

#[test]
fn configurations() {
    run("config");
}

#[test]
fn values_in_etcd() {
    run("etcd_values");
}

#[test]
fn elections() {
    run("election");
}

#[test]
fn headers() {
    run("headers");
}

#[test]
fn raw_http() {
    run("http");
}

/// Goal: no target without a test here, and a corpus that stays small.
#[test]
fn every_target_has_a_small_corpus() {
    let sizes = TARGETS.iter().map(|(name, _)| corpus(name).iter().map(|(_, input)| input.len()).sum::<usize>());
    let sum: usize = sizes.sum();
    assert!(TARGETS.len() == 5 && sum < 200 << 10, "{} targets, {sum} bytes", TARGETS.len());
}
