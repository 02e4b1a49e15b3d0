//! The way of a line to standard error: a bounded queue, and a thread that alone writes.
//!
//! Whoever logs never waits for whoever reads. A pipe that nobody empties blocks the thread and nobody else; lines that find
//! no room are dropped, counted, and said once the log drains again.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for standard error; more are dropped.
const LINES: usize = 1024;
/// So may their bytes.
const BYTES: usize = 1 << 20;
/// How long the end of the process waits for lines that nobody reads.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The log of this process. Not dropped with `main`: whatever ends the process may still log.
static LOG: OnceLock<Lines> = OnceLock::new();

/// Lines of the log that were dropped since the process started.
#[must_use]
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |lines| lines.waiting.dropped.load(Ordering::Relaxed))
}

/// Waits until what was logged is written, for a second at the most. To be called before the process ends.
pub fn flush() {
    if let Some(lines) = LOG.get() {
        lines.flush();
    }
}

/// Starts the thread, once.
///
/// # Errors
/// When no thread can be had.
pub(super) fn start() -> io::Result<Lines> {
    if let Some(lines) = LOG.get() {
        return Ok(lines.clone());
    }
    let lines = Lines::start(StandardError)?;
    Ok(LOG.get_or_init(|| lines).clone())
}

/// The producers' end; cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// What has been queued and not been written yet.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    lines: Mutex<usize>,
    none: Condvar,
    /// What never will be.
    dropped: AtomicU64,
}

impl Waiting {
    fn lines(&self) -> MutexGuard<'_, usize> {
        // A number: a panic elsewhere cannot have left it half written.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, line: &[u8]) {
        self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let mut lines = self.lines();
        *lines -= 1;
        if *lines == 0 {
            self.none.notify_all();
        }
    }
}

impl Lines {
    fn start(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(LINES);
        let waiting = Arc::new(Waiting::default());
        let of_thread = Arc::clone(&waiting);
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(out, &lines, &of_thread))?;
        Ok(Self { queue, waiting })
    }

    fn give(&self, line: &[u8]) {
        let room = self.waiting.bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= BYTES;
        *self.waiting.lines() += 1;
        if !room || self.queue.try_send(line.to_vec()).is_err() {
            self.waiting.dropped.fetch_add(1, Ordering::Relaxed);
            self.waiting.done(line);
        }
    }

    fn flush(&self) {
        let lines = self.waiting.lines();
        // Whether all was written or the time is up, there is nothing more to wait for.
        drop(self.waiting.none.wait_timeout_while(lines, LAST_WAIT, |lines| *lines > 0));
    }
}

/// One call is one line.
impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.give(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Writes until there is nobody left who logs.
fn write_all(mut out: impl io::Write, lines: &Receiver<Vec<u8>>, waiting: &Waiting) {
    let mut last = Written::Whole;
    let mut told = 0;
    loop {
        let next = match lines.try_recv() {
            Err(TryRecvError::Empty) => {
                let dropped = waiting.dropped.load(Ordering::Relaxed);
                if dropped > told && last == Written::Whole {
                    // Into the queue, which is empty: in the form of all the others.
                    tracing::warn!(
                        lines = dropped - told,
                        "lines of the log were dropped: standard error took no more"
                    );
                    told = dropped;
                }
                lines.recv().ok()
            }
            next => next.ok(),
        };
        let Some(line) = next else { return };
        last = last.then(write(&mut out, &line, last));
        if last != Written::Whole {
            waiting.dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.done(&line);
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Whole,
    /// Nothing of it.
    Not,
    /// Cut short, by a full disk: the next one begins on a line of its own.
    Torn,
}

impl Written {
    const fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Torn, Self::Not) => Self::Torn,
            (_, next) => next,
        }
    }
}

fn write(out: &mut impl io::Write, line: &[u8], last: Written) -> Written {
    if last == Written::Torn && out.write_all(b"\n").is_err() {
        return Written::Not;
    }
    let mut left = line;
    while !left.is_empty() {
        match out.write(left) {
            Ok(n @ 1..) => left = &left[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) if left.len() == line.len() => return Written::Not,
            Ok(_) | Err(_) => return Written::Torn,
        }
    }
    Written::Whole
}

/// Standard error without the lock of the standard library: a panic's own message must not wait behind a line that waits.
struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(io::stderr(), bytes) {
                // Somebody who shares the terminal or pipe made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let out = io::stderr();
                    rustix::event::poll(&mut [PollFd::new(&out, PollFlags::OUT)], None)?;
                }
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Takes what it is allowed to.
    struct Disk {
        room: Receiver<usize>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.room.recv().unwrap_or(usize::MAX).min(bytes.len()) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                n => {
                    self.written.lock().expect("no writer panicked").extend(&bytes[..n]);
                    Ok(n)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk() -> (Lines, SyncSender<usize>, impl Fn() -> String) {
        let (allow, room) = mpsc::sync_channel(64);
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::start(Disk { room, written: Arc::clone(&written) }).expect("a thread");
        (lines, allow, move || String::from_utf8(written.lock().expect("no writer panicked").clone()).expect("text"))
    }

    #[test]
    fn whoever_logs_never_waits_and_what_finds_no_room_is_counted() {
        let (mut lines, allow, written) = disk();
        for _ in 0..LINES + 100 {
            lines.write_all(b"x\n").expect("never fails");
        }
        let dropped = lines.waiting.dropped.load(Ordering::Relaxed);
        // One may be in the writer's hands.
        assert!((99..=100).contains(&dropped), "{dropped}");
        drop(allow);
        lines.flush();
        assert_eq!(written().lines().count() as u64, LINES as u64 + 100 - dropped);
    }

    #[test]
    fn the_bytes_that_wait_are_bounded_too() {
        let (mut lines, _allow, _) = disk();
        let long = vec![b'x'; BYTES / 4];
        for _ in 0..8 {
            lines.write_all(&long).expect("never fails");
        }
        assert!(lines.waiting.bytes.load(Ordering::Relaxed) <= BYTES);
        assert_eq!(lines.waiting.dropped.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_line_that_a_full_disk_cut_short_does_not_spoil_the_next() {
        let (mut lines, allow, written) = disk();
        // Two bytes of the first line, nothing of the second; the third has room again.
        for room in [2, 0, 0] {
            allow.send(room).expect("the disk listens");
        }
        lines.write_all(b"first\n").expect("never fails");
        lines.write_all(b"second\n").expect("never fails");
        drop(allow);
        lines.write_all(b"third\n").expect("never fails");
        lines.flush();
        assert_eq!(written(), "fi\nthird\n");
        assert_eq!(lines.waiting.dropped.load(Ordering::Relaxed), 2);
    }
}
