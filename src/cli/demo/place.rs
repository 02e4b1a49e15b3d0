//! The demo's directory, and children whose output goes there.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::super::exit::Failure;

/// How much of a log is shown after a failure.
const TAIL: u64 = 2_000;
/// A Unix socket's path has to fit its address with the file's name behind.
const PATH_MAX: usize = 80;

/// A directory of our own; it goes with this value.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    pub fn make() -> Result<Self, Failure> {
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() > PATH_MAX - 24 {
            base = PathBuf::from("/tmp");
        }
        let path = base.join(format!("tenure-demo-{}", std::process::id()));
        // Of a demo that was killed and had the same process id.
        let _ = fs::remove_dir_all(&path);
        // For its user only, and made by us: `create` fails where something of that name is left.
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        Ok(path)
    }

    /// Starts a program that dies with this process, in a process group of its own: Ctrl-C reaches the demo, and only that.
    pub fn spawn(&self, name: &str, program: &Path, arguments: &[OsString]) -> Result<Child, Failure> {
        let failed = |what: &str, e: std::io::Error| Failure::failed(format!("{name}: {what}: {e}"));
        let own = std::env::current_exe().map_err(|e| failed("own program", e))?;
        let log = File::options().create(true).append(true).open(self.file(&format!("{name}.log")));
        let log = log.map_err(|e| failed("log", e))?;
        let errors = log.try_clone().map_err(|e| failed("log", e))?;
        let mut command = Command::new(own);
        command.arg("tether").arg(std::process::id().to_string()).arg("--").arg(program).args(arguments);
        // The environment of whoever runs the demo may hold settings of etcd and of ours.
        command.env_clear().process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        command.spawn().map_err(|e| failed("start", e))
    }

    /// The end of each log, for a failure.
    pub fn tails(&self) -> String {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|e| e.path()).collect();
        names.retain(|path| path.extension().is_some_and(|e| e == "log"));
        names.sort();
        let of = |path: &PathBuf| format!("== {} ==\n{}", path.display(), tail(path).unwrap_or_default().trim_end());
        names.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed stays in a directory that the system empties anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}
