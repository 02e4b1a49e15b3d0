//! Questions of people about etcd: which version, who leads there, may we do what we need.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::error::{Error, Kind};
use super::keys::Keys;
use super::{Edge, Etcd};
use crate::clock;
use crate::election::ids::ElectionIndex;

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The server's version, such as `3.5.33`.
    pub version: String,
    /// It leads the etcd cluster.
    pub leader: bool,
    /// Its raft term.
    pub raft_term: u64,
    /// Size of its database file, in bytes.
    pub db_size: u64,
    /// Alarms and other complaints.
    pub errors: Vec<String>,
    /// How long the answer took, connecting and logging in included.
    pub took: Duration,
}

impl Etcd {
    /// Asks every member, all at once. With auth on, etcd 3.6.0 to 3.6.11 answers only root: take a
    /// [`Permission`](super::Kind::Permission) failure for "unknown".
    pub async fn versions(&self) -> Vec<(String, Result<EndpointStatus, Error>)> {
        let members = self.edge.pool.members.iter().enumerate();
        join_all(members.map(|(index, member)| async move {
            let status = self.edge.status(index).await;
            (member.endpoint.clone(), status)
        }))
        .await
    }

    /// Tries, per election, whether the etcd user may read and write what the protocol needs; writes nothing. What is denied
    /// is named, in the words of etcd's roles.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn permissions(&self) -> Vec<(ElectionIndex, Result<Vec<String>, Error>)> {
        let mut all = Vec::with_capacity(self.edge.keys.len());
        for election in (0..self.edge.keys.len()).map(ElectionIndex) {
            all.push((election, self.edge.denied(self.edge.keys(election)).await));
        }
        all
    }
}

impl Edge {
    /// One question for each range and each right: etcd's refusal does not say what it refuses.
    pub(super) async fn denied(&self, keys: &Keys) -> Result<Vec<String>, Error> {
        let mut denied = Vec::new();
        for (range, prefix, writes) in [
            (&keys.generation, false, true),
            (&keys.control, false, false),
            (&keys.candidates, true, true),
            (&keys.history, true, true),
        ] {
            let (options, what) =
                if prefix { (GetOptions::new().with_prefix(), "the range of") } else { (GetOptions::new(), "the key") };
            let read = TxnOp::get(range.clone(), Some(options.with_keys_only().with_limit(1)));
            let reads = self.permitted(Txn::new().and_then([read])).await?;
            // A revision is never negative, so nothing is written; etcd checks the rights of all branches before it compares
            // (`apply_auth.go`, `checkTxnAuth`), and that a compare's key may be read as well.
            let key = if prefix { format!("{range}probe") } else { range.clone() };
            let put = Txn::new()
                .when([Compare::mod_revision(key.clone(), CompareOp::Less, 0)])
                .and_then([TxnOp::put(key, "", None)]);
            match (reads, writes && !self.permitted(put).await?) {
                (true, false) => {}
                (true, true) => denied.push(format!("write on {what} {range}")),
                (false, _) => denied.push(format!("{} on {what} {range}", if writes { "readwrite" } else { "read" })),
            }
        }
        Ok(denied)
    }

    async fn permitted(&self, txn: Txn) -> Result<bool, Error> {
        match self.txn(&self.patient("permissions"), txn).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.error.kind() == Kind::Permission => Ok(false),
            Err(failed) => Err(failed.error),
        }
    }

    async fn status(&self, index: usize) -> Result<EndpointStatus, Error> {
        let (operation, limit) = ("status", self.limits.request);
        let endpoint = self.pool.members[index].endpoint.clone();
        let began = clock::now();
        let ask = async {
            let mut live = self.pool.live(index, operation).await?;
            let failed = |source: etcd_client::Error| Error::Request {
                operation,
                endpoint: endpoint.clone(),
                source: source.into(),
            };
            live.client.status().await.map_err(failed)
        };
        let silent = Error::Silent { operation, endpoint: endpoint.clone(), limit };
        let status = timeout(limit, ask).await.unwrap_or(Err(silent))?;
        let leader = status.header().is_some_and(|header| header.member_id() == status.leader());
        Ok(EndpointStatus {
            version: status.version().to_owned(),
            leader,
            raft_term: status.raft_term(),
            db_size: u64::try_from(status.db_size()).unwrap_or(0),
            errors: status.errors().to_vec(),
            took: clock::now().since(began),
        })
    }
}
