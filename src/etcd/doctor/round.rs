//! All that the daemon does with a lease, once, through one member: granted, queued, renewed twice, confirmed, watched, elected,
//! revoked; below `P/doctor/`, where every key hangs on the lease and goes with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, LeaseGrantOptions, PutOptions, ResponseHeader, Txn, TxnOp, TxnResponse, WatchOptions,
    WatchStream,
};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::super::connect::{Live, lock};
use super::super::error::{Cause, Error, Kind};
use super::super::{Edge, Etcd};
use super::Origin;
use crate::clock::{self, Instant};

/// Further connections to the same address, each asked for the key that was just written: behind a balancer of two servers
/// that do not know of each other, all of them meet the same one once in 64 rounds.
const FRESH: usize = 6;
/// The same where each has to log in, which etcd makes slow on purpose.
const FRESH_LOGIN: usize = 2;

/// How long a lease may take to be known of by every member.
const LATER: Duration = Duration::from_millis(300);

/// Leases that rounds were granted and did not give back.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<Vec<(usize, i64)>>>);

impl Leases {
    fn took(&self, member: usize, lease: i64) {
        lock(&self.0).push((member, lease));
    }

    fn gave(&self, lease: i64) {
        lock(&self.0).retain(|(_, other)| *other != lease);
    }

    fn left(&self) -> Vec<(usize, i64)> {
        lock(&self.0).clone()
    }
}

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A lease is asked for.
    Grant,
    /// The own key is put.
    Queue,
    /// The lease is renewed.
    Renew,
    /// It is renewed again.
    RenewAgain,
    /// A linearizable read confirms the renewal.
    Confirm,
    /// The own key is watched.
    Watch,
    /// The elect transaction is committed.
    Elect,
    /// The watch tells of it.
    Hear,
    /// The lease is given back.
    Revoke,
    /// The watch tells of that.
    HearTheEnd,
}

impl Step {
    /// For people, after "cannot".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Grant => "get a lease",
            Self::Queue => "put a key on a lease",
            Self::Renew => "renew a lease",
            Self::RenewAgain => "renew a lease a second time",
            Self::Confirm => "confirm a renewal by a linearizable read",
            Self::Watch => "watch a key",
            Self::Elect => "commit the transaction of an election",
            Self::Hear => "hear of a change by a watch",
            Self::Revoke => "give a lease back",
            Self::HearTheEnd => "hear of a deletion by a watch",
        }
    }
}

/// What a round showed.
#[derive(Debug, Default)]
pub struct Round {
    /// The TTL that was granted, whatever was asked.
    pub granted: Option<Duration>,
    /// What went through raft, each with its time.
    pub writes: Vec<Duration>,
    /// Opening the stream of renewals, its first answer included; then each renewal.
    pub renewals: Vec<Duration>,
    /// The role may not write below `P/doctor/`: what needs a key was left out.
    pub without_keys: bool,
    /// Who answered on the one connection.
    pub origins: Vec<Origin>,
    /// Who answered on others to the same address.
    pub elsewhere: Vec<Origin>,
    /// Answers on other connections to the same address that knew nothing of what was written.
    pub unseen: usize,
    /// The next endpoint, asked for what was written, knew nothing of it.
    pub unseen_by_next: bool,
    /// Where it ended, and why.
    pub failed: Option<(Step, Error)>,
}

type Done = Result<(), (Step, Error)>;

/// One round under way.
struct Player<'a> {
    edge: &'a Edge,
    member: usize,
    live: Live,
    lease: i64,
    /// `P/doctor/LEASEHEX/`.
    below: String,
    round: Round,
}

impl Etcd {
    /// Plays a round through `member`, and asks `next` for what was written meanwhile.
    pub async fn round(&self, member: usize, next: Option<usize>, ttl: Duration, leases: &Leases) -> Round {
        let edge = &*self.edge;
        let live = match edge.pool.live(member, "round").await {
            Ok(live) => live,
            Err(error) => return Round { failed: Some((Step::Grant, error)), ..Round::default() },
        };
        let lease = lock(&edge.pool.rng).i64(1..i64::MAX);
        let below = format!("{}/doctor/{lease:x}/", edge.pool.prefix());
        let mut player = Player { edge, member, live, lease, below, round: Round::default() };
        let done = player.play(next, ttl, leases).await;
        let mut round = player.round;
        round.failed = done.err();
        round
    }

    /// Gives back what rounds did not: after a failure, a limit, or a person's Ctrl-C. What cannot be given back ends by its TTL.
    pub async fn clean(&self, leases: &Leases) {
        let all = leases.left();
        join_all(all.into_iter().map(|(member, lease)| async move {
            // Where it came from, and then elsewhere: that member may be what failed.
            let members = self.edge.pool.members.len();
            for nth in 0..members {
                let revoke = |mut client: Client| async move { client.lease_revoke(lease).await };
                let revoked = self.edge.ask((member + nth) % members, "revoke", revoke).await;
                if revoked.as_ref().map_or_else(|e| e.kind() == Kind::LeaseUnknown, |_| true) {
                    return leases.gave(lease);
                }
            }
        }))
        .await;
    }
}

