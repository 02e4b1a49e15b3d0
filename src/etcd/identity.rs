//! Whose answers are heeded: the one gate through which every answer of etcd passes on its way into the daemon.
//!
//! Requests pass it in `Pool::attempt`, watches in `watch_stream`. The rule itself is [`OneCluster`]; this asks the endpoints for
//! what it needs: their ids while none is pinned, and a list of members where somebody keeps silent.

use std::sync::Mutex;
use std::time::Duration;

use etcd_client::{GetOptions, ResponseHeader};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connect::{Pool, lock};
use super::error::{Cause, Error, Kind};
use super::hedge::{Call, Target};
use super::{Edge, Etcd};
use crate::clock::{self, Instant};
use crate::config::EtcdConfig;
use crate::election::ids::{ClusterId, MemberId};
use crate::election::one_cluster::{Identity, OneCluster, Verdict};

/// How often the same reason for not campaigning is said.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// Between two rounds of asking everybody who they are.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// An answer that says who gave it.
pub(super) trait Answer {
    /// Who, as its header says.
    fn identity(&self) -> Option<Identity>;
}

/// Reads who answered. Nobody has id 0: `etcd grpc-proxy` sends it with what it answers by itself (`grpcproxy/watcher.go`).
pub(super) fn identity(header: Option<&ResponseHeader>) -> Option<Identity> {
    let named = header.filter(|h| h.cluster_id() != 0);
    named.map(|h| Identity { cluster: ClusterId(h.cluster_id()), member: MemberId(h.member_id()) })
}

macro_rules! answers {
    ($($response:ty),* $(,)?) => {
        $(impl Answer for $response {
            fn identity(&self) -> Option<Identity> {
                identity(self.header())
            }
        })*
    };
}

answers!(
    etcd_client::GetResponse,
    etcd_client::LeaseGrantResponse,
    etcd_client::LeaseRevokeResponse,
    etcd_client::MemberListResponse,
    etcd_client::StatusResponse,
    etcd_client::TxnResponse,
);

/// One entry of a member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The member.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// It replicates and does not vote.
    pub learner: bool,
    /// Where clients reach it, as it says.
    pub client_urls: Vec<String>,
}

/// Whose answers are heeded, and what that is known from.
pub(super) struct Heeded {
    pub one: Mutex<OneCluster>,
    pub pinned: watch::Sender<Option<ClusterId>>,
    pub moved: watch::Sender<Option<ClusterId>>,
    /// Held by whoever asks the endpoints who they are.
    asking: tokio::sync::Mutex<()>,
    said: Mutex<Said>,
}

impl Heeded {
    pub(super) fn new(settings: &EtcdConfig, ttl: Duration) -> Self {
        Self {
            one: Mutex::new(OneCluster::new(&settings.endpoints, settings.cluster_id, None, ttl)),
            pinned: watch::Sender::new(None),
            moved: watch::Sender::new(None),
            asking: tokio::sync::Mutex::default(),
            said: Mutex::default(),
        }
    }
}

/// What was said last of why nothing is heeded.
#[derive(Default)]
struct Said {
    text: String,
    at: Option<Instant>,
}

impl Etcd {
    /// The endpoints, as configured.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&str> {
        self.edge.pool.members.iter().map(|m| m.endpoint.as_str()).collect()
    }

    /// Which cluster is heeded, if one is pinned yet; changes are told to the receiver.
    #[must_use]
    pub fn pinned(&self) -> watch::Receiver<Option<ClusterId>> {
        self.edge.pool.heeded.pinned.subscribe()
    }

    /// Pins what an earlier run pinned. `true` where the configuration names another cluster: the operator moved the store.
    #[must_use]
    pub fn remember(&self, cluster: ClusterId) -> bool {
        let pool = &self.edge.pool;
        if let Some(configured) = pool.settings.cluster_id {
            return configured != cluster;
        }
        *lock(&pool.heeded.one) = OneCluster::new(&pool.settings.endpoints, None, Some(cluster), self.edge.limits.ttl);
        pool.heeded.pinned.send_replace(Some(cluster));
        false
    }

    /// Told whenever every endpoint answers as one other cluster than the pinned one, and has for long enough: the store was moved
    /// there. Told again and again until [`Etcd::adopt`].
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<Option<ClusterId>> {
        self.edge.pool.heeded.moved.subscribe()
    }

    /// Heeds this cluster from now on, and no other.
    pub fn adopt(&self, cluster: ClusterId) {
        lock(&self.edge.pool.heeded.one).adopt(cluster);
        self.edge.pool.heeded.pinned.send_replace(Some(cluster));
    }
}

