//! Arguments → configuration → log → daemon → exit code; or one of the other commands.

use std::process::ExitCode;

use tenure::cli::{self, Invocation};
use tenure::{daemon, logging};

fn main() -> ExitCode {
    let args = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Run(args)) => args,
        Ok(Invocation::Other(command)) => return cli::execute(command).into(),
        Err(exit) => return exit.into(),
    };
    let (config, warnings, options) = match cli::prepare(args) {
        Ok(prepared) => prepared,
        Err(exit) => return exit.into(),
    };
    logging::init(config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    daemon::run(config, &options)
}
