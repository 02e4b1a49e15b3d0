//! Gives memory back after bursts of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// So many closed connections make a burst: fewer leave too little behind to matter.
const BURST: usize = 32;
/// How long after a burst the trim comes, and so the least time between two.
const LATER: Duration = Duration::from_secs(1);

/// Counts connections that ended.
#[derive(Debug, Default)]
pub struct Trimmer {
    ended: AtomicUsize,
    planned: AtomicBool,
}

impl Trimmer {
    /// To be called when a connection has ended and its buffers are freed.
    pub fn connection_ended(self: &Arc<Self>) {
        if self.ended.fetch_add(1, Ordering::Relaxed) + 1 < BURST || self.planned.swap(true, Ordering::Relaxed) {
            return;
        }
        let trimmer = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LATER).await;
            trimmer.ended.store(0, Ordering::Relaxed);
            trimmer.planned.store(false, Ordering::Relaxed);
            trim();
        });
    }
}

/// glibc keeps freed memory below the top of its heap for good, whatever its thresholds say: 2,000 idle connections leave
/// 36 MB behind.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "no crate offers it safely")]
pub fn trim() {
    // SAFETY: `malloc_trim` takes its own locks, may be called at any time from any thread, and leaves live memory alone.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim() {}
