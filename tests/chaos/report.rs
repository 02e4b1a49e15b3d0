//! What a run came to, for people (Markdown) and for programs (JSON).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::check::{Violation, claims, contents};
use super::history::{Apply, Fault, Outcome, Phase, Register};
use super::progress::{Recovery, recoveries};
use super::read::Epoch;

/// Pollers ask every few tens of milliseconds; on a busy machine some answers take longer. A gap between two answers of
/// leaders that is longer than this is a time without a leader.
const GAP_MS: u64 = 250;

/// A run as long as this must have seen stale writes: five minutes, but for what starting takes.
const TAME: Duration = Duration::from_secs(270);

/// Clocks of progress that are shown, those nearest to their bounds.
const SHOWN: usize = 12;

/// How the end of a fault begins in which etcd renewed a lease that had expired.
pub const ANSWERED: &str = "answered";

/// The figures of a run.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub seconds: u64,
    pub epochs: Vec<String>,
    pub rounds: u64,
    /// By kind.
    pub faults: BTreeMap<String, usize>,
    pub answers: usize,
    pub leaderships: usize,
    /// Share of time in which the pollers saw a leader.
    pub availability: f64,
    /// From the last answer of a leader to the first of the next, in milliseconds.
    pub fail_over_ms: Percentiles,
    /// Times without a leader, the same one after it or another, in milliseconds.
    pub leaderless_ms: Percentiles,
    /// Writes with a token below the highest: refused by the registers with a fence, taken by those without.
    pub stale_refused: usize,
    pub stale_taken: usize,
    /// Keep-alives for leases that had expired: attacks in which etcd went on answering them.
    pub stale_keep_alives: usize,
    /// Acknowledged adds to the sets, and how many of these are not in them.
    pub adds: usize,
    pub adds_lost: usize,
    pub adds_without_fence: usize,
    pub adds_without_fence_lost: usize,
    /// What each clock of progress showed, the one nearest to its bound first.
    pub recoveries: Vec<Recovery>,
    /// Epochs whose records in etcd could not be read at the end, so that nothing is known to be lost or not.
    pub unread: Vec<String>,
    /// Why this run proves nothing, if so.
    pub too_tame: Option<String>,
    pub violations: Vec<Violation>,
}

