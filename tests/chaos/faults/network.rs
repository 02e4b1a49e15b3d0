//! Cuts: who does not reach whom, in which direction, and whether anybody is told.

use rustix::process::Signal;

use super::Begun;
use crate::arena::Arena;
use crate::net::{Cut, Cuts, Node};
use crate::sys::{Context, Done, Proc};

/// Which of its packets are lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    Both,
    /// What others send to it.
    In,
    /// What it sends.
    Out,
}

/// A member from everybody else.
pub fn member(arena: &mut Arena, way: Way) -> Done<Begun> {
    let member = arena.pick_member();
    let node = arena.net.members[member].clone();
    let others = [others(arena, member), arena.net.daemons.clone()].concat();
    let cuts = cut(arena, &node, &others, way, Cut::BlackHole)?;
    Ok(Begun::new(node.name, |_| cuts.heal()).detail(role(arena, member)))
}

/// A member from the other members only: every daemon still reaches it.
pub fn peers(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let node = arena.net.members[member].clone();
    let others = others(arena, member);
    let cuts = cut(arena, &node, &others, Way::Both, Cut::BlackHole)?;
    Ok(Begun::new(node.name, |_| cuts.heal()).detail(role(arena, member)))
}

/// A daemon from all members, which are fine.
pub fn daemon(arena: &mut Arena, way: Way, how: Cut) -> Done<Begun> {
    let daemon = arena.take_daemon();
    let node = arena.net.daemons[daemon].clone();
    let members = arena.net.members.clone();
    let cuts = cut(arena, &node, &members, way, how)?;
    Ok(Begun::new(node.name, |_| cuts.heal()).of(daemon).detail(format!("{how:?}")))
}

/// A daemon from all members but one.
pub fn one_member_only(arena: &mut Arena) -> Done<Begun> {
    let daemon = arena.take_daemon();
    let member = arena.rng.usize(..arena.net.members.len());
    let node = arena.net.daemons[daemon].clone();
    let members = others(arena, member);
    let cuts = cut(arena, &node, &members, Way::Both, Cut::BlackHole)?;
    let detail = format!("reaches {} alone", arena.net.members[member].name);
    Ok(Begun::new(node.name, |_| cuts.heal()).of(daemon).detail(detail))
}

/// The clients beside a daemon from the storage that they write to.
pub fn register(arena: &mut Arena) -> Done<Begun> {
    let daemon = arena.take_daemon();
    let node = arena.net.daemons[daemon].clone();
    let register = [arena.net.register.clone()];
    let way = *arena.rng.choice([Way::Both, Way::In, Way::Out].iter()).expect("there are some");
    let cuts = cut(arena, &node, &register, way, Cut::BlackHole)?;
    Ok(Begun::new(node.name, |_| cuts.heal()).of(daemon).detail(format!("{way:?}")))
}

/// Everything between a daemon and the members arrives late, in pieces, or the connection breaks.
pub fn slow_daemon(arena: &mut Arena) -> Done<Begun> {
    let daemon = arena.take_daemon();
    let node = arena.net.daemons[daemon].clone();
    let members = arena.net.members.clone();
    let (proxy, detail) = proxy(arena)?;
    let cuts = cut(arena, &node, &members, Way::Out, Cut::Slow)?;
    Ok(Begun::new(node.name, |_| heal(cuts, proxy)).of(daemon).detail(detail))
}

/// The same between a member and the others.
pub fn slow_peers(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let node = arena.net.members[member].clone();
    let (proxy, detail) = proxy(arena)?;
    let mut cuts = Cuts::default();
    for other in others(arena, member) {
        // Each end connects to the other: both streams go by way of the proxy, and their answers by its own address.
        arena.net.cut(&node, &other, Cut::Slow, &mut cuts)?;
        arena.net.cut(&other, &node, Cut::Slow, &mut cuts)?;
    }
    Ok(Begun::new(node.name, |_| heal(cuts, proxy)).detail(detail))
}

/// The rules first: without a proxy they would be a reset.
fn heal(cuts: Cuts, proxy: Proc) -> Done {
    cuts.heal()?;
    proxy.kill();
    Ok(())
}

/// Starts the proxy with a temper of its own.
fn proxy(arena: &mut Arena) -> Done<(Proc, String)> {
    let mut temper = |low, high| arena.rng.u64(low..high).to_string();
    let (delay, jitter, loss, seed) = (temper(5, 150), temper(5, 100), temper(0, 15), temper(0, u64::MAX));
    let mut command = arena.net.slow.command(std::env::current_exe().context(|| "our own binary".to_owned())?);
    command.args(["link", &delay, &jitter, &loss, &seed]);
    let mut proxy = Proc::spawn("slow", &mut command, &arena.dir.join("logs").join("slow.log"))?;
    arena.place.remember(proxy.id())?;
    // A signal that does nothing: it only has to be there.
    proxy.signal(Signal::CONT)?;
    Ok((proxy, format!("{delay} to +{jitter} ms, {loss} % lost")))
}

fn cut(arena: &mut Arena, node: &Node, others: &[Node], way: Way, how: Cut) -> Done<Cuts> {
    let mut cuts = Cuts::default();
    for other in others {
        if way != Way::In {
            arena.net.cut(node, other, how, &mut cuts)?;
        }
        if way != Way::Out {
            arena.net.cut(other, node, how, &mut cuts)?;
        }
    }
    Ok(cuts)
}

/// The other members.
pub fn others(arena: &Arena, member: usize) -> Vec<Node> {
    let nodes = arena.net.members.iter().enumerate();
    nodes.filter(|(n, _)| *n != member).map(|(_, node)| node.clone()).collect()
}

fn role(arena: &Arena, member: usize) -> &'static str {
    if arena.cluster.leader() == Some(member) { "the etcd leader" } else { "a follower" }
}
