//! Jumps of the wall clock, which is one for the whole machine.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::Begun;
use crate::arena::Arena;
use crate::sys::{Context, Done};

/// A process of its own makes the jump and takes it back, so that not even a killed run leaves a wrong clock behind.
pub fn jump(arena: &mut Arena) -> Done<Begun> {
    let by = arena.rng.i64(300..5_000) * if arena.rng.bool() { 1 } else { -1 };
    let span = arena.rng.u64(200..3_000);
    let mut command = Command::new(std::env::current_exe().context(|| "our own binary".to_owned())?);
    command.args(["clock", &by.to_string(), &span.to_string()]);
    // In a group of its own: Ctrl-C in a terminal is not for it. It ends by itself, and nobody else may end it.
    let mut process = command.process_group(0).spawn().context(|| format!("{command:?}"))?;
    let undo = move |_: &mut Arena| process.wait().map(|_| ()).context(|| "the clock's process".to_owned());
    Ok(Begun::new("machine", undo).detail(format!("{by} ms for {span} ms")))
}

/// `clock BY FOR`, both in ms. What is waited for and put back to counts on the boot clock.
pub fn main(args: &[String]) -> Done {
    let number = |n: usize| args.get(n).and_then(|text| text.parse::<i64>().ok()).ok_or("clock BY FOR, both in ms");
    let (by, span) = (number(0)?, number(1)?);
    let ahead = nanos(ClockId::Realtime) - nanos(ClockId::Boottime);
    set(nanos(ClockId::Realtime) + i128::from(by) * 1_000_000)?;
    std::thread::sleep(Duration::from_millis(span.unsigned_abs()));
    set(nanos(ClockId::Boottime) + ahead)
}

fn nanos(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

fn set(nanos: i128) -> Done {
    let part = |value: i128| i64::try_from(value).expect("a time of this century");
    let time =
        Timespec { tv_sec: part(nanos.div_euclid(1_000_000_000)), tv_nsec: part(nanos.rem_euclid(1_000_000_000)) };
    clock_settime(ClockId::Realtime, time).context(|| "clock_settime".to_owned())
}
