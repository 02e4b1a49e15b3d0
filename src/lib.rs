pub mod clock;
pub mod config;
pub mod control;
pub mod election;
pub mod etcd;
pub mod snapshot;
pub mod timing;
