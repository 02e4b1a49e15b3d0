//! Ports that stay ours across a restart.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux takes the local port of an outgoing connection (32768 and up): a port from there
/// could be lost to any connection while a server that is to come back on it is down.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that nobody listens on, given out once by this process.
///
/// Another process can still take it first; who starts a server on it looks for that and tries another.
pub fn free_port() -> u16 {
    // Test processes that run at once start far from one another.
    let offset = std::process::id().wrapping_mul(2_654_435_761) >> 16;
    for _ in 0..COUNT {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + offset;
        let port = FIRST + u16::try_from(next % u32::from(COUNT)).expect("a remainder of a u16 is one");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {FIRST}..{}", FIRST + COUNT);
}
