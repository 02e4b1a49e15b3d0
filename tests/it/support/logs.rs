//! Where the processes of one test write: gone with success, kept and named on failure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

/// A directory under `target/tmp/` for the logs of one server or daemon.
pub struct Logs {
    dir: Option<TempDir>,
}

impl Logs {
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("cargo made target/tmp");
        Self { dir: Some(dir) }
    }

    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("taken only by drop").path()
    }

    /// A log to append to: what a process wrote before a restart stays.
    pub fn append(&self, name: &str) -> Stdio {
        let path = self.file(name);
        let file = File::options().create(true).append(true).open(&path);
        file.unwrap_or_else(|error| panic!("open {}: {error}", path.display())).into()
    }

    pub fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of a log, for a panic message.
    pub fn tail(&self, name: &str) -> String {
        let text = self.read(name);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("logs kept: {}", dir.keep().display());
        }
    }
}

/// A directory in memory where there is one: etcd syncs every commit, and tests do not measure disks.
pub fn scratch(name: &str) -> TempDir {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(base);
    made.expect("a temporary directory can be made")
}
