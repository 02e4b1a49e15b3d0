//! The session: one lease, its renewals, and the reads that confirm them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseGrantResponse, LeaseKeepAliveStream, LeaseKeeper, Txn, TxnOp};
use tokio::time::timeout;

use super::connect::lock;
use super::error::{Cause, Error, Kind};
use super::hedge::{Call, Failed, Target};
use super::identity::{Answer, identity};
use super::look::Answers;
use super::{Edge, Etcd, header, lease_of};
use crate::clock::{self, Instant};
use crate::election::event::{Input, Round, SessionInput};
use crate::election::ids::{ElectionIndex, LeaseId, Revision};
use crate::election::one_cluster::Identity;
use crate::election::record::{Header, OwnKey};

/// A keep-alive stream that is open and quiet.
///
/// Invariant: no request on it is unanswered. Answers carry no request id, so a stream with an outstanding request is dropped,
/// never kept: its late answer would pass for the answer to a later request and earn a deadline that nobody granted.
pub(super) struct Renewer {
    lease: LeaseId,
    serial: u64,
    token: u32,
    keeper: LeaseKeeper,
    stream: LeaseKeepAliveStream,
}

/// How often the same complaint of grants is made.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// What was granted last, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Granted {
    ttl: Option<Duration>,
    /// Leases in a row that could not be renewed.
    unproven: u32,
    complained: Option<Instant>,
}

impl Granted {
    /// One more lease was not renewable. Whether that is to be said: one alone may have met an etcd that lost its leader.
    fn is_unproven_again(&mut self, now: Instant) -> bool {
        self.unproven = self.unproven.saturating_add(1);
        let due = self.unproven > 1 && self.complained.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY);
        if due {
            self.complained = Some(now);
        }
        due
    }
}

/// A renewal's answer.
struct Beat {
    ttl: Duration,
    header: Header,
    identity: Option<Identity>,
}

impl Answer for Beat {
    fn identity(&self) -> Option<Identity> {
        self.identity
    }
}

/// A grant's answer, and what was asked for.
struct Lease {
    id: i64,
    sent_at: clock::Instant,
    answer: LeaseGrantResponse,
}

impl Answer for Lease {
    fn identity(&self) -> Option<Identity> {
        self.answer.identity()
    }
}

impl Etcd {
    /// Asks for a lease.
    pub async fn grant(&self, ttl: Duration) -> Input {
        let edge = &self.edge;
        let proven = match edge.grant(ttl).await {
            Ok((lease, granted)) => edge.prove_renewable(lease).await.map(|()| granted).inspect_err(|_| {
                // It would end by itself; a row of attempts must not leave one of them each. Nothing rests on it, and nobody
                // waits for its end.
                let etcd = self.clone();
                tokio::spawn(async move { drop(etcd.revoke(lease).await) });
            }),
            Err(error) => Err(error),
        };
        Input::Session(proven.unwrap_or_else(|error| {
            tracing::debug!(%error, "no lease");
            SessionInput::GrantFailed
        }))
    }

    /// Renews the lease. The answer's `sent_at` is that of the very message that was answered.
    ///
    /// `elsewhere`: begins at another member than the one that answered last, and on fresh streams everywhere.
    pub async fn keep_alive(&self, lease: LeaseId, round: Round, elsewhere: bool) -> Input {
        let edge = &self.edge;
        let mut call = edge.urgent("keep_alive");
        if elsewhere {
            let members = &edge.pool.members;
            for member in members {
                *lock(&member.renewer) = None;
            }
            call.start = Some((edge.pool.renewed_by.load(Ordering::Relaxed) + 1) % members.len());
        }
        let answer = edge.pool.hedged(&call, |target| edge.renew(target, lease)).await;
        Input::Session(match answer {
            Ok(done) => {
                edge.pool.renewed_by.store(done.member, Ordering::Relaxed);
                let Beat { ttl, header, .. } = done.value;
                SessionInput::KeepAliveAnswered { lease, round, ttl, header }
            }
            Err(Failed { error, .. }) if error.kind() == Kind::LeaseUnknown => SessionInput::LeaseUnknown { lease },
            Err(Failed { error, .. }) => {
                tracing::debug!(%error, %lease, "not renewed");
                edge.pool.health.renewed(Err(error.reason()));
                SessionInput::KeepAliveFailed { lease, round }
            }
        })
    }

