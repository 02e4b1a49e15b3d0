//! Hedged calls: ask the preferred member, ask the next one when it keeps silent, take the first answer.
//!
//! # Writes
//!
//! A write that got no answer may still be applied, by a member that merely was slow. Every write of ours compares revisions
//! that its own success changes (the generation key's `mod_revision`, a key's `create_revision`), so of several copies at most
//! one commits. What a second copy's refusal proves is another matter, and why [`Done::open`] exists: the caller must find out
//! whether the *first* copy made the compare fail, and may call a write refused only if no copy can commit any more.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::connect::{Live, Pool};
use super::error::{Cause, Error, Kind};
use super::identity::Answer;
use crate::clock;

/// The most tries of one call, over all members.
pub(super) const MAX_TRIES: usize = 8;

/// How a call is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Its name in errors and metrics.
    pub name: &'static str,
    /// For one try.
    pub cap: Duration,
    /// For all tries together.
    pub total: Duration,
    /// When the second try starts.
    pub hedge: Duration,
    /// The pause between tries doubles up to this: an etcd that is slow for everyone must not be asked ever more often.
    pub hedge_max: Duration,
    /// The member to ask first; without one, the one that answered last.
    pub start: Option<usize>,
    /// The most tries, over all members.
    pub tries: usize,
    /// Its answer counts whichever cluster gave it: it only tells who that is.
    pub any_cluster: bool,
    /// On a connection of its own, made for it: behind an address there may be several servers.
    pub fresh: bool,
}

/// A try's answer.
pub(super) struct Done<T> {
    pub value: T,
    /// Read before the answered try left.
    pub sent_at: clock::Instant,
    /// Read before the first try left.
    pub began: clock::Instant,
    /// Who gave it.
    pub member: usize,
    /// Another try of this call may have been applied, or may be yet.
    pub open: bool,
}

/// No answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    /// Some try of this call may have been applied, or may be yet.
    pub open: bool,
}

/// What one try works with.
pub(super) struct Target {
    pub live: Live,
    pub member: usize,
}

impl Pool {
    /// Tries `op` on one member after the other until one answers.
    pub(super) async fn hedged<T, F, Fut>(&self, call: &Call, op: F) -> Result<Done<T>, Failed>
    where
        T: Answer,
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, Cause>>,
    {
        let began = clock::now();
        let order = self.order(call.start.unwrap_or_else(|| self.preferred.load(Ordering::Relaxed)));
        let start = |nth: usize| self.attempt(call, order[nth % order.len()], &op);
        let mut epoch = self.epoch.subscribe();
        let mut tries = FuturesUnordered::new();
        tries.push(start(0));
        let (mut started, mut pause, mut open, mut last, mut denied) = (1, call.hedge, false, None, None);
        let mut next = Box::pin(sleep(pause));
        let mut end = Box::pin(sleep(call.total));
        loop {
            tokio::select! {
                biased;
                _ = epoch.changed() => {
                    return Err(Failed { error: Error::Reset { operation: call.name }, open: true });
                }
                Some((member, result)) = tries.next() => match result {
                    Ok((value, sent_at)) => {
                        self.preferred.store(member, Ordering::Relaxed);
                        return Ok(Done { value, sent_at, began, member, open: open || !tries.is_empty() });
                    }
                    Err(error) => {
                        open |= error.kind().may_commit();
                        let error = denied.take().unwrap_or(error);
                        if error.kind() == Kind::Permission && !tries.is_empty() {
                            // The copies under way are waited for: once each is refused, nothing was applied.
                            denied = Some(error);
                            continue;
                        }
                        if error.kind().is_final() {
                            return Err(Failed { error, open: open || !tries.is_empty() });
                        }
                        last = Some(error);
                        if started < order.len().min(call.tries) {
                            tries.push(start(started));
                            started += 1;
                        } else if started >= call.tries && tries.is_empty() {
                            break;
                        }
                    }
                },
                () = &mut next, if started < call.tries && denied.is_none() => {
                    tries.push(start(started));
                    started += 1;
                    pause = (pause * 2).min(call.hedge_max).max(call.hedge);
                    next = Box::pin(sleep(self.jittered(pause)));
                }
                () = &mut end => break,
            }
        }
        let open = open || !tries.is_empty();
        let error = Error::Exhausted { operation: call.name, limit: call.total, last: denied.or(last).map(Box::new) };
        Err(Failed { error, open })
    }

