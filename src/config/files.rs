//! Whether the files and directories that the configuration names can be used.
//!
//! No message quotes a path of a secret: whoever writes the secret itself where its file belongs must not find it in a log.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustix::fs::{Access, access};

/// Larger than any certificate, key or password file.
const FILE_MAX: u64 = 1 << 20;

/// The whole of a file that can be read and is no larger than `FILE_MAX`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let meta = fs::metadata(path).map_err(|e| cannot_read(&e))?;
    if meta.is_dir() {
        return Err("a directory where a file belongs".to_owned());
    }
    // A pipe (`-c <(…)`) has no size: then the limit is kept while reading.
    if meta.len() > FILE_MAX {
        return Err("larger than 1 MiB, so it was not read; accepted: a smaller file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| cannot_read(&e))?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| cannot_read(&e))?;
    if u64::try_from(bytes.len()).is_ok_and(|n| n <= FILE_MAX) {
        return Ok(bytes);
    }
    Err("larger than 1 MiB; accepted: a smaller file".to_owned())
}

/// A secret: readable, and not blank. Its content goes nowhere.
pub(super) fn secret(path: &Path) -> Result<(), String> {
    holding(path, "the secret")
}

/// A file that can be read, and is not blank; it should hold this.
pub(super) fn holding(path: &Path, what: &str) -> Result<(), String> {
    let bytes = read(path)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("the file is empty; accepted: a file that holds {what}"));
    }
    Ok(())
}

/// A directory that exists and can be written to, or can be made. Nothing is made here: a check leaves no traces.
pub(super) fn directory(path: &Path) -> Result<(), String> {
    let existing = path.ancestors().find(|p| p.exists() || p.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let shown = super::node::printable(&existing.to_string_lossy());
    if !existing.is_dir() {
        return Err(format!("the directory cannot be made: {shown} is no directory"));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| format!("the directory cannot be written to or made: {shown}: {}", std::io::Error::from(e)))
}

/// A file to append to: its directory exists, or can be made.
pub(super) fn appendable(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err("a directory where a file belongs".to_owned());
    }
    path.parent().map_or(Ok(()), directory)
}

fn cannot_read(error: &std::io::Error) -> String {
    format!("the file cannot be read: {error}")
}