    /// Reads the own keys, linearizably.
    pub async fn confirm(
        &self,
        lease: LeaseId,
        round: Round,
        elections: &[ElectionIndex],
        anchor: Option<ElectionIndex>,
    ) -> Input {
        let edge = &self.edge;
        Input::Session(match edge.confirm(lease, elections, anchor).await {
            Ok((header, keys)) => {
                edge.pool.health.renewed(Ok(()));
                SessionInput::Confirmed { lease, round, header, keys }
            }
            Err(error) => {
                tracing::debug!(%error, %lease, "not confirmed");
                edge.pool.health.renewed(Err(error.reason()));
                SessionInput::ConfirmFailed { lease, round }
            }
        })
    }

    /// Gives the lease up. A lease that etcd does not know is gone as well.
    pub async fn revoke(&self, lease: LeaseId) -> Input {
        let edge = &self.edge;
        let revoke =
            |mut target: Target| async move { target.live.client.lease_revoke(lease.0).await.map_err(Cause::from) };
        Input::Session(match edge.pool.hedged(&edge.patient("revoke"), revoke).await {
            Ok(_) => SessionInput::Revoked { lease },
            Err(Failed { error, .. }) if error.kind() == Kind::LeaseUnknown => SessionInput::Revoked { lease },
            Err(Failed { error, .. }) => {
                tracing::debug!(%error, %lease, "not revoked");
                SessionInput::RevokeFailed { lease }
            }
        })
    }
}

