//! The core under attack: the very files of `src/election`, compiled with the mutants and nothing of the daemon's I/O.
//!
//! `make model` and `make sim` say what each half does; `etcd` and `edge` are what both share.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests' own environment and randomness are not the daemon's, which the bans are for"
)]

#[allow(dead_code, unreachable_pub, reason = "the daemon uses the rest")]
#[path = "../../src/clock.rs"]
pub mod clock;
#[allow(dead_code, unreachable_pub, reason = "the daemon uses the rest")]
#[path = "../../src/election/mod.rs"]
pub mod election;
#[allow(dead_code, unreachable_pub, reason = "the daemon uses the rest")]
#[path = "../../src/timing.rs"]
pub mod timing;

mod anything;
mod edge;
mod etcd;
#[path = "../model/mod.rs"]
mod model;
mod operator;
mod reads;
#[path = "../sim/mod.rs"]
mod sim;
