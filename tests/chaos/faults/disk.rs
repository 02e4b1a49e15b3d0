//! Disks that stand still: `fsfreeze` on the file system of a member.

use std::path::Path;
use std::time::Duration;

use super::Begun;
use super::network::others;
use crate::arena::Arena;
use crate::net::{Cut, Cuts};
use crate::report::ANSWERED;
use crate::sys::{Done, Proc, pause};

/// Half a lease: time for two renewals.
const SETTLE: Duration = Duration::from_secs(1);

pub fn freeze(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    arena.cluster.members[member].freeze()?;
    let name = arena.net.members[member].name.clone();
    Ok(Begun::new(name, move |arena| arena.cluster.members[member].thaw()))
}

/// The etcd leader's disk is frozen, which keeps it from noticing anything: it goes on answering keep-alives for leases
/// that the others have long let expire. It is cut from its peers, and the daemon that leads reaches nobody else.
///
/// A lease of our own, renewed there by etcdctl, is witness to whether the attack bites. 3.4.23 answers; 3.5.35 and 3.6.16
/// do not. A daemon that was changed to count answers without confirming them was caught by every attack on 3.4.23.
pub fn stale_keep_alive(arena: &mut Arena) -> Done<Begun> {
    let member = arena.cluster.leader().ok_or_else(|| "etcd has no leader".to_owned())?;
    let url = arena.cluster.members[member].client_url();
    let granted = arena.cluster.ctl_at(&url, &["lease", "grant", "2"], b"")?;
    let lease = granted.split(' ').nth(1).ok_or_else(|| format!("no lease in {granted}"))?.to_owned();
    let renewals = arena.dir.join("logs").join(format!("witness-{lease}.log"));
    let mut renew = arena.cluster.ctl_command(&url, &["lease", "keep-alive", &lease])?;
    let witness = Proc::spawn("witness", &mut renew, &renewals)?;
    arena.place.remember(witness.id())?;
    let daemon = arena.take_daemon();
    let others = others(arena, member);
    let (node, asker) = (arena.net.members[member].clone(), arena.net.daemons[daemon].clone());
    let mut cuts = Cuts::default();
    for other in &others {
        arena.net.sever(&asker, other, Cut::BlackHole, &mut cuts)?;
    }
    // The daemon finds its way to this member and renews there: it could not sign in anew on one that hangs. And the
    // member's backend, which commits every 100 ms, comes to rest: one that hangs in a commit answers nothing at all.
    pause(SETTLE)?;
    arena.cluster.members[member].freeze()?;
    for other in &others {
        arena.net.sever(&node, other, Cut::BlackHole, &mut cuts)?;
    }
    // Its raft loop hangs at the first write; that there is one is not left to chance. The put itself cannot succeed.
    let _ = arena.cluster.ctl_at(&url, &["put", "/fill/hang", "x", "--command-timeout=300ms"], b"");
    let undo = move |arena: &mut Arena| {
        arena.remark = testimony(arena, member, &lease, &renewals)?;
        witness.kill();
        arena.cluster.members[member].thaw()?;
        cuts.heal()
    };
    Ok(Begun::new(node.name.clone(), undo).of(daemon).detail(format!("{} reaches it alone", asker.name)))
}

/// Whether the lease of the witness goes on being renewed after the others have let it expire.
fn testimony(arena: &Arena, member: usize, lease: &str, renewals: &Path) -> Done<String> {
    let count = || std::fs::read_to_string(renewals).unwrap_or_default().matches("keepalived").count();
    let other = arena.cluster.members[(member + 1) % arena.cluster.members.len()].client_url();
    let seen = arena.cluster.ctl_at(&other, &["lease", "timetolive", lease], b"").unwrap_or_else(|error| error);
    if !seen.contains("already expired") {
        return Ok(format!("the others still hold the lease: {}", seen.trim()));
    }
    let before = count();
    pause(Duration::from_millis(1_500))?;
    let renewed = count() - before;
    let verdict = if renewed > 0 { ANSWERED } else { "not answered" };
    Ok(format!("{verdict}: renewed {renewed} times in 1.5 s after the others had let it expire"))
}
