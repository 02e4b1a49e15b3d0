//! Placeholder with the daemon's signature, until the daemon itself takes its place.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// What the command line asks of the daemon besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Written once the listeners run.
    pub ready_file: Option<PathBuf>,
}

/// Runs the daemon.
#[must_use]
pub fn run(_config: Config, _options: Options) -> ExitCode {
    tracing::error!("this build has no daemon yet");
    ExitCode::FAILURE
}
