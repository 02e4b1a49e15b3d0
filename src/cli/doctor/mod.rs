//! `tenure doctor`: does etcd, and does this machine, suit the configuration?
//!
//! `gather` asks, `examine` judges what was found; the two meet in [`Findings`], so that judging is tested without etcd.
//! Remarks are printed as they are known.

mod examine;
mod found;
mod gather;
mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use examine::{Level, Remark};
pub use found::{Clocks, Failed, Findings, Member, Namesake, Rights};

use super::exit::{Exit, Failure};
use super::output::{Format, line, say};
use super::target::config_file;
use crate::clock;
use crate::config::{self, Config, Env, Overrides};
use crate::etcd::{Etcd, Identity, Leases, Telemetry};

/// A certificate that ends within this time is told of.
const SOON: Duration = Duration::from_hours(14 * 24);
/// The most that connecting to a member may take here, and the handshake of TLS once more, whatever is configured.
const CONNECT: Duration = Duration::from_millis(1_500);
/// The same for one request.
const REQUEST: Duration = Duration::from_millis(1_500);
/// For giving back what a round that failed has left.
const CLEAN: Duration = Duration::from_secs(2);

/// More than 32 endpoints and 64 elections can give rise to.
const REMARKS: usize = 4_096;

/// Flags of `doctor`.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", help = "The configuration [default: $TENURE_CONFIG]")]
    config: Option<PathBuf>,
}

/// Asks and judges, within ten seconds whatever is dead. Exit code 0 where nothing stands against running, 1 where something
/// does, 3 for a configuration or certificates of no use, 5 where etcd does not serve.
pub(super) async fn doctor(args: DoctorArgs, format: Format) -> Result<Exit, Failure> {
    let env = Env::of_process();
    let file = config_file(args.config.as_deref(), &env);
    let loaded = config::load(file.as_deref(), &Overrides { env, ..Overrides::default() });
    let (config, warnings) = loaded.map_err(|report| Failure::new(Exit::Config, report.to_string()))?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    let etcd = connect(&config)?;
    let leases = Leases::default();
    let mut report = Report { format, remarks: Vec::new() };
    let visited = tokio::select! {
        findings = visit(&config, file.as_deref(), &etcd, &leases, &mut report) => Some(findings?),
        () = interrupted() => None,
    };
    // A key that a round left goes with its lease; one that cannot be given back ends by its TTL.
    let _ = timeout(CLEAN, etcd.clean(&leases)).await;
    let Some(findings) = visited else {
        return Err(Failure::failed("stopped; what was written below the prefix's doctor/ is given back"));
    };
    report.end()?;
    Ok(verdict(&findings, &report.remarks))
}

async fn visit(
    config: &Config,
    file: Option<&std::path::Path>,
    etcd: &Etcd,
    leases: &Leases,
    report: &mut Report,
) -> Result<Findings, Failure> {
    let (sender, mut remarks) = mpsc::channel(REMARKS);
    let work = gather::gather(config, etcd, leases, sender);
    tokio::pin!(work);
    let mut findings = None;
    // The sender goes with the work, so this ends once everything was told.
    loop {
        tokio::select! {
            biased;
            remark = remarks.recv() => match remark {
                Some(remark) => report.tell(remark)?,
                None => break,
            },
            found = &mut work, if findings.is_none() => findings = Some(found),
        }
    }
    for (level, problems) in
        [Level::Bad, Level::Warn].into_iter().zip(config::certificates(config, file, clock::wall().since_1970(), SOON))
    {
        for problem in problems {
            report.tell(Remark { level, text: format!("{}: {}", problem.key, problem.what) })?;
        }
    }
    Ok(findings.unwrap_or_default())
}

fn connect(config: &Config) -> Result<Etcd, Failure> {
    let identity = Identity {
        id: config.id.clone(),
        url: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        elections: config.elections.iter().map(|e| (e.name.clone(), e.priority)).collect(),
    };
    let mut settings = config.etcd.clone();
    settings.connect_timeout = settings.connect_timeout.min(CONNECT);
    settings.request_timeout = settings.request_timeout.min(REQUEST);
    // For lease ids, which must not be those of another doctor.
    let seed = clock::now().as_nanos() ^ clock::wall().0.rotate_left(32) ^ u64::from(std::process::id());
    Etcd::new(&settings, identity, &config.timing, Arc::new(Unheard), seed)
        .map_err(|e| Failure::new(Exit::Config, e.to_string()))
}

