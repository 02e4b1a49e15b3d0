//! `tenure doctor`: does etcd, and does this machine, suit the configuration?
//!
//! `gather` asks, [`examine`] judges what was found; the two meet in [`Findings`], so that judging is tested without etcd.

mod examine;
mod gather;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

pub use examine::{Level, Remark, examine};

use super::exit::{Exit, Failure};
use super::output::{Format, say};
use super::target::config_file;
use crate::config::{self, Env, Overrides};

/// Flags of `doctor`.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", help = "The configuration [default: $TENURE_CONFIG]")]
    config: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Every configured endpoint.
    pub members: Vec<Member>,
    /// Linearizable reads one after the other: how long each took, or why it failed.
    pub reads: Vec<Result<Duration, String>>,
    /// For each election whether all that the protocol needs may be read and written.
    pub permissions: Vec<(String, Permission)>,
    /// The clocks of this machine.
    pub clocks: Clocks,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As configured.
    pub endpoint: String,
    /// What it says of itself, or why it says nothing.
    pub status: Result<MemberStatus, String>,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Such as `3.5.33`; `None` where it would not say (some versions tell root only).
    pub version: Option<String>,
    /// Whether it leads etcd; `None` where it would not say.
    pub leader: Option<bool>,
    /// Alarms and other complaints.
    pub errors: Vec<String>,
}

/// Whether an election's keys may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Yes.
    Granted,
    /// No: what etcd said.
    Denied(String),
    /// Could not be found out.
    Unknown(String),
}

/// The clocks of this machine, watched for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// For how long.
    pub watched: Duration,
    /// By how much the wall clock moved against the boot clock meanwhile.
    pub moved_ms: i64,
}

/// Asks and judges. Exit code 0 where nothing stands against running, 1 where something does, 5 where etcd does not answer.
pub(super) async fn doctor(args: DoctorArgs, format: Format) -> Result<Exit, Failure> {
    let env = Env::of_process();
    let file = config_file(args.config.as_deref(), &env);
    let loaded = config::load(file.as_deref(), &Overrides { env, ..Overrides::default() });
    let (config, warnings) = loaded.map_err(|report| Failure::new(Exit::Config, report.to_string()))?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    let findings = gather::gather(&config).await?;
    let remarks = examine(&findings, &config);
    let text: Vec<String> = remarks.iter().map(ToString::to_string).collect();
    let values: Vec<_> = remarks.iter().map(|r| json!({"level": r.level.word(), "text": r.text})).collect();
    format.print(&text.join("\n"), &json!({"remarks": values}))?;
    Ok(verdict(&findings, &remarks))
}

fn verdict(findings: &Findings, remarks: &[Remark]) -> Exit {
    if findings.members.iter().all(|m| m.status.is_err()) {
        return Exit::Unavailable;
    }
    if remarks.iter().any(|r| r.level == Level::Bad) { Exit::Failed } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_tells_a_silent_etcd_from_a_bad_one() {
        let member =
            |status| Findings { members: vec![Member { endpoint: String::new(), status }], ..Findings::default() };
        let bad = [Remark { level: Level::Bad, text: String::new() }];
        assert_eq!(verdict(&member(Err(String::new())), &bad), Exit::Unavailable);
        assert_eq!(verdict(&member(Ok(MemberStatus::default())), &bad), Exit::Failed);
        assert_eq!(verdict(&member(Ok(MemberStatus::default())), &[]), Exit::Done);
    }
}
