//! A stream whose writes end when the peer does not read, and whose connection ends when the peer has gone.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::seats::Seat;

/// How often we look whether the client of a long poll, a question or a verb is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Fails with `TimedOut` once the peer has kept one answer waiting for the limit, and with `BrokenPipe` once it has gone.
///
/// hyper bounds how long a client may take to send, but not how long it may take to read. And a client that sends no more may
/// only have shut its own side, and wait for the answer, so hyper does not look at the socket again before it has written
/// that. Who has really gone shows there nevertheless: by a reset, or on a Unix socket by the end of both directions.
pub struct Patient<T> {
    inner: T,
    limit: Duration,
    /// Runs from the first write that had to wait until everything is written: a peer that reads a byte now and then does
    /// not start it anew.
    stalled: Option<Pin<Box<Sleep>>>,
    seat: Arc<Seat>,
    /// Runs while we work for the client.
    next_look: Option<Pin<Box<Sleep>>>,
}

impl<T: AsFd> Patient<T> {
    /// Wraps `inner`.
    pub fn new(inner: T, limit: Duration, seat: Arc<Seat>) -> Self {
        Self { inner, limit, stalled: None, seat, next_look: None }
    }

    /// hyper flushes at every turn of a connection, so this is called as often as anything happens, the timer included.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.seat.working() {
            let next = self.next_look.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
            if next.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.next_look = None;
            let flags = socket_flags(&self.inner);
            if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if flags.contains(PollFlags::RDHUP) {
                self.seat.falls_quiet();
            }
        }
        self.next_look = None;
        Ok(())
    }

    fn wait<R>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_pending() {
            let limit = self.limit;
            ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        done
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// What is true of a socket now, without waiting.
fn socket_flags(socket: &impl AsFd) -> PollFlags {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).map_or(PollFlags::empty(), |_| asked[0].revents())
}

impl<T: AsyncWrite + AsFd + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wait(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        if done.is_ready() {
            self.stalled = None;
            self.look(cx)?;
        }
        self.wait(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.wait(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wait(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::super::seats::{Doing, Seats};
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_peer_that_does_not_read_ends_the_write() {
        let (near, _far) = UnixStream::pair().expect("a pair");
        let seat = Arc::new(Seats::new(1).take().await);
        let mut patient = Patient::new(near, Duration::from_millis(20), seat);
        let failed = patient.write_all(&vec![0; 8 << 20]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_went_is_told_from_one_that_only_sends_no_more() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let seat = Arc::new(Seats::new(1).take().await);
        seat.now(Doing::Polling);
        let mut patient = Patient::new(near, Duration::from_mins(1), Arc::clone(&seat));
        let mut look = async || {
            // A turn of the connection, some while later.
            tokio::time::sleep(LOOK_EVERY + Duration::from_millis(50)).await;
            patient.flush().await
        };
        look().await.expect("the timer starts");
        far.shutdown().await.expect("shut");
        look().await.expect("it waits for its answer");
        drop(far);
        assert_eq!(look().await.expect_err("it has gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
