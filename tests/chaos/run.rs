//! A run from its seed to its report.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::arena::{Arena, Stage};
use super::client::option;
use super::daemons::DAEMONS;
use super::faults::{self, Deck, HEAVY, LIGHT, STALE, round, upgrade};
use super::history::Writer;
use super::net::Net;
use super::place::Place;
use super::sys::{Context, Done, catch_signals};

const MEMBERS: usize = 3;

/// Shares of the time: on 3.5, on 3.6, on 3.7, and on 3.4.
const SHARES: [f64; 4] = [0.15, 0.2, 0.35, 0.3];
/// What two starts, two upgrades and two ends take, in seconds.
const BESIDES: f64 = 33.0;

/// `run --minutes M [--history DIR] [--seed N] [--only KIND,KIND]`: without DIR the history goes with a run that passes.
pub fn main(args: &[String]) -> Done {
    let minutes: f64 = option(args, "--minutes")?.parse().context(|| "--minutes".to_owned())?;
    let seed = match option(args, "--seed") {
        Ok(text) => text.parse().context(|| format!("--seed {text}"))?,
        Err(_) => Rng::new().u64(..),
    };
    let wanted = option(args, "--history").ok().map(PathBuf::from);
    let dir = wanted
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}-{}", std::process::id())));
    let only: Vec<_> = option(args, "--only").unwrap_or_default().split_terminator(',').collect();
    faults::known(&only)?;
    let place = Rc::new(Place::take()?);
    let named = || dir.display().to_string();
    std::fs::create_dir_all(&dir).context(named)?;
    if std::fs::read_dir(&dir).context(named)?.next().is_some() {
        return Err(format!("{} is not empty: a history is of one run", named()));
    }
    println!("SEED={seed} HISTORY={}", named());
    catch_signals()?;
    std::fs::create_dir_all(dir.join("logs")).context(named)?;
    let writer = Writer::create(&dir).context(named)?;
    let stage = Stage { place, writer, dir };
    let done = phases(&stage, seed, minutes, &only);
    if let Err(error) = &done {
        println!("BROKEN OFF: {error}");
    }
    // A run that broke off has its history as well, and that may say why.
    let checked = super::check(&["--history".to_owned(), stage.dir.display().to_string()]);
    done.and(checked)?;
    if wanted.is_none() {
        std::fs::remove_dir_all(&stage.dir).context(|| stage.dir.display().to_string())?;
    }
    Ok(())
}

fn phases(stage: &Stage, seed: u64, minutes: f64, only: &[&str]) -> Done {
    let mut rng = Rng::with_seed(seed);
    let seconds = (minutes * 60.0 - BESIDES).max(0.0);
    let [on_3_5, on_3_6, on_3_7, on_3_4] = SHARES.map(|share| Duration::from_secs_f64(share * seconds));
    let net = Net::build(MEMBERS, DAEMONS)?;
    let (mut light, mut heavy, mut attack) = (Deck::new(LIGHT, only), Deck::new(HEAVY, only), Deck::new(STALE, only));

    let net = epoch(stage, net, rng.fork(), ("one", "3.5"), |arena| {
        rounds(arena, on_3_5, &mut light, None)?;
        upgrade(arena, "3.6")?;
        rounds(arena, on_3_6, &mut light, Some(&mut heavy))?;
        upgrade(arena, "3.7")?;
        rounds(arena, on_3_7, &mut light, Some(&mut heavy))
    })?;
    epoch(stage, net, rng.fork(), ("two", "3.4"), |arena| rounds(arena, on_3_4, &mut light, Some(&mut attack)))?;
    Ok(())
}

/// A new cluster from its start to its end; whatever happens, what it has written down is kept.
fn epoch(
    stage: &Stage,
    net: Net,
    rng: Rng,
    (name, series): (&str, &str),
    body: impl FnOnce(&mut Arena) -> Done,
) -> Done<Net> {
    let mut arena = Arena::start(stage, net, rng, name, series)?;
    if let Err(error) = body(&mut arena) {
        if let Err(second) = arena.keep() {
            eprintln!("not all of the history could be kept: {second}");
        }
        return Err(error);
    }
    arena.finish()
}

/// Rounds for so long; every other one has one of the special kind, if there is one.
fn rounds(arena: &mut Arena, span: Duration, light: &mut Deck, mut special: Option<&mut Deck>) -> Done {
    let end = Instant::now() + span;
    // A short run has few rounds, and they are to see every kind.
    let (low, high) = if span < Duration::from_mins(2) { (3, 4) } else { (1, 3) };
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        let count = arena.rng.usize(low..=high);
        match &mut special {
            Some(deck) if number % 2 == 0 => round(arena, &mut [(deck, 1), (light, count - 1)])?,
            _ => round(arena, &mut [(light, count)])?,
        }
    }
    Ok(())
}
