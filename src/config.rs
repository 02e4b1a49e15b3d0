//! Configuration: raw YAML, environment and flags → [`Config`], with all errors at once.
//!
//! The way: `node` parses the text into a tree in which every key and value knows its place; `substitute` replaces `${VAR}`
//! in values; `layers` lays environment and flags over the tree; `schema` walks it once and collects every problem.
//! Nothing is contacted. The tree is the one truth about the file: `serde_yaml`, which gives values no places, only writes
//! ([`effective`] through the command line), and reads the example once more in a test.

mod env;
mod etcd;
mod files;
mod keys;
mod kubernetes;
mod layers;
mod listen;
mod node;
mod report;
mod schema;
mod show;
mod substitute;
mod tls;
mod url;
mod values;
mod walk;

pub use env::Env;
pub use layers::Overrides;
pub use report::{Place, Problem, Report, Warning};
pub use schema::load;
// For the fuzzers, which have no file for each of their texts.
#[doc(hidden)]
pub use schema::load_bytes;
pub use show::{effective, effective_text};
pub use tls::certificates;
pub use values::{duration_text, parse_duration};

/// The file that documents every key; `tenure config example` prints it.
pub const EXAMPLE: &str = include_str!("../config.example.yaml");

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::election::ids::{ClusterId, ElectionName};
use crate::timing::Timing;
use crate::tls::Files;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The candidate's id: unique among candidates, stable across restarts of the same replica.
    pub id: String,
    /// At least one, at most [`MAX_ELECTIONS`], with different names.
    pub elections: Vec<ElectionConfig>,
    /// How to reach etcd.
    pub etcd: EtcdConfig,
    /// The `session` section, but for the next.
    pub timing: Timing,
    /// How long a drain holds what was led.
    pub drain_timeout: Duration,
    /// The two listeners.
    pub http: HttpConfig,
    /// Whether `/readyz` also asks for contact with etcd.
    pub readiness_strict: bool,
    /// Whether `/startupz` also waits for the first session.
    pub startup_wait_for_etcd: bool,
    /// Where the highest generation seen is remembered; without it, memory does.
    pub state_dir: Option<PathBuf>,
    /// The audit file.
    pub audit: AuditConfig,
    /// How many history records of each election are kept.
    pub history_limit: u64,
    /// Where generations come from.
    pub generation_source: GenerationSource,
    /// The log.
    pub log: LogConfig,
    /// Routing in Kubernetes; `None` for `route: none`.
    pub kubernetes: Option<KubernetesConfig>,
}

/// The most elections of one daemon: the confirming read names each own key in one transaction, and etcd limits a
/// transaction to 128 operations by default.
pub const MAX_ELECTIONS: usize = 64;

/// One election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// Its name.
    pub name: ElectionName,
    /// A higher one is preferred at a hand-over.
    pub priority: i32,
    /// Follow and report, never queue.
    pub observe: bool,
}

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, all alike in scheme.
    pub endpoints: Vec<String>,
    /// Starts with `/`, does not end with one.
    pub prefix: String,
    /// The cluster that the endpoints belong to, where the operator names it.
    pub cluster_id: Option<ClusterId>,
    /// Name for password authentication; needs `password_file`.
    pub username: Option<String>,
    /// Read at start, and again when authentication fails.
    pub password_file: Option<PathBuf>,
    /// Present exactly when the endpoints are `https`, or where keys are configured.
    pub tls: Option<EtcdTls>,
    /// Limit for connecting to one member.
    pub connect_timeout: Duration,
    /// Limit for one request, over all its tries.
    pub request_timeout: Duration,
}

/// TLS towards etcd. The files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Whom to trust.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for mutual TLS; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name to expect in etcd's certificate, where it is not the host of the endpoint.
    pub server_name: Option<String>,
}

impl EtcdTls {
    /// Its files.
    #[must_use]
    pub fn files(&self) -> Files {
        Files { trusted: self.ca_file.clone(), cert: self.cert_file.clone(), key: self.key_file.clone() }
    }
}

/// The two listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Probes, metrics, who leads, gate. Read-only.
    pub public: Vec<Listen>,
    /// Everything, verbs too.
    pub control: Vec<Listen>,
    /// Limit for one request, and for a client to send its head.
    pub request_timeout: Duration,
    /// Holds the bearer token of TCP control listeners.
    pub admin_token_file: Option<PathBuf>,
    /// Where others reach the application or this daemon; goes into the candidate's key.
    pub advertise_url: Option<String>,
    /// On each listener.
    pub max_connections: usize,
    /// TLS of the TCP listeners. The files are read again when they change.
    pub tls: Option<HttpTls>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `ip:port`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// TLS of our own listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// With it, clients must show a certificate of this authority.
    pub client_ca_file: Option<PathBuf>,
}

impl HttpTls {
    /// Its files.
    #[must_use]
    pub fn files(&self) -> Files {
        let (cert, key) = (self.cert_file.clone(), self.key_file.clone());
        Files { trusted: self.client_ca_file.clone(), cert: Some(cert), key: Some(key) }
    }
}

/// The audit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where; none by default.
    pub file: Option<PathBuf>,
    /// Rotated past this size.
    pub rotate_bytes: u64,
    /// Rotated files that are kept.
    pub keep: usize,
}

/// Where generations come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationSource {
    /// Small consecutive numbers.
    Counter,
    /// At least the store's revision: survives a restore with bumped revisions by itself.
    Revision,
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Needs a person.
    Error,
    /// May need one.
    Warn,
    /// Transitions; steady state logs nothing.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Routing traffic to the leader in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Whose leader; one of those configured, and not merely observed.
    pub election: ElectionName,
    /// This pod.
    pub pod: String,
    /// Where it runs; without it, the service account or the kubeconfig says.
    pub namespace: Option<String>,
    /// How.
    pub route: Route,
}

/// How traffic is routed to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A Service selects pods by this label, which says `leader` on one of them.
    Label {
        /// The key of the label.
        label: String,
    },
    /// The leader writes the `EndpointSlice` of a Service without a selector.
    EndpointSlice {
        /// The Service.
        service: String,
        /// This pod's address.
        address: IpAddr,
    },
}
