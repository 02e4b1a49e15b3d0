//! The one integration binary: the core on paper (transcripts, simulation), the command line, and the daemon on the real etcd.

mod cli_broken_configs;
mod cli_commands;
mod cli_config;
mod sim;
mod support;
mod transcripts;
