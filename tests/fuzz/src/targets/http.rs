//! Raw bytes on a connection.
//!
//! The first byte says in pieces of what size the others are sent; 0 stands for all at once.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::house;
use crate::http_support::leader;

/// Longer than any answer takes that waits for nothing.
const PATIENCE: Duration = Duration::from_millis(100);
/// Every connection ends within this, whatever it was sent: the house's own limit is 5 s.
const LIMIT: Duration = Duration::from_secs(8);

/// An answer or none, an end in time, and no failure of our own.
pub fn run(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let size = if *size == 0 { bytes.len().max(1) } else { usize::from(*size) };
    house::visit(async |stage| {
        stage.publisher.publish(leader(Duration::from_mins(1)));
        let stream = UnixStream::connect(stage.socket()).await.expect("somebody listens");
        let (mut from, mut to) = stream.into_split();
        let send = async {
            for piece in bytes.chunks(size) {
                // It may answer and close before it has read all of it.
                if to.write_all(piece).await.is_err() {
                    break;
                }
                yield_now().await;
            }
            // The end of what we send must come after an answer, or it ends a request that is being worked on.
            yield_now().await;
            let _ = to.shutdown().await;
        };
        let mut answer = Vec::new();
        // A close with something unread is a reset.
        let read = async { drop(from.read_to_end(&mut answer).await) };
        let mut talk = std::pin::pin!(futures_util::future::join(send, read));
        if timeout(PATIENCE, &mut talk).await.is_err() {
            // It waits for news. The house has one seat, so that a newcomer makes it give way.
            let _newcomer = UnixStream::connect(stage.socket()).await.expect("somebody listens");
            timeout(LIMIT, &mut talk).await.expect("the connection ends");
        }
        judge(&answer);
    });
}

fn judge(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1."), "no HTTP: {text}");
    for (at, _) in text.match_indices("HTTP/1.1 5") {
        assert_eq!(text.get(at + 9..at + 12), Some("503"), "{text}");
    }
}
