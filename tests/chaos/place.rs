//! The one place on the machine that a run uses, and how it is left: as it was found.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::sys::{Context, Done, tool};

/// Every namespace that a run makes begins with it.
pub const PREFIX: &str = "tenure-chaos-";

/// Each program with the Debian package that has it.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("losetup", "mount"),
    ("fsfreeze", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("timeout", "coreutils"),
    ("truncate", "coreutils"),
];

/// The directory of the run. Dropped, it takes everything with it: processes, mounts, namespaces, files.
pub struct Place {
    pub dir: PathBuf,
    lock: PathBuf,
    // Held, not used: a second run finds it locked.
    _held: File,
}

impl Place {
    /// Checks that a run is possible here, and clears away what an earlier one left that could not do so itself.
    pub fn take() -> Done<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(
                "network namespaces, loop mounts and the wall clock are root's: run `sudo make chaos`".to_owned()
            );
        }
        missing_tools()?;
        // In memory where there is some: etcd syncs every commit, and this does not measure disks.
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = base.join("tenure-chaos");
        fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
        let lock = base.join("tenure-chaos.lock");
        let held = File::create(&lock).context(|| lock.display().to_string())?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("another run is under way: {} is locked", lock.display()))?;
        let place = Self { dir, lock, _held: held };
        place.clear();
        fs::create_dir_all(&place.dir).context(|| place.dir.display().to_string())?;
        Ok(place)
    }

    /// Remembers a process, for a run that has to clear up after this one. The start time tells it from a later one
    /// with the same number.
    pub fn remember(&self, pid: u32) -> Done {
        let path = self.dir.join("pids");
        let mut file = File::options().create(true).append(true).open(&path).context(|| path.display().to_string())?;
        let started = start_time(&pid.to_string()).unwrap_or_default();
        writeln!(file, "{pid} {started}").context(|| path.display().to_string())
    }

    /// Nothing in here stops at an error: whatever can be cleared away is.
    fn clear(&self) {
        let mounts = self.mounts();
        for mount in &mounts {
            // A process that waits for a frozen disk cannot even be killed. Most are not frozen, and that is said.
            let _ = tool("fsfreeze", &["-u", mount]);
        }
        self.kill_remembered();
        for mount in &mounts {
            unmount(mount);
        }
        for name in tool("ip", &["netns", "list"]).unwrap_or_default().lines() {
            let name = name.split(' ').next().unwrap_or_default();
            if name.starts_with(PREFIX)
                && let Err(error) = tool("ip", &["netns", "del", name])
            {
                eprintln!("{error}");
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }

    fn mounts(&self) -> Vec<String> {
        let dir = self.dir.display().to_string();
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = |line: &str| line.split(' ').nth(1).filter(|path| path.starts_with(&dir)).map(str::to_owned);
        table.lines().filter_map(below).collect()
    }

    fn kill_remembered(&self) {
        for line in fs::read_to_string(self.dir.join("pids")).unwrap_or_default().lines() {
            let Some((pid, started)) = line.split_once(' ') else { continue };
            let same = !started.is_empty() && start_time(pid).as_deref() == Some(started);
            if same && let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                // It may end in this very moment.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
        let _ = fs::remove_file(&self.lock);
    }
}

fn unmount(mount: &str) {
    // Whoever was just killed may still be on its way out.
    for _ in 0..20 {
        if tool("umount", &[mount]).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if let Err(error) = tool("umount", &["--lazy", mount]) {
        eprintln!("{error}");
    }
}

/// Field 22 of its stat, counted after the name in parentheses, which may hold anything.
fn start_time(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19).map(str::to_owned)
}

fn missing_tools() -> Done {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(name, _)| !found(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, package)| format!("{name} (Debian package {package})")).collect();
    Err(format!("not on the PATH: {}", names.join(", ")))
}
