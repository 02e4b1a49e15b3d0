//! Asks every member now and then. The others of our requests go to the one that answered last, and say nothing of the rest:
//! what a dead member would cost would show only when that one dies as well.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::Etcd;

/// How often, on average; with a shorter TTL, once in that. Jitter makes at most half as much again of it.
const EVERY: Duration = Duration::from_secs(20);

impl Etcd {
    /// Keeps [`endpoint_up`](super::Telemetry::endpoint_up) true of every member, for as long as it runs.
    pub async fn call_the_roll(self) {
        let edge = &self.edge;
        loop {
            join_all((0..edge.pool.members.len()).map(|member| edge.is_there(member))).await;
            sleep(edge.pool.jittered(edge.limits.ttl.min(EVERY))).await;
        }
    }
}
