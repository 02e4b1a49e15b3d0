//! The rules that a history must keep: the invariants of the protocol, as far as they show from outside.
//!
//! Two things may end a leadership before its guard, and with it its promises: a key that is deleted, and a lease that is
//! revoked, behind the daemons' backs ("Out of band" in the protocol). Within a TTL and a guard of such a fault, rules 1 and 2
//! do not count against the daemon that it hit. A restore of etcd is no such excuse: a daemon that remembers more than etcd holds waits a TTL before it
//! queues, so that a leader of the lost history has passed its guard by then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::history::{Apply, Ask, Fault, Outcome, Phase, Register};
use super::progress::{Recovery, recoveries};
use super::read::{Epoch, read};
use super::takes::TTL;

/// Faults that take a leader's key or lease away behind its back. The target is its id; empty where that is not known.
const OUT_OF_BAND: &[&str] = &["key-deleted", "lease-revoked"];

/// The fault that takes etcd back to a snapshot. It begins before the history of what will be lost is dumped.
const RESTORE: &str = "restore";

/// Of one rule in one election; more say nothing new.
const SHOWN: usize = 10;

/// A rule that was broken, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub rule: Rule,
    pub epoch: String,
    pub election: String,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// 1: no answer claims leadership to a question that was sent after a newer leader was heard of.
    OneLeader,
    /// 1: one token, one daemon.
    OneHolder,
    /// 2: nobody leads while an older promise lasts.
    PromisesKept,
    /// 3: tokens strictly grow, each issued once, in etcd's records and in every daemon's audit.
    TokensGrow,
    /// 4: a fenced register never goes back.
    FenceHolds,
    /// 5: what a fenced set acknowledged stays in it.
    NothingLostFromTheSet,
    /// 5: somebody leads within the promised bound and what the faults of the round take by themselves.
    Progress,
    /// 6: every leadership has its record in etcd. Not judged where that could not be read at the end.
    NothingLost,
}

/// Checks the history in `dir`.
///
/// # Errors
/// When it cannot be read whole.
pub fn check(dir: &Path) -> Result<(Vec<Epoch>, Vec<Violation>), String> {
    let epochs = read(dir)?;
    let violations = epochs.iter().flat_map(violations).collect();
    Ok((epochs, violations))
}

fn violations(epoch: &Epoch) -> Vec<Violation> {
    let mut found = Vec::new();
    for election in epoch.elections() {
        let mut view = View { epoch, election: &election, found: BTreeMap::new() };
        view.one_leader();
        view.one_holder();
        view.promises_kept();
        view.records_grow();
        view.audits_grow();
        view.registers();
        view.progress();
        view.nothing_lost();
        for (rule, mut whats) in view.found {
            let more = whats.len().saturating_sub(SHOWN);
            whats.truncate(SHOWN);
            whats.extend((more > 0).then(|| format!("and {more} more")));
            let name = (&epoch.name, &election);
            let violation = |what| Violation { rule, epoch: name.0.clone(), election: name.1.clone(), what };
            found.extend(whats.into_iter().map(violation));
        }
    }
    found
}

/// One election in one epoch.
struct View<'a> {
    epoch: &'a Epoch,
    election: &'a str,
    found: BTreeMap<Rule, Vec<String>>,
}

/// An answer that claims leadership.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub daemon: &'a str,
    pub token: u64,
    pub sent: u64,
    pub heard: u64,
    pub until: Option<u64>,
    leader: Option<&'a str>,
}

/// The claims of an election, in the order of their questions.
pub fn claims<'a>(epoch: &'a Epoch, election: &str) -> Vec<Claim<'a>> {
    let asks = epoch.asks.iter().filter(|a| a.election == election);
    let claim = |ask: &'a Ask| {
        let token = ask.claim()?;
        let leader = ask.leader.as_deref();
        Some(Claim {
            daemon: &ask.daemon,
            token,
            sent: ask.sent,
            heard: ask.heard,
            until: ask.promised_until(),
            leader,
        })
    };
    let mut claims: Vec<_> = asks.filter_map(claim).collect();
    claims.sort_by_key(|c| c.sent);
    claims
}

