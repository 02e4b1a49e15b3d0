//! Judging what the doctor found.

use std::fmt;
use std::time::Duration;

use super::version::Version;
use super::{Findings, MemberStatus, Permission};
use crate::config::{Config, duration_text};

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Good to know.
    Note,
    /// It works, with less than it could.
    Warn,
    /// It stands against running like this.
    Bad,
}

impl Level {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Bad => "fail",
        }
    }
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it matters.
    pub level: Level,
    /// What, and what to do about it.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}  {}", self.level.word(), self.text)
    }
}

/// Judges the findings against the configuration; in the order in which they are best read.
#[must_use]
pub fn examine(findings: &Findings, config: &Config) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut say = |level, text: String| remarks.push(Remark { level, text });
    reach(findings, &mut say);
    versions(findings, config, &mut say);
    latency(findings, config, &mut say);
    permissions(findings, &mut say);
    clocks(findings, config, &mut say);
    remarks
}

fn reach(findings: &Findings, say: &mut impl FnMut(Level, String)) {
    let all = findings.members.len();
    let silent = findings.members.iter().filter(|m| m.status.is_err()).count();
    for member in &findings.members {
        match &member.status {
            Ok(status) => say(Level::Good, format!("{} answers{}", member.endpoint, described(status))),
            // A minority may be silent: every request goes to the next member.
            Err(why) if silent * 2 < all => say(Level::Warn, format!("{} does not answer: {why}", member.endpoint)),
            Err(why) => say(Level::Bad, format!("{} does not answer: {why}", member.endpoint)),
        }
        for error in member.status.iter().flat_map(|s| &s.errors) {
            say(Level::Bad, format!("{} complains: {error}", member.endpoint));
        }
    }
    if all == 1 {
        let text = "one endpoint only: name every member, so that the loss of one costs nothing";
        say(Level::Note, text.to_owned());
    }
}

fn described(status: &MemberStatus) -> String {
    let version = status.version.as_ref().map(|v| format!(", etcd {v}")).unwrap_or_default();
    let leads = if status.leader == Some(true) { ", leads etcd" } else { "" };
    format!("{version}{leads}")
}

fn versions(findings: &Findings, config: &Config, say: &mut impl FnMut(Level, String)) {
    let mut known: Vec<Version> = Vec::new();
    for member in &findings.members {
        let Ok(status) = &member.status else { continue };
        match status.version.as_deref().map(Version::parse) {
            Some(Some(version)) if !known.contains(&version) => known.push(version),
            Some(Some(_)) => {}
            Some(None) | None => say(Level::Note, format!("{} does not tell its version", member.endpoint)),
        }
    }
    if known.len() > 1 {
        let all: Vec<String> = known.iter().map(ToString::to_string).collect();
        say(Level::Note, format!("members of different versions ({}): as in an upgrade, not for good", all.join(", ")));
    }
    for version in known {
        judge(version, config, say);
    }
}

fn judge(version: Version, config: &Config, say: &mut impl FnMut(Level, String)) {
    if version.is_ancient() {
        say(Level::Bad, format!("etcd {version} is older than 3.4, which is the oldest that works"));
        return;
    }
    if version.revokes_renewed_leases() {
        let grace = (config.timing.vacancy_grace() < config.timing.promise()).then(|| {
            let promise = duration_text(config.timing.promise());
            format!("; until then session.vacancy_grace: {promise} keeps promises, at that much slower fail-over")
        });
        say(
            Level::Warn,
            format!(
                "etcd {version} may revoke a lease that was renewed just now (etcd issue 15247): upgrade to 3.4.31, 3.5.13 or later{}",
                grace.unwrap_or_default()
            ),
        );
    }
    if version.renews_revoked_leases() {
        let text = "may renew a lease that is being revoked, and lose events of a watch: upgrade to 3.4.38, 3.5.23, 3.6.5 or later";
        say(Level::Warn, format!("etcd {version} {text}"));
    }
    match version.better() {
        Some(better) => say(Level::Note, format!("etcd {version}: {better} or later is recommended")),
        None => say(Level::Good, format!("etcd {version} is recent")),
    }
}

fn latency(findings: &Findings, config: &Config, say: &mut impl FnMut(Level, String)) {
    let mut took: Vec<Duration> = findings.reads.iter().filter_map(|r| r.as_ref().ok().copied()).collect();
    if let Some(why) = findings.reads.iter().find_map(|r| r.as_ref().err()) {
        let failed = findings.reads.len() - took.len();
        let level = if took.is_empty() { Level::Bad } else { Level::Warn };
        say(level, format!("{failed} of {} linearizable reads failed: {why}", findings.reads.len()));
    }
    took.sort();
    let (Some(longest), Some(median)) = (took.last(), took.get(took.len() / 2)) else { return };
    let limit = config.timing.try_limit();
    let level = match () {
        () if *median >= limit => Level::Bad,
        () if *longest >= limit => Level::Warn,
        () => Level::Good,
    };
    let advice = if level == Level::Good { "" } else { "; a longer session.ttl or a faster etcd disk" };
    say(
        level,
        format!(
            "linearizable reads take {} (median) to {} (longest of {}); one try may take {} with this ttl{advice}",
            millis(*median),
            millis(*longest),
            took.len(),
            duration_text(limit),
        ),
    );
}

