//! Random rounds of everything that ends a leadership: one leader at a time, growing tokens, one history record each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{Daemon, Endpoints as _, Etcd, eventually, request};

/// Deletions and revocations by hand end a leadership before its guard: for so long the old leader may not know yet.
const OUT_OF_BAND: Duration = Duration::from_millis(100);

/// One answer of 200: somewhere between sending and receiving this daemon led with this generation.
#[derive(Clone, Copy, Debug)]
struct Led {
    generation: u64,
    sent: Instant,
    received: Instant,
}

/// Goal: exactly one leader at a time by the guards, generations strictly growing in commit order, one history record each.
/// Method: `ROUNDS` (default 12; `make rounds` runs 200) random rounds of resign, SIGTERM, kill -9, SIGSTOP, key deleted and
/// lease revoked, while every daemon is polled as fast as it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_rounds_never_show_two_leaders_or_a_token_twice() {
    let rounds: usize = std::env::var("ROUNDS").map_or(12, |n| n.parse().expect("ROUNDS is a number"));
    let seed = std::env::var("SEED").map_or_else(|_| Rng::new().u64(..), |s| s.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let etcd = Etcd::start().await;
    let mut arena = Arena::new(&etcd).await;
    let mut counts = [0; 6];
    for round in 0..rounds {
        let leader = arena.leader().await;
        // Each kind at least once in six rounds.
        let kind = if round % 6 == 0 { rng.usize(..6) } else { (round + rng.usize(..2)) % 6 };
        counts[kind] += 1;
        arena.strike(&etcd, leader, kind, &mut rng).await;
        arena.leader().await;
    }
    println!("rounds of resign, SIGTERM, kill -9, SIGSTOP, delete, revoke: {counts:?}");
    let led = arena.finish().await;
    no_overlap(&led, &arena.out_of_band);
    records(&etcd, arena.generation).await;
}

struct Arena {
    daemons: Vec<Arc<Daemon>>,
    pollers: Vec<tokio::task::JoinHandle<()>>,
    led: Arc<Mutex<Vec<Led>>>,
    over: Arc<AtomicBool>,
    out_of_band: Vec<Instant>,
    generation: u64,
    endpoints: Vec<String>,
}

impl Arena {
    async fn new(etcd: &Etcd) -> Self {
        let mut arena = Self {
            daemons: Vec::new(),
            pollers: Vec::new(),
            led: Arc::default(),
            over: Arc::default(),
            out_of_band: Vec::new(),
            generation: 0,
            endpoints: etcd.endpoints(),
        };
        for n in 0..3 {
            let daemon = arena.start(n).await;
            arena.daemons.push(daemon);
        }
        arena
    }

    async fn start(&mut self, n: usize) -> Arc<Daemon> {
        let daemon = Daemon::builder(&format!("pod-{n}"), &self.endpoints).ttl("2s").promise("200ms").start().await;
        let daemon = Arc::new(daemon);
        self.pollers.push(tokio::spawn(poll(Arc::clone(&daemon), Arc::clone(&self.led), Arc::clone(&self.over))));
        daemon
    }

    /// The leader of a generation that was not seen to lead before, or still the same one.
    async fn leader(&mut self) -> usize {
        let (n, generation) = eventually("somebody leads", async || {
            for (n, daemon) in self.daemons.iter().enumerate() {
                let answer = daemon.get("/leader").await.ok().filter(|a| a.status == 200);
                if let Some(generation) = answer.and_then(|a| a.json()["generation"].as_u64()) {
                    return Some((n, generation));
                }
            }
            None
        })
        .await;
        assert!(generation >= self.generation, "tokens must grow: {} then {generation}", self.generation);
        self.generation = generation;
        n
    }