impl Edge {
    /// How one endpoint is asked who it is.
    pub(super) async fn is_there(&self, member: usize) {
        // One linearizable read, of a key that we may read: a member that cannot serve it is of no use to us.
        let call = Call { tries: 1, ..self.patient("roll_call") };
        let key = &self.pool.probe_key;
        let ask = |target: Target| async move {
            let options = GetOptions::new().with_count_only();
            target.live.client.kv_client().get(key.as_str(), Some(options)).await.map_err(Cause::from)
        };
        drop(self.pool.attempt(&call, member, &ask).await);
    }
}

impl Pool {
    /// Takes note of who answered, and judges whether the answer counts.
    pub(super) fn hear(&self, member: usize, said: Identity) -> Verdict {
        let now = clock::now();
        let mut one = lock(&self.heeded.one);
        let before = one.pin();
        let verdict = one.heard(now, member, said);
        self.tell(&one, before);
        if one.moved(now).is_some() {
            self.heeded.moved.send_replace(one.moved(now));
        }
        verdict
    }

    fn tell(&self, one: &OneCluster, before: Option<ClusterId>) {
        if let Some(cluster) = one.pin().filter(|_| before.is_none()) {
            tracing::info!(%cluster, "etcd's cluster is known: only its answers count from now on");
            self.heeded.pinned.send_replace(Some(cluster));
            self.health.undecided(None);
        }
    }

    /// Takes note that an endpoint did not answer.
    pub(super) fn unheard(&self, member: usize) {
        let mut one = lock(&self.heeded.one);
        let before = one.pin();
        one.silent(clock::now(), member);
        self.tell(&one, before);
    }

    /// Lets an answer in: of the pinned cluster only. While none is pinned it waits until one is.
    pub(super) async fn admit(&self, call: &Call, member: usize, said: Option<Identity>) -> Result<(), Error> {
        let operation = call.name;
        let said = said.ok_or(Error::Malformed { operation, what: "no id of a cluster" })?;
        let mut verdict = self.hear(member, said);
        if call.any_cluster {
            return Ok(());
        }
        if verdict == Verdict::Undecided {
            self.settled().await;
            verdict = lock(&self.heeded.one).verdict(clock::now(), member, said.cluster);
        }
        self.judge(operation, member, said, verdict)
    }

    /// The failure that a verdict means.
    pub(super) fn judge(
        &self,
        operation: &'static str,
        member: usize,
        said: Identity,
        verdict: Verdict,
    ) -> Result<(), Error> {
        let endpoint = self.members[member].endpoint.clone();
        match verdict {
            Verdict::Ours => Ok(()),
            Verdict::Foreign { pinned } => Err(Error::Foreign { operation, endpoint, found: said.cluster, pinned }),
            Verdict::Mixed => Err(Error::Mixed { operation, endpoint }),
            Verdict::Undecided => Err(self.undecided(operation)),
        }
    }

    /// Why nothing is heeded yet.
    pub(super) fn undecided(&self, operation: &'static str) -> Error {
        let urls: Vec<_> = self.members.iter().map(|m| m.endpoint.as_str()).collect();
        Error::Undecided { operation, found: lock(&self.heeded.one).describe(clock::now(), &urls) }
    }

