//! The demo's etcd: one member, on free ports, in the demo's directory.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use tokio::time::sleep;

use super::super::client::{Client, Target};
use super::super::exit::Failure;
use super::place::Place;
use crate::clock;
use crate::config::Env;

/// From its start until it answers, at most: a slow disk has to write its log.
const START: Duration = Duration::from_secs(20);
/// A port that was free may be taken by the time etcd binds it.
const TRIES: usize = 3;

/// A running etcd; it is killed with this value.
#[derive(Debug)]
pub struct Store {
    child: Child,
    url: String,
}

/// The program: `$ETCD_BIN`, or the first `etcd` of `PATH`.
pub fn find(env: &Env) -> Result<PathBuf, Failure> {
    let how = "accepted: ETCD_BIN=/path/to/etcd, an etcd in PATH, or `make demo`, which provides one";
    if let Some(given) = env.filled("ETCD_BIN") {
        let path = PathBuf::from(given);
        return if runs(&path) { Ok(path) } else { Err(Failure::failed(format!("ETCD_BIN names no program; {how}"))) };
    }
    let found = env.path().into_iter().map(|dir| dir.join("etcd")).find(|path| runs(path));
    found.ok_or_else(|| Failure::failed(format!("no etcd was found; {how}")))
}

fn runs(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Starts it, and waits until it answers.
pub async fn start(program: &Path, place: &Place) -> Result<Store, Failure> {
    let mut last = Failure::failed("etcd did not start");
    for _ in 0..TRIES {
        let [client, peer] = free_ports().map_err(|e| Failure::failed(format!("no free port: {e}")))?;
        let url = format!("http://127.0.0.1:{client}");
        let child = place.spawn("etcd", program, &arguments(place, &url, &format!("http://127.0.0.1:{peer}")))?;
        let mut store = Store { child, url };
        match store.answers().await {
            Ok(()) => return Ok(store),
            Err(failure) => last = Failure::failed(format!("{}\n{}", failure.message, place.tails())),
        }
    }
    Err(last)
}

/// Both at once, so that they differ.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let [a, b] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([a.local_addr()?.port(), b.local_addr()?.port()])
}

fn arguments(place: &Place, client: &str, peer: &str) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["--data-dir".into(), place.file("etcd").into()];
    let cluster = format!("demo={peer}");
    for (flag, value) in [
        ("--name", "demo"),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", &cluster),
        ("--log-level", "warn"),
    ] {
        all.extend([flag.into(), value.into()]);
    }
    all
}

impl Store {
    /// The endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        let target = Target::parse(&self.url).map_err(Failure::failed)?;
        let client = Client::new(target, None, Duration::from_secs(1))?;
        let began = clock::now();
        while clock::now().since(began) < START {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::failed(format!("etcd ended at once: {status}")));
            }
            // A linearizable read, so there is a leader.
            if client.get("/health", client.limit()).await.is_ok_and(|a| a.status.is_success()) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::failed("etcd does not answer"))
    }

    /// Ends it. Nothing in it is worth a graceful end.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_etcd_the_error_says_how_to_get_one() {
        let failure = find(&Env::from_iter([("PATH", "/nonexistent")])).expect_err("there is none");
        assert!(failure.message.contains("make demo") && failure.message.contains("ETCD_BIN"), "{}", failure.message);
        assert!(find(&Env::from_iter([("ETCD_BIN", "/etc/passwd")])).is_err(), "it is no program");
        assert_eq!(find(&Env::from_iter([("ETCD_BIN", "/bin/sh")])), Ok(PathBuf::from("/bin/sh")));
    }
}
