//! The high-water mark on disk (`state_dir`): what a restarted daemon must not fall below.
//!
//! Written to a temporary file, synced and renamed, so that what is there is always whole. A full disk never stops an
//! election: the mark then lives in memory only, and that is said.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::election::ids::{ClusterId, ElectionName, Generation, RaftTerm, Revision};
use crate::election::record::HighWater;
use crate::worker::Worker;

/// Name of the file inside `state_dir`.
const FILE: &str = "high-water.json";
/// Marks that may wait for the disk; each replaces the one before, so a missed one is made good by the next.
const QUEUE: usize = 16;

/// Why the mark could not be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} is not a high-water mark ({source}); if etcd was never restored since, it is safe to delete that file"
    )]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// What is remembered across a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The highest that etcd showed.
    pub water: HighWater,
    /// The cluster that showed it, where one is pinned.
    pub cluster: Option<ClusterId>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    revision: i64,
    raft_term: u64,
    /// In hex. Versions before 0.2 do not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    generations: std::collections::BTreeMap<String, u64>,
}

/// Reads the mark of these elections.
///
/// # Errors
/// When there is a file that cannot be read, or that holds something else.
pub fn load(dir: &Path, elections: &[ElectionName]) -> Result<Option<Mark>, Error> {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let stored: Stored = serde_json::from_slice(&text).map_err(|source| Error::Parse { path: path.clone(), source })?;
    let generation = |e: &ElectionName| {
        let generation = Generation(stored.generations.get(e.as_str()).copied().unwrap_or(0));
        if generation > Generation::MAX {
            tracing::warn!(election = %e, %generation, file = %path.display(),
                "the generation remembered is none that counts (below 2^62): it is taken for nothing");
            return Generation(0);
        }
        generation
    };
    let water = HighWater {
        revision: Revision(stored.revision),
        raft_term: RaftTerm(stored.raft_term),
        generations: elections.iter().map(generation).collect(),
    };
    Ok(Some(Mark { water, cluster: stored.cluster.as_deref().and_then(ClusterId::parse) }))
}

/// Writes marks on a thread of its own: a slow disk must not hold up the driver.
#[derive(Debug)]
pub struct Memory(Worker<Mark>);

impl Memory {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(dir: PathBuf, elections: Vec<ElectionName>) -> io::Result<Self> {
        Worker::start("memory", QUEUE, move |queue| write_all(&dir, &elections, queue)).map(Self)
    }

    /// Has the mark written, soon.
    pub fn remember(&self, mark: Mark) {
        if !self.0.give(mark) {
            tracing::warn!("the disk under state_dir is too slow: a high-water mark was not written");
        }
    }
}

fn write_all(dir: &Path, elections: &[ElectionName], queue: &Receiver<Mark>) {
    let mut failing = false;
    while let Ok(mut mark) = queue.recv() {
        while let Ok(newer) = queue.try_recv() {
            mark = newer;
        }
        match write(dir, elections, &mark) {
            Ok(()) => failing = false,
            Err(e) if failing => tracing::debug!("state_dir: {e}"),
            Err(e) => {
                failing = true;
                tracing::warn!("the high-water mark lives in memory only: cannot write to {}: {e}", dir.display());
            }
        }
    }
}

fn write(dir: &Path, elections: &[ElectionName], mark: &Mark) -> io::Result<()> {
    let path = dir.join(FILE);
    // Elections that are not configured any more keep what was remembered of them.
    let mut generations = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Stored>(&text).ok())
        .map_or_else(Default::default, |stored| stored.generations);
    for (name, generation) in elections.iter().zip(&mark.water.generations) {
        generations.insert(name.as_str().to_owned(), generation.0);
    }
    let cluster = mark.cluster.map(|id| id.to_string());
    let stored = Stored { revision: mark.water.revision.0, raft_term: mark.water.raft_term.0, cluster, generations };
    let temporary = dir.join(format!("{FILE}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&stored)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ElectionName {
        ElectionName::parse(text).expect("a good name")
    }

    fn mark(generations: &[u64]) -> Mark {
        let generations = generations.iter().map(|g| Generation(*g)).collect();
        let water = HighWater { revision: Revision(9), raft_term: RaftTerm(2), generations };
        Mark { water, cluster: Some(ClusterId(0xcdf8_1819_4e3a_8c32)) }
    }

    #[test]
    fn a_mark_of_before_clusters_were_remembered_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), r#"{"revision":9,"raft_term":2,"generations":{"a":7}}"#)
            .expect("written");
        let read = load(dir.path(), &[name("a")]).expect("a good file").expect("a mark");
        assert_eq!(read, Mark { cluster: None, ..mark(&[7]) });
    }

    #[test]
    fn the_mark_survives_and_elections_are_known_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let both = [name("a"), name("b")];
        assert!(load(dir.path(), &both).expect("no file yet").is_none());
        Memory::start(dir.path().into(), both.to_vec()).expect("a thread").remember(mark(&[7, 8]));
        assert_eq!(load(dir.path(), &both).expect("a good file"), Some(mark(&[7, 8])));
        Memory::start(dir.path().into(), vec![name("b")]).expect("a thread").remember(mark(&[9]));
        assert_eq!(load(dir.path(), &both).expect("a good file"), Some(mark(&[7, 9])));
    }

    #[test]
    fn a_generation_that_leaves_no_room_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = [name("a"), name("b"), name("c")];
        let text =
            format!(r#"{{"revision":9,"raft_term":2,"generations":{{"a":{},"b":{},"c":7}}}}"#, u64::MAX, 1_u64 << 62);
        std::fs::write(dir.path().join(FILE), text).expect("written");
        let read = load(dir.path(), &all).expect("a good file");
        assert_eq!(read, Some(Mark { cluster: None, ..mark(&[0, 0, 7]) }));
    }

    #[test]
    fn a_file_that_holds_something_else_is_an_error_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), "{").expect("written");
        assert!(matches!(load(dir.path(), &[name("a")]), Err(Error::Parse { .. })));
        assert!(dir.path().join(FILE).exists());
    }
}
