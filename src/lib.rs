//! Tenure: a leader and a fencing token for any process, on etcd.
//!
//! The way of the data:
//!
//! ```text
//! etcd answer → etcd/* (stamps sent_at before sending) → Input → driver → Core::handle(now, input)
//!             → outputs, in order → Publisher → Reader::load() → a handler judges leads_at(now) → reply
//! ```
//!
//! `docs/architecture.md` has the map, the rules of who may use whom, and what is deliberately absent.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod driver;
pub mod election;
pub mod etcd;
pub mod health;
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod rights;
pub mod shutdown;
pub mod snapshot;
mod supervisor;
pub mod timing;
pub mod tls;
pub mod worker;
