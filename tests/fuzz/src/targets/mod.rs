//! What is fuzzed: each target takes any bytes at all, and panics where the code under it breaks a rule.
//!
//! Compiled twice: by cargo-fuzz (`make fuzz`), which searches for new inputs, and into the integration binary
//! (`tests/it/fuzz.rs`), which runs over the committed ones and seeded mutations of them.

pub mod config;
pub mod election;
pub mod etcd_values;
pub mod headers;
mod house;
pub mod http;
mod world;

/// Its name, which is that of its corpus too, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config", config::run),
    ("etcd_values", etcd_values::run),
    ("election", election::run),
    ("headers", headers::run),
    ("http", http::run),
];
