//! The command line: one file for each group of commands.
//!
//! Data goes to standard output, words for people to standard error, and the exit code says how it ended ([`Exit`]).
//! Commands about a running daemon talk HTTP to its control listener; none of them talks to etcd but `doctor` and `demo`.

mod check;
pub mod client;
mod config;
mod demo;
pub mod doctor;
mod exit;
mod lists;
mod output;
mod run;
mod status;
mod target;
mod tether;
mod tls;
mod token;
mod verbs;
mod wait;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use exit::{Exit, Failure};
use output::Format;
pub use output::say;
pub use run::{RunArgs, prepare};

/// Leader election with fencing tokens on etcd, for any process, over HTTP
#[derive(Debug, Parser)]
#[command(name = "tenure", version, about, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 not leader or not so, 5 unavailable, \
                        6 outcome unknown.\n`tenure -c FILE` is the same as `tenure run -c FILE`."
)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
    /// How data looks
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(RunArgs),
    /// Who leads, and what this daemon is
    #[command(
        after_help = "Columns: TOKEN this daemon's fencing token, while it leads; GUARD for how long it may go on leading \
                      without another renewal; QUEUE its place, 0 leads; LEADER TOKEN the leader's, which is no token of \
                      yours; SINCE when the role was taken, and REASON why."
    )]
    Status(status::StatusArgs),
    /// This daemon's fencing token, if it leads
    Token(token::TokenArgs),
    /// Wait until this daemon leads, or follows a leader
    Wait(wait::WaitArgs),
    /// Step down, hand over, and queue again
    Resign(verbs::ResignArgs),
    /// Every change of leadership, newest first
    History(lists::HistoryArgs),
    /// The queue in order
    Candidates(lists::CandidatesArgs),
    /// Ask etcd whether a token is the current one
    Verify(token::VerifyArgs),
    /// Stop leading in every election at once, and hand over later: for a preStop hook
    #[command(
        long_about = "Stop leading in every election at once, and hand over later: for a preStop hook.\n\nUntil the hand-over \
                      nobody leads what this daemon led. It comes with `tenure drained`, with a stop (SIGTERM), with `tenure \
                      undrain`, or after --timeout; with --hand-over as soon as the last promise has run out."
    )]
    Drain(verbs::DrainArgs),
    /// End a drain: hand over what it still holds, and take part again
    Undrain(verbs::UndrainArgs),
    /// The application has stopped acting: hand over now
    Drained(verbs::DrainedArgs),
    /// Succeed if the daemon leads, is ready, or lives: for exec probes
    Check(check::CheckArgs),
    /// Check a configuration, or print the documented one
    Config(config::ConfigArgs),
    /// Whether etcd and this machine suit a configuration
    Doctor(doctor::DoctorArgs),
    /// Three candidates on a throw-away etcd, live
    Demo(demo::DemoArgs),
    /// Completions for a shell, to standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Become another program that dies with its parent; the demo's children are started by it.
    #[command(hide = true)]
    Tether(tether::TetherArgs),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// The daemon.
    Run(RunArgs),
    /// Anything else.
    Other(Other),
}

/// A command other than `run`.
#[derive(Debug)]
pub struct Other(Command, Format);

/// Reads the command line.
///
/// # Errors
/// How to end where there is nothing to do: help was shown ([`Exit::Done`]), or the usage was wrong, which was said.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Exit> {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { run, command: None, .. } | Cli { command: Some(Command::Run(run)), .. }) => Ok(Invocation::Run(run)),
        Ok(Cli { command: Some(command), output, .. }) => Ok(Invocation::Other(Other(command, output))),
        Err(error) => {
            // Nobody reads it any more: nothing to be done about that.
            let _ = error.print();
            Err(if error.use_stderr() { Exit::Usage } else { Exit::Done })
        }
    }
}

/// Carries out a command.
#[must_use]
pub fn execute(other: Other) -> Exit {
    let Other(command, format) = other;
    // One thread: the demo's children die with the thread that made them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            say(&format!("tenure: {e}"));
            return Exit::Failed;
        }
    };
    let ended = runtime.block_on(dispatch(command, format));
    // A name being looked up runs on a thread that cannot be stopped: it is not waited for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            say(&format!("tenure: {}", failure.message.trim_end()));
        }
        if let Some(document) = failure.document.filter(|_| format != Format::Text) {
            // A reader that has gone changes nothing about how this ended.
            let _ = format.print("", &document);
        }
        failure.exit
    })
}

async fn dispatch(command: Command, format: Format) -> Result<Exit, Failure> {
    match command {
        Command::Run(_) => Err(Failure::failed("`run` is carried out by main")),
        Command::Status(args) => status::status(args, format).await,
        Command::Token(args) => token::token(args, format).await,
        Command::Wait(args) => wait::wait(args, format).await,
        Command::Resign(args) => verbs::resign(args, format).await,
        Command::History(args) => lists::history(args, format).await,
        Command::Candidates(args) => lists::candidates(args, format).await,
        Command::Verify(args) => token::verify(args, format).await,
        Command::Drain(args) => verbs::drain(args, format).await,
        Command::Undrain(args) => verbs::undrain(args, format).await,
        Command::Drained(args) => verbs::drained(args, format).await,
        Command::Check(args) => check::check(args, format).await,
        Command::Config(args) => config::config(args, format),
        Command::Doctor(args) => doctor::doctor(args, format).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Completions { shell } => completions(shell),
        Command::Tether(args) => Err(tether::tether(&args)),
    }
}

fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tenure", &mut script);
    output::raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_bare_form_is_run() {
        let args = |a: &[&str]| a.iter().map(OsString::from).collect::<Vec<_>>();
        for form in [args(&["tenure", "-c", "x.yaml"]), args(&["tenure", "run", "-c", "x.yaml"])] {
            let Ok(Invocation::Run(run)) = parse(form) else { panic!("not run") };
            assert_eq!(run.config.as_deref(), Some(std::path::Path::new("x.yaml")));
        }
    }
}
