//! `tenure run`: flags → configuration and options of the daemon.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::exit::Exit;
use super::output::say;
use super::target::config_file;
use crate::config::{self, Config, Env, Overrides, Warning};
use crate::daemon;

/// Flags of `run`. They override the environment, and that the file.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", help = "The configuration [default: $TENURE_CONFIG]")]
    pub config: Option<PathBuf>,
    /// The candidate's id
    #[arg(long)]
    pub id: Option<String>,
    /// An election to take part in; may be repeated, and replaces the file's list
    #[arg(long, value_name = "NAME")]
    pub election: Vec<String>,
    /// Members of etcd, separated by commas
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,
    /// Write the addresses in use to this file once the listeners run
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// The least level that is logged
    #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]))]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    pub log_format: Option<String>,
}

/// The configuration, what is to be warned of once the log runs, and the daemon's options.
///
/// # Errors
/// [`Exit::Config`], after every error was said.
pub fn prepare(args: RunArgs) -> Result<(Config, Vec<Warning>, daemon::Options), Exit> {
    let env = Env::of_process();
    let file = config_file(args.config.as_deref(), &env);
    let overrides = Overrides {
        id: args.id,
        elections: args.election,
        etcd_endpoints: args.etcd_endpoints,
        log_level: args.log_level,
        log_format: args.log_format,
        env,
    };
    match config::load(file.as_deref(), &overrides) {
        Ok((config, warnings)) => Ok((config, warnings, daemon::Options { ready_file: args.ready_file })),
        Err(report) => {
            say(report.to_string().trim_end());
            Err(Exit::Config)
        }
    }
}
