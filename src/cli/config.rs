//! `tenure config check` and `tenure config example`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output::{self, Format, say};
use crate::clock;
use crate::config::{self, Config, Env, Overrides, Place, Problem, Report, Warning, duration_text};
use crate::timing::EXPIRY_OVERSHOOT;

/// A certificate that ends within this time is worth a warning.
const SOON: Duration = Duration::from_hours(14 * 24);

/// What to do.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Report everything that is wrong with a configuration, and what the right one implies; contacts nothing.
    /// `--output yaml` prints the settings in effect
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Print the configuration with every key, its default and its reason
    Example,
}

/// Checks or prints.
pub fn config(args: ConfigArgs, format: Format) -> Result<Exit, Failure> {
    let file = match args.what {
        What::Example => {
            output::raw(config::EXAMPLE)?;
            return Ok(Exit::Done);
        }
        What::Check { file } => file,
    };
    let overrides = Overrides { env: Env::of_process(), ..Overrides::default() };
    match config::load(Some(&file), &overrides) {
        Ok((config, mut warnings)) => {
            let [broken_now, soon] = config::certificates(&config, Some(&file), clock::wall().since_1970(), SOON);
            if !broken_now.is_empty() {
                return broken(&Report::new(broken_now), format);
            }
            warnings.extend(soon.into_iter().map(Warning));
            for warning in &warnings {
                say(&format!("warning: {warning}"));
            }
            match format {
                Format::Yaml => {
                    output::raw(&config::effective_text(&config::effective(&config)).map_err(Failure::failed)?)?;
                }
                Format::Text => output::line(&format!("ok: {}\n{}", file.display(), implied(&config)))?,
                Format::Json => format.print("", &document(&config, &warnings))?,
            }
            Ok(Exit::Done)
        }
        Err(report) => broken(&report, format),
    }
}

fn broken(report: &Report, format: Format) -> Result<Exit, Failure> {
    if format != Format::Text {
        let errors: Vec<Value> = report.problems().iter().map(problem).collect();
        format.print("", &json!({"ok": false, "errors": errors}))?;
        return Ok(Exit::Config);
    }
    say(report.to_string().trim_end());
    let count = report.problems().len();
    Err(Failure::new(Exit::Config, format!("{count} error{} in the configuration", if count == 1 { "" } else { "s" })))
}

fn problem(problem: &Problem) -> Value {
    let (file, line, column) = match &problem.place {
        Place::At { file, line, column } => (Some(file.to_string()), Some(line), Some(column)),
        Place::File(file) => (Some(file.to_string()), None, None),
        Place::NoFile | Place::Variable(_) | Place::Flag(_) => (None, None, None),
    };
    let place = problem.place.to_string();
    json!({"place": place, "file": file, "line": line, "column": column, "key": problem.key, "message": problem.what})
}

fn document(config: &Config, warnings: &[Warning]) -> Value {
    let timing = &config.timing;
    let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    json!({
        "ok": true,
        "warnings": warnings.iter().map(|w| problem(&w.0)).collect::<Vec<_>>(),
        "worst_failover_ms": ms(timing.worst_failover()),
        "guard_ms": ms(timing.guard_span(timing.ttl())),
        "renew_every_ms": ms(timing.renew_every(timing.ttl())),
        "config": config::effective(config),
    })
}

/// What the settings imply, for people.
fn implied(config: &Config) -> String {
    let timing = &config.timing;
    let names: Vec<String> = config
        .elections
        .iter()
        .map(|e| if e.observe { format!("{} (observed)", e.name) } else { e.name.to_string() })
        .collect();
    let mut text = String::new();
    let _ = writeln!(text, "  id                   {}", config.id);
    let _ = writeln!(text, "  elections            {}", names.join(", "));
    let _ = writeln!(text, "  etcd                 {} below {}", config.etcd.endpoints.join(", "), config.etcd.prefix);
    let _ = writeln!(
        text,
        "  worst-case fail-over {} (ttl {} + etcd's expiry {} + vacancy grace {}; one commit on top)",
        duration_text(timing.worst_failover()),
        duration_text(timing.ttl()),
        duration_text(EXPIRY_OVERSHOOT),
        duration_text(timing.vacancy_grace()),
    );
    let _ = writeln!(
        text,
        "  guard                {} from each confirmed renewal",
        duration_text(timing.guard_span(timing.ttl()))
    );
    let _ = write!(
        text,
        "  renewal              every {}; two may be lost. A hand-over waits at most {} for a promise",
        duration_text(timing.renew_every(timing.ttl())),
        duration_text(timing.promise()),
    );
    text
}
