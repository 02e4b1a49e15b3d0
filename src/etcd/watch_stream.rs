//! One watch stream: its watchers, its events, and whether it is still alive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use etcd_client::{KeyValue, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::error::{Cause, Error, Kind};
use super::identity::identity;
use super::keys::Keys;
use super::progress::Progress;
use super::watch::Plans;
use super::{Edge, codec};
use crate::clock::{self, Instant};
use crate::election::event::{ElectionInput, Input, WatchPlan};
use crate::election::ids::{ElectionIndex, Revision};

/// Probes in a row before a stream counts as silent. More than one, because etcd since 3.4.25 and 3.5.8 answers a progress
/// request only while every watcher of the stream is in sync (`watchable_store.go`), which new ones are not for 100 ms.
const PROBES: u32 = 3;
/// The shortest time that a stream is given to answer, and the longest.
const SILENCE_MIN: Duration = Duration::from_millis(300);
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// For opening a stream, at least: it may have to connect and to log in.
const OPEN_MIN: Duration = Duration::from_secs(1);
/// The watcher that opens the stream. It reports nothing.
const FIRST_ID: i64 = 1;

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// A token or a permission.
    Auth(String),
    /// etcd cancelled a watcher.
    Canceled(String),
    /// The connection, or the member, or its quorum.
    Broken(String),
    /// Another cluster answered.
    Foreign(String),
    /// No answer to the probes.
    Silent,
    /// It answers, and is behind what a quorum has: its member applies nothing, or too slowly.
    Stale {
        /// The newest revision that it showed.
        shown: Revision,
        /// What it should have shown by then.
        behind: Revision,
    },
    /// Dropped on purpose.
    Reset,
    /// Nobody listens any more.
    Closed,
}

impl End {
    /// The label of metrics.
    pub(super) const fn cause(&self) -> &'static str {
        match self {
            Self::Auth(_) => "auth",
            Self::Canceled(_) => "canceled",
            Self::Broken(_) | Self::Closed => "broken",
            Self::Foreign(_) => "foreign",
            Self::Silent => "silent",
            Self::Stale { .. } => "stale",
            Self::Reset => "reset",
        }
    }

    fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Auth | Kind::Permission => Self::Auth(error.to_string()),
            Kind::Foreign => Self::Foreign(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth(reason) | Self::Canceled(reason) | Self::Broken(reason) | Self::Foreign(reason) => {
                write!(f, "{}: {reason}", self.cause())
            }
            Self::Stale { shown, behind } => {
                write!(f, "stale: at revision {} when others had {}", shown.0, behind.0)
            }
            Self::Silent | Self::Reset | Self::Closed => f.write_str(self.cause()),
        }
    }
}

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Generation,
    Control,
    Candidate(String),
}

pub(super) struct Stream<'a> {
    edge: &'a Edge,
    member: usize,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// Invariant: ids are ours, and never used twice on one stream. So an event of a watcher that was cancelled, or of the plan
    /// before, finds no entry here and is dropped.
    watchers: BTreeMap<i64, (ElectionIndex, Target)>,
    next_id: i64,
    heard: Instant,
    /// Probes since then.
    probes: u32,
    /// When the last of them left.
    probed: Instant,
    progress: Progress,
    /// The newest revision that a quorum is known to have.
    newest: watch::Receiver<Revision>,
    /// Progress requests are not answered here; creating a watcher always is.
    mute: bool,
    /// The election whose generation key probes may watch.
    first: ElectionIndex,
}

impl<'a> Stream<'a> {
    /// Opens a stream, with a watcher that reports nothing.
    pub(super) async fn open(edge: &'a Edge, member: usize, first: ElectionIndex) -> Result<Self, End> {
        let limit = edge.limits.try_limit.max(OPEN_MIN);
        let endpoint = || edge.pool.members[member].endpoint.clone();
        let opening = async {
            let live = edge.pool.live(member, "watch").await?;
            let (key, token) = (edge.keys(first).generation.clone(), live.token());
            match live.client.watch_client().watch(key, Some(deaf(FIRST_ID))).await.map_err(Cause::from) {
                Ok(stream) => Ok(stream),
                Err(source) => {
                    if source.kind() == Kind::Auth {
                        edge.pool.login(member, &live, token).await?;
                    }
                    Err(Error::Request { operation: "watch", endpoint: endpoint(), source })
                }
            }
        };
        let silent = Error::Silent { operation: "watch", endpoint: endpoint(), limit };
        let stream = timeout(limit, opening).await.unwrap_or(Err(silent)).map_err(|error| End::of(&error))?;
        let (requests, responses) = stream.split();
        Ok(Self {
            edge,
            member,
            requests,
            responses,
            watchers: BTreeMap::new(),
            next_id: FIRST_ID + 1,
            heard: clock::now(),
            probes: 0,
            probed: clock::now(),
            progress: Progress::default(),
            newest: edge.pool.newest.subscribe(),
            mute: false,
            first,
        })
    }