    /// One try on one member, within its limit; a refused token is renewed once. Only the pinned cluster's answers, and its
    /// refusals, are returned as such.
    pub(super) async fn attempt<T, F, Fut>(
        &self,
        call: &Call,
        member: usize,
        op: &F,
    ) -> (usize, Result<(T, clock::Instant), Error>)
    where
        T: Answer,
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, Cause>>,
    {
        let began = clock::now();
        let endpoint = &self.members[member].endpoint;
        let (left, answered) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut used = None;
        let work = async {
            let live =
                if call.fresh { self.fresh(member, call.name).await } else { self.live(member, call.name).await }?;
            used = Some(live.clone());
            for renewed in [false, true] {
                let token = live.token();
                left.store(true, Ordering::Relaxed);
                let sent_at = clock::now();
                match op(Target { live: live.clone(), member }).await {
                    Ok(value) => {
                        answered.store(true, Ordering::Relaxed);
                        self.admit(call, member, value.identity()).await?;
                        return Ok((value, sent_at));
                    }
                    // Not applied, whatever it was: etcd checks the token before it proposes and again before it applies.
                    Err(cause) if cause.kind() == Kind::Auth && !renewed => {
                        left.store(false, Ordering::Relaxed);
                        self.login(member, &live, token).await?;
                    }
                    Err(source) if source.kind().is_final() => return Err(self.vouched(call, member, source).await),
                    Err(source) => {
                        return Err(Error::Request { operation: call.name, endpoint: endpoint.clone(), source });
                    }
                }
            }
            Err(Error::Malformed { operation: call.name, what: "two tries that neither failed nor succeeded" })
        };
        let result = timeout(call.cap, work).await.unwrap_or_else(|_| {
            let (operation, endpoint, limit) = (call.name, endpoint.clone(), call.cap);
            Err(if answered.load(Ordering::Relaxed) {
                self.undecided(operation)
            } else if left.load(Ordering::Relaxed) {
                Error::Silent { operation, endpoint, limit }
            } else {
                let source = Cause::local(Kind::Unreachable, "not logged in within the limit");
                Error::Request { operation, endpoint, source }
            })
        });
        // What a connection of its own fails at says nothing of the one in use; and who only says who it is may be of no use.
        let of_use = if result.is_ok() { !call.any_cluster } else { !call.fresh };
        if of_use {
            self.note(member, call.name, used.as_ref(), result.as_ref().map(|_| ()));
        }
        if result.is_err() && call.name == "keep_alive" {
            self.telemetry.keepalive_failed(endpoint);
        }
        let code = result.as_ref().map_or_else(Error::code, |_| "ok");
        self.telemetry.request(call.name, code, clock::now().since(began));
        (member, result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::watch::tests::edge;
    use super::*;
    use crate::election::one_cluster::Identity;

    const DENIED: (Kind, &str) = (Kind::Permission, "etcdserver: permission denied");

    struct Nothing;

    impl Answer for Nothing {
        fn identity(&self) -> Option<Identity> {
            None
        }
    }

    /// The first copy ends so, long after the second was denied; or never.
    async fn denied_while(first: Option<(Kind, &'static str)>) -> Failed {
        let [hedge, later, total] = [20, 100, 400].map(Duration::from_millis);
        let (name, start) = ("elect", Some(0));
        let (cap, hedge_max) = (total, hedge);
        let call = Call { name, cap, total, hedge, hedge_max, start, tries: 8, any_cluster: false, fresh: false };
        let copies = AtomicUsize::new(0);
        let op = |_| {
            let nth = copies.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(nth < 2, "no more copies are sent once one was denied");
                let (kind, text) = match (nth, first) {
                    (0, Some(first)) => {
                        sleep(later).await;
                        first
                    }
                    (0, None) => std::future::pending().await,
                    _ => DENIED,
                };
                Err::<Nothing, _>(Cause::local(kind, text))
            }
        };
        edge(1).pool.hedged(&call, op).await.map(|_| ()).expect_err("nobody answers")
    }

    #[tokio::test]
    async fn what_every_copy_was_denied_was_not_applied() {
        let failed = denied_while(Some(DENIED)).await;
        assert!(!failed.open && failed.error.kind() == Kind::Permission, "{failed:?}");
    }

    #[tokio::test]
    async fn what_one_copy_was_denied_may_have_been_applied_by_another_that_nobody_answered() {
        for first in [Some((Kind::Unknown, "leader changed")), None] {
            let failed = denied_while(first).await;
            assert!(failed.open && failed.error.kind() == Kind::Permission, "{failed:?}");
        }
    }
}
