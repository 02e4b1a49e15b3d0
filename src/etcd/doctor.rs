//! Questions of people about etcd, each to one member: who are you, do you serve, may we do what we need. Answers of every
//! cluster are taken: telling them apart is what a person wants here.
//!
//! `round` is all that the daemon does with a lease, once.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, GetOptions, ResponseHeader};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::connector::Connector;
use super::error::{Cause, Error, Kind};
use super::{Edge, Etcd};
use crate::clock;
use crate::tls::Facts;

mod records;
mod round;

pub use records::{Flaw, Obstacle};
pub use round::{Leases, Round, Step};

/// When a login is tried again that met an election of etcd's.
const LOGIN_AGAIN: Duration = Duration::from_millis(300);

/// What the header of an answer says of who gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The cluster's id; 0 in answers that a proxy makes up.
    pub cluster: u64,
    /// The member's.
    pub member: u64,
    /// The newest revision that it has applied.
    pub revision: i64,
    /// Its raft term.
    pub term: u64,
}

impl Origin {
    fn of(header: Option<&ResponseHeader>) -> Self {
        header.map_or_else(Self::default, |h| Self {
            cluster: h.cluster_id(),
            member: h.member_id(),
            revision: h.revision(),
            term: h.raft_term(),
        })
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Who says it.
    pub origin: Origin,
    /// The server's version, such as `3.5.33`.
    pub version: String,
    /// It leads the etcd cluster.
    pub leader: bool,
    /// It knows who leads.
    pub led: bool,
    /// It replicates and does not vote.
    pub learner: bool,
    /// Its raft term.
    pub raft_term: u64,
    /// Size of its database file, in bytes.
    pub db_size: u64,
    /// Alarms and other complaints.
    pub errors: Vec<String>,
    /// How long the answer took, connecting and logging in included.
    pub took: Duration,
}

/// One entry of a list of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedMember {
    /// Its id; 0 in lists that a proxy makes up.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where clients reach it, as it says.
    pub client_urls: Vec<String>,
}

impl Etcd {
    /// Asks every member, all at once. With auth on, etcd 3.6.0 to 3.6.11 answers only root: take a
    /// [`Permission`](super::Kind::Permission) failure for "unknown".
    pub async fn versions(&self) -> Vec<(String, Result<EndpointStatus, Error>)> {
        let members = self.edge.pool.members.iter().enumerate();
        join_all(members.map(|(index, member)| async move {
            let status = self.status_of(index).await;
            (member.endpoint.clone(), status)
        }))
        .await
    }

    /// Connects, and says goodbye: which certificate does it show, leaf first? None of a member without TLS.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn greet(&self, member: usize) -> Result<Vec<Facts>, Error> {
        let pool = &self.edge.pool;
        let endpoint = pool.members[member].endpoint.clone();
        let connector: Connector = pool.connector(&endpoint)?;
        let shown = connector.certificates(&endpoint).await.map_err(|source| {
            let source = Cause::local(Kind::Unreachable, source.to_string());
            Error::Request { operation: "connect", endpoint: endpoint.clone(), source }
        })?;
        // One that cannot be read was accepted all the same; there is nothing to tell of it.
        Ok(shown.iter().filter_map(|cert| Facts::of(cert).ok()).collect())
    }

    /// Logs in where there is a user, which may take longer than any other question: etcd hashes the password.
    ///
    /// # Errors
    /// Why we are not let in, or that this took too long.
    pub async fn log_in(&self, member: usize, limit: impl Future<Output = ()>) -> Result<(), Error> {
        let pool = &self.edge.pool;
        if !pool.logs_in() {
            return Ok(());
        }
        let began = clock::now();
        let work = async {
            loop {
                match pool.live(member, "authenticate").await {
                    // A login passes through raft, and etcd was electing just then.
                    Err(error) if error.to_string().contains("leader changed") => sleep(LOGIN_AGAIN).await,
                    other => return other.map(drop),
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = limit => {
                let text = format!("not logged in within {} ms", clock::now().since(began).as_millis());
                let (operation, endpoint) = ("authenticate", pool.members[member].endpoint.clone());
                Err(Error::Request { operation, endpoint, source: Cause::local(Kind::Unknown, text) })
            }
        }
    }

    /// Who are you?
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn status_of(&self, member: usize) -> Result<EndpointStatus, Error> {
        let began = clock::now();
        let status = self.edge.ask(member, "status", |mut client| async move { client.status().await }).await?;
        let origin = Origin::of(status.header());
        Ok(EndpointStatus {
            origin,
            version: status.version().to_owned(),
            leader: status.leader() != 0 && origin.member == status.leader(),
            led: status.leader() != 0,
            learner: status.is_learner(),
            raft_term: status.raft_term(),
            db_size: u64::try_from(status.db_size()).unwrap_or(0),
            errors: status.errors().to_vec(),
            took: clock::now().since(began),
        })
    }

    /// Who belongs to your cluster?
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn members_of(&self, member: usize) -> Result<(Origin, Vec<ListedMember>), Error> {
        let list = self.edge.ask(member, "member_list", |mut client| async move { client.member_list().await }).await?;
        let listed = |m: &etcd_client::Member| ListedMember {
            id: m.id(),
            name: m.name().to_owned(),
            client_urls: m.client_urls().to_vec(),
        };
        Ok((Origin::of(list.header()), list.members().iter().map(listed).collect()))
    }

    /// One read, of the generation of the first election: from the quorum, or from the member's own memory. How long it took.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn read_of(&self, member: usize, linearizable: bool) -> Result<(Origin, Duration), Error> {
        let key = self.edge.anchor();
        let options = if linearizable { GetOptions::new() } else { GetOptions::new().with_serializable() };
        let began = clock::now();
        let get = |mut client: Client| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.get(key, Some(options)).await }
        };
        let answer = self.edge.ask(member, "read", get).await?;
        Ok((Origin::of(answer.header()), clock::now().since(began)))
    }
}

impl Etcd {
    /// What is said where everything together took too long.
    #[must_use]
    pub fn late(&self, member: usize, limit: Duration) -> Error {
        let endpoint = self.edge.pool.members[member].endpoint.clone();
        Error::Silent { operation: "all that a daemon does", endpoint, limit }
    }
}

impl Edge {
    /// A key that the role may read: the generation of the first election.
    fn anchor(&self) -> String {
        self.keys.first().map(|keys| keys.generation.clone()).unwrap_or_default()
    }

    /// One question to one member, logged in where there is a user, a refused token renewed once.
    async fn ask<T, F, Fut>(&self, member: usize, operation: &'static str, op: F) -> Result<T, Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let limit = self.limits.request;
        let endpoint = &self.pool.members[member].endpoint;
        let failed = |source: Cause| Error::Request { operation, endpoint: endpoint.clone(), source };
        let work = async {
            let live = self.pool.live(member, operation).await?;
            let token = live.token();
            match op(live.client.clone()).await.map_err(Cause::from) {
                Err(cause) if cause.kind() == Kind::Auth => {
                    self.pool.login(member, &live, token).await?;
                    op(live.client.clone()).await.map_err(|e| failed(e.into()))
                }
                other => other.map_err(failed),
            }
        };
        let silent = || Error::Silent { operation, endpoint: endpoint.clone(), limit };
        timeout(limit, work).await.unwrap_or_else(|_| Err(silent()))
    }
}
