//! Invariant 5, as it shows from outside: once the faults of a round have ended, somebody leads within the promised bound plus
//! what these faults take by themselves (`faults/takes.rs`).
//!
//! A clock starts when all faults have ended and a quorum of etcd answers linearizable reads. Another starts with every fault that
//! begins or ends while etcd is well and some daemon is, as it must be with faults of daemons alone; it runs until the next begins
//! that may end a leadership.
//! A leader that is lost again meanwhile does not count, but the one after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::check::claims;
use super::history::{Fault, Phase};
use super::read::Epoch;
use super::takes::{Ends, PAUSE_LASTS, START, Takes, bound, takes};

/// Half a TTL. Questions come every few tens of milliseconds: so long without an answer of a leader, and there was none.
const GAP: Duration = Duration::from_secs(1);

/// What one clock showed.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub election: String,
    /// The faults whose end may still be felt, and what takes time of its own.
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

/// A fault in its time.
struct Span<'a> {
    kind: &'a str,
    takes: Takes,
    from: u64,
    /// All of it is done.
    in_force: u64,
    end: u64,
}

/// Each clock of an epoch, and what it showed.
///
/// # Errors
/// When nobody has said what one of these faults takes.
pub fn recoveries(epoch: &Epoch, election: &str) -> Result<Vec<Recovery>, String> {
    let healed: BTreeMap<u64, u64> = epoch.healed.iter().map(|h| (h.at, h.grace_ms)).collect();
    let Some((&start, &grace_ms)) = healed.first_key_value() else { return Ok(Vec::new()) };
    let grace = Duration::from_millis(grace_ms);
    let begun = epoch.faults.iter().filter(|f| f.phase == Phase::Begin);
    let mut spans: Vec<Span> = begun.map(|f| span(epoch, f)).collect::<Result<_, _>>()?;
    spans.push(Span { kind: START, takes: takes(START)?, from: epoch.at, in_force: start, end: start });
    let last = epoch.asks.iter().map(|a| a.heard).max().unwrap_or(epoch.at);
    let changes = spans.iter().flat_map(|s| [s.in_force, s.end]).filter(|at| *at > start);
    let held = |at: &u64| spans.iter().any(|s| s.from <= *at && *at < s.end);
    let promised = |at: &u64| spans.iter().all(|s| s.takes.promised || s.from > *at || *at >= s.end);
    let clocks: BTreeSet<u64> = changes.filter(held).chain(healed.keys().copied()).filter(promised).collect();
    let mut all = Vec::new();
    for at in clocks {
        // What faults of an earlier round take may reach into this one.
        let since = |s: &Span| Duration::from_nanos(at.saturating_sub(s.end));
        let of = spans.iter().filter(|s| s.in_force <= at && since(s) <= s.takes.all(grace));
        let kinds: Vec<_> = of.map(|s| (s.kind, since(s))).collect();
        if kinds.is_empty() {
            continue;
        }
        let after = healed.range(..at).next_back().map_or(start, |(at, _)| *at);
        let first = spans.iter().map(|s| s.from).filter(|from| *from >= after).min().unwrap_or(at).min(at);
        let lasts = nanos(PAUSE_LASTS);
        let tried = spans.iter().filter(|s| s.from < first && s.end.min(first) + lasts >= first);
        let tried: Vec<_> = tried.map(|s| s.kind).collect();
        let (bound, causes) = bound(&kinds, &tried, grace)?;
        // What ends sets nobody back, while the clock runs.
        let next = spans.iter().filter(|s| s.takes.ends > Ends::Nothing && s.from > at).map(|s| s.from).min();
        let (took, led) = leader_after(epoch, election, (at, next.unwrap_or(last).min(last)), nanos(bound));
        // A history that ends, or has its next fault, before it was time says nothing.
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

/// A fault that has begun; one whose end is not recorded lasts.
fn span<'a>(epoch: &Epoch, begin: &'a Fault) -> Result<Span<'a>, String> {
    let kind = begin.kind.as_str();
    let same = |f: &&Fault| f.phase == Phase::End && (&f.kind, &f.target) == (&begin.kind, &begin.target);
    let end = epoch.faults.iter().filter(same).map(|f| f.at).filter(|at| *at >= begin.at).min().unwrap_or(u64::MAX);
    Ok(Span { kind, takes: takes(kind)?, from: begin.at, in_force: begin.by.max(begin.at).min(end), end })
}

/// How long after `from` there was a leader that stayed until `end`, and whether there was one at all. One that was lost later
/// than `bound` was not lost to what began this clock.
fn leader_after(epoch: &Epoch, election: &str, (from, end): (u64, u64), bound: u64) -> (u64, bool) {
    let claims = claims(epoch, election);
    let mut heard: Vec<u64> = claims.iter().filter(|c| c.sent >= from && c.heard <= end).map(|c| c.heard).collect();
    heard.sort_unstable();
    let (mut took, mut last) = (None, from);
    for at in heard {
        let gap = took.is_none() || at - last >= nanos(GAP) && last - from <= bound;
        took = if gap { Some(at - from) } else { took };
        last = at;
    }
    let stays = end.saturating_sub(last) < nanos(GAP) || last - from > bound;
    took.filter(|_| stays).map_or((end.saturating_sub(from), false), |took| (took, true))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("seconds")
}