impl View<'_> {
    fn broken(&mut self, rule: Rule, what: String) {
        self.found.entry(rule).or_default().push(what);
    }

    fn all_broken(&mut self, rule: Rule, whats: Vec<String>) {
        for what in whats {
            self.broken(rule, what);
        }
    }

    /// Whether the leadership of `daemon` may have ended before its guard at `at`.
    fn excused(&self, daemon: &str, at: u64) -> bool {
        // A leader that does not hear of it goes on until its guard, which is less than a TTL; the successor may lead at once.
        let after = 2 * u64::try_from(TTL.as_nanos()).expect("seconds");
        let mut windows = self.windows(OUT_OF_BAND).filter(|(fault, _)| [daemon, ""].contains(&fault.target.as_str()));
        windows.any(|(fault, end)| at >= fault.at && at <= end.saturating_add(after))
    }

    /// The beginning of each such fault, and when it ended; never where that was not recorded.
    fn windows(&self, kinds: &[&str]) -> impl Iterator<Item = (&Fault, u64)> {
        let faults = self.epoch.faults.iter().filter(|f| kinds.contains(&f.kind.as_str()));
        faults.clone().filter(|f| f.phase == Phase::Begin).map(move |begin| {
            let same = |f: &&Fault| (&f.kind, &f.target) == (&begin.kind, &begin.target);
            let ends = faults.clone().filter(|f| f.phase == Phase::End && f.at >= begin.at);
            (begin, ends.filter(same).map(|f| f.at).min().unwrap_or(u64::MAX))
        })
    }

    fn one_leader(&mut self) {
        let by_question = claims(self.epoch, self.election);
        let mut by_answer = by_question.clone();
        by_answer.sort_by_key(|c| c.heard);
        let (mut newest, mut next): (Option<Claim>, usize) = (None, 0);
        for claim in by_question {
            while let Some(heard) = by_answer.get(next).filter(|c| c.heard < claim.sent) {
                newest = newest.filter(|n| n.token >= heard.token).or(Some(*heard));
                next += 1;
            }
            if let Some(newer) = newest.filter(|n| n.token > claim.token && !self.excused(claim.daemon, claim.sent)) {
                self.broken(Rule::OneLeader, format!("{claim:?} was asked for after {newer:?} was heard"));
            }
        }
    }

    /// By what daemons answer, by their audits and by etcd's records.
    fn one_holder(&mut self) {
        let mut holders: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        let mut wrong = Vec::new();
        for claim in claims(self.epoch, self.election) {
            holders.entry(claim.token).or_default().insert(claim.daemon);
            if claim.leader.is_some_and(|leader| leader != claim.daemon) {
                wrong.push(format!("{claim:?}: it says that it leads, and that another does"));
            }
        }
        for (daemon, transition) in self.elected() {
            let of = holders.entry(transition.new_generation).or_default();
            of.insert(daemon);
            of.insert(&transition.id);
        }
        for record in self.epoch.dumps.iter().flatten().filter(|r| r.election == self.election) {
            holders.entry(record.number).or_default().extend(record.holder.as_deref());
        }
        let several = holders.into_iter().filter(|(_, of)| of.len() > 1);
        wrong.extend(several.map(|(token, of)| format!("token {token} has more than one holder: {of:?}")));
        self.all_broken(Rule::OneHolder, wrong);
    }

    fn promises_kept(&mut self) {
        let (mut first, mut last): (BTreeMap<u64, Claim>, BTreeMap<u64, Claim>) = (BTreeMap::new(), BTreeMap::new());
        for claim in claims(self.epoch, self.election) {
            let earliest = first.entry(claim.token).or_insert(claim);
            if claim.heard < earliest.heard {
                *earliest = claim;
            }
            let latest = last.entry(claim.token).or_insert(claim);
            if claim.until > latest.until {
                *latest = claim;
            }
        }
        let mut longest: Option<Claim> = None;
        for (token, earliest) in first {
            if let Some(older) =
                longest.filter(|l| l.until > Some(earliest.heard) && !self.excused(l.daemon, earliest.heard))
            {
                self.broken(Rule::PromisesKept, format!("{earliest:?} while this promise lasted: {older:?}"));
            }
            let latest = last[&token];
            longest = longest.filter(|l| l.until >= latest.until).or(Some(latest));
        }
    }

    /// In etcd's records: keys in the order of their generations are in the order of their commits, and written once.
    fn records_grow(&mut self) {
        let mut wrong = Vec::new();
        let mut held = BTreeMap::new();
        for dump in &self.epoch.dumps {
            let mut records: Vec<_> = dump.iter().filter(|r| r.election == self.election).collect();
            records.sort_by_key(|r| r.number);
            for pair in records.windows(2) {
                if pair[0].number >= pair[1].number || pair[0].created >= pair[1].created {
                    wrong.push(format!("{:?} is not after {:?}", pair[1], pair[0]));
                }
            }
            for record in records {
                if record.version != 1 || record.number != record.says {
                    wrong.push(format!("{record:?} was overwritten, or lies under a key that is not its own"));
                }
                // A restore loses records and raises the generation to what was lost: that record has no holder.
                if record.holder.is_none() {
                    continue;
                }
                let other =
                    held.insert(record.number, record).filter(|o| (&o.holder, &o.key) != (&record.holder, &record.key));
                if let Some(other) = other {
                    wrong.push(format!("issued twice: {record:?} and {other:?}"));
                }
            }
        }
        self.all_broken(Rule::TokensGrow, wrong);
    }

    fn audits_grow(&mut self) {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (daemon, transition) in self.elected() {
            let before = last.insert(daemon, transition.new_generation);
            if before.is_some_and(|before| before >= transition.new_generation) {
                wrong.push(format!("{transition:?} of {daemon} after generation {before:?}"));
            }
        }
        self.all_broken(Rule::TokensGrow, wrong);
    }

    /// Every taking of the role of leader in the audits, in each daemon's order.
    fn elected(&self) -> Vec<(&'_ str, &'_ super::read::Transition)> {
        let lines =
            self.epoch.audits.iter().flat_map(|(daemon, lines)| lines.iter().map(move |l| (daemon.as_str(), l)));
        lines.filter(|(_, l)| l.election == self.election && l.to == "leader").collect()
    }

    fn registers(&mut self) {
        for order in &self.epoch.applied {
            let mut cells: BTreeMap<Register, Vec<&Apply>> = BTreeMap::new();
            for apply in order.iter().filter(|a| a.election == self.election) {
                cells.entry(apply.register).or_default().push(apply);
            }
            for (register, applied) in cells.into_iter().filter(|(register, _)| register.has_fence()) {
                self.fence_holds(&applied);
                if register == Register::FencedSet {
                    self.nothing_lost_from_the_set(&applied);
                }
            }
        }
    }

    fn fence_holds(&mut self, applied: &[&Apply]) {
        let mut highest = 0;
        for apply in applied {
            if apply.highest_before != highest {
                self.broken(Rule::FenceHolds, format!("{apply:?}: by its own record the highest was {highest}"));
            }
            if apply.accepted && apply.token < highest {
                self.broken(Rule::FenceHolds, format!("{apply:?} was accepted after {highest}"));
            }
            highest = highest.max(if apply.accepted { apply.token } else { 0 });
        }
    }

    fn nothing_lost_from_the_set(&mut self, applied: &[&Apply]) {
        let held = contents(applied);
        let acknowledged = self.epoch.writes.iter().filter(|w| w.election == self.election);
        let lost: Vec<_> = acknowledged
            .filter(|w| w.register == Register::FencedSet && w.outcome == Outcome::Accepted)
            .filter(|w| w.element.as_ref().is_none_or(|e| !held.contains(e.as_str())))
            .map(|w| format!("{w:?} was acknowledged and is not in the set"))
            .collect();
        self.all_broken(Rule::NothingLostFromTheSet, lost);
    }

    fn progress(&mut self) {
        let recoveries = match recoveries(self.epoch, self.election) {
            Ok(recoveries) => recoveries,
            Err(unknown) => return self.broken(Rule::Progress, unknown),
        };
        for late in recoveries.into_iter().filter(Recovery::late) {
            let Recovery { took_ms, bound_ms, faults, .. } = &late;
            let what = if late.led { "a leader that stayed came after" } else { "nobody led for" };
            let faults = faults.join(", ");
            self.broken(Rule::Progress, format!("{what} {took_ms} ms, and {bound_ms} ms are allowed after {faults}"));
        }
    }

    /// Every token that an answer or an audit names has its record.
    fn nothing_lost(&mut self) {
        // What nobody could read is not known to be missing.
        if self.epoch.unread {
            return;
        }
        let records = self.epoch.dumps.iter().flatten().filter(|r| r.election == self.election);
        let recorded: BTreeSet<u64> = records.map(|r| r.number).collect();
        let mut first_heard: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        first_heard.extend(self.elected().iter().map(|(_, t)| (t.new_generation, None)));
        for claim in claims(self.epoch, self.election) {
            let first = first_heard.entry(claim.token).or_default();
            *first = Some(first.map_or(claim.heard, |f| f.min(claim.heard)));
        }
        let restores: Vec<_> = self.windows(&[RESTORE]).map(|(fault, end)| (fault.at, end)).collect();
        for (token, heard) in first_heard {
            // Minted between the dump and the end of the old etcd: the restore took the record, as it must.
            let taken = restores.iter().any(|(begin, end)| heard.is_none_or(|heard| heard >= *begin && heard <= *end));
            if !recorded.contains(&token) && !taken {
                self.broken(Rule::NothingLost, format!("generation {token} led, and etcd has no record of it"));
            }
        }
    }
}

/// What a register holds in the end.
pub fn contents<'a>(applied: &[&'a Apply]) -> BTreeSet<&'a str> {
    let mut held = BTreeSet::new();
    for apply in applied.iter().filter(|a| a.accepted) {
        held.extend(apply.added.iter().map(String::as_str));
        apply.dropped.iter().for_each(|e| _ = held.remove(e.as_str()));
    }
    held
}
