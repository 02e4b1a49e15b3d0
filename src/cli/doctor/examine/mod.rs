//! Judging what the doctor found, in the order in which it is known.
//!
//! * `member` one endpoint by itself · `cluster` the endpoints together · `lease` what a daemon does with a lease, and how fast
//! * `machine` rights, ids and clocks

mod cluster;
mod lease;
mod machine;
mod member;
mod records;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use member::{member, not_let_in};

use super::Findings;
use crate::config::Config;

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

/// Collects remarks.
#[derive(Default)]
struct Remarks(Vec<Remark>);

impl Remarks {
    fn say(&mut self, level: Level, text: impl Into<String>) {
        self.0.push(Remark { level, text: text.into() });
    }
}

/// What the members are together: known once each was asked.
#[must_use]
pub fn members(findings: &Findings, config: &Config) -> Vec<Remark> {
    let mut remarks = Remarks::default();
    cluster::quorum(findings, config, &mut remarks);
    cluster::identities(findings, &mut remarks);
    cluster::listed(findings, &mut remarks);
    cluster::versions(findings, config, &mut remarks);
    remarks.0
}

/// Everything that took a lease, time, or rights to find out.
#[must_use]
pub fn rest(findings: &Findings, config: &Config) -> Vec<Remark> {
    let mut remarks = Remarks::default();
    lease::rounds(findings, config, &mut remarks);
    cluster::twice(findings, &mut remarks);
    lease::latency(findings, config, &mut remarks);
    machine::rights(findings, config, &mut remarks);
    records::records(findings, config, &mut remarks);
    machine::namesakes(findings, config, &mut remarks);
    machine::clocks(findings, config, &mut remarks);
    remarks.0
}

fn millis(d: Duration) -> String {
    let micros = d.as_micros();
    format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
}

/// `a`, `a and b`, `a, b and c`.
fn listing(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
