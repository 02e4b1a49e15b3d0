//! How a connection to a member is made. A name may have several addresses, and one of them may be silent: a connection made
//! anew begins with another one than the last, and does not wait for one address before it tries the next.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::connect::lock;

/// How long one address may keep silent before the next one is tried too (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried; more would not be reached within the limit.
const ADDRESSES: usize = 16;

/// Makes the connections of one member, whoever asks for them.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    /// The address that was connected to last.
    last: Arc<Mutex<Option<SocketAddr>>>,
    /// What TLS said when the newest connection ended, if it said anything.
    alert: Arc<Mutex<Option<String>>>,
    limit: Duration,
}

impl Dial {
    /// `limit`: for resolving the name and connecting together.
    pub(super) fn new(limit: Duration) -> Self {
        Self { last: Arc::default(), alert: Arc::default(), limit }
    }

    /// What the member said of TLS when it ended our newest connection: gRPC tells only that it ended.
    pub(super) fn alert(&self) -> Option<String> {
        lock(&self.alert).clone()
    }

    /// Reads and writes as `stream` does, and remembers what TLS says in the end.
    pub(super) fn listen<S>(&self, stream: S) -> Listened<S> {
        Listened { stream, alert: Arc::clone(&self.alert) }
    }

    /// A TCP connection.
    pub(super) async fn connect(&self, uri: &Uri) -> io::Result<TcpStream> {
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, format!("tcp connect error: no answer within {:?}", self.limit));
        let reach = async { self.race(resolve(uri).await?).await };
        let (stream, address) = timeout(self.limit, reach).await.unwrap_or_else(|_| Err(late()))?;
        // As gRPC wants it: its frames are small, and each is waited for.
        stream.set_nodelay(true)?;
        *lock(&self.last) = Some(address);
        *lock(&self.alert) = None;
        Ok(stream)
    }

    /// Tries the addresses one after the other, each new one when those before failed or kept silent; the first to answer wins.
    async fn race(&self, addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
        let last = *lock(&self.last);
        let mut waiting = order(addresses, last).into_iter();
        let (mut tries, mut failures) = (FuturesUnordered::new(), Vec::new());
        let dial = |address| async move { (address, TcpStream::connect(address).await) };
        loop {
            if let Some(address) = waiting.next() {
                tries.push(dial(address));
            }
            tokio::select! {
                Some((address, result)) = tries.next() => match result {
                    Ok(stream) => return Ok((stream, address)),
                    Err(error) => failures.push(format!("{address}: {error}")),
                },
                () = sleep(STAGGER), if waiting.len() > 0 => {}
                else => break,
            }
        }
        Err(io::Error::other(format!("tcp connect error: {}", failures.join("; "))))
    }
}

/// A stream of TLS. With version 1.3 a server refuses a client's certificate only after the client's handshake is done: the alert
/// comes as an error of the first read.
pub(super) struct Listened<S> {
    stream: S,
    alert: Arc<Mutex<Option<String>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read
            && error.kind() == io::ErrorKind::InvalidData
        {
            *lock(&self.alert) = Some(error.to_string());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn resolve(uri: &Uri) -> io::Result<Vec<SocketAddr>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let found = lookup_host((host, port)).await;
    let found: Vec<_> = found.map_err(|error| io::Error::other(format!("dns error: {host}: {error}")))?.collect();
    if found.is_empty() { Err(io::Error::other(format!("dns error: {host} has no address"))) } else { Ok(found) }
}

/// The addresses in the order of the resolver, but the one used last comes last: those after it come first.
fn order(mut addresses: Vec<SocketAddr>, last: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    if let Some(at) = addresses.iter().position(|address| Some(*address) == last) {
        addresses.rotate_left(at + 1);
    }
    addresses.truncate(ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn the_address_used_last_comes_last() {
        let all = addresses(&[1, 2, 3, 2]);
        assert_eq!(order(all.clone(), None), addresses(&[1, 2, 3]));
        assert_eq!(order(all.clone(), Some(all[0])), addresses(&[2, 3, 1]));
        assert_eq!(order(all.clone(), Some(all[2])), addresses(&[1, 2, 3]));
        assert_eq!(order(addresses(&[1]), Some(all[0])), addresses(&[1]), "there is no other");
    }
    async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    #[tokio::test]
    async fn a_connection_made_anew_goes_to_another_address() {
        let ((_first, a), (_second, b)) = (listener().await, listener().await);
        let dial = Dial::new(Duration::from_secs(5));
        let mut reached = Vec::new();
        for _ in 0..4 {
            let (_, address) = dial.race(vec![a, b]).await.expect("both listen");
            *lock(&dial.last) = Some(address);
            reached.push(address);
        }
        assert_eq!(reached, [a, b, a, b]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_keeps_silent_is_passed_over() {
        let (gone, refuses) = listener().await;
        drop(gone);
        // A queue of connections that nobody accepts, and that is full: the kernel answers no more.
        let full = tokio::net::TcpSocket::new_v4().expect("a socket");
        full.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let full = full.listen(1).expect("it listens");
        let silent = full.local_addr().expect("bound");
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(silent)).await {
            queued.push(stream);
        }
        let (_good, good) = listener().await;
        let dial = Dial::new(Duration::from_secs(5));
        let (_, reached) = dial.race(vec![refuses, silent, good]).await.expect("one listens");
        assert_eq!(reached, good);
        let nobody = dial.race(vec![refuses]).await.expect_err("nobody listens").to_string();
        assert!(nobody.contains("Connection refused"), "{nobody}");
    }
}
