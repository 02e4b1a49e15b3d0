pub mod clock;
pub mod config;
pub mod control;
pub mod election;
pub mod http;
pub mod metrics;
pub mod snapshot;
pub mod timing;