#[derive(Debug, Default, Serialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl Percentiles {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
        Self { count: values.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// What pollers saw, in milliseconds.
#[derive(Default)]
struct Seen {
    fail_overs: Vec<u64>,
    gaps: Vec<u64>,
    total: u64,
    leaderships: usize,
}

impl Summary {
    /// Counts a history that was checked.
    pub fn of(epochs: &[Epoch], violations: Vec<Violation>) -> Self {
        let mut summary = Self { violations, ..Self::default() };
        let mut seen = Seen::default();
        for epoch in epochs {
            summary.epochs.push(epoch.name.clone());
            summary.rounds += epoch.rounds;
            summary.answers += epoch.asks.iter().filter(|a| a.status != 0).count();
            let last = epoch.asks.iter().map(|a| a.heard).max().unwrap_or(epoch.at);
            summary.seconds += (last - epoch.at) / 1_000_000_000;
            // What could not be begun is in the history, in case that it had an effect, but does not count.
            let begun = |f: &&Fault| f.phase == Phase::Begin && !f.detail.starts_with("failed: ");
            for fault in epoch.faults.iter().filter(begun) {
                *summary.faults.entry(fault.kind.clone()).or_default() += 1;
            }
            let answered = |f: &&Fault| f.phase == Phase::End && f.detail.starts_with(ANSWERED);
            summary.stale_keep_alives += epoch.faults.iter().filter(answered).count();
            summary.count_writes(epoch);
            summary.unread.extend(epoch.unread.then(|| epoch.name.clone()));
            for election in epoch.elections() {
                seen.look(epoch, &election);
                // A fault without a figure is a violation already.
                summary.recoveries.extend(recoveries(epoch, &election).unwrap_or_default());
            }
        }
        summary.recoveries.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
        let leaderless: u64 = seen.gaps.iter().sum();
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run are far below 2^52")]
        let share = leaderless as f64 / seen.total.max(1) as f64;
        summary.availability = 1.0 - share;
        summary.leaderships = seen.leaderships;
        summary.fail_over_ms = Percentiles::of(seen.fail_overs);
        summary.leaderless_ms = Percentiles::of(seen.gaps);
        summary.too_tame = summary.tame();
        summary
    }

    /// Whether the run passed.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.too_tame.is_none()
    }

    fn tame(&self) -> Option<String> {
        let long = self.seconds >= TAME.as_secs();
        let tame = [
            (self.leaderships == 0, "nobody ever led"),
            (long && self.stale_refused == 0, "the fence had nothing stale to refuse"),
            (long && self.stale_taken == 0, "the register without a fence took nothing stale"),
            (long && self.stale_keep_alives == 0, "no etcd renewed a lease that had expired"),
        ];
        tame.into_iter().find(|(is, _)| *is).map(|(_, why)| why.to_owned())
    }

    fn count_writes(&mut self, epoch: &Epoch) {
        for order in &epoch.applied {
            let stale = order.iter().filter(|a| a.write && a.token < a.highest_before);
            let (fenced, unfenced): (Vec<_>, Vec<_>) = stale.partition(|a| a.register.has_fence());
            self.stale_refused += fenced.iter().filter(|a| !a.accepted).count();
            self.stale_taken += unfenced.len();
        }
        (self.adds, self.adds_lost) = sum((self.adds, self.adds_lost), adds(epoch, Register::FencedSet));
        (self.adds_without_fence, self.adds_without_fence_lost) =
            sum((self.adds_without_fence, self.adds_without_fence_lost), adds(epoch, Register::UnfencedSet));
    }

    /// Prints it, and leaves it in the directory of the history.
    pub fn print(&self, dir: &Path) -> std::io::Result<()> {
        let text = self.markdown();
        print!("{text}");
        if !self.passed() {
            println!("the history is kept: {}", dir.display());
        }
        std::fs::write(dir.join("report.md"), text)?;
        std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)? + "\n")
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Chaos\n\n| what | |\n|---|---|\n");
        let mut row = |what: &str, value: String| _ = writeln!(text, "| {what} | {value} |");
        row("time", format!("{} min {} s in {}", self.seconds / 60, self.seconds % 60, self.epochs.join(", ")));
        row("rounds", self.rounds.to_string());
        row("answers of daemons", self.answers.to_string());
        row("leaderships", self.leaderships.to_string());
        row("time with a leader", format!("{:.1} %", self.availability * 100.0));
        row("fail-over, from the last answer of one leader to the first of the next", self.fail_over_ms.row());
        row(&format!("times without a leader, over {GAP_MS} ms"), self.leaderless_ms.row());
        row("stale writes that the fence refused", self.stale_refused.to_string());
        row("stale writes that the same store took without a fence", self.stale_taken.to_string());
        row("attacks in which etcd renewed a lease that had expired", self.stale_keep_alives.to_string());
        row("acknowledged adds to the fenced set, and lost of these", format!("{}, {}", self.adds, self.adds_lost));
        let without = format!("{}, {}", self.adds_without_fence, self.adds_without_fence_lost);
        row("the same without a fence", without);
        let slowest = self.recoveries.iter().max_by_key(|r| r.took_ms);
        let row_of = |r: Option<&Recovery>| r.map_or_else(|| "none".to_owned(), Recovery::row);
        row("times by which a leader was due", self.recoveries.len().to_string());
        row("of these the one nearest to its bound", row_of(self.recoveries.first()));
        row("of these the slowest", row_of(slowest));
        row("violations", self.violations.len().to_string());
        text += "\n| fault | times |\n|---|---|\n";
        for (kind, times) in &self.faults {
            _ = writeln!(text, "| {kind} | {times} |");
        }
        text += "\n| faults | what takes time of its own | allowed | until a leader | ratio |\n|---|---|---|---|---|\n";
        for r in self.recoveries.iter().take(SHOWN) {
            let (faults, causes) = (r.faults.join(", "), r.causes.join(", "));
            let (bound, took) = (r.bound_ms, r.took_ms);
            _ = writeln!(text, "| {faults} | {causes} | {bound} ms | {took} ms | {:.2} |", r.ratio());
        }
        text.push('\n');
        for epoch in &self.unread {
            _ = writeln!(text, "* NOT JUDGED: what etcd has records of in {epoch}, since they could not be read");
        }
        for v in &self.violations {
            _ = writeln!(text, "* VIOLATION {:?} in {} of {}: {}", v.rule, v.election, v.epoch, v.what);
        }
        if let Some(why) = &self.too_tame {
            _ = writeln!(text, "* FAILED: the attack is too tame: {why}");
        }
        text
    }
}

impl Recovery {
    fn row(&self) -> String {
        let Self { bound_ms, took_ms, faults, .. } = self;
        format!("{took_ms} ms of {bound_ms} ms ({:.2}): {}", self.ratio(), faults.join(", "))
    }
}

impl Percentiles {
    fn row(&self) -> String {
        let Self { count, p50, p90, p99, max } = self;
        format!("{count}: p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms")
    }
}

impl Seen {
    /// Goes from answer to answer of leaders. One that was long on its way says nothing about when it arrived.
    fn look(&mut self, epoch: &Epoch, election: &str) {
        let all = claims(epoch, election);
        self.leaderships += all.iter().map(|c| c.token).collect::<BTreeSet<_>>().len();
        let mut prompt: Vec<_> = all.iter().filter(|c| c.heard - c.sent < GAP_MS * 1_000_000).collect();
        prompt.sort_by_key(|c| c.heard);
        for pair in prompt.windows(2) {
            let between = (pair[1].heard - pair[0].heard) / 1_000_000;
            if pair[1].token != pair[0].token {
                self.fail_overs.push(between);
            }
            if between >= GAP_MS {
                self.gaps.push(between);
            }
        }
        if let (Some(first), Some(last)) = (prompt.first(), prompt.last()) {
            self.total += (last.heard - first.heard) / 1_000_000;
        }
    }
}

/// Acknowledged adds to a set, and how many of these it does not hold in the end.
fn adds(epoch: &Epoch, register: Register) -> (usize, usize) {
    let mut counts = (0, 0);
    for election in epoch.elections() {
        let applied = epoch.applied.iter().flatten();
        let applied: Vec<&Apply> = applied.filter(|a| a.register == register && a.election == election).collect();
        let held = contents(&applied);
        let added = epoch.writes.iter().filter(|w| w.election == election && w.register == register);
        for element in added.filter(|w| w.outcome == Outcome::Accepted).filter_map(|w| w.element.as_deref()) {
            counts = sum(counts, (1, usize::from(!held.contains(element))));
        }
    }
    counts
}

const fn sum(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}