    async fn strike(&mut self, etcd: &Etcd, n: usize, kind: usize, rng: &mut Rng) {
        let daemon = Arc::clone(&self.daemons[n]);
        let before = self.generation;
        match kind {
            0 => {
                let answer = daemon.verb("resign", &json!({})).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            1 => {
                daemon.sigterm();
                assert!(daemon.wait_exit().await.success());
                self.daemons[n] = self.start(n).await;
            }
            2 => {
                daemon.sigkill();
                self.daemons[n] = self.start(n).await;
            }
            3 => {
                daemon.sigstop();
                tokio::time::sleep(Duration::from_millis(rng.u64(500..3_500))).await;
                daemon.sigcont();
                return;
            }
            4 => {
                self.out_of_band.push(Instant::now());
                let lease = lease(&daemon).await;
                etcd.ctl(&["del", &format!("/tenure/elections/orders/{lease}")]).await;
                self.out_of_band.push(Instant::now());
            }
            _ => {
                self.out_of_band.push(Instant::now());
                let lease = lease(&daemon).await;
                etcd.ctl(&["lease", "revoke", &lease]).await;
                self.out_of_band.push(Instant::now());
            }
        }
        eventually("the generation moves on", async || {
            for daemon in &self.daemons {
                if daemon.status().await.is_some_and(|s| s["generation"].as_u64() > Some(before)) {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    async fn finish(&mut self) -> Vec<Led> {
        self.over.store(true, Ordering::Relaxed);
        for poller in self.pollers.drain(..) {
            poller.await.expect("a poller");
        }
        let led = self.led.lock().expect("no poller panicked");
        led.clone()
    }
}

async fn lease(daemon: &Daemon) -> String {
    let status = daemon.status().await.expect("a status");
    status["session"]["lease"].as_str().expect("a lease").to_owned()
}

async fn poll(daemon: Arc<Daemon>, led: Arc<Mutex<Vec<Led>>>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let get = request(Method::GET, "/leader", hyper::body::Bytes::new());
        match daemon.public().send_within(Duration::from_secs(8), get).await {
            Ok(answer) if answer.status == 200 => {
                let generation = answer.json()["generation"].as_u64().expect("a generation");
                led.lock().expect("no poller panicked").push(Led { generation, sent, received: Instant::now() });
            }
            // Killed, or refusing: both are answers here, but not ones to ask for in a tight loop.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Nobody led with an older generation in an answer to a request that was sent after a newer leader's answer was received.
fn no_overlap(led: &[Led], out_of_band: &[Instant]) {
    let excused = |at: Instant| out_of_band.iter().any(|o| at >= *o && at < *o + OUT_OF_BAND);
    let mut by_receipt = led.to_vec();
    by_receipt.sort_by_key(|l| l.received);
    let mut by_sending = led.to_vec();
    by_sending.sort_by_key(|l| l.sent);
    let (mut newest, mut next) = (0, 0);
    for answer in &by_sending {
        while next < by_receipt.len() && by_receipt[next].received < answer.sent {
            newest = newest.max(by_receipt[next].generation);
            next += 1;
        }
        assert!(answer.generation >= newest || excused(answer.sent), "two leaders: {answer:?} after {newest}");
    }
    let generations: std::collections::BTreeSet<_> = led.iter().map(|l| l.generation).collect();
    println!("{} answers of 200 under {} generations", led.len(), generations.len());
    assert!(led.len() > 100, "too few answers to mean anything: {}", led.len());
}

/// One history record a generation, in commit order.
async fn records(etcd: &Etcd, newest: u64) {
    let text = etcd.ctl(&["get", "--prefix", "/tenure/history/orders/", "-w", "json"]).await;
    let kvs: Value = serde_json::from_str(&text).expect("JSON");
    let revisions: Vec<_> = kvs["kvs"]
        .as_array()
        .expect("records")
        .iter()
        .map(|kv| {
            assert_eq!(kv["version"], 1, "a record is written once");
            kv["create_revision"].as_u64().expect("a revision")
        })
        .collect();
    assert!(revisions.is_sorted(), "in key order the records are in commit order: {revisions:?}");
    assert!(revisions.len() as u64 >= newest, "{} records for {newest} generations", revisions.len());
}
