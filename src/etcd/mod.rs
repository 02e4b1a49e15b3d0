//! The etcd edge: everything that Tenure says to etcd, and nothing that it decides.
//!
//! Each method answers one of the core's outputs with exactly one input, within bounded time. Nothing here retries beyond one
//! call, remembers what it read, or knows a role. No type of the client library leaves this module.
//!
//! * `connect` one client per member, `login` its tokens · `connector`, `dial`, `tls` how a connection is made
//! * `hedge` how a call is tried, and what a failed write proves · `noting` how tries ended, `reason` why, in words, `voice` what is
//!   logged of it
//! * `session` the lease · `look` reading an election · `campaign` the transactions · `history` the audit in etcd
//! * `identity` whose answers count · `namesake` whether another daemon uses our id · `aside` looks by a new connection ·
//!   `roll_call` who is there
//! * `watch` one stream for all elections, `progress` whether it keeps up · `doctor` questions of people
//! * `keys`, `codec` where things are, and how they are written

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::GetResponse;

use crate::clock::{Hlc, Wall};
use crate::config::EtcdConfig;
use crate::election::ids::{ElectionIndex, ElectionName, Generation, LeaseId, MemberId, RaftTerm, Revision};
use crate::election::record::{CandidateInfo, Cell, ControlRecord, GenerationRecord, Header};
use crate::health::Health;
use crate::timing::Timing;

mod aside;
mod campaign;
// Public for the fuzzers alone: what anyone may have written is read here.
#[doc(hidden)]
pub mod codec;
mod connect;
mod connector;
mod dial;
mod doctor;
mod error;
mod hedge;
mod history;
mod identity;
#[doc(hidden)]
pub mod keys;
mod login;
mod look;
mod namesake;
mod noting;
mod progress;
mod reason;
mod rights;
mod roll_call;
mod session;
mod tls;
mod voice;
mod watch;
mod watch_stream;

pub use doctor::{EndpointStatus, Flaw, Leases, ListedMember, Obstacle, Origin, Round, Step};
pub use error::{Cause, Error, Kind};
pub use identity::Listed;
pub use watch::Watcher;

use connect::{Pool, lock};
use hedge::Call;
use keys::Keys;
use namesake::Namesakes;
use session::Granted;

/// Who this daemon is, as its records say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The candidate's id.
    pub id: String,
    /// Where it is reached; may be empty.
    pub url: String,
    /// Its Tenure version.
    pub version: String,
    /// The elections, in the order of the configuration, each with this candidate's priority.
    pub elections: Vec<(ElectionName, i32)>,
}

/// Every name that [`Telemetry::request`] may be told.
pub const METHODS: &[&str] = &[
    "authenticate",
    "confirm",
    "elect",
    "feel",
    "grant",
    "hand_over",
    "history",
    "identify",
    "keep_alive",
    "look",
    "member_list",
    "permissions",
    "queue",
    "raise",
    "read",
    "revoke",
    "roll_call",
    "trim_history",
];

/// The time that a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// For people.
    pub wall: Wall,
    /// For order.
    pub hlc: Hlc,
}

/// What the edge tells of itself. Called often, from several tasks; must not block.
pub trait Telemetry: Send + Sync {
    /// One try of one request ended. `code` is `ok`, a gRPC status in snake case, `timeout`, or a word for a local failure.
    fn request(&self, method: &'static str, code: &'static str, took: Duration);
    /// A member began or ceased to serve what is needed. Called for changes only, and for the first answer.
    fn endpoint_up(&self, endpoint: &str, up: bool);
    /// One try of a renewal failed at this member; others may have succeeded.
    fn keepalive_failed(&self, endpoint: &str);
    /// A watch ended and will be made anew. `cause` is one of `auth`, `broken`, `canceled`, `compacted`, `foreign`, `reset`, `silent`,
    /// `stale`.
    fn watch_restarted(&self, cause: &'static str);
}

/// The way to etcd. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    edge: Arc<Edge>,
}

/// What all clones share.
struct Edge {
    pool: Pool,
    identity: Identity,
    keys: Vec<Keys>,
    limits: Limits,
    /// A lease was asked for.
    asked_before: AtomicBool,
    namesakes: Mutex<Namesakes>,
    granted: Mutex<Granted>,
    /// By key, the last value that could not be read and was complained of. Holds two keys of each election at the most.
    unreadable: Mutex<BTreeMap<String, Revision>>,
}

/// The named bounds of every wait.
#[derive(Clone, Copy, Debug)]
struct Limits {
    hedge: Duration,
    try_limit: Duration,
    request: Duration,
    ttl: Duration,
    /// What a fail-over may take besides the TTL.
    beyond_ttl: Duration,
}

impl Etcd {
    /// Prepares the way to etcd; connects nothing.
    ///
    /// Needs no runtime yet, but every other method does.
    ///
    /// # Errors
    /// A TLS or password file cannot be read, or there is no endpoint.
    pub fn new(
        config: &EtcdConfig,
        identity: Identity,
        timing: &Timing,
        telemetry: Arc<dyn Telemetry>,
        seed: u64,
    ) -> Result<Self, Error> {
        let keys: Vec<_> =
            identity.elections.iter().map(|(name, _)| Keys::new(&config.prefix, name.as_str())).collect();
        let limits = Limits {
            hedge: timing.hedge_after(),
            try_limit: timing.try_limit(),
            request: config.request_timeout,
            ttl: timing.ttl(),
            beyond_ttl: timing.worst_failover().saturating_sub(timing.ttl()),
        };
        let probe_key = keys.first().map_or_else(|| config.prefix.clone(), |keys: &Keys| keys.generation.clone());
        let pool = Pool::new(config, telemetry, (probe_key, timing), seed)?;
        let (namesakes, granted, unreadable) = (Mutex::default(), Mutex::default(), Mutex::default());
        let asked_before = AtomicBool::new(false);
        Ok(Self { edge: Arc::new(Edge { pool, identity, keys, limits, asked_before, namesakes, granted, unreadable }) })
    }

