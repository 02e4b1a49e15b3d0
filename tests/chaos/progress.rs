//! Invariant 5, as it shows from outside: once the faults of a round have ended, somebody leads within the promised bound plus
//! what these faults take by themselves (`faults/takes.rs`).
//!
//! The clock starts when all faults have ended and a quorum of etcd answers linearizable reads. A leader that is lost again before
//! the next fault does not count, but the one after it.

use std::time::Duration;

use serde::Serialize;

use super::check::claims;
use super::history::{Fault, Healed, Phase};
use super::read::Epoch;
use super::takes::{PAUSE_LASTS, START, bound};

/// Half a TTL. Questions come every few tens of milliseconds: so long without an answer of a leader, and there was none.
const GAP: Duration = Duration::from_secs(1);

/// How one round ended.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub election: String,
    /// Its faults, and what takes time of its own.
    pub faults: Vec<String>,
    pub causes: Vec<String>,
    pub bound_ms: u64,
    /// Until there was a leader that stayed; where there was none, until the next fault or the end of the history.
    pub took_ms: u64,
    pub led: bool,
}

impl Recovery {
    pub const fn late(&self) -> bool {
        self.took_ms > self.bound_ms
    }

    /// The part of its bound that it took.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run are far below 2^52")]
    pub fn ratio(&self) -> f64 {
        self.took_ms as f64 / self.bound_ms as f64
    }
}

/// Each end of faults in an epoch.
///
/// # Errors
/// When nobody has said what one of these faults takes.
pub fn recoveries(epoch: &Epoch, election: &str) -> Result<Vec<Recovery>, String> {
    let mut healed: Vec<&Healed> = epoch.healed.iter().collect();
    healed.sort_by_key(|h| h.at);
    let end = epoch.asks.iter().map(|a| a.heard).max().unwrap_or(epoch.at);
    let mut after = epoch.at;
    let mut all = Vec::new();
    for healed in healed {
        let begun = |f: &&Fault| f.phase == Phase::Begin;
        let faults = epoch.faults.iter().filter(begun).filter(|f| f.at >= after && f.at < healed.at);
        let first = faults.clone().map(|f| f.at).min().unwrap_or(healed.at);
        let since = |f: &Fault| Duration::from_nanos(healed.at - end_of(epoch, f).min(healed.at));
        let mut kinds: Vec<_> = faults.map(|f| (f.kind.as_str(), since(f))).collect();
        // The first has no faults before it: daemons that begin.
        kinds.extend((after == epoch.at).then_some((START, Duration::ZERO)));
        let tried = epoch.faults.iter().filter(|f| f.at < first && f.at + nanos(PAUSE_LASTS) >= first);
        let tried: Vec<_> = tried.map(|f| f.kind.as_str()).collect();
        let (bound, causes) = bound(&kinds, &tried, Duration::from_millis(healed.grace_ms))?;
        let next = epoch.faults.iter().filter(begun).map(|f| f.at).filter(|at| *at > healed.at).min();
        let (took, led) = leader_after(epoch, election, healed.at, next.unwrap_or(end));
        after = healed.at;
        // A history that ends, or whose next fault comes, before it was time says nothing.
        if led || took > nanos(bound) {
            let mut faults: Vec<_> = kinds.iter().map(|(kind, _)| (*kind).to_owned()).collect();
            faults.sort_unstable();
            let causes = causes.iter().map(|cause| format!("{cause:?}")).collect();
            let (bound_ms, took_ms) = (nanos(bound) / 1_000_000, took / 1_000_000);
            all.push(Recovery { election: election.to_owned(), faults, causes, bound_ms, took_ms, led });
        }
    }
    Ok(all)
}

/// When a fault ended; where that is not recorded, never.
fn end_of(epoch: &Epoch, begin: &Fault) -> u64 {
    let same = |f: &&Fault| f.phase == Phase::End && (&f.kind, &f.target) == (&begin.kind, &begin.target);
    epoch.faults.iter().filter(same).map(|f| f.at).filter(|at| *at >= begin.at).min().unwrap_or(u64::MAX)
}

/// How long after `from` there was a leader that stayed until `end`, and whether there was one at all.
fn leader_after(epoch: &Epoch, election: &str, from: u64, end: u64) -> (u64, bool) {
    let mut heard: Vec<u64> = claims(epoch, election).iter().filter(|c| c.sent >= from).map(|c| c.heard).collect();
    heard.sort_unstable();
    let inside = heard.partition_point(|at| *at <= end);
    let mut took = None;
    let mut last = from;
    for at in &heard[..inside] {
        if took.is_none() || at - last >= nanos(GAP) {
            took = Some(at - from);
        }
        last = *at;
    }
    match took.filter(|_| end.saturating_sub(last) < nanos(GAP)) {
        Some(took) => (took, true),
        None => (end.saturating_sub(from), false),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("seconds")
}