    /// Resolves once a cluster is pinned. Whoever waits here asks, so that nothing has to run in the background.
    pub(super) async fn settled(&self) {
        let mut pinned = self.heeded.pinned.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as this pool.
            _ = pinned.wait_for(Option::is_some) => {}
            () = self.ask_around() => {}
        }
    }

    /// Asks everybody who they are, again and again. Ends only by being dropped.
    async fn ask_around(&self) {
        let _asking = self.heeded.asking.lock().await;
        loop {
            self.ask_once().await;
            if self.heeded.pinned.borrow().is_none() {
                self.say_why();
            }
            sleep(self.jittered(ASK_EVERY)).await;
        }
    }

    async fn ask_once(&self) {
        let ask = |member: usize, list: bool| async move {
            if list { drop(self.list(member).await) } else { drop(self.identify(member).await) }
        };
        let mut asked: FuturesUnordered<_> = (0..self.members.len()).map(|member| ask(member, false)).collect();
        let mut patience = Box::pin(sleep(self.hedge));
        let (mut waiting, mut listing) = (true, std::collections::BTreeSet::new());
        loop {
            tokio::select! {
                next = asked.next() => if next.is_none() { return },
                // Who has not answered by now counts as silent; an answer that comes after all speaks for itself.
                () = &mut patience, if waiting => {
                    waiting = false;
                    (0..self.members.len()).filter(|m| !lock(&self.heeded.one).has_answered(*m)).for_each(|m| self.unheard(m));
                }
            }
            let wanted = lock(&self.heeded.one).wants_lists();
            asked.extend(wanted.into_iter().filter(|member| listing.insert(*member)).map(|member| ask(member, true)));
        }
    }

    /// Said when it changes, and once a minute while it lasts.
    fn say_why(&self) {
        let error = self.undecided("campaign");
        let Error::Undecided { found, .. } = &error else { return };
        self.health.undecided(Some(format!("no majority of etcd.endpoints belongs to one cluster: {found}")));
        let (mut said, now) = (lock(&self.heeded.said), clock::now());
        if said.text != *found || said.at.is_none_or(|at| now.since(at) >= SAY_EVERY) {
            tracing::warn!(
                "no majority of etcd.endpoints belongs to one cluster, so this daemon campaigns nowhere: {found}; list the members of one \
                 cluster, each once, or name it in etcd.cluster_id. Servers that were started alike, each by itself, have the same ids \
                 and are no cluster"
            );
            *said = Said { text: found.clone(), at: Some(now) };
        }
    }

    /// Asks one endpoint who it is; any member answers from its own memory, with or without a quorum.
    pub(super) async fn identify(&self, member: usize) -> Result<Identity, Error> {
        let call = self.asking_call("identify");
        let key = &self.probe_key;
        let ask = |target: Target| async move {
            let options = GetOptions::new().with_count_only().with_serializable();
            target.live.client.kv_client().get(key.as_str(), Some(options)).await.map_err(Cause::from)
        };
        let answer = Box::pin(self.attempt(&call, member, &ask)).await.1;
        match answer {
            Ok((answer, _)) => {
                answer.identity().ok_or(Error::Malformed { operation: "identify", what: "no id of a cluster" })
            }
            // A list of members names the cluster as well, and needs no right on our keys.
            Err(error) if error.kind() == Kind::Permission => match self.list(member).await {
                Ok((identity, _)) => Ok(identity),
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Asks one endpoint for its cluster's members.
    pub(super) async fn list(&self, member: usize) -> Result<(Identity, Vec<Listed>), Error> {
        let call = self.asking_call("member_list");
        let ask = |target: Target| async move {
            target.live.client.cluster_client().member_list().await.map_err(Cause::from)
        };
        let (answer, _) = Box::pin(self.attempt(&call, member, &ask)).await.1?;
        let identity =
            answer.identity().ok_or(Error::Malformed { operation: "member_list", what: "no id of a cluster" })?;
        let listed = |m: &etcd_client::Member| Listed {
            member: MemberId(m.id()),
            name: m.name().to_owned(),
            learner: m.is_learner(),
            client_urls: m.client_urls().to_vec(),
        };
        let members: Vec<Listed> = answer.members().iter().map(listed).collect();
        let urls: Vec<_> = members.iter().map(|m| (m.member, m.client_urls.clone())).collect();
        let mut one = lock(&self.heeded.one);
        let before = one.pin();
        one.listed(clock::now(), identity.cluster, &urls);
        self.tell(&one, before);
        drop(one);
        Ok((identity, members))
    }

    /// Finds out whether an error that would be heeded came from the pinned cluster: errors carry no id.
    pub(super) async fn vouched(&self, call: &Call, member: usize, source: Cause) -> Error {
        let (operation, endpoint) = (call.name, self.members[member].endpoint.clone());
        let given = |source| Error::Request { operation, endpoint: endpoint.clone(), source };
        if call.any_cluster || lock(&self.heeded.one).pin().is_none() {
            return given(source);
        }
        let limit = self.settings.request_timeout;
        match timeout(limit, self.identify(member)).await {
            Ok(Ok(said)) => {
                let verdict = lock(&self.heeded.one).verdict(clock::now(), member, said.cluster);
                self.judge(operation, member, said, verdict).err().unwrap_or_else(|| given(source))
            }
            // To lose the session for what a stranger may have said would be wrong.
            Ok(Err(_)) | Err(_) if source.kind() == Kind::LeaseUnknown => {
                given(Cause::local(Kind::Unknown, format!("{source}, and whether our cluster says so is not known")))
            }
            Ok(Err(_)) | Err(_) => given(source),
        }
    }

    /// The endpoints in the order in which a call asks them, from `first` on; those of other clusters not at all, unless there is
    /// nobody else.
    pub(super) fn order(&self, first: usize) -> Vec<usize> {
        let n = self.members.len();
        let all = (0..n).map(|nth| (first + nth) % n);
        let (now, one) = (clock::now(), lock(&self.heeded.one));
        let ours: Vec<usize> = all.clone().filter(|member| !one.is_foreign(now, *member)).collect();
        if ours.is_empty() { all.collect() } else { ours }
    }

    fn asking_call(&self, name: &'static str) -> Call {
        let limit = self.settings.request_timeout;
        Call {
            name,
            cap: limit,
            total: limit,
            hedge: self.hedge,
            hedge_max: self.hedge,
            start: None,
            tries: 1,
            any_cluster: true,
            fresh: false,
        }
    }
}
