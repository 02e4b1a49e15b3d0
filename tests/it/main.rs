//! The one integration binary: the core on paper (transcripts, simulation), and the daemon on the real etcd.

mod auth;
mod cli_broken_configs;
mod cli_config;
mod corrupt;
mod members;
mod recipe;
mod restore;
mod sim;
mod smoke;
mod support;
mod transcripts;
mod unknown;
