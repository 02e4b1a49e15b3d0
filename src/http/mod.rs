//! Our HTTP interface: two listeners, one table of routes.
//!
//! `listen` binds, `serve` accepts and keeps every connection within its limits, `routes` holds the table of what is
//! served where, `app` turns a matched request into an answer, and the other modules hold the handlers. A handler sees one
//! `Moment` (snapshot and clock, read together) and never waits for etcd, but for the questions and verbs
//! that [`Control`] carries, each bounded by `http.request_timeout`.
//!
//! warp routes, hyper serves: warp 0.4 has no timeouts, no TLS and no limit on connections.

mod answer;
mod app;
mod auth;
mod call;
mod code;
mod document;
mod gate;
mod listen;
mod lists;
mod moment;
mod openapi;
mod others;
mod page;
mod patient;
mod probes;
mod query;
mod refusal;
mod routes;
mod seats;
mod serve;
mod status;
mod tls;
mod token;
mod trim;
mod upload;
mod verbs;
mod version;

use std::time::Duration;

pub use listen::{Addresses, BindError, Bound, bind};

use crate::control::Control;
use crate::metrics::Metrics;
use crate::rights::Rights;
use crate::snapshot::Reader;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct Service {
    /// Who leads, as far as this daemon knows.
    pub reader: Reader,
    /// The way to the driver.
    pub control: Control,
    /// Counted here, rendered at `/metrics`.
    pub metrics: Metrics,
    /// Whether etcd lets us do all that leading needs.
    pub rights: Rights,
    /// What does not change while the daemon runs.
    pub about: About,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct About {
    /// The version of this program.
    pub version: &'static str,
    /// The commit that it was built from.
    pub revision: &'static str,
    /// Where we say that we are reached; empty where we say nothing.
    pub url: String,
    /// Whether `/readyz` also asks for recent contact with etcd.
    pub strict_ready: bool,
    /// Whether `/startupz` also waits for the first session.
    pub startup_wait_for_etcd: bool,
    /// How long the driver's loop may stand still: [`Timing::stall_limit`](crate::timing::Timing::stall_limit).
    pub stall_limit: Duration,
    /// The configured TTL: contact with etcd is recent when it is younger than the session's TTL, or than this without one.
    pub ttl: Duration,
}
