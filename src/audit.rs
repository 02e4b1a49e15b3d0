//! The audit: every role change of this daemon, in memory for `transitions`, and as JSON lines in a file.
//!
//! A full disk never stops the election: lines that cannot be written are dropped, counted and said.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::config::AuditConfig;
use crate::control::{AuditLine, AuditTrail, Page};
use crate::election::ids::{ElectionIndex, ElectionName};
use crate::worker::Worker;

/// Lines of each election that are kept in memory.
const KEPT: usize = 1000;
/// Lines that may wait for the disk; more are dropped.
const QUEUE: usize = 1024;

/// One line as the file and the HTTP API show it.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    seq: u64,
    time: String,
    hlc: String,
    election: &'a str,
    id: &'a str,
    from: &'static str,
    to: &'static str,
    old_generation: u64,
    new_generation: u64,
    reason: &'static str,
    detail: &'a str,
}

impl<'a> Line<'a> {
    /// Puts names to a line.
    #[must_use]
    pub fn new(line: &'a AuditLine, election: &'a ElectionName, id: &'a str) -> Self {
        let t = &line.transition;
        Self {
            seq: line.seq,
            time: line.time.rfc3339(),
            hlc: line.hlc.to_string(),
            election: election.as_str(),
            id,
            from: t.from.as_str(),
            to: t.to.as_str(),
            old_generation: t.old_generation.0,
            new_generation: t.new_generation.0,
            reason: t.reason.as_str(),
            detail: &line.detail,
        }
    }
}

/// The newest lines, in memory.
#[derive(Debug)]
pub struct Trail {
    lines: Mutex<Vec<VecDeque<AuditLine>>>,
}

impl AuditTrail for Trail {
    fn newest(&self, election: ElectionIndex, page: Page) -> Vec<AuditLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let older = |l: &&AuditLine| page.before.is_none_or(|before| l.seq < before);
        lines
            .get(election.0)
            .map_or_else(Vec::new, |l| l.iter().rev().filter(older).take(page.limit).cloned().collect())
    }
}

/// The one writer of the audit.
#[derive(Debug)]
pub struct Audit {
    id: String,
    elections: Vec<ElectionName>,
    trail: Arc<Trail>,
    file: Option<Worker<String>>,
    /// The `seq` of the last line in the file when it was opened: ours go on from there.
    last_seq: u64,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    /// Starts the audit, and the thread that writes its file if there is one.
    ///
    /// # Errors
    /// When the file cannot be opened now: better said at the start than found missing later.
    pub fn start(id: String, elections: Vec<ElectionName>, config: &AuditConfig) -> io::Result<Self> {
        let lines = Mutex::new(elections.iter().map(|_| VecDeque::new()).collect());
        let dropped = Arc::new(AtomicU64::new(0));
        let (file, last_seq) = match &config.file {
            Some(path) => {
                let mut rotated = Rotated::open(path, config)?;
                let (last_seq, dropped) = (rotated.last_seq, Arc::clone(&dropped));
                let worker = Worker::start("audit", QUEUE, move |queue| write_all(&mut rotated, queue, &dropped))?;
                (Some(worker), last_seq)
            }
            None => (None, 0),
        };
        Ok(Self { id, elections, trail: Arc::new(Trail { lines }), file, last_seq, dropped })
    }

    /// For readers.
    #[must_use]
    pub fn trail(&self) -> Arc<Trail> {
        Arc::clone(&self.trail)
    }

