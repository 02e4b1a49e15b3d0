//! The one integration binary.

mod cli_broken_configs;
mod cli_config;
