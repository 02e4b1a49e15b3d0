//! The one integration binary: the core on paper (transcripts, simulation), and the daemon on the real etcd.

mod sim;
mod support;
mod transcripts;