    /// The `seq` after which to count.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Lines that the file lacks, since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Records a line. Never waits for the disk.
    pub fn record(&self, line: AuditLine) {
        let name = &self.elections[line.election.0];
        if let Some(file) = &self.file {
            let json = serde_json::to_string(&Line::new(&line, name, &self.id)).unwrap_or_default();
            if !file.give(json + "\n") {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut lines = self.trail.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut lines[line.election.0];
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

fn write_all(file: &mut Rotated, queue: &Receiver<String>, dropped: &AtomicU64) {
    let mut failing = false;
    while let Ok(line) = queue.recv() {
        match file.write(&line) {
            Ok(()) => failing = false,
            Err(e) => {
                dropped.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("audit lines are being dropped: cannot write to {}: {e}", file.path.display());
                }
            }
        }
    }
}

/// A file that is moved aside past a size.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    rotate_bytes: u64,
    keep: usize,
    /// The last line was cut short, by a full disk or a crash: the next one begins on a line of its own.
    torn: bool,
    last_seq: u64,
}

/// How much of the end of an existing file is looked at; a line is far shorter.
const TAIL: u64 = 64 * 1024;

impl Rotated {
    fn open(path: &Path, config: &AuditConfig) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        let tail = if file.metadata()?.is_file() { tail(path, size)? } else { Vec::new() };
        let torn = !tail.is_empty() && !tail.ends_with(b"\n");
        let seq = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).ok()?["seq"].as_u64();
        let last_seq = tail.split(|b| *b == b'\n').rev().find_map(seq).unwrap_or(0);
        let (rotate_bytes, keep) = (config.rotate_bytes, config.keep);
        Ok(Self { path: path.into(), file, size, rotate_bytes, keep, torn, last_seq })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.rotate_bytes {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = self.file.write_all(line.as_bytes());
        self.size = self.file.metadata().map_or(self.size, |m| m.len());
        self.torn = written.is_err() && self.size > 0;
        written
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the one past `keep` goes.
    fn rotate(&mut self) -> io::Result<()> {
        let nth = |n: usize| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            match std::fs::rename(nth(n), nth(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, nth(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        (self.size, self.torn) = (0, false);
        Ok(())
    }
}

fn tail(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Wall};
    use crate::election::event::Transition;
    use crate::election::ids::Generation;
    use crate::election::role::{Reason, Role};

    fn line(seq: u64) -> AuditLine {
        let election = ElectionIndex(0);
        let transition = Transition {
            election,
            from: Role::Follower,
            to: Role::Candidate,
            old_generation: Generation(0),
            new_generation: Generation(0),
            reason: Reason::Queued,
        };
        AuditLine { seq, time: Wall(seq), hlc: Hlc::default(), election, transition, detail: String::new() }
    }

    fn audit(file: Option<PathBuf>, rotate_bytes: u64) -> io::Result<Audit> {
        let name = ElectionName::parse("orders").expect("a good name");
        Audit::start("pod-0".into(), vec![name], &AuditConfig { file, rotate_bytes, keep: 2 })
    }

    #[test]
    fn memory_keeps_the_newest_lines_and_pages_through_them() {
        let audit = audit(None, 0).expect("no file to open");
        (1..=1500).for_each(|seq| audit.record(line(seq)));
        let page = |limit, before| -> Vec<u64> {
            audit.trail().newest(ElectionIndex(0), Page { limit, before }).iter().map(|l| l.seq).collect()
        };
        assert_eq!(page(3, None), [1500, 1499, 1498]);
        assert_eq!(page(2, Some(1498)), [1497, 1496]);
        assert_eq!(page(9999, None).len(), KEPT);
        assert!(audit.trail().newest(ElectionIndex(7), Page { limit: 1, before: None }).is_empty());
    }

    #[test]
    fn the_file_is_rotated_and_every_line_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "torn by a cras").expect("written");
        let audit = audit(Some(path.clone()), 600).expect("opened");
        (1..=12).for_each(|seq| audit.record(line(seq)));
        drop(audit);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let all = read("audit.log.2") + &read("audit.log.1") + &read("audit.log");
        let whole: Vec<u64> =
            all.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()?["seq"].as_u64()).collect();
        assert!(whole.ends_with(&[10, 11, 12]), "{all}");
        assert!(!dir.path().join("audit.log.3").exists(), "only two rotated files are kept");
    }

    #[test]
    fn numbers_go_on_from_the_file_of_an_earlier_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let first = audit(Some(path.clone()), 1 << 20).expect("opened");
        assert_eq!(first.last_seq(), 0);
        (1..=7).for_each(|seq| first.record(line(seq)));
        drop(first);
        assert_eq!(audit(Some(path), 1 << 20).expect("opened").last_seq(), 7);
    }

    #[test]
    fn a_full_disk_drops_lines_and_counts_them() {
        let audit = audit(Some("/dev/full".into()), 1 << 20).expect("opened");
        audit.record(line(1));
        let dropped = Arc::clone(&audit.dropped);
        drop(audit);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