fn millis(d: Duration) -> String {
    let micros = d.as_micros();
    format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
}

fn permissions(findings: &Findings, say: &mut impl FnMut(Level, String)) {
    for (election, permission) in &findings.permissions {
        match permission {
            Permission::Granted => {
                say(Level::Good, format!("the keys of {election} may be read and written"));
            }
            Permission::Denied(why) => {
                say(Level::Bad, format!("the keys of {election} may not be used: {why}"));
            }
            Permission::Unknown(why) => {
                say(Level::Note, format!("whether the keys of {election} may be used is unknown: {why}"));
            }
        }
    }
}

fn clocks(findings: &Findings, config: &Config, say: &mut impl FnMut(Level, String)) {
    let moved = Duration::from_millis(findings.clocks.moved_ms.unsigned_abs());
    let watched = findings.clocks.watched;
    if watched.is_zero() {
        return;
    }
    // A millisecond is what the wall clock resolves here: less than two prove nothing.
    let ppm = if moved.as_millis() < 2 { 0 } else { moved.as_micros() * 1_000_000 / watched.as_micros().max(1) };
    let text =
        format!("the wall clock moved {} against the boot clock in {}", duration_text(moved), duration_text(watched));
    if moved > config.timing.slack() {
        say(
            Level::Bad,
            format!("{text}: a jump, and each one ends a leadership; slew the clock instead of stepping it"),
        );
    } else if ppm > u128::from(config.timing.spec().drift_ppm) {
        say(Level::Warn, format!("{text}: faster than session.drift allows for"));
    } else {
        say(Level::Good, format!("{text}: steady"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Clocks, Member};
    use super::*;
    use crate::config::{self, Env, Overrides};

    fn config() -> Config {
        let env = Env::from_iter([("HOSTNAME", "pod-0"), ("TENURE_ELECTIONS", "orders")]);
        config::load(None, &Overrides { env, ..Overrides::default() }).expect("defaults").0
    }

    fn member(version: &str) -> Member {
        let status = MemberStatus { version: Some(version.to_owned()), leader: Some(false), errors: Vec::new() };
        Member { endpoint: format!("http://{version}:2379"), status: Ok(status) }
    }

    fn dead(name: &str) -> Member {
        Member { endpoint: name.to_owned(), status: Err("no answer".to_owned()) }
    }

    fn worst(findings: &Findings) -> Level {
        examine(findings, &config()).into_iter().map(|r| r.level).max().expect("remarks")
    }

    #[test]
    fn a_recent_and_fast_etcd_is_all_good() {
        let members = ["3.6.14", "3.6.14", "3.6.15"].map(member).to_vec();
        let reads = vec![Ok(Duration::from_millis(2)); 20];
        let permissions = vec![("orders".to_owned(), Permission::Granted)];
        let clocks = Clocks { watched: Duration::from_secs(2), moved_ms: -1 };
        let findings = Findings { members, reads, permissions, clocks };
        assert!(worst(&findings) <= Level::Note, "{:?}", examine(&findings, &config()));
    }

    #[test]
    fn a_silent_minority_is_a_warning_and_a_silent_majority_is_not_one() {
        let findings = |members: Vec<Member>| Findings { members, ..Findings::default() };
        assert_eq!(worst(&findings(vec![member("3.6.14"), member("3.6.14"), dead("c")])), Level::Warn);
        assert_eq!(worst(&findings(vec![member("3.6.14"), dead("b"), dead("c")])), Level::Bad);
        assert_eq!(worst(&findings(vec![dead("a")])), Level::Bad);
    }

    #[test]
    fn the_lease_bug_comes_with_the_setting_that_keeps_promises() {
        let remarks = examine(&Findings { members: vec![member("3.5.1")], ..Findings::default() }, &config());
        let bug = remarks.iter().find(|r| r.text.contains("15247")).expect("the bug is named");
        assert!(bug.level == Level::Warn && bug.text.contains("session.vacancy_grace: 1s"), "{bug}");
    }

    #[test]
    fn slow_reads_denied_keys_alarms_and_a_jumping_clock_stand_out() {
        let only = |change: fn(&mut Findings)| {
            let mut findings = Findings { members: vec![member("3.6.14")], ..Findings::default() };
            change(&mut findings);
            worst(&findings)
        };
        assert_eq!(only(|f| f.reads = vec![Ok(Duration::from_secs(1)); 3]), Level::Bad);
        assert_eq!(
            only(|f| f.reads = vec![Ok(Duration::ZERO), Ok(Duration::ZERO), Ok(Duration::from_secs(1))]),
            Level::Warn
        );
        assert_eq!(only(|f| f.reads = vec![Ok(Duration::ZERO), Err("x".to_owned())]), Level::Warn);
        assert_eq!(only(|f| f.permissions = vec![("a".to_owned(), Permission::Denied("no".to_owned()))]), Level::Bad);
        assert_eq!(only(|f| f.clocks = Clocks { watched: Duration::from_secs(2), moved_ms: -300 }), Level::Bad);
        assert_eq!(only(|f| f.clocks = Clocks { watched: Duration::from_secs(2), moved_ms: 100 }), Level::Warn);
        let alarm = |m: &mut Findings| {
            m.members[0].status.as_mut().expect("up").errors.push("NOSPACE".to_owned());
        };
        assert_eq!(only(alarm), Level::Bad);
    }
}
