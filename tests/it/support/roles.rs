//! Who leads, as the daemons themselves say.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Daemon, eventually};

/// How often a leadership that must not flap is looked at.
const SAMPLE: Duration = Duration::from_millis(50);

impl Daemon {
    /// Our generation, while we lead. Unlike [`Daemon::token`] this gives no promise, which a hand-over would wait for.
    pub async fn leads_with(&self) -> Option<u64> {
        let status = self.status().await?;
        (status["role"] == "leader").then(|| status["generation"].as_u64().expect("a u64"))
    }

    /// Queued, and its place is known.
    pub async fn is_queued(&self) -> bool {
        self.status().await.is_some_and(|s| s["role"] == "candidate" && s["queue_position"].is_u64())
    }

    /// The queue as this daemon reads it from etcd.
    pub async fn candidates(&self) -> Vec<Value> {
        let answer = self.get("/v1/elections/orders/candidates").await.expect("an answer");
        answer.json()["candidates"].as_array().expect("a list").clone()
    }

    /// The cluster-wide record, newest first.
    pub async fn history(&self) -> Vec<Value> {
        let answer = self.control().get("/v1/elections/orders/history").await.expect("an answer");
        answer.json()["history"].as_array().expect("a list").clone()
    }

    /// The sum of the metric's series whose labels hold all of `labels`: `metric("etcd_requests_total", &["look"])`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.expect("an answer").text();
        let series = |line: &&str| {
            let rest = line.strip_prefix("tenure_").and_then(|line| line.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        };
        let family = name.strip_suffix("_bucket").or(name.strip_suffix("_count")).unwrap_or(name);
        assert!(text.contains(&format!("# HELP tenure_{family} ")), "no metric is named {name}");
        text.lines()
            .filter(series)
            .map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number"))
            .sum()
    }

    /// `resign`, which must work; the answer.
    pub async fn resign(&self) -> Value {
        let answer = self.verb("resign", &serde_json::json!({})).await.expect("an answer");
        assert_eq!(answer.status, 200, "resign of {}: {}", self.id(), answer.text());
        answer.json()
    }
}

/// The one that leads and its generation, once one does.
pub async fn leader_of(daemons: &[Daemon]) -> (usize, u64) {
    leader_above(daemons, 0).await
}

/// The one that leads with a generation above `after`, and that generation.
pub async fn leader_above(daemons: &[Daemon], after: u64) -> (usize, u64) {
    eventually(&format!("a leader with a generation above {after}"), async || {
        let mut seen = Vec::new();
        for (index, daemon) in daemons.iter().enumerate() {
            match daemon.leads_with().await {
                Some(generation) if generation > after => return Ok((index, generation)),
                other => seen.push((daemon.id().to_owned(), other)),
            }
        }
        Err(seen)
    })
    .await
}

/// Asks `/leader` again and again, for so long: every answer must be 200.
pub async fn leads_through(daemon: &Daemon, what: &str, span: Duration) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(SAMPLE);
    while start.elapsed() < span {
        ticks.tick().await;
        let status = daemon.leader_status().await;
        let after = start.elapsed();
        assert!(status == Some(200), "{what}: {status:?} after {after:?}; log of {}: {}", daemon.id(), daemon.logs());
    }
}

/// `long` where `TENURE_TEST_LONG=1` asks for it, else `short`: for what is only shown by time going by.
pub fn long_or(long: Duration, short: Duration) -> Duration {
    if std::env::var("TENURE_TEST_LONG").is_ok_and(|value| value == "1") { long } else { short }
}
