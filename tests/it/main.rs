//! The one integration binary: the core on paper (transcripts), the command line, and the daemon on the real etcd.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests' own deadlines, environment and randomness are not the daemon's, which the bans are for"
)]

mod auth;
mod bad_input;
mod careless;
mod chaos_check;
mod chaos_progress;
mod cli_broken_configs;
mod cli_commands;
mod cli_config;
mod cli_doctor;
mod corrupt;
mod etcd_edge;
mod fuzz;
mod handing_over;
mod host;
mod hot_loops;
mod http_limits;
mod http_metrics;
mod http_support;
mod http_table;
mod ids;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod kubernetes_faults;
mod members;
mod namesakes;
mod one_cluster;
mod operator;
mod polls;
mod questions;
mod raw_http;
mod reasons;
mod recipe;
mod restore;
mod rounds;
mod smoke;
mod stale_watch;
mod stepping_down;
mod supervisor;
mod support;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;
#[path = "../tidy.rs"]
mod tidy;
mod tls;
mod transcripts;
mod unknown;
