//! Routes traffic to the leader inside Kubernetes: by a label of its pod, or by the one `EndpointSlice` of a Service.
//!
//! A thread of its own reconciles from the snapshot, level-triggered: on every change of what we lead, and every few
//! seconds, it reads the objects and puts right what differs, whoever made it differ. Nothing here can delay or stop an
//! election or a hand-over: what the API server does shows in the log, once for each change of it, and in metrics.
//!
//! Each write carries the generation that it was decided for, and the `resourceVersion` of the object as it was read, so
//! that the API server refuses it (409) if anybody wrote in between. Whether we lead is judged anew before each write, and
//! a generation above ours on an object that we would take over is never overwritten.
//!
//! What that gives:
//!
//! * `endpoint_slice`: a single object, so the order of its writes is the order of its readers. A write that was decided
//!   before a pause, and arrives after a newer leader wrote, is refused by the API server, always. Between the election and
//!   the newer leader's write the slice still names the old one. Should somebody delete the slice, a late *creation* can
//!   find nothing to conflict with; the leader puts that right at its next turn.
//! * `label`: one object for each pod, so no write orders them all. The winner sets every other pod that is labelled leader
//!   to `candidate` with its own, higher, generation, before it labels itself: a late write of such a pod is refused. A pod
//!   that was paused after its election and before its *first* label is in nobody's list, and can still label itself once;
//!   it or the leader puts that right at the next turn. So there is one leader at rest, and may be two for a moment.
//!
//! Neither stops a connection that is already open, nor a client that has cached an address: routing shortens the wait for
//! the leader, the fencing token is what keeps an old one from doing harm.

mod label;
mod server;
mod slice;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::config::{KubernetesConfig, Route};
use crate::election::ids::{ElectionIndex, Generation};
use crate::metrics::{Metrics, RouteMetrics, RouteObject, RouteWrite};
use crate::snapshot::Reader;
use label::Label;
use server::{Failure, Server};
use slice::Slice;

/// The label that names the election of a pod or slice.
const ELECTION: &str = "tenure.dev/election";
/// The label that names where in etcd that election is: two of the same name below different prefixes are not the same.
const PREFIX: &str = "tenure.dev/prefix";
/// The annotation with the generation that an object was written for.
const GENERATION: &str = "tenure.dev/generation";

/// How often everything is looked at though nothing changed here: others may have changed it there.
const RESYNC: Duration = Duration::from_secs(5);
/// The wait after the first failure; each further one doubles it. Also the wait after a write, which is looked at once more:
/// one that was given up may still arrive.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait after a failure.
const BACKOFF_MOST: Duration = Duration::from_secs(10);
/// How long the end of the daemon waits for the route to be withdrawn. Leadership has been handed over by then.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// And how long for its thread beyond that.
const THREAD_WAIT: Duration = Duration::from_millis(500);

/// The running thread. Dropping it withdraws the route, if it still leads here, in bounded time.
#[derive(Debug)]
pub struct Routing {
    /// Closed to end it.
    stop: Option<oneshot::Sender<()>>,
    /// Closed when the thread ends, however it ends.
    ended: mpsc::Receiver<()>,
}

impl Routing {
    /// Starts to route. `prefix` is `etcd.prefix`; `seed` is for jitter.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        config: KubernetesConfig,
        prefix: &str,
        reader: Reader,
        metrics: &Metrics,
        seed: u64,
    ) -> io::Result<Self> {
        let election = reader.load().find(config.election.as_str());
        let election = election.ok_or_else(|| io::Error::other("no such election"))?;
        let object = match config.route {
            Route::Label { .. } => RouteObject::Pod,
            Route::EndpointSlice { .. } => RouteObject::EndpointSlice,
        };
        let metrics = metrics.routing(election, object);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        #[allow(clippy::disallowed_methods, reason = "the seed comes from daemon")]
        let jitter = fastrand::Rng::with_seed(seed);
        let follower = Follower::new(config, prefix, View { reader, election, withdrawn: false }, metrics, jitter);
        std::thread::Builder::new().name("kubernetes".into()).spawn(move || {
            let _alive = alive;
            run(runtime, follower, stopped);
        })?;
        Ok(Self { stop: Some(stop), ended })
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.stop = None;
        if self.ended.recv_timeout(LAST_WAIT + THREAD_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the thread of routing is not waited for any longer");
        }
    }
}

fn run(runtime: Runtime, mut follower: Follower, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        tokio::select! {
            () = follower.follow() => {}
            _ = stopped => {}
        }
        follower.view.withdrawn = true;
        if timeout(LAST_WAIT, follower.withdraw()).await.is_err() {
            tracing::warn!("the API server did not let us withdraw the route in time; the next leader will");
        }
    });
    // Without waiting for a look-up of a name that hangs.
    runtime.shutdown_background();
}

/// What we lead, judged at each look.
#[derive(Clone, Debug)]
struct View {
    reader: Reader,
    election: ElectionIndex,
    /// The daemon ends: whatever was published last, nothing is led any more.
    withdrawn: bool,
}

