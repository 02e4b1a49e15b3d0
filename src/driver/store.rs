//! What becomes of the store as a whole: which cluster it is, and whether it is still the one that we knew.

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Driver, EVENTS};
use crate::election::event::{Input, SessionInput, Sign};
use crate::election::ids::ClusterId;
use crate::election::record::{Header, HighWater};
use crate::etcd::Etcd;
use crate::memory::Mark;

/// What the edge tells of it.
pub(super) struct Store {
    pinned: watch::Receiver<Option<ClusterId>>,
    moved: watch::Receiver<Option<ClusterId>>,
}

/// One such piece of news.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A cluster is pinned.
    Pinned,
    /// The store was moved.
    Moved,
}

impl Store {
    pub(super) fn of(etcd: &Etcd) -> Self {
        Self { pinned: etcd.pinned(), moved: etcd.moved() }
    }

    /// The next piece of news. The senders live as long as the edge does.
    pub(super) async fn next(&mut self) -> News {
        tokio::select! {
            Ok(()) = self.pinned.changed() => News::Pinned,
            Ok(()) = self.moved.changed() => News::Moved,
            else => std::future::pending().await,
        }
    }
}

impl Driver {
    pub(super) fn store_news(&mut self, news: News) {
        match news {
            News::Pinned => self.remember(self.parts.core.high_water()),
            News::Moved => self.handle(Input::Session(SessionInput::StoreMoved)),
        }
    }

    pub(super) fn remember(&self, water: HighWater) {
        if let Some(memory) = &self.parts.memory {
            memory.remember(Mark { water, cluster: *self.store.pinned.borrow() });
        }
    }

    /// Leaves a lost history behind: no answer to an earlier request reaches the core any more.
    pub(super) fn rewound(&mut self, remembered: &HighWater, seen: &Header, sign: Sign, again: bool) {
        let (revision, raft_term) = (seen.revision.0, seen.raft_term.0);
        match sign {
            Sign::Moved => {
                let moved_to = *self.store.moved.borrow();
                if let Some(cluster) = moved_to {
                    self.parts.etcd.adopt(cluster);
                }
                let cluster = self.store.pinned.borrow().map(|id| id.to_string());
                tracing::warn!(
                    ?remembered,
                    cluster,
                    "the store was moved to another etcd cluster: beginning anew there, with generations above what is remembered"
                );
            }
            Sign::WentBack | Sign::OtherRecord => tracing::error!(
                ?remembered,
                revision,
                raft_term,
                "etcd's history went backwards: it was restored or wiped; beginning anew, and raising generations to what is remembered"
            ),
        }
        if again {
            let endpoints = self.parts.etcd.endpoints().join(", ");
            tracing::error!(
                "this address is not one etcd: unrelated servers answer at {endpoints} in turn, such as a single-member etcd that was scaled up; not campaigning until they have agreed for ten TTLs; run one server, or a real cluster"
            );
        }
        self.parts.metrics.rewound();
        self.parts.etcd.reset();
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        (self.sender, self.inputs) = mpsc::channel(EVENTS);
        self.watcher = self.parts.etcd.watch(self.sender.clone());
    }
}
