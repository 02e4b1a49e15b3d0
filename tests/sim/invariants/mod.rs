//! The invariants of the protocol, one file each, judged while a schedule runs. Each says under which attack it holds.

pub(super) mod fenced_store;
mod nothing_lost;
mod one_leader;
pub(super) mod progress;
mod promises;
mod self_fencing;
pub(super) mod tokens_grow;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) text: String,
}
