//! The audit in etcd: one record per generation.

use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, SortOrder, SortTarget, Txn, TxnOp};

use super::error::Error;
use super::hedge::Done;
use super::look::Answers;
use super::{Edge, Etcd, codec};
use crate::election::ids::{CandidateKey, ElectionIndex, Revision};
use crate::election::record::GenerationRecord;

/// The most records that one question returns.
pub const MAX_HISTORY: u64 = 1000;
/// The most records that one transaction deletes: etcd accepts 128 operations (`--max-txn-ops`).
const TRIM_BATCH: u64 = 100;
/// The most transactions of one trim; what is left then is left for the next one.
const TRIM_BATCHES: usize = 10;

impl Etcd {
    /// The newest records below the generation `before`, newest first, each with the revision of its commit. At most `limit` and
    /// `MAX_HISTORY`; values that are no records are left out.
    ///
    /// # Errors
    /// No member answered, or the etcd user may not read it.
    pub async fn history(
        &self,
        election: ElectionIndex,
        limit: u64,
        before: Option<u64>,
    ) -> Result<Vec<(GenerationRecord, Revision)>, Error> {
        let limit = i64::try_from(limit.clamp(1, MAX_HISTORY)).unwrap_or(1);
        let options = GetOptions::new().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(limit);
        let answer = self.edge.records("history", election, before, options).await?;
        let record =
            |kv: &etcd_client::KeyValue| Some((codec::decode_generation(kv.value())?, Revision(kv.mod_revision())));
        Ok(answer.kvs().iter().filter_map(record).collect())
    }

    /// Deletes the oldest records beyond the newest `keep`, as long as the own key exists: one daemon trims, the leader. By count,
    /// since generations may leap.
    ///
    /// # Errors
    /// No member answered, the etcd user may not, or the own key is gone.
    pub async fn trim_history(&self, election: ElectionIndex, key: &CandidateKey, keep: u64) -> Result<(), Error> {
        let edge = &self.edge;
        for _ in 0..TRIM_BATCHES {
            let all = edge.records("trim_history", election, None, GetOptions::new().with_count_only()).await?;
            let excess = u64::try_from(all.count()).unwrap_or(0).saturating_sub(keep).min(TRIM_BATCH);
            if excess == 0 {
                return Ok(());
            }
            let options = GetOptions::new().with_limit(i64::try_from(excess).unwrap_or(1)).with_keys_only();
            let oldest = edge.records("trim_history", election, None, options).await?;
            edge.delete_records(election, key, &oldest).await?;
        }
        Ok(())
    }
}

impl Edge {
    async fn records(
        &self,
        name: &'static str,
        election: ElectionIndex,
        before: Option<u64>,
        options: GetOptions,
    ) -> Result<GetResponse, Error> {
        let (first, end) = self.keys(election).records(before);
        let txn = Txn::new().and_then([TxnOp::get(first, Some(options.with_range(end)))]);
        let done = self.txn(&self.patient(name), txn).await.map_err(|failed| failed.error)?;
        Answers::new(name, &done.value)?.next()
    }

    /// Deleting is idempotent, so an unknown outcome needs no care.
    async fn delete_records(
        &self,
        election: ElectionIndex,
        own: &CandidateKey,
        records: &GetResponse,
    ) -> Result<(), Error> {
        let keys = self.keys(election);
        let ours = records.kvs().iter().filter(|kv| keys.is_record(kv.key()));
        let deletes: Vec<_> = ours.map(|kv| TxnOp::delete(kv.key(), None)).collect();
        // Others' keys below ours are left alone. And etcd takes a transaction of comparisons alone for a serializable read.
        if deletes.is_empty() {
            return Ok(());
        }
        let guard = Compare::create_revision(keys.candidate(&own.suffix), CompareOp::Equal, own.created.0);
        let txn = Txn::new().when([guard]).and_then(deletes);
        let done: Done<_> = self.txn(&self.patient("trim_history"), txn).await.map_err(|failed| failed.error)?;
        if done.value.succeeded() { Ok(()) } else { Err(Error::NotOurs { operation: "trim_history" }) }
    }
}