    /// The elections that have watchers here.
    pub(super) fn elections(&self) -> BTreeSet<ElectionIndex> {
        self.watchers.values().map(|(election, _)| *election).collect()
    }

    /// Follows the plans and reports events until something ends it.
    pub(super) async fn serve(
        &mut self,
        plans: &Plans,
        sink: &mpsc::Sender<Input>,
        epoch: &mut watch::Receiver<u64>,
    ) -> End {
        loop {
            // Before waiting: a plan that came while nobody waited must not wait for the next one.
            while let Some((election, plan)) = plans.take() {
                if let Err(end) = self.follow(election, &plan).await {
                    plans.give_back(election, plan);
                    return end;
                }
            }
            let probe_in = self.probe_at().since(clock::now());
            let step = tokio::select! {
                biased;
                // Messages first: after this process itself stood still, they are there, and the stream is not to blame.
                message = self.responses.message() => match message {
                    Ok(Some(message)) => self.take(&message, sink).await,
                    Ok(None) => Err(End::Broken("the stream ended".into())),
                    Err(error) => Err(End::of(&self.failed(error.into()))),
                },
                _ = epoch.changed() => Err(End::Reset),
                // It cannot end: its sender is the edge's, which this stream borrows.
                _ = self.newest.changed() => {
                    self.progress.expect(*self.newest.borrow_and_update(), clock::now());
                    Ok(())
                }
                () = plans.wake.notified() => Ok(()),
                () = sleep(probe_in) => self.probe().await,
            };
            if let Err(end) = step {
                if matches!(end, End::Auth(_)) {
                    self.renew_token().await;
                }
                return end;
            }
        }
    }

    async fn follow(&mut self, election: ElectionIndex, plan: &WatchPlan) -> Result<(), End> {
        let mut wanted: BTreeSet<_> = plan.suffixes.iter().cloned().map(Target::Candidate).collect();
        wanted.extend([Target::Generation, Target::Control]);
        let present: Vec<_> = self.watchers.iter().filter(|(_, (e, _))| *e == election).map(|(id, _)| *id).collect();
        for id in present {
            let kept = self.watchers.get(&id).is_some_and(|(_, target)| wanted.remove(target));
            if !kept {
                self.cancel(id).await?;
            }
        }
        for target in wanted {
            let keys = self.edge.keys(election);
            let (key, filters) = match &target {
                Target::Generation => (keys.generation.clone().into_bytes(), vec![]),
                Target::Control => (keys.control.clone().into_bytes(), vec![]),
                // Only its end matters; leaders put their key again to show their token.
                Target::Candidate(suffix) => (keys.candidate(suffix), vec![WatchFilterType::NoPut]),
            };
            let id = self.next_id();
            // Revision 0 would mean "from now on", with a gap since the look.
            let options =
                WatchOptions::new().with_watch_id(id).with_start_revision(plan.from.0.max(1)).with_filters(filters);
            self.watchers.insert(id, (election, target));
            self.create(key, options).await?;
        }
        Ok(())
    }

    async fn take(&mut self, message: &WatchResponse, sink: &mpsc::Sender<Input>) -> Result<(), End> {
        self.admit(message)?;
        // A probe by progress went unanswered, and this answers the one that created a watcher.
        self.mute |= self.probes == PROBES && message.created();
        let asked = self.probes > 0;
        (self.heard, self.probes) = (clock::now(), 0);
        let revision = message.header().map_or(Revision(0), |header| Revision(header.revision()));
        self.progress.heard(revision, *self.newest.borrow(), asked, self.silence(), self.heard)?;
        let id = message.watch_id();
        if message.canceled() {
            return self.canceled(message, sink).await;
        }
        let Some((election, target)) = self.watchers.get(&id).cloned() else {
            // A probe's watcher has served its purpose.
            return if message.created() && id != FIRST_ID { self.cancel(id).await } else { Ok(()) };
        };
        for kv in message.events().iter().filter_map(etcd_client::Event::kv) {
            if let Some(input) = event(self.edge.keys(election), &target, kv) {
                self.complain(election, &input);
                sink.send(Input::Election(election, input)).await.map_err(|_| End::Closed)?;
            }
        }
        Ok(())
    }

    /// Nothing that another cluster says gets any further, be it an event, a sign of life or a refusal.
    fn admit(&self, message: &WatchResponse) -> Result<(), End> {
        let pool = &self.edge.pool;
        let nobody = || End::Broken("an answer that names no cluster: is a proxy in between?".into());
        let said = identity(message.header()).ok_or_else(nobody)?;
        let verdict = pool.hear(self.member, said);
        pool.judge("watch", self.member, said, verdict).map_err(|error| {
            pool.note(self.member, "watch", None, Err(&error));
            End::of(&error)
        })
    }

    fn complain(&self, election: ElectionIndex, input: &ElectionInput) {
        let keys = self.edge.keys(election);
        if let ElectionInput::GenerationChanged { cell, .. } = input {
            self.edge.complain_of_generation(keys, cell);
        } else if let ElectionInput::ControlChanged { cell, .. } = input {
            self.edge.complain_of_control(keys, cell);
        }
    }

