//! Looks that go by a connection of their own.
//!
//! Connections are long, and behind one address there may be several servers: a Service in front of a single-member etcd that
//! was scaled up gives each daemon a store of its own, with equal ids, and two of them lead. Only a new connection shows another
//! of these servers. So now and then a look takes one, and the core finds that what it shows cannot be of one history.

use std::time::Duration;

use super::Edge;
use super::connect::lock;
use super::hedge::Call;
use crate::clock::{self, Instant};
use crate::election::ids::{ElectionIndex, LeaseId};
use crate::election::record::View;

/// With a user each connection costs a login, which etcd makes slow on purpose.
const WITH_LOGIN: Duration = Duration::from_mins(10);

/// When a look goes aside.
pub(super) struct Aside {
    every: Duration,
    /// For so long each does, once history was rewound.
    suspicion: Duration,
    last: Instant,
    suspected_until: Option<Instant>,
    next: usize,
}

impl Aside {
    pub(super) fn new(ttl: Duration, login: bool) -> Self {
        let (every, suspicion) = if login { (WITH_LOGIN, Duration::ZERO) } else { (ttl / 2, ttl * 10) };
        // A start has other things to do.
        Self { every, suspicion, last: clock::now(), suspected_until: None, next: 0 }
    }

    /// History was rewound: was it, or is it another server's?
    pub(super) fn suspect(&mut self, now: Instant) {
        self.suspected_until = Some(now + self.suspicion);
    }

    /// Which endpoint's turn it is, if one's is.
    fn turn(&mut self, now: Instant, endpoints: usize) -> Option<usize> {
        let suspected = self.suspected_until.is_some_and(|until| now < until);
        if !suspected && now.since(self.last) < self.every {
            return None;
        }
        self.last = now;
        self.next = (self.next + 1) % endpoints;
        Some(self.next)
    }
}

impl Edge {
    /// A look by a connection of its own, if it is time for one. `None` where that did not work as well: the ordinary way is
    /// taken then.
    pub(super) async fn look_aside(&self, election: ElectionIndex, lease: Option<LeaseId>) -> Option<View> {
        let endpoint = lock(&self.pool.aside).turn(clock::now(), self.pool.members.len())?;
        // Not worth a wait: whoever looks may be about to be elected.
        let limit = self.pool.hedge;
        let call =
            Call { cap: limit, total: limit, start: Some(endpoint), tries: 1, fresh: true, ..self.patient("look") };
        self.look_by(&call, election, lease).await.ok()
    }
}
