//! The machine that the daemon runs on: its standard error, its signals, its file modes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, Etcd, eventually};

/// A stop with one candidate needs no hand-over: what is left is what it waits for whoever reads the log.
const STOP_LIMIT: Duration = Duration::from_secs(4);

fn fifo(path: &Path) -> File {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options.open(path).expect("both ends of a pipe")
}

fn fill(pipe: &mut File) {
    let full = std::iter::repeat_with(|| pipe.write(&[b'#'; 1])).find_map(Result::err).expect("a pipe has an end");
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}

async fn dropped_lines(daemon: &Daemon) -> u64 {
    let metrics = daemon.get("/metrics").await.expect("answered").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("tenure_log_dropped_total "));
    line.and_then(|n| n.parse().ok()).expect("a counter")
}

async fn resign(daemon: &Daemon) {
    let token = eventually("it leads", async || daemon.token().await).await;
    assert_eq!(daemon.verb("resign", &json!({})).await.expect("answered").status, 200);
    eventually("it leads anew", async || daemon.token().await.filter(|now| *now > token)).await;
}

async fn stops(daemon: &Daemon) {
    let began = Instant::now();
    daemon.sigterm();
    assert!(daemon.wait_exit().await.success());
    assert!(began.elapsed() < STOP_LIMIT, "{:?}", began.elapsed());
}

/// Goal: a pipe that nobody empties costs lines of the log, and nothing else.
/// Method: the pipe is full from the start, and the level is one at which etcd's every frame is a line.
#[tokio::test]
async fn a_log_that_nobody_reads_costs_no_election_and_is_caught_up_with() {
    let etcd = Etcd::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let mut pipe = fifo(&path);
    fill(&mut pipe);
    let to_pipe = format!("exec \"$@\" 2>{}", path.display());
    let daemon = Daemon::builder("pod-0", &etcd).set("log.level", "trace").shell(to_pipe).start().await;
    resign(&daemon).await;
    let lost = eventually("lines are dropped", async || {
        daemon.get("/v1/elections/orders/candidates").await.expect("answered");
        Some(dropped_lines(&daemon).await).filter(|lost| *lost > 0)
    })
    .await;
    resign(&daemon).await;
    assert_eq!(daemon.probe("/livez").await, Some(200));
    let mut log = String::new();
    eventually("the log says what it lacks", async || {
        let mut bytes = Vec::new();
        // It ends with what there is for now.
        let _ = pipe.read_to_end(&mut bytes);
        log.push_str(&String::from_utf8_lossy(&bytes));
        log.contains("lines of the log were dropped")
    })
    .await;
    assert!(dropped_lines(&daemon).await >= lost);
    fill(&mut pipe);
    stops(&daemon).await;
}

#[tokio::test]
async fn a_standard_error_that_takes_nothing_ends_nothing() {
    let etcd = Etcd::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let broken = fifo(&path);
    let to_pipe = format!("exec \"$@\" 2>{}", path.display());
    let all = [
        ("a full disk", "exec \"$@\" 2>/dev/full", true),
        ("closed", "exec \"$@\" 2>&-", false),
        ("all three closed", "exec \"$@\" <&- >&- 2>&-", false),
        ("a pipe whose reader went", to_pipe.as_str(), true),
    ];
    let mut broken = Some(broken);
    for (what, line, counted) in all {
        let daemon = Daemon::builder("pod-0", &etcd).shell(line).start().await;
        if line == to_pipe {
            drop(broken.take());
        }
        resign(&daemon).await;
        if counted {
            eventually(what, async || dropped_lines(&daemon).await > 0).await;
        }
        stops(&daemon).await;
    }
}

fn send(signal: i32, to: &Daemon) {
    let sent = Command::new("kill").args([format!("-{signal}"), to.pid().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "signal {signal}");
}

#[tokio::test]
async fn signals_that_mean_nothing_end_nothing_and_sigquit_stops_in_order() {
    let etcd = Etcd::start().await;
    let daemon = Daemon::start(&etcd).await;
    let token = eventually("it leads", async || daemon.token().await).await;
    let named = [
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGCHLD,
        libc::SIGCONT,
    ];
    for signal in named.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        send(signal, &daemon);
        assert_eq!(daemon.probe("/livez").await, Some(200), "after signal {signal}");
    }
    assert_eq!(daemon.token().await, Some(token), "{}", daemon.logs());
    send(libc::SIGQUIT, &daemon);
    assert!(daemon.wait_exit().await.success());
    assert!(daemon.logs().contains("stopping"), "{}", daemon.logs());
    let next = Daemon::start(&etcd).await;
    // At once: the one before gave its lease up.
    let began = Instant::now();
    eventually("the next one leads", async || next.is_leader().await).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// Goal: whoever may open the socket may reach it, and nobody else looks in.
/// Method: umasks at both ends, and a parent whose new directories get another group.
#[tokio::test]
async fn a_directory_made_for_the_socket_is_its_groups_whatever_the_umask() {
    let etcd = Etcd::start().await;
    for (umask, inherits) in [("000", false), ("077", false), ("027", false), ("022", true)] {
        let parent = tempfile::tempdir().expect("a directory");
        if inherits {
            // Only root may give a group of which it is no member; others show the bit alone.
            let _ = std::os::unix::fs::chown(parent.path(), None, Some(65_534));
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o2755)).expect("ours");
        }
        let dir = parent.path().join("made");
        let socket = dir.join("control.sock");
        // The ready file is made with the same umask, and must be read.
        let builder = Daemon::builder("pod-0", &etcd).set("http.control", format!("unix:{}", socket.display()));
        let daemon = builder.shell(format!("umask {umask}; exec \"$@\"")).start().await;
        let of = |path: &Path| fs::metadata(path).expect("there");
        assert_eq!(of(&dir).mode() & 0o7777, 0o750, "umask {umask}");
        assert_eq!(of(&socket).mode() & 0o777, 0o660, "umask {umask}");
        assert_eq!(of(&dir).gid(), of(&socket).gid(), "umask {umask}");
        daemon.sigterm();
        assert!(daemon.wait_exit().await.success());
    }
}
