//! The API server: how it is found, how long it may take, and what its answers mean.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Config, Resource};
use thiserror::Error;
use tokio::time::timeout;

use super::{ELECTION, GENERATION};
use crate::election::ids::Generation;
use crate::metrics::{RouteMetrics, RouteWrite};

/// The limit for one request, connecting included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Who writes, for `managedFields`.
pub(super) const MANAGER: &str = "tenure";

/// Why a turn did not come to its end.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// What we lead changed meanwhile.
    #[error("what we lead has changed")]
    Moved,
    /// 409: the object is not what was read.
    #[error("cannot {0}: somebody wrote in between")]
    Conflict(String),
    /// We must not write, or do not know what.
    #[error("{0}")]
    Refused(String),
    /// The API server did not do it.
    #[error("cannot {doing}: {why}")]
    Failed { doing: String, why: String },
}

impl Failure {
    pub(super) fn failed(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Failed { doing: doing.into(), why: why.into() }
    }

    /// A generation above ours is there. `object` as kubectl takes it.
    pub(super) fn fenced(object: &str, theirs: Generation, ours: Generation) -> Self {
        Self::Refused(format!(
            "{object} carries generation {theirs}, above ours, {ours}: a newer leader was here; if there is none, because \
             etcd has lost its history, `kubectl annotate {object} {GENERATION}-` lets ours in"
        ))
    }
}

/// The API server as this pod reaches it.
pub(super) struct Server {
    /// None: the service account's, or that of the kubeconfig.
    namespace: Option<String>,
    client: Option<Client>,
    metrics: RouteMetrics,
}

impl Server {
    pub(super) fn new(namespace: Option<String>, metrics: RouteMetrics) -> Self {
        Self { namespace, client: None, metrics }
    }

    /// The objects of a kind in our namespace.
    pub(super) async fn api<K>(&mut self) -> Result<Api<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(connect().await?).clone(),
        };
        Ok(match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        })
    }

    /// Connections, tokens and certificates are made and read anew by the next [`Server::api`].
    pub(super) fn forget(&mut self) {
        self.client = None;
    }

    /// A write; one that is accepted is counted.
    pub(super) async fn write<T>(
        &self,
        doing: String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let written = call(doing, request).await?;
        self.metrics.wrote(RouteWrite::Ok);
        Ok(written)
    }
}

async fn connect() -> Result<Client, Failure> {
    let doing = "find the API server";
    let mut config = Config::infer().await.map_err(|e| Failure::failed(doing, chain(&e)))?;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    // A write is decided anew before it is sent again.
    config.default_retry = false;
    Client::try_from(config).map_err(|e| Failure::failed(doing, chain(&e)))
}

/// One request, within its limit.
pub(super) async fn call<T>(doing: String, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failure::Conflict(doing)),
        Ok(Err(kube::Error::Api(status))) => Err(Failure::failed(doing, format!("{} {}", status.code, status.message))),
        Ok(Err(e)) => Err(Failure::failed(doing, chain(&e))),
        Err(_) => Err(Failure::failed(doing, format!("the API server did not answer within {REQUEST_TIMEOUT:?}"))),
    }
}

/// The error with its causes, of which the last says most.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many repeat their cause.
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

/// The generation that an object carries for this election; 0 where it carries none that can be read.
pub(super) fn generation(meta: &ObjectMeta, election: &str) -> Generation {
    let ours = meta.labels.as_ref().and_then(|l| l.get(ELECTION)).is_some_and(|name| name == election);
    let text = meta.annotations.as_ref().and_then(|a| a.get(GENERATION)).filter(|_| ours);
    Generation(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}