impl View {
    fn leads(&self) -> Option<Generation> {
        let snapshot = self.reader.load();
        let may = !self.withdrawn && !snapshot.draining;
        may.then(|| snapshot.leads_at(self.election, clock::reading())).flatten().map(|(generation, _)| generation)
    }

    /// Fails unless what was judged before still holds: to be called right before a write.
    fn still(&self, judged: Option<Generation>) -> Result<(), Failure> {
        if self.leads() == judged { Ok(()) } else { Err(Failure::Moved) }
    }

    async fn until_not(mut self, judged: Option<Generation>) {
        while self.leads() == judged {
            self.reader.changed().await;
        }
    }
}

/// What one turn found and did.
#[derive(Debug)]
struct Turn {
    /// Whether it had to write.
    wrote: bool,
    /// The generation that traffic is routed here with.
    routed: Option<Generation>,
}

#[derive(Debug)]
enum By {
    Label(Label),
    Slice(Slice),
}

struct Follower {
    view: View,
    by: By,
    server: Server,
    metrics: RouteMetrics,
    jitter: fastrand::Rng,
    failures: u32,
    /// The failure that was logged last; nothing once a turn has succeeded.
    said: Option<String>,
    routed: Option<Generation>,
}

impl Follower {
    fn new(config: KubernetesConfig, prefix: &str, view: View, metrics: RouteMetrics, jitter: fastrand::Rng) -> Self {
        let KubernetesConfig { election, pod, namespace, route } = config;
        let by = match route {
            Route::Label { label } => By::Label(Label::new(election.as_str(), prefix, pod, label)),
            Route::EndpointSlice { service, address } => {
                By::Slice(Slice::new(election.as_str(), pod, service, address)) //
            }
        };
        let server = Server::new(namespace, metrics.clone());
        Self { view, by, server, metrics, jitter, failures: 0, said: None, routed: None }
    }

    async fn follow(&mut self) {
        loop {
            let judged = self.view.leads();
            let moved = self.view.clone().until_not(judged);
            tokio::pin!(moved);
            let outcome = tokio::select! {
                outcome = self.turn() => outcome,
                // What the turn is about is over: no slow answer holds up its withdrawal.
                () = &mut moved => Err(Failure::Moved),
            };
            let over = matches!(outcome, Err(Failure::Moved));
            let wait = self.take_note(outcome);
            if !over {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = moved => self.failures = 0,
                }
            }
        }
    }

    /// Until the route no longer leads here; the caller limits the time.
    async fn withdraw(&mut self) {
        loop {
            let outcome = self.turn().await;
            let over = matches!(outcome, Ok(_) | Err(Failure::Refused(_)));
            let wait = self.take_note(outcome);
            if over {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn turn(&mut self) -> Result<Turn, Failure> {
        let turn = async {
            match &mut self.by {
                By::Label(label) => label.turn(&mut self.server, &self.view).await,
                By::Slice(slice) => slice.turn(&mut self.server, &self.view).await,
            }
        };
        let caught = AssertUnwindSafe(turn).catch_unwind().await;
        caught.unwrap_or_else(|_| Err(Failure::failed("route", "a panic, which is a bug of ours; see above")))
    }

    /// Logs and counts what is new, and says how long to wait.
    fn take_note(&mut self, outcome: Result<Turn, Failure>) -> Duration {
        let failure = match outcome {
            Ok(turn) => {
                if self.said.take().is_some() {
                    tracing::info!("routing works again");
                }
                self.route(turn.routed);
                self.failures = 0;
                return self.about(if turn.wrote { BACKOFF_FIRST } else { RESYNC });
            }
            Err(failure) => failure,
        };
        let text = failure.to_string();
        match failure {
            Failure::Moved => {
                self.failures = 0;
                return Duration::ZERO;
            }
            Failure::Conflict(_) => {
                self.metrics.wrote(RouteWrite::Conflict);
                tracing::debug!("{text}");
            }
            Failure::Refused(_) | Failure::Failed { .. } => {
                let refused = matches!(failure, Failure::Refused(_));
                self.metrics.wrote(if refused { RouteWrite::Refused } else { RouteWrite::Error });
                if self.said.as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
                self.said = Some(text);
                // Tokens, certificates and addresses may have changed: the next turn reads them anew.
                self.server.forget();
            }
        }
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MOST);
        self.failures += 1;
        self.about(wait)
    }

    fn route(&mut self, routed: Option<Generation>) {
        if self.routed != routed {
            self.routed = routed;
            self.metrics.routed(routed);
            if let Some(Generation(generation)) = routed {
                tracing::info!(generation, "traffic is routed here");
            } else {
                tracing::info!("traffic is not routed here any more");
            }
        }
    }

    /// Between three quarters and five quarters of it: replicas must not come all at once.
    fn about(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.75 + self.jitter.f64() / 2.0)
    }
}