/// Ctrl-C, or what a service manager sends.
async fn interrupted() {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What was said so far.
struct Report {
    format: Format,
    remarks: Vec<Remark>,
}

impl Report {
    fn tell(&mut self, remark: Remark) -> Result<(), Failure> {
        if self.format == Format::Text {
            line(&remark.to_string())?;
        }
        self.remarks.push(remark);
        Ok(())
    }

    /// The verdict: text as its last line, everything in one document otherwise.
    fn end(&self) -> Result<(), Failure> {
        let count = |level| self.remarks.iter().filter(|r| r.level == level).count();
        let (problems, warnings, notes) = (count(Level::Bad), count(Level::Warn), count(Level::Note));
        if self.format == Format::Text {
            return line(&verdict_text(problems, warnings, notes));
        }
        let remarks: Vec<Value> =
            self.remarks.iter().map(|r| json!({"level": r.level.word(), "text": r.text})).collect();
        let verdict = json!({"fit": problems == 0, "problems": problems, "warnings": warnings, "notes": notes});
        self.format.print("", &json!({"remarks": remarks, "verdict": verdict}))
    }
}

fn verdict_text(problems: usize, warnings: usize, notes: usize) -> String {
    let some = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let all = [some(problems, "problem"), some(warnings, "warning"), some(notes, "note")];
    let all: Vec<String> = all.into_iter().flatten().collect();
    let fit = if problems == 0 { "fit" } else { "not fit" };
    if all.is_empty() { fit.to_owned() } else { format!("{}: {fit}", all.join(", ")) }
}

fn verdict(findings: &Findings, remarks: &[Remark]) -> Exit {
    let bad = remarks.iter().any(|r| r.level == Level::Bad);
    // A refusal, or a learner, is no matter of time: trying again later would not help.
    let lasting = |member: &Member| {
        member.read.as_ref().is_err_and(Failed::lasts) || member.status.as_ref().is_ok_and(|status| status.learner)
    };
    if !findings.members.iter().any(|m| m.serves() || lasting(m)) {
        return Exit::Unavailable;
    }
    if bad { Exit::Failed } else { Exit::Done }
}

/// Nobody counts the doctor's requests.
struct Unheard;

impl Telemetry for Unheard {
    fn request(&self, _method: &'static str, _code: &'static str, _took: Duration) {}
    fn endpoint_up(&self, _endpoint: &str, _up: bool) {}
    fn keepalive_failed(&self, _endpoint: &str) {}
    fn watch_restarted(&self, _cause: &'static str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Kind, Origin};

    #[test]
    fn the_verdict_tells_a_silent_etcd_from_a_bad_one() {
        let bad = [Remark { level: Level::Bad, text: String::new() }];
        let found = |change: fn(&mut Member)| {
            let mut member = Member::new("http://a:1");
            change(&mut member);
            Findings { members: vec![member], ..Findings::default() }
        };
        let refused = |kind| Failed { kind, text: String::new() };
        assert_eq!(verdict(&found(|_| {}), &bad), Exit::Unavailable);
        assert_eq!(verdict(&found(|m| m.memory = Ok(Origin::default())), &bad), Exit::Unavailable, "no quorum");
        assert_eq!(verdict(&found(|m| m.read = Ok(Origin::default())), &bad), Exit::Failed);
        assert_eq!(verdict(&found(|m| m.read = Ok(Origin::default())), &[]), Exit::Done);
        for kind in [Kind::Auth, Kind::WrongMember, Kind::Permission] {
            let mut findings = found(|_| {});
            findings.members[0].read = Err(refused(kind));
            assert_eq!(verdict(&findings, &bad), Exit::Failed, "{kind:?}");
        }
    }

    #[test]
    fn the_verdict_counts() {
        assert_eq!(verdict_text(0, 0, 0), "fit");
        assert_eq!(verdict_text(2, 0, 1), "2 problems, 1 note: not fit");
        assert_eq!(verdict_text(0, 1, 3), "1 warning, 3 notes: fit");
    }
}
