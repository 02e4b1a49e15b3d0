//! Tells systemd how it goes, where it asked for that (`Type=notify`, `WatchdogSec=`); elsewhere, nothing.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock;
use crate::control::Heartbeat;
use crate::election::ids::ElectionIndex;
use crate::election::role::Role;
use crate::snapshot::Reader;

/// The status is compared at least this often: a role also ends by the clock alone, without a new snapshot.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
/// A watchdog that wants more than this gets this: it would cost more than it tells.
const SHORTEST_SILENCE: Duration = Duration::from_millis(50);

/// The listeners run. Whether etcd answers is not asked, as for `/startupz`: an etcd that is down must not fail the unit.
pub fn started() {
    tell(&NotifyState::Ready);
}

/// A signal to stop was heeded.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

/// Tells the roles whenever they change, and feeds the watchdog while the driver's loop turns.
///
/// It runs on the driver's own thread, and stops feeding as soon as `/livez` would say 503: a loop that hangs in any way
/// lets the watchdog run out.
pub async fn accompany(mut reader: Reader, heartbeat: Heartbeat, stall_limit: Duration) {
    if asked().is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    // Half of its limit, as sd_watchdog_enabled(3) says.
    let pause = watchdog.map_or(LONGEST_SILENCE, |limit| (limit / 2).clamp(SHORTEST_SILENCE, LONGEST_SILENCE));
    let mut told = String::new();
    loop {
        let status = status(&reader);
        if status != told && tell(&NotifyState::Status(&status)) {
            told = status;
        }
        if watchdog.is_some() && heartbeat.age(clock::now()) < stall_limit {
            tell(&NotifyState::Watchdog);
        }
        // Either is a reason to look again; which one does not matter.
        let _ = tokio::time::timeout(pause, reader.changed()).await;
    }
}

/// Such as `orders: leader, generation 42; shard-7: candidate`.
fn status(reader: &Reader) -> String {
    let (snapshot, at) = (reader.load(), clock::reading());
    let mut text = String::new();
    for (index, view) in snapshot.elections.iter().enumerate() {
        let election = ElectionIndex(index);
        let role = snapshot.role_at(election, at);
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{}: {}", view.name.as_str(), role.as_str());
        if let (Role::Leader, Some((generation, _))) = (role, snapshot.leads_at(election, at)) {
            let _ = write!(text, ", generation {}", generation.0);
        }
    }
    text
}

#[allow(clippy::disallowed_methods, reason = "no setting of ours: systemd says there that it listens")]
fn asked() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

/// Whether it was told, or nobody wants to know.
fn tell(state: &NotifyState<'_>) -> bool {
    let Some(to) = asked() else { return true };
    send(&to, &format!("{state}\n")).inspect_err(|e| tracing::warn!("systemd was not told {state}: {e}")).is_ok()
}

/// Never waits, as the crate's own `notify` would: this is the driver's thread, and a manager that does not read must not cost
/// a leadership. A name that begins with `@` is an abstract one, which that does not know either.
fn send(to: &OsStr, text: &str) -> io::Result<()> {
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(|_| ())
}