impl Player<'_> {
    async fn play(&mut self, next: Option<usize>, ttl: Duration, leases: &Leases) -> Done {
        leases.took(self.member, self.lease);
        self.grant(ttl).await?;
        let created = self.queue().await?;
        self.renew().await?;
        let mut watch = None;
        if let Some(created) = created {
            let mut stream = self.watch(created).await?;
            let elected = self.elect(created).await?;
            self.hear(&mut stream, Step::Hear, |kv_revision, deleted| kv_revision == elected && !deleted).await?;
            watch = Some(stream);
        }
        self.ask_elsewhere(next).await;
        self.revoke().await?;
        leases.gave(self.lease);
        if let Some(mut stream) = watch {
            self.hear(&mut stream, Step::HearTheEnd, |_, deleted| deleted).await?;
        }
        Ok(())
    }

    fn client(&self) -> Client {
        self.live.client.clone()
    }

    fn failed(&self, step: Step, source: Cause) -> (Step, Error) {
        let endpoint = self.edge.pool.members[self.member].endpoint.clone();
        (step, Error::Request { operation: step.text(), endpoint, source })
    }

    /// One request, within its limit.
    async fn ask<T>(
        &self,
        step: Step,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, (Step, Error)> {
        let limit = self.edge.limits.request;
        let endpoint = || self.edge.pool.members[self.member].endpoint.clone();
        match timeout(limit, request).await {
            Ok(answer) => answer.map_err(|e| self.failed(step, e.into())),
            Err(_) => Err((step, Error::Silent { operation: step.text(), endpoint: endpoint(), limit })),
        }
    }

    fn heard(&mut self, header: Option<&ResponseHeader>) -> Origin {
        let origin = Origin::of(header);
        self.round.origins.push(origin);
        origin
    }

    fn wrote(&mut self, since: Instant) {
        self.round.writes.push(clock::now().since(since));
    }

    fn key(&self) -> String {
        format!("{}candidate", self.below)
    }

    fn put(&self, name: &str) -> TxnOp {
        let options = PutOptions::new().with_lease(self.lease);
        TxnOp::put(format!("{}{name}", self.below), "tenure doctor", Some(options))
    }

    async fn grant(&mut self, ttl: Duration) -> Done {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let options = LeaseGrantOptions::new().with_id(self.lease);
        let (mut client, began) = (self.client(), clock::now());
        let answer = self.ask(Step::Grant, client.lease_grant(seconds, Some(options))).await?;
        self.wrote(began);
        self.heard(answer.header());
        self.round.granted = u64::try_from(answer.ttl()).ok().map(Duration::from_secs);
        Ok(())
    }

    /// The revision at which the key was created; `None` where the role may not put it.
    async fn queue(&mut self) -> Result<Option<i64>, (Step, Error)> {
        let txn = Txn::new()
            .when([Compare::create_revision(self.key(), CompareOp::Equal, 0)])
            .and_then([self.put("candidate"), TxnOp::get(self.key(), None)]);
        match self.txn(Step::Queue, txn).await {
            Ok(answer) => Ok(answer.header().map(ResponseHeader::revision)),
            Err((_, error)) if error.kind() == Kind::Permission => {
                self.round.without_keys = true;
                Ok(None)
            }
            Err(failed) => Err(failed),
        }
    }

    async fn txn(&mut self, step: Step, txn: Txn) -> Result<TxnResponse, (Step, Error)> {
        let (mut client, began) = (self.client(), clock::now());
        let answer = self.ask(step, client.txn(txn)).await?;
        self.heard(answer.header());
        if step != Step::Confirm {
            self.wrote(began);
        }
        if answer.succeeded() {
            return Ok(answer);
        }
        Err((
            step,
            Error::Malformed { operation: step.text(), what: "its condition holds, and etcd says that it does not" },
        ))
    }

    /// Twice on one stream, as the daemon does: a proxy that renews by itself answers the first at once, the second not.
    async fn renew(&mut self) -> Done {
        let (mut client, began) = (self.client(), clock::now());
        let opened = self.ask(Step::Renew, client.lease_keep_alive(self.lease)).await?;
        self.round.renewals.push(clock::now().since(began));
        let (mut keeper, mut stream) = opened;
        for step in [Step::Renew, Step::RenewAgain] {
            let sent_at = clock::now();
            self.ask(step, keeper.keep_alive()).await?;
            let answer = self.ask(step, stream.message()).await?;
            let ended = || self.failed(step, Cause::local(Kind::Unknown, "the stream ended"));
            let answer = answer.ok_or_else(ended)?;
            if answer.ttl() <= 0 {
                return Err(
                    self.failed(step, Cause::local(Kind::LeaseUnknown, "etcd does not know the lease it granted"))
                );
            }
            self.round.renewals.push(clock::now().since(sent_at));
            self.heard(answer.header());
        }
        let key = if self.round.without_keys { self.edge.anchor() } else { self.key() };
        let confirm = Txn::new().and_then([TxnOp::get(key, None)]);
        self.txn(Step::Confirm, confirm).await.map(|_| ())
    }

    async fn watch(&mut self, created: i64) -> Result<WatchStream, (Step, Error)> {
        let options = WatchOptions::new().with_start_revision(created + 1);
        let mut client = self.client();
        let opened = self.ask(Step::Watch, client.watch(self.key(), Some(options))).await?;
        Ok(opened)
    }

    /// The revision of the commit.
    async fn elect(&mut self, created: i64) -> Result<i64, (Step, Error)> {
        let txn = Txn::new()
            .when([
                Compare::create_revision(self.key(), CompareOp::Equal, created),
                Compare::mod_revision(format!("{}generation", self.below), CompareOp::Equal, 0),
            ])
            .and_then([self.put("generation"), self.put("candidate"), self.put("history")]);
        let answer = self.txn(Step::Elect, txn).await?;
        Ok(answer.header().map(ResponseHeader::revision).unwrap_or_default())
    }

    /// Waits for an event: `matches` gets its revision, and whether it is a deletion.
    async fn hear(&mut self, stream: &mut WatchStream, step: Step, matches: impl Fn(i64, bool) -> bool) -> Done {
        let limit = self.edge.limits.request;
        let listen = async {
            loop {
                let ended = || Cause::local(Kind::Unknown, "the watch ended");
                let message = stream.message().await.map_err(Cause::from)?.ok_or_else(ended)?;
                if message.canceled() {
                    return Err(Cause::local(
                        Kind::Unknown,
                        format!("etcd ended the watch: {}", message.cancel_reason()),
                    ));
                }
                let mut events = message.events().iter().filter_map(etcd_client::Event::kv);
                // A deletion's key has version 0.
                if events.any(|kv| matches(kv.mod_revision(), kv.version() == 0)) {
                    return Ok(());
                }
            }
        };
        let endpoint = self.edge.pool.members[self.member].endpoint.clone();
        match timeout(limit, listen).await {
            Ok(heard) => heard.map_err(|cause| self.failed(step, cause)),
            Err(_) => Err((step, Error::Silent { operation: step.text(), endpoint, limit })),
        }
    }

    /// Whether others know of what was written. One that does not answer shows nothing.
    async fn ask_elsewhere(&mut self, next: Option<usize>) {
        let pool = &self.edge.pool;
        let limit = self.edge.limits.request;
        let connections = match self.live.login_took() {
            // Each would take as long again, and time out.
            took if took > limit / 4 => 0,
            _ if pool.logs_in() => FRESH_LOGIN,
            _ => FRESH,
        };
        for _ in 0..connections {
            let ask = async {
                let live = pool.fresh(self.member, "round").await?;
                self.knows(live.client).await
            };
            let Ok(Ok((origin, knows))) = timeout(limit, ask).await else { break };
            self.round.elsewhere.push(origin);
            self.round.unseen += usize::from(!knows);
        }
        if let Some(next) = next.filter(|next| *next != self.member) {
            let ask = async {
                let live = pool.live(next, "round").await?;
                self.knows(live.client).await
            };
            if let Ok(Ok((_, knows))) = timeout(limit, ask).await {
                self.round.unseen_by_next = !knows;
            }
        }
    }

    async fn knows(&self, mut client: Client) -> Result<(Origin, bool), Error> {
        let failed = |e: etcd_client::Error| self.failed(Step::Confirm, e.into()).1;
        if self.round.without_keys {
            let mut answer = client.lease_time_to_live(self.lease, None).await.map_err(failed)?;
            if answer.ttl() < 0 {
                // No read from the quorum: a member may hear of the lease a little later.
                sleep(LATER).await;
                answer = client.lease_time_to_live(self.lease, None).await.map_err(failed)?;
            }
            return Ok((Origin::of(answer.header()), answer.ttl() >= 0));
        }
        let answer = client.get(self.key(), None).await.map_err(failed)?;
        Ok((Origin::of(answer.header()), !answer.kvs().is_empty()))
    }

    async fn revoke(&mut self) -> Done {
        let (mut client, began) = (self.client(), clock::now());
        let answer = self.ask(Step::Revoke, client.lease_revoke(self.lease)).await?;
        self.wrote(began);
        self.heard(answer.header());
        Ok(())
    }
}