    /// A watcher was cancelled, by us or by etcd.
    ///
    /// The header's revision is 0 where the start was compacted, and the id of a refused watcher is -1 or 0 (etcd-io/etcd#14562),
    /// so neither is used.
    async fn canceled(&mut self, message: &WatchResponse, sink: &mpsc::Sender<Input>) -> Result<(), End> {
        let (id, reason) = (message.watch_id(), message.cancel_reason());
        let lower = reason.to_ascii_lowercase();
        if ["permission", "auth", "token", "user name"].iter().any(|part| lower.contains(part)) {
            return Err(End::Auth(reason.to_owned()));
        }
        let Some((election, _)) = self.watchers.get(&id).cloned() else {
            let ours = (FIRST_ID + 1..self.next_id).contains(&id);
            return if ours { Ok(()) } else { Err(End::Canceled(reason.to_owned())) };
        };
        if message.compact_revision() == 0 {
            return Err(End::Canceled(reason.to_owned()));
        }
        // Only this election missed something.
        self.edge.pool.telemetry.watch_restarted("compacted");
        let ids: Vec<_> = self.watchers.iter().filter(|(_, (e, _))| *e == election).map(|(id, _)| *id).collect();
        for id in ids {
            self.cancel(id).await?;
        }
        let broken = Input::Election(election, ElectionInput::WatchBroken);
        sink.send(broken).await.map_err(|_| End::Closed)
    }

    fn probe_at(&self) -> Instant {
        if self.probes > 0 {
            return self.probed + self.silence() / PROBES;
        }
        let due = self.heard + self.edge.limits.ttl / 5;
        self.progress.ask_at(self.silence()).map_or(due, |at| at.min(due))
    }

    fn silence(&self) -> Duration {
        self.edge.limits.try_limit.clamp(SILENCE_MIN, SILENCE_MAX)
    }

    /// Asks for a sign of life. Progress requests are cheap; the last probe creates a watcher, which every etcd answers.
    async fn probe(&mut self) -> Result<(), End> {
        if self.probes >= PROBES {
            return Err(End::Silent);
        }
        (self.probes, self.probed) = (self.probes + 1, clock::now());
        if self.mute || self.probes == PROBES {
            let id = self.next_id();
            let key = self.edge.keys(self.first).generation.clone();
            return self.create(key.into_bytes(), deaf(id)).await;
        }
        let sent = timeout(self.silence(), self.requests.request_progress()).await;
        self.sent(sent)
    }

    async fn create(&mut self, key: Vec<u8>, options: WatchOptions) -> Result<(), End> {
        let sent = timeout(self.silence(), self.requests.watch(key, Some(options))).await;
        self.sent(sent)
    }

    async fn cancel(&mut self, id: i64) -> Result<(), End> {
        self.watchers.remove(&id);
        let sent = timeout(self.silence(), self.requests.cancel(id)).await;
        self.sent(sent)
    }

    fn sent(&self, result: Result<Result<(), etcd_client::Error>, tokio::time::error::Elapsed>) -> Result<(), End> {
        result.map_err(|_| End::Silent)?.map_err(|error| End::of(&self.failed(error.into())))
    }

    fn failed(&self, source: Cause) -> Error {
        let endpoint = self.edge.pool.members[self.member].endpoint.clone();
        Error::Request { operation: "watch", endpoint, source }
    }

    const fn next_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A stream keeps the token that it was opened with, so a new one needs a new token. If that fails, opening says so.
    async fn renew_token(&self) {
        let limit = self.edge.limits.try_limit.max(OPEN_MIN);
        let renew = async {
            let live = self.edge.pool.live(self.member, "watch").await?;
            self.edge.pool.login(self.member, &live, live.token()).await
        };
        if let Ok(Err(error)) = timeout(limit, renew).await {
            tracing::debug!(%error, "no new token");
        }
    }
}

/// A watcher that reports nothing.
fn deaf(id: i64) -> WatchOptions {
    WatchOptions::new().with_watch_id(id).with_filters([WatchFilterType::NoPut, WatchFilterType::NoDelete])
}

/// What an event means. A deletion's key has version 0; asking the client library for the type panics on unknown ones.
fn event(keys: &Keys, target: &Target, kv: &KeyValue) -> Option<ElectionInput> {
    let (deleted, revision) = (kv.version() == 0, Revision(kv.mod_revision()));
    let present = if deleted { &[][..] } else { std::slice::from_ref(kv) };
    Some(match target {
        Target::Generation => ElectionInput::GenerationChanged { cell: keys.generation_cell(present), revision },
        Target::Control => ElectionInput::ControlChanged {
            cell: codec::control_cell(present.first().map(codec::Stored::from)),
            revision,
        },
        Target::Candidate(suffix) if deleted => ElectionInput::KeyDeleted { suffix: suffix.clone(), revision },
        Target::Candidate(_) => return None,
    })
}
