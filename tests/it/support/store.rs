//! What lies in etcd, as etcdctl shows it.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{DEADLINE, Etcd};

impl Etcd {
    /// The keys with this prefix.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["get", "--prefix", "--keys-only", prefix]).await;
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// The value of a key.
    pub async fn value(&self, key: &str) -> Option<String> {
        let text = self.ctl(&["get", "--print-value-only", key]).await;
        text.strip_suffix('\n').map(str::to_owned)
    }

    /// The generation record of `orders`.
    pub async fn generation_record(&self) -> Option<Value> {
        let text = self.value("/tenure/generations/orders").await?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}")))
    }

    /// The newest generation of `orders`; 0 before any.
    pub async fn generation(&self) -> u64 {
        let record = self.generation_record().await;
        record.map_or(0, |record| record["generation"].as_u64().expect("a u64"))
    }

    /// The candidates' keys of `orders`.
    pub async fn queue(&self) -> Vec<String> {
        self.keys("/tenure/elections/orders/").await
    }

    /// The generations that the history of `orders` has a record of, oldest first.
    pub async fn history(&self) -> Vec<u64> {
        let keys = self.keys("/tenure/history/orders/").await;
        keys.iter().map(|key| key.rsplit('/').next().and_then(|digits| digits.parse().ok()).expect("digits")).collect()
    }

    /// The leases that exist.
    pub async fn leases(&self) -> Vec<String> {
        let text = self.ctl(&["lease", "list"]).await;
        // The first line tells how many there are.
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// Runs etcdctl with this on its standard input: passwords, and values that no command line holds.
    ///
    /// # Panics
    /// If it fails; see [`Etcd::try_ctl_with`].
    pub async fn ctl_with(&self, args: &[&str], input: &[u8]) {
        self.try_ctl_with(args, input).await.unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"));
    }

    /// [`Etcd::ctl_with`]; the error is what it said on its standard error.
    pub async fn try_ctl_with(&self, args: &[&str], input: &[u8]) -> Result<(), String> {
        let mut child = self.ctl_command(args).stdin(Stdio::piped()).spawn().expect("etcdctl starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        pipe.write_all(input).await.expect("etcdctl reads");
        drop(pipe);
        let output = timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.expect("etcdctl ends").expect("our own child can be waited for");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The store's revision.
    pub async fn revision(&self) -> u64 {
        let text = self.ctl(&["get", "-w", "json", "no such key"]).await;
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        answer["header"]["revision"].as_u64().expect("a revision")
    }

    /// Puts a value of any length and any bytes.
    pub async fn put(&self, key: &str, value: &[u8]) {
        if value.is_empty() {
            // etcdctl takes an empty standard input for none at all.
            self.ctl(&["put", key, ""]).await;
        } else {
            self.ctl_with(&["put", key], value).await;
        }
    }
}
