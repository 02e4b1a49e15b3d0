//! A member that hears its leader and gets no entries: it answers from memory, keeps its leader, and applies nothing, as one
//! whose disk hangs. No root and no frozen disk is needed, for etcd sends heartbeats and entries to each follower on streams of
//! their own (rafthttp), which a proxy in front of each member's peer port can tell apart by the request that opens them.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::free_port;

/// No request head is larger.
const HEAD: usize = 16 * 1024;

/// The member ids, in hexadecimal, whose entries are withheld.
type Starved = Arc<watch::Sender<Option<String>>>;

/// Proxies in front of the peer ports of one cluster.
pub struct Peers {
    starved: Starved,
    tasks: Vec<JoinHandle<()>>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self { starved: Arc::new(watch::Sender::new(None)), tasks: Vec::new() }
    }

    /// The port to advertise instead of `port`.
    pub(super) fn front(&mut self, port: u16) -> u16 {
        let listener = loop {
            // Lost to another process since it was found free: take the next.
            if let Ok(listener) = StdListener::bind((Ipv4Addr::LOCALHOST, free_port())) {
                break listener;
            }
        };
        let front = listener.local_addr().expect("it is bound").port();
        listener.set_nonblocking(true).expect("a socket may be");
        let listener = TcpListener::from_std(listener).expect("a listener of ours");
        let starved = Arc::clone(&self.starved);
        self.tasks.push(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let starved = starved.subscribe();
                tokio::spawn(async move { drop(carry(client, port, starved).await) });
            }
        }));
        front
    }

    /// From now on the member with this id gets no entries; heartbeats and votes pass.
    pub(super) fn starve(&self, id: Option<String>) {
        self.starved.send_replace(id);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn carry(mut client: TcpStream, port: u16, starved: watch::Receiver<Option<String>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut head = Vec::new();
    while head.len() < HEAD && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    server.write_all(&head).await?;
    // `GET /raft/stream/msgapp/8e9e05c52164694d HTTP/1.1`: who wants entries.
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default();
    let entries_for = path.strip_prefix("/raft/stream/msgapp/").map(str::to_owned);
    let (mut from_client, to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let up = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_server).await;
        if entries_for.is_some() {
            // Its reader gave up. The writer must not hear of it: without this stream it would send entries by the other one.
            std::future::pending::<()>().await;
        }
        to_server.shutdown().await?;
        copied.map(drop)
    };
    let (up, down) = tokio::join!(up, down(from_server, to_client, entries_for.as_deref(), starved));
    up.and(down.map(drop))
}

/// Server to client; what a starved member would get is read and thrown away.
async fn down(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    entries_for: Option<&str>,
    starved: watch::Receiver<Option<String>>,
) -> std::io::Result<u64> {
    let (mut chunk, mut carried, mut opened) = (vec![0; 16 * 1024], 0, false);
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            to.shutdown().await?;
            return Ok(carried);
        }
        let withheld = entries_for.is_some() && starved.borrow().as_deref() == entries_for;
        // The answer that opens the stream passes, so that its reader waits instead of asking again.
        if !(withheld && opened) {
            opened = true;
            if to.write_all(&chunk[..length]).await.is_err() && !withheld {
                return Ok(carried);
            }
            carried += length as u64;
        }
    }
}
