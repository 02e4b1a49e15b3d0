//! Asks every member now and then. The others of our requests go to the one that answered last, and say nothing of the rest:
//! what a dead member would cost would show only when that one dies as well.

use std::time::Duration;

use etcd_client::GetOptions;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::error::Cause;
use super::hedge::{Call, Target};
use super::{Edge, Etcd};

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

impl Edge {
    /// One linearizable read, of a key that we may read: a member that cannot serve it is of no use to us. How it ends is taken
    /// note of where every try is.
    async fn is_there(&self, member: usize) {
        let call = Call { tries: 1, ..self.patient("roll_call") };
        let key = self.keys.first().map(|keys| keys.generation.as_str()).unwrap_or_default();
        let ask = |target: Target| async move {
            let options = GetOptions::new().with_count_only();
            target.live.client.kv_client().get(key, Some(options)).await.map_err(Cause::from)
        };
        drop(self.pool.attempt(&call, member, &ask).await);
    }
}
