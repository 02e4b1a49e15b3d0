//! What every integration test stands on: a real etcd, a network that can be broken, the real daemon, and patience.
//!
//! * [`Etcd`]: a server, or a cluster of three, of any version, on free ports and a data directory of its own.
//! * [`Link`]: a TCP proxy in front of one member, to cut, hold, delay or refuse its traffic.
//! * [`Daemon`]: the `tenure` binary with a config made for the test, asked over its own HTTP.
//! * [`KubeApi`]: a Kubernetes API server in small, with resource versions and rights.
//! * [`eventually`]: waits for a condition, never for a length of time.
//!
//! Nothing outlives its test: every process is ended by the handle that started it. Logs lie under `target/tmp/`; they
//! go with a test that passes, and stay, named in the output, with one that panics.
#![allow(dead_code, unused_imports, reason = "a kit: not every part is in use by a test at all times")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests' own deadlines and environment are not the daemon's, which the ban is for"
)]

mod certs;
mod daemon;
mod elect;
mod etcd;
mod eventually;
mod http;
mod kube_api;
mod kube_store;
mod logs;
mod member;
mod peers;
mod ports;
mod proxy;
mod roles;
mod self_test;
mod store;

pub use certs::Certs;
pub use daemon::{Daemon, DaemonBuilder, tenure};
pub use elect::Elect;
pub use etcd::{Etcd, EtcdBuilder};
pub use eventually::{DEADLINE, Verdict, eventually, eventually_within};
pub use http::request;
pub use http::{Answer, Target};
pub use kube_api::{KubeApi, fixture, kubeconfig};
pub use kube_store::{Fault, NAMESPACE, Write};
pub use logs::scratch;
pub use member::Member;
pub use ports::free_port;
pub use proxy::Link;
pub use roles::{leader_above, leader_of, leads_through, long_or};

/// Something to connect a daemon or a link to: a URL for each member.
pub trait Endpoints {
    /// URLs such as `http://127.0.0.1:2379`.
    fn endpoints(&self) -> Vec<String>;
}

impl<T: Endpoints + ?Sized> Endpoints for &T {
    fn endpoints(&self) -> Vec<String> {
        (**self).endpoints()
    }
}

impl<T: Endpoints> Endpoints for [T] {
    fn endpoints(&self) -> Vec<String> {
        self.iter().flat_map(Endpoints::endpoints).collect()
    }
}

impl<T: Endpoints> Endpoints for Vec<T> {
    fn endpoints(&self) -> Vec<String> {
        self.as_slice().endpoints()
    }
}

impl Endpoints for String {
    fn endpoints(&self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl Endpoints for str {
    fn endpoints(&self) -> Vec<String> {
        vec![self.to_owned()]
    }
}
