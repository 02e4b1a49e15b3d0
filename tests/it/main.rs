//! The one integration binary: the core on paper (transcripts, simulation), the command line, and the daemon on the real etcd.

mod cli_broken_configs;
mod cli_commands;
mod cli_config;
mod handing_over;
mod http_limits;
mod http_metrics;
mod http_support;
mod http_table;
mod rounds;
mod sim;
mod stepping_down;
mod support;
mod transcripts;
