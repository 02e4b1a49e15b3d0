//! Questions of people about etcd: which version, who leads there, may we do what we need.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::error::Error;
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
    /// Asks every member, all at once. Members that are not preferred hear from us only here and when a preferred one is slow, so
    /// asking now and then also keeps [`endpoint_up`](super::Telemetry::endpoint_up) true. With auth on, etcd 3.6.0 to 3.6.11 answers only root: take a
    /// [`Permission`](super::Kind::Permission) failure for "unknown".
    pub async fn versions(&self) -> Vec<(String, Result<EndpointStatus, Error>)> {
        let members = self.edge.pool.members.iter().enumerate();
        join_all(members.map(|(index, member)| async move {
            let status = self.edge.status(index).await;
            self.edge.pool.note(index, None, status.as_ref().map(|_| ()));
            (member.endpoint.clone(), status)
        }))
        .await
    }

    /// Tries, per election, whether the etcd user may read and write what the protocol needs; writes nothing.
    pub async fn permissions(&self) -> Vec<(ElectionIndex, Result<(), Error>)> {
        let mut all = Vec::with_capacity(self.edge.keys.len());
        for election in (0..self.edge.keys.len()).map(ElectionIndex) {
            all.push((election, self.edge.try_permissions(election).await));
        }
        all
    }
}

impl Edge {
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
