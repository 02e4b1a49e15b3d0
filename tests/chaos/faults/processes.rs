//! Processes that stop, die, leave, or step down.

use std::time::Duration;

use rustix::process::Signal;

use super::Begun;
use crate::arena::Arena;
use crate::sys::Done;

/// A stop with an etcd that does not answer takes as long as the daemon's own limits.
const EXIT_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whom {
    Daemon,
    Client,
    Both,
}

/// SIGSTOP, and later SIGCONT: to the daemon, to the clients beside it, or to all of them.
pub fn stop(arena: &mut Arena, whom: Whom) -> Done<Begun> {
    let daemon = arena.take_daemon();
    signal(arena, daemon, whom, Signal::STOP)?;
    let name = arena.net.daemons[daemon].name.clone();
    Ok(Begun::new(name, move |arena| signal(arena, daemon, whom, Signal::CONT)).of(daemon))
}

fn signal(arena: &mut Arena, daemon: usize, whom: Whom, signal: Signal) -> Done {
    if whom != Whom::Client {
        arena.daemons[daemon].signal(signal)?;
    }
    if whom != Whom::Daemon {
        arena.crews[daemon].signal(signal)?;
    }
    Ok(())
}

pub fn kill_daemon(arena: &mut Arena) -> Begun {
    let daemon = arena.take_daemon();
    arena.daemons[daemon].kill();
    let name = arena.net.daemons[daemon].name.clone();
    Begun::new(name, move |arena| start(arena, daemon)).of(daemon)
}

/// SIGTERM: it has to hand over, and to end by itself.
pub fn term_daemon(arena: &mut Arena) -> Done<Begun> {
    let daemon = arena.take_daemon();
    arena.daemons[daemon].signal(Signal::TERM)?;
    let name = arena.net.daemons[daemon].name.clone();
    let undo = move |arena: &mut Arena| {
        arena.daemons[daemon].wait_exit(EXIT_WITHIN)?;
        start(arena, daemon)
    };
    Ok(Begun::new(name, undo).of(daemon))
}

fn start(arena: &mut Arena, daemon: usize) -> Done {
    let place = std::rc::Rc::clone(&arena.place);
    arena.daemons[daemon].start(&place)
}

pub fn resign(arena: &mut Arena) -> Done<Begun> {
    let leader = arena.wait_leader()?;
    let status = arena.daemons[leader].resign()?;
    Ok(Begun::done(arena.net.daemons[leader].name.clone()).detail(format!("answered {status}")))
}

/// SIGSTOP: sockets stay open, connections are accepted by the kernel, nothing is answered. A leader of etcd that is stopped as
/// a whole revokes, when it wakes, leases that others have renewed meanwhile, in every version (docs/safety.md), which ends a
/// leadership before its promises: without a grace it is spared.
pub fn stop_members(arena: &mut Arena, count: usize) -> Done<Begun> {
    let spared = if arena.cluster.grace() { None } else { Some(arena.cluster.wait_leader()?) };
    let first = arena.pick_member();
    let all = arena.cluster.members.len();
    let chosen: Vec<_> = (first..first + all).map(|n| n % all).filter(|n| Some(*n) != spared).take(count).collect();
    for n in &chosen {
        arena.cluster.members[*n].signal(Signal::STOP)?;
    }
    let names: Vec<_> = chosen.iter().map(|n| arena.net.members[*n].name.clone()).collect();
    Ok(Begun::new(names.join(" "), move |arena| {
        chosen.iter().try_for_each(|n| arena.cluster.members[*n].signal(Signal::CONT)) //
    }))
}

pub fn kill_member(arena: &mut Arena) -> Begun {
    let member = arena.rng.usize(..arena.cluster.members.len());
    kill(arena, member)
}

pub fn kill_etcd_leader(arena: &mut Arena) -> Done<Begun> {
    let leader = arena.cluster.leader().ok_or_else(|| "etcd has no leader".to_owned())?;
    Ok(kill(arena, leader))
}

fn kill(arena: &mut Arena, member: usize) -> Begun {
    arena.cluster.members[member].kill();
    Begun::new(arena.net.members[member].name.clone(), move |arena| {
        let place = std::rc::Rc::clone(&arena.place);
        arena.cluster.spawn(member, &place)
    })
}
