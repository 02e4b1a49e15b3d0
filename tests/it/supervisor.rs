//! What systemd is told, by the daemon that it would start: `Type=notify` and `WatchdogSec=`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::support::{Daemon, Etcd, eventually, scratch};

/// As systemd would for `WatchdogSec=400ms`.
const WATCHDOG: Duration = Duration::from_millis(400);

/// The socket that systemd listens on.
struct Manager {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> (Self, String) {
        let dir = scratch("tenure-notify");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in a directory of our own");
        (Self { socket, _dir: dir }, path.display().to_string())
    }

    /// What is told within this time.
    fn hears(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a limit above zero");
        let mut buffer = [0; 4096];
        let n = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// Waits until this is told; all that was told before it.
    fn waits_for(&self, what: &str) -> Vec<String> {
        let mut told = Vec::new();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(message) = self.hears(Duration::from_secs(1)) {
                if message.contains(what) {
                    return told;
                }
                told.push(message);
            }
        }
        panic!("systemd was not told {what} but {told:?}");
    }
}

/// Goal: systemd knows when it has started, what it does, that its loop turns, and that it stops.
/// Method: a socket in the place of systemd's; SIGSTOP in the place of a loop that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_start_role_and_stop_and_its_watchdog_is_fed_only_while_the_loop_turns() {
    let etcd = Etcd::start().await;
    let (manager, path) = Manager::new();
    let daemon = Daemon::builder("pod-0", &etcd)
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .start()
        .await;
    manager.waits_for("READY=1");
    manager.waits_for("STATUS=orders: leader, generation 1");
    for _ in 0..5 {
        let asked = Instant::now();
        manager.waits_for("WATCHDOG=1");
        assert!(asked.elapsed() < WATCHDOG, "fed after {:?}", asked.elapsed());
    }
    daemon.sigstop();
    eventually("the last words are read", || async { manager.hears(Duration::from_millis(1)).is_none() }).await;
    assert_eq!(manager.hears(WATCHDOG * 2), None, "a daemon that stands still feeds nothing");
    daemon.sigcont();
    manager.waits_for("WATCHDOG=1");
    daemon.sigterm();
    manager.waits_for("STOPPING=1");
    assert!(daemon.wait_exit().await.success());
}

/// Goal: a manager that does not read costs no leadership.
/// Method: the socket's queue holds few messages; the watchdog alone fills it. Its name is an abstract one.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_does_not_read_delays_nothing() {
    let etcd = Etcd::start().await;
    let name = format!("tenure-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let deaf = UnixDatagram::bind_addr(&address).expect("a name of our own");
    let daemon = Daemon::builder("pod-0", &etcd)
        .ttl("2s")
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .env("WATCHDOG_USEC", "100000")
        .start()
        .await;
    let full = || async { daemon.logs().contains("systemd was not told") };
    eventually("the queue is full", full).await;
    let token = daemon.token().await;
    tokio::time::sleep(Duration::from_secs(4)).await; // Two TTLs: a loop that hung would have lost the leadership.
    assert!(token.is_some() && daemon.token().await == token, "{}", daemon.logs());
    daemon.sigterm();
    assert!(daemon.wait_exit().await.success());
    drop(deaf);
}

/// Goal: an etcd that is down does not fail the unit, nor is it restarted for it.
#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_the_service_has_started_all_the_same() {
    let (manager, path) = Manager::new();
    let nowhere: [String; 1] = ["http://127.0.0.1:1".to_owned()];
    let _daemon = Daemon::builder("pod-0", nowhere.as_slice())
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .start()
        .await;
    manager.waits_for("READY=1");
    manager.waits_for("STATUS=orders: follower");
    manager.waits_for("WATCHDOG=1");
}
