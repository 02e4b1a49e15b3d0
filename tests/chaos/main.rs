//! Chaos: the real daemon on a real etcd, under attack; black-box, as root (`make chaos MINUTES=30`).
//!
//! Three members of etcd, five daemons and the clients beside each of them run in network namespaces with a router
//! between them (`net.rs`); every member has a file system of its own (`members.rs`). In rounds of about ten seconds one to
//! four faults begin, overlap and end (`faults/`); then there has to be a leader again within the promised bound and what these
//! faults take by themselves (`faults/takes.rs`). Everybody writes down what he sent and heard (`history.rs`), and in the end that is
//! all that the checker reads (`check.rs`).
//!
//! # Phases
//!
//! 1. Epoch `one`: a cluster of 3.5 under the light faults; a rolling upgrade to 3.6 while it is in use, then all faults; a
//!    rolling upgrade to 3.7, and all faults again, for the longest time.
//! 2. Epoch `two`: a cluster of 3.4.23, the version with the most lease bugs, every other round with the stale keep-alive.
//!    One of these bugs no client can undo: a deposed leader of etcd revokes leases that the new one has renewed
//!    (etcd-io/etcd#15247), and without `session.vacancy_grace` this suite shows it as a promise that was cut short. So the
//!    daemons have a grace of one TTL and 5 % there, and rules 1 and 2 hold without an excuse. In epoch `one`, without a grace,
//!    etcd's leader is not stopped as a whole, which every version answers in that way; its disk, its network and its life are taken.
//!
//! The seed gives the order of the faults, their targets and their lengths; what happens in between is up to the machine, so
//! a seed that showed something shows it again with some luck only.
//!
//! A daemon that ends by itself, panics, or does not end on SIGTERM breaks the run off; so does a client that ends, and a fault
//! that cannot be ended. What could not be read then is not judged, and the report says so. The
//! history stays where it was written.
//!
//! # Faults
//!
//! Cuts are rules of the router's policy routing, one for each direction of each pair of addresses: no packet filter and
//! no queueing discipline is needed. "A member" is more often than not etcd's leader, "a daemon" the one that leads.
//!
//! | fault | how it is made |
//! |---|---|
//! | partition-member, -in, -out | `blackhole` between a member and all others: both directions, or one |
//! | partition-peers | the same between members only: daemons still reach it |
//! | cut-daemon, -in, -out | `blackhole` between a daemon and all members: both directions, or one |
//! | cut-daemon-reset | its packets are routed to a namespace that owns every address and listens nowhere: RST, refused |
//! | cut-daemon-unreachable | `unreachable`: the router answers with ICMP |
//! | one-member-only | a daemon reaches one member and no other |
//! | cut-register | `blackhole` between a daemon's clients and the storage that they write to |
//! | slow-daemon, slow-peers | packets are routed to a namespace that owns every address, where `link.rs` listens: delay, jitter, stalls as of retransmissions, broken connections |
//! | stop-daemon, stop-client, stop-both | SIGSTOP, SIGCONT |
//! | kill-daemon, kill-member, kill-etcd-leader | SIGKILL, and a new start on the same state |
//! | term-daemon, resign | SIGTERM, which it has to obey within 20 s; `POST …/resign` |
//! | stop-member, stop-quorum | SIGSTOP of one member, or of two; of the leader only where there is a grace |
//! | move-leader, defrag | by etcdctl |
//! | compact-restart | compaction of all there is, then SIGKILL and start of a member |
//! | freeze-disk | `fsfreeze` of a member's loop-mounted ext4 |
//! | stale-keep-alive | the etcd leader's disk is frozen, it is cut from its peers and a daemon is cut from all but it: it goes on answering that daemon's keep-alives while the others elect; a lease of our own is witness to that |
//! | clock-jump | `clock_settime` by up to 5 s, put back by the boot clock after 3 s at most, by a process of its own |
//! | key-deleted, lease-revoked | the leader's, by etcdctl, behind its back |
//! | nospace | puts until the quota of 16 MiB is full; then delete, compact, defrag, disarm |
//! | corrupt | the alarm is raised by the maintenance RPC; then disarmed |
//! | auth | authentication on, with tokens that end after 1 s without use; then off |
//! | replace-member | `member remove`, an empty disk, `member add` |
//! | restore | all members are killed and put back to a snapshot some leaderships old, once all daemons know the newest |
//! | upgrade | each member in turn is ended and started as the next version; to 3.7 once all have saved a raft snapshot |
//!
//! # What is left behind
//!
//! Nothing but the history: guards undo everything on every way out, SIGINT, SIGTERM and panics included. What a run could
//! not clear away because it was killed, the next one does (`place.rs`); its processes end with it in any case.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests' own deadlines, environment and randomness are not the daemon's, which the bans are for"
)]

mod arena;
mod check;
mod client;
mod daemons;
mod faults;
mod history;
#[path = "../it/support/http.rs"]
#[allow(dead_code, reason = "the integration tests' client; only its questions are in use here")]
mod http;
mod link;
mod members;
mod net;
mod place;
mod progress;
mod read;
mod register;
mod report;
mod run;
mod sys;

use faults::takes;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, args) = args.split_first().map_or(("", &[][..]), |(c, args)| (c.as_str(), args));
    let done = match command {
        "run" => run::main(args),
        "client" => client::main(args),
        "register" => register::main(args),
        "link" => link::main(args),
        "clock" => faults::clock_main(args),
        "check" => check(args),
        _ => Err("chaos run|check|client|register|link|clock".to_owned()),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// `check --history DIR`
fn check(args: &[String]) -> Result<(), String> {
    let dir = std::path::Path::new(client::option(args, "--history")?);
    let (epochs, violations) = check::check(dir)?;
    let summary = report::Summary::of(&epochs, violations);
    summary.print(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    if summary.passed() { Ok(()) } else { Err("not passed".to_owned()) }
}
