//! What operators do to etcd, and the alarms that it raises.

use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::Begun;
use crate::arena::Arena;
use crate::daemons::ELECTION;
use crate::history::{Phase, now};
use crate::sys::{Done, Peer, pause, succeeds, until};

/// Under the limit of one request; the quota is a few of them.
const FILL: usize = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// What ends a fault is tried for so long: what is not ended ends the run.
const END_WITHIN: Duration = Duration::from_mins(1);

/// Hands etcd's own leadership over.
pub fn move_leader(arena: &mut Arena) -> Done<Begun> {
    let leader = arena.cluster.wait_leader()?;
    let count = arena.cluster.members.len();
    let next = (leader + 1 + arena.rng.usize(..count - 1)) % count;
    let id = arena.cluster.id(next)?;
    let url = arena.cluster.members[leader].client_url();
    arena.cluster.ctl_at(&url, &["move-leader", &id], b"")?;
    let [from, to] = [leader, next].map(|n| arena.net.members[n].name.clone());
    Ok(Begun::done(to).detail(format!("from {from}")))
}

pub fn defrag(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let url = arena.cluster.members[member].client_url();
    arena.cluster.ctl_at(&url, &["defrag"], b"")?;
    Ok(Begun::done(arena.net.members[member].name.clone()))
}

/// Compacts away all that watches could resume from, and makes the daemons do so on another member.
pub fn compact_and_restart(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let revision = arena.cluster.revision()?;
    match arena.cluster.ctl(&["compaction", &revision]) {
        // Nothing was written since the last time.
        Err(error) if !error.contains("has been compacted") => return Err(error),
        _ => {}
    }
    arena.cluster.members[member].kill();
    let place = Rc::clone(&arena.place);
    arena.cluster.spawn(member, &place)?;
    Ok(Begun::done(arena.net.members[member].name.clone()).detail(format!("to revision {revision}")))
}

/// Turns authentication on, with tokens that soon run out, and off again.
pub fn auth(arena: &mut Arena) -> Done<Begun> {
    if let Err(error) = arena.cluster.ctl(&["auth", "enable"]) {
        // It may be on all the same: an answer can be lost.
        auth_off(arena)?;
        return Err(error);
    }
    arena.cluster.auth = true;
    Ok(Begun::new("etcd", auth_off))
}

/// Whoever logs in where authentication is off already is let in as well.
fn auth_off(arena: &mut Arena) -> Done {
    arena.cluster.auth = true;
    succeeds("authentication is off", END_WITHIN, || arena.cluster.ctl(&["auth", "disable"]))?;
    arena.cluster.auth = false;
    Ok(())
}

/// Fills etcd until it takes no more; then what an operator does about it.
pub fn nospace(arena: &mut Arena) -> Done<Begun> {
    let value = "x".repeat(FILL);
    let url = arena.cluster.members[0].client_url();
    let mut puts = 0;
    until("the NOSPACE alarm", PATIENCE, || {
        puts += 1;
        arena.cluster.ctl_at(&url, &["put", &format!("/fill/{puts}")], value.as_bytes()).err()
    })?;
    let alarms = arena.cluster.ctl(&["alarm", "list"])?;
    let undo = |arena: &mut Arena| {
        let delete = ["del", "--prefix", "/fill/"];
        succeeds("the filling is gone", END_WITHIN, || arena.cluster.ctl(&delete))?;
        succeeds("the filling is compacted", END_WITHIN, || {
            let revision = arena.cluster.revision()?;
            arena.cluster.ctl(&["compaction", "--physical", &revision])
        })?;
        for member in &arena.cluster.members {
            let url = member.client_url();
            succeeds("a member is defragmented", END_WITHIN, || arena.cluster.ctl_at(&url, &["defrag"], b""))?;
        }
        disarm(arena)
    };
    Ok(Begun::new("etcd", undo).detail(alarms.trim().replace('\n', ", ")))
}