impl Edge {
    /// Each try asks for an id of its own. Were the copies of a hedged grant to share one, `lease already exists` could mean
    /// "my first copy" as well as "another daemon's", and two daemons would renew one lease. A copy that loses leaves a lease
    /// without keys, which ends by its TTL.
    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, SessionInput), Error> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        // The first goes out at once, and its answer waits until the cluster is known; while that stays unknown, no store is
        // written to that may not be ours.
        if self.asked_before.swap(true, Ordering::Relaxed) && self.pool.heeded.pinned.borrow().is_none() {
            let unknown = |_| self.pool.undecided("grant");
            timeout(self.limits.request, self.pool.settled()).await.map_err(unknown)?;
        }
        // One try a member: an etcd that hangs carries out every one of them when it wakes up.
        let call = Call { tries: self.pool.members.len(), ..self.patient("grant") };
        let done = self
            .pool
            .hedged(&call, |target| async move {
                let id = lock(&self.pool.rng).i64(1..i64::MAX);
                let sent_at = clock::now();
                let options = LeaseGrantOptions::new().with_id(id);
                let answer = target.live.client.lease_client().grant(seconds, Some(options)).await;
                answer.map(|answer| Lease { id, sent_at, answer }).map_err(Cause::from)
            })
            .await
            .map_err(|failed| failed.error)?;
        let Lease { id, sent_at, answer } = done.value;
        let malformed = |what| Error::Malformed { operation: "grant", what };
        // What etcd granted counts: it raises small TTLs to 1.5 election timeouts (`minTTL` in etcd's server.go).
        let ttl = u64::try_from(answer.ttl()).ok().filter(|ttl| *ttl > 0).ok_or_else(|| malformed("no TTL"))?;
        if answer.id() != id {
            return Err(malformed("another lease than the one asked for"));
        }
        let header = header(answer.header(), sent_at).ok_or_else(|| malformed("no header"))?;
        let (lease, granted) = (LeaseId(id), Duration::from_secs(ttl));
        self.note_granted(granted, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        lock(&self.namesakes).granted(lease, header.revision);
        Ok((lease, SessionInput::Granted { lease, ttl: granted, header }))
    }

    /// Renews a lease just granted, once. Leadership on one that cannot be renewed would be lost with its guard, again and again:
    /// `etcd grpc-proxy` grants leases, and answers renewals by itself, when it likes. What it opens serves the next renewals.
    async fn prove_renewable(&self, lease: LeaseId) -> Result<(), Error> {
        let renewed = self.pool.hedged(&self.urgent("keep_alive"), |target| self.renew(target, lease)).await;
        let mut granted = lock(&self.granted);
        let Err(Failed { error, .. }) = renewed else {
            granted.unproven = 0;
            return Ok(());
        };
        let reason = error.reason();
        if granted.is_unproven_again(clock::now()) {
            tracing::warn!(
                %reason,
                "etcd grants a lease and does not answer its renewal: nobody can lead by it; is `etcd grpc-proxy` in between? \
                 Name the members themselves"
            );
        }
        drop(granted);
        self.pool.health.renewed(Err(reason));
        Err(error)
    }

    /// What etcd granted counts, and what is promised of a fail-over with it.
    fn note_granted(&self, granted: Duration, asked: Duration) {
        if lock(&self.granted).ttl.replace(granted) != Some(granted) && granted != asked {
            let beyond = self.limits.beyond_ttl;
            tracing::warn!(
                "etcd grants leases of {granted:?} where {asked:?} are asked, because of its --election-timeout: a fail-over takes up \
                 to {:?}, not {:?}",
                granted + beyond,
                asked + beyond
            );
        }
    }

    /// One renewal on one member: on its open stream, or on a fresh one where there is none or it turns out broken.
    ///
    /// The stream is taken out while in use. A try that is dropped (too slow, or another member answered) takes it along, so
    /// the next try here opens a fresh one, which also gets around an etcd member that is stuck forwarding to a dead leader.
    async fn renew(&self, mut target: Target, lease: LeaseId) -> Result<Beat, Cause> {
        let slot = &self.pool.members[target.member].renewer;
        let (serial, token) = (target.live.serial, target.live.token());
        let open = lock(slot).take().filter(|r| r.lease == lease && r.serial == serial && r.token == token);
        if let Some(mut renewer) = open
            && let Ok(beat) = renewer.beat().await
        {
            return Ok(self.keep(&target, renewer, beat));
        }
        // Opening sends a first request, and the client library hides its answer's TTL and header, so that one earns nothing.
        let (keeper, stream) = target.live.client.lease_keep_alive(lease.0).await?;
        let mut renewer = Renewer { lease, serial, token, keeper, stream };
        let beat = renewer.beat().await?;
        Ok(self.keep(&target, renewer, beat))
    }

    fn keep(&self, target: &Target, renewer: Renewer, beat: Beat) -> Beat {
        if beat.ttl > Duration::ZERO {
            *lock(&self.pool.members[target.member].renewer) = Some(renewer);
        }
        beat
    }

    async fn confirm(
        &self,
        lease: LeaseId,
        elections: &[ElectionIndex],
        anchor: Option<ElectionIndex>,
    ) -> Result<(Header, Vec<OwnKey>), Error> {
        // Never `keys_only`: from 3.7 on etcd leaves the lease out of such answers (etcd-io/etcd#22209).
        let get = |key: Vec<u8>| TxnOp::get(key, None);
        // Reads only, at least one, none of them serializable: etcd serves it by ReadIndex, without the raft log
        // (v3_server.go, `Txn`). The anchor's comes last, and what it finds does not matter.
        let mut reads: Vec<_> = elections.iter().map(|e| get(self.keys(*e).own(lease))).collect();
        reads.extend(anchor.map(|e| get(self.keys(e).generation.clone().into())));
        let txn = Txn::new().and_then(reads);
        // Only the member that answered the renewal can confirm it; the others are asked so that a lost key is noticed.
        let call = Call { start: Some(self.pool.renewed_by.load(Ordering::Relaxed)), ..self.urgent("confirm") };
        let done = self.txn(&call, txn).await.map_err(|failed| failed.error)?;
        let mut answers = Answers::new("confirm", &done.value)?;
        let header = answers.header(done.sent_at);
        let mut keys = Vec::with_capacity(elections.len());
        for election in elections {
            let answer = answers.next()?;
            // A key without our lease is not ours any more: it would outlive us.
            let ours = answer.kvs().first().filter(|kv| lease_of(kv) == lease);
            keys.push(OwnKey {
                election: *election,
                created: Revision(ours.map_or(0, etcd_client::KeyValue::create_revision)),
            });
        }
        Ok((header, keys))
    }
}

impl Renewer {
    async fn beat(&mut self) -> Result<Beat, Cause> {
        let sent_at = clock::now();
        self.keeper.keep_alive().await?;
        let answer = self.stream.message().await?.ok_or_else(|| closed("the stream ended"))?;
        if answer.id() != self.lease.0 {
            return Err(closed("an answer for another lease"));
        }
        let identity = identity(answer.header());
        let header = header(answer.header(), sent_at).ok_or_else(|| closed("an answer without a header"))?;
        Ok(Beat { identity, ttl: Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0)), header })
    }
}

fn closed(what: &str) -> Cause {
    Cause::local(Kind::Unknown, what)
}
