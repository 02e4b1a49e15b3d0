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
    let _written_at_the_end = match logging::init(config.log) {
        Ok(log) => log,
        Err(error) => {
            cli::say(&format!("cannot start: {error}"));
            return cli::Exit::Failed.into();
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    daemon::run(config, &options)
}
