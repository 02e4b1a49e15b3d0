//! The body of a request, read or not.
#![allow(
    clippy::disallowed_types,
    reason = "the clock of tokio's own timers, which bound a request and decide nothing else"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout};

/// The most that is read of a body that nobody wants, 16 MiB.
const LINGER_BYTES: usize = 16 << 20;
/// How long it is waited for more of it: whoever announced a body and sends none sees the connection end soon.
const LINGER_SILENCE: Duration = Duration::from_millis(500);

/// A request's body that is drained when it is dropped unread.
///
/// Many clients send the whole body before they look at the answer, and lose the answer when the connection closes while
/// they send. So what is left is read and thrown away, beside the answer, within the request's own `limit` and [`LINGER_BYTES`].
#[derive(Debug)]
pub struct Upload {
    inner: Option<Incoming>,
    /// None where nothing is drained.
    until: Option<Instant>,
    /// Set once there is nothing left to read.
    whole: Arc<AtomicBool>,
}

impl Upload {
    /// Wraps a body. `lingering` is false where the client waits for our leave to send (`Expect`).
    pub fn new(inner: Incoming, limit: Duration, lingering: bool) -> Self {
        let whole = Arc::new(AtomicBool::new(inner.is_end_stream()));
        Self { inner: Some(inner), until: lingering.then(|| Instant::now() + limit), whole }
    }

    /// Tells, also later, whether all of the body was read.
    pub fn whole(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.whole)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        let whole = matches!(polled, Poll::Ready(None)) || inner.is_end_stream();
        self.whole.store(whole, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let Some(until) = self.until.filter(|_| !inner.is_end_stream()) else { return };
        // The connection itself may be what is being dropped, with the runtime: then there is nobody to drain for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout_at(until, drain(inner)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    while let Ok(Some(Ok(frame))) = timeout(LINGER_SILENCE, body.frame()).await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}
