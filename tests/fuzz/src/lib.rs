//! The fuzz targets as a crate of their own, for `make fuzz`.

#[path = "../../it/http_support.rs"]
#[allow(dead_code, reason = "the integration tests use all of it")]
mod http_support;
pub mod targets;