/// Raises the alarm of a corrupt store by hand: etcdctl cannot, the RPC behind it can.
pub fn corrupt(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let id = arena.cluster.id(member)?;
    let id = u64::from_str_radix(&id, 16).map_err(|error| format!("{id}: {error}"))?;
    let body = json!({"action": "ACTIVATE", "memberID": id.to_string(), "alarm": "CORRUPT"}).to_string();
    let url = arena.cluster.members[member].client_url();
    let peer = Peer::Tcp(url.trim_start_matches("http://").to_owned());
    let (status, answer) = peer.ask("POST", "/v3/maintenance/alarm", &body, Duration::from_secs(3))?;
    if status != 200 {
        return Err(format!("{status} {answer}"));
    }
    Ok(Begun::new(arena.net.members[member].name.clone(), disarm))
}

fn disarm(arena: &mut Arena) -> Done {
    succeeds("no alarm", END_WITHIN, || {
        arena.cluster.ctl(&["alarm", "disarm"])?;
        let list = arena.cluster.ctl(&["alarm", "list"])?;
        if list.trim().is_empty() { Ok(()) } else { Err(list) }
    })
}

pub fn replace(arena: &mut Arena) -> Done<Begun> {
    let member = arena.pick_member();
    let place = Rc::clone(&arena.place);
    arena.cluster.replace(member, &place)?;
    Ok(Begun::done(arena.net.members[member].name.clone()))
}

/// Puts all members back to a snapshot that is a few leaderships old.
///
/// Not before every daemon knows the newest generation: who was away meanwhile cannot notice that history was rewound.
pub fn restore(arena: &mut Arena) -> Done<Begun> {
    let snapshot = arena.place.dir.join("snapshot.db");
    let _ = std::fs::remove_file(&snapshot);
    let url = arena.cluster.members[0].client_url();
    arena.cluster.ctl_at(&url, &["snapshot", "save", &snapshot.display().to_string()], b"")?;
    for _ in 0..2 {
        let leader = arena.wait_leader()?;
        arena.daemons[leader].resign()?;
    }
    let newest = until("all daemons know the newest generation", PATIENCE, || agreed(arena))?;
    arena.dump()?;
    for member in &mut arena.cluster.members {
        member.kill();
    }
    let place = Rc::clone(&arena.place);
    arena.cluster.restore(&snapshot, &place)?;
    Ok(Begun::done("etcd").detail(format!("generation {newest} was the newest")))
}

/// The generation that all daemons have seen last, if that is one.
fn agreed(arena: &Arena) -> Option<u64> {
    let seen: Vec<_> = arena.daemons.iter().map(|d| d.status()?["generation"].as_u64()).collect::<Option<_>>()?;
    let first = *seen.first()?;
    seen.iter().all(|generation| *generation == first).then_some(first)
}

/// Deletes the leader's key behind its back.
pub fn delete_key(arena: &mut Arena) -> Done<Begun> {
    let (name, lease) = lease(arena)?;
    arena.cluster.ctl(&["del", &format!("/tenure/elections/{ELECTION}/{lease}")])?;
    Ok(Begun::done(name))
}

/// Revokes the leader's lease behind its back.
pub fn revoke_lease(arena: &mut Arena) -> Done<Begun> {
    let (name, lease) = lease(arena)?;
    arena.cluster.ctl(&["lease", "revoke", &lease])?;
    Ok(Begun::done(name))
}

fn lease(arena: &Arena) -> Done<(String, String)> {
    let leader = arena.wait_leader()?;
    let lease = arena.daemons[leader].lease().ok_or_else(|| "it has no lease any more".to_owned())?;
    Ok((arena.net.daemons[leader].name.clone(), lease))
}

/// One member after the other, while the cluster lives and is used.
pub fn upgrade(arena: &mut Arena, series: &str) -> Done {
    if series == "3.7" {
        arena.cluster.save_snapshots()?;
    }
    for n in 0..arena.cluster.members.len() {
        let name = arena.net.members[n].name.clone();
        arena.fault(now(), "upgrade", &name, Phase::Begin, &format!("{} to {series}", arena.cluster.members[n].series));
        arena.cluster.members[n].signal(Signal::TERM)?;
        pause(Duration::from_millis(500))?;
        arena.cluster.members[n].kill();
        series.clone_into(&mut arena.cluster.members[n].series);
        let place = Rc::clone(&arena.place);
        arena.cluster.spawn(n, &place)?;
        arena.cluster.healthy()?;
        arena.fault(now(), "upgrade", &name, Phase::End, "");
    }
    arena.recovered()
}
