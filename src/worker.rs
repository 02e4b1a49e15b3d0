//! A thread for what may block: files on a disk that may be slow, full or frozen.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// How long the end of the daemon waits for a worker. A frozen disk must not keep a process that has handed over.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A running worker with a bounded queue of jobs.
#[derive(Debug)]
pub struct Worker<T> {
    name: &'static str,
    jobs: Option<SyncSender<T>>,
    /// Closed when the thread ends, however it ends.
    ended: Receiver<()>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. `work` ends when its queue does.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        name: &'static str,
        room: usize,
        work: impl FnOnce(&Receiver<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(room);
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let _alive = alive;
            work(&queue);
        })?;
        Ok(Self { name, jobs: Some(jobs), ended })
    }

    /// Queues a job without waiting. `false` when there is no room.
    #[must_use]
    pub fn give(&self, job: T) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl<T> Drop for Worker<T> {
    /// Waits for what is queued, but not for ever.
    fn drop(&mut self) {
        self.jobs = None;
        if self.ended.recv_timeout(LAST_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(worker = self.name, "not waited for any longer: its disk does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_done_before_the_end_and_a_frozen_disk_is_not_waited_for() {
        let (done, seen) = mpsc::sync_channel(8);
        let tell = move |jobs: &Receiver<u8>| jobs.iter().for_each(|job| done.send(job).expect("somebody listens"));
        let all = Worker::start("all", 8, tell).expect("a thread");
        assert!((0..5).all(|n| all.give(n)));
        drop(all);
        assert_eq!(seen.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);

        let (_never, forever) = mpsc::sync_channel::<()>(0);
        let frozen = Worker::start("frozen", 1, move |_: &Receiver<u8>| {
            let _ = forever.recv();
        })
        .expect("a thread");
        drop(frozen); // Ends by itself, or this test does not.
    }
}