    /// How every member answers, kept up to date for as long as requests are made.
    #[must_use]
    pub fn health(&self) -> Health {
        self.edge.pool.health.clone()
    }

    /// Drops every connection and stream: they may belong to a history that is no more. Calls under way fail, writes among them
    /// as unknown; watchers report themselves broken and wait for new plans.
    pub fn reset(&self) {
        self.edge.pool.reset();
        self.edge.keys.iter().for_each(Keys::forget);
        lock(&self.edge.namesakes).forget();
    }
}

impl Edge {
    /// The keys of an election. An index is only ever made from the configuration that made `keys`.
    fn keys(&self, election: ElectionIndex) -> &Keys {
        &self.keys[election.0]
    }

    /// Says of a generation record on which nobody of ours can be elected why that is so, once for each value.
    fn complain_of_generation(&self, keys: &Keys, cell: &Cell<GenerationRecord>) {
        let (key, modified) = (&keys.generation, cell.modified());
        match cell {
            Cell::Corrupt { .. } if self.is_news(key, modified) => {
                let why = keys.value_at(modified).map(|value| codec::why_no_generation(&value));
                tracing::error!(
                    key,
                    why,
                    "not a generation record: nobody is elected over it, and it counts for nothing; put back the \
                     newest record of its history (docs/operations.md has the command); a key that is deleted begins at 1 again \
                     where no daemon remembers more"
                );
            }
            Cell::Valid { value, .. } if value.generation == Generation::MAX && self.is_news(key, modified) => {
                tracing::error!(
                    key,
                    "the largest generation: nobody can be elected above it; see \"TenureNoLeader\" in docs/operations.md"
                );
            }
            Cell::Valid { value, .. } if value.term > 0 && self.is_news(key, modified) => {
                tracing::warn!(
                    key,
                    term = value.term,
                    "the generation record carries a term: a candidate with a lower one (ours is 0) stands aside"
                );
            }
            Cell::Absent | Cell::Valid { .. } | Cell::Corrupt { .. } => {}
        }
    }

    /// The same of a control record.
    fn complain_of_control(&self, keys: &Keys, cell: &Cell<ControlRecord>) {
        if let Cell::Corrupt { modified } = cell
            && self.is_news(&keys.control, *modified)
        {
            tracing::error!(
                key = keys.control,
                "not a control record: it counts as a pause until it is mended or deleted"
            );
        }
    }

    /// Says of the first candidate whose id is none that it counts as a foreign one, once for each value.
    fn complain_of_ids(&self, keys: &Keys, queue: Option<&GetResponse>) {
        let found = queue.into_iter().flat_map(GetResponse::kvs).find_map(|kv| Some((kv, codec::odd_id(kv.value())?)));
        let Some((kv, (id, flaw))) = found else { return };
        if self.is_news(&keys.candidates, Revision(kv.mod_revision())) {
            let (key, id) = (String::from_utf8_lossy(kv.key()), id.escape_debug().to_string());
            tracing::warn!(%key, id, "a candidate's id is none ({flaw}): it counts as a client that is not Tenure");
        }
    }

    fn is_news(&self, key: &str, modified: Revision) -> bool {
        // Another revision, not a later one: history may have been rewound.
        lock(&self.unreadable).insert(key.to_owned(), modified) != Some(modified)
    }

    /// What our candidate key says.
    fn candidate(&self, election: ElectionIndex, term: u64) -> CandidateInfo {
        let Identity { id, url, version, elections } = &self.identity;
        let priority = elections[election.0].1;
        CandidateInfo { id: id.clone(), url: url.clone(), term, priority, version: version.clone() }
    }

    /// Requests on which the lease depends: tries of TTL/10, all of them within TTL/5, the interval of renewals.
    fn urgent(&self, name: &'static str) -> Call {
        let Limits { hedge, try_limit, ttl, .. } = self.limits;
        let total = ttl / 5;
        // Spread over all of the time there is: a member that restarts may be back for the last try.
        let hedge_max = hedge.max(total / u32::try_from(hedge::MAX_TRIES).unwrap_or(1));
        Call {
            name,
            cap: try_limit,
            total,
            hedge,
            hedge_max,
            start: None,
            tries: hedge::MAX_TRIES,
            any_cluster: false,
            fresh: false,
        }
    }

    /// Everything else. A try is given all the time there is, since asking the next member does not wait for it to end: a
    /// commit that waits for a slow disk must not be thrown away while it is under way.
    fn patient(&self, name: &'static str) -> Call {
        let Limits { hedge, try_limit, request, .. } = self.limits;
        Call {
            name,
            cap: request,
            total: request,
            hedge,
            hedge_max: try_limit.max(hedge),
            start: None,
            tries: hedge::MAX_TRIES,
            any_cluster: false,
            fresh: false,
        }
    }
}

/// Reads the header of an answer.
fn header(of: Option<&etcd_client::ResponseHeader>, sent_at: crate::clock::Instant) -> Option<Header> {
    of.map(|h| Header {
        sent_at,
        revision: Revision(h.revision()),
        raft_term: RaftTerm(h.raft_term()),
        member: MemberId(h.member_id()),
    })
}

/// Leases that we hang keys on are positive.
const fn lease_of(kv: &etcd_client::KeyValue) -> LeaseId {
    LeaseId(kv.lease())
}
