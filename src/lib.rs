pub mod audit;
pub mod clock;
pub mod config;
pub mod control;
pub mod election;
pub mod memory;
pub mod snapshot;
pub mod timing;
