//! Becoming another program that the kernel kills when its parent ends, however that ends.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::exit::Failure;

/// Flags of `tether`.
#[derive(Args, Debug)]
pub struct TetherArgs {
    /// The parent's process id
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

/// Does not return where it succeeds: the process is the other program then, with the same id.
///
/// The wish to be killed survives `exec`. Asked for here, by the child itself, it needs no code between fork and exec in
/// the parent, which only unsafe code may have.
pub fn tether(args: &TetherArgs) -> Failure {
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::failed(format!("cannot be tied to the parent process: {e}"));
    }
    // The parent may have ended before the wish was made.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(args.parent) {
        return Failure::failed("the parent process has ended");
    }
    let Some((program, arguments)) = args.command.split_first() else { return Failure::failed("no program") };
    let error = Command::new(program).args(arguments).exec();
    Failure::failed(format!("{}: {error}", program.to_string_lossy()))
}
