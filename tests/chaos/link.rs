//! A slow and lossy network, in user space: this kernel's may have nothing for it.
//!
//! It stands in the namespace that takes every address for its own, so its socket says where the client wanted to go. A
//! segment that is lost shows as what TCP makes of it: the stream stands still for a retransmission or two, and now and
//! then the connection breaks.

use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::net::Node;
use super::sys::{Context, Done};

/// The ports of etcd: clients and peers.
const PORTS: [u16; 2] = [2379, 2380];
/// The first retransmission of TCP, in ms; each further one takes twice as long.
const RETRANSMIT: u64 = 200;
/// Small, so that a large message has several pieces to lose.
const CHUNK: usize = 4 * 1024;
/// What may be on its way in one direction, in chunks.
const WINDOW: usize = 64;

#[derive(Clone, Debug)]
struct Temper {
    delay: u64,
    jitter: u64,
    /// Per cent of the chunks.
    loss: u64,
    rng: Rng,
}

/// `link DELAY JITTER LOSS SEED`: ms, ms, per cent.
pub fn main(args: &[String]) -> Done {
    let number = |n: usize| args.get(n).and_then(|text| text.parse().ok()).ok_or("link DELAY JITTER LOSS SEED");
    let temper = Temper { delay: number(0)?, jitter: number(1)?, loss: number(2)?, rng: Rng::with_seed(number(3)?) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context(|| "runtime".to_owned())?;
    runtime.block_on(async {
        let [clients, peers] = PORTS;
        tokio::try_join!(listen(clients, temper.clone()), listen(peers, temper))?;
        Ok(())
    })
}

async fn listen(port: u16, mut temper: Temper) -> Done {
    let listener = TcpListener::bind(("0.0.0.0", port)).await.context(|| format!("port {port}"))?;
    loop {
        let (client, _) = listener.accept().await.context(|| "accept".to_owned())?;
        let temper = Temper { rng: temper.rng.fork(), ..temper };
        // One that cannot be carried is closed, which is what its client is to see.
        tokio::spawn(async move { carry(client, temper).await });
    }
}

async fn carry(client: TcpStream, mut temper: Temper) -> Done {
    let wanted = client.local_addr().context(|| "our end".to_owned())?;
    let address = Node::back_door(&wanted.ip().to_string());
    let server = TcpStream::connect((address, wanted.port())).await.context(|| "the other end".to_owned())?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).context(|| "TCP_NODELAY".to_owned())?;
    }
    let other = Temper { rng: temper.rng.fork(), ..temper };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, temper) => {}
        () = pump(from_server, to_client, other) => {}
    }
    Ok(())
}

/// Carries one direction until either end is done with it, or it breaks.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut temper: Temper) {
    // Two halves, so that a delay is latency and not a limit on throughput.
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(WINDOW);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(length);
            let Some(late) = temper.next() else { return };
            if sender.send((Instant::now() + late, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The end of a stream is late as well.
        sleep(Duration::from_millis(1)).await;
    };
    tokio::join!(read, write);
}

impl Temper {
    /// How late the next chunk is; none if the connection breaks.
    fn next(&mut self) -> Option<Duration> {
        let mut late = self.delay + self.rng.u64(0..=self.jitter);
        let mut wait = RETRANSMIT;
        while self.rng.u64(..100) < self.loss {
            late += wait;
            wait *= 2;
            if wait > 8 * RETRANSMIT {
                return None;
            }
        }
        Some(Duration::from_millis(late))
    }
}
