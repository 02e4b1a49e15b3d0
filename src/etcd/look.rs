//! Reading an election. Every read is linearizable, and all that one answer holds is from one revision.

use std::collections::VecDeque;

use etcd_client::{GetOptions, GetResponse, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::error::{Cause, Error, Kind};
use super::hedge::{Call, Done, Failed};
use super::keys::Keys;
use super::{Edge, Etcd, codec, header, lease_of};
use crate::clock;
use crate::election::event::{ElectionInput, Input, Round};
use crate::election::ids::{CandidateKey, ElectionIndex, LeaseId, Revision};
use crate::election::record::{Header, Pulse, QUEUE_LIMIT, View};

/// The largest answer that is read: a full queue of the largest values that we would parse, twice over.
const ANSWER_LIMIT: usize = 2 * QUEUE_LIMIT * codec::VALUE_LIMIT;
/// Where [`view_ops`] asks for the queue.
const QUEUE_ANSWER: usize = 2;
/// How often the place in a long queue is asked for, when the own key is put anew in between.
const PLACE_TRIES: usize = 3;

impl Etcd {
    /// Reads all of an election.
    pub async fn look(&self, election: ElectionIndex, round: Round, lease: Option<LeaseId>) -> Input {
        if let Some(view) = self.edge.look_aside(election, lease).await {
            return Input::Election(election, ElectionInput::LookedAside { round, view });
        }
        let answer = match self.edge.look("look", election, lease).await {
            Ok(view) => ElectionInput::Looked { round, view },
            Err(error) => look_failed(&error, round),
        };
        Input::Election(election, answer)
    }

    /// Reads the revisions of what a daemon relies on.
    pub async fn feel(&self, election: ElectionIndex, round: Round, suffixes: &[String]) -> Input {
        let answer = match self.edge.feel(election, suffixes).await {
            Ok(pulse) => ElectionInput::Felt { round, pulse },
            Err(error) => look_failed(&error, round),
        };
        Input::Election(election, answer)
    }

    /// Reads all of an election, for a question that somebody asked.
    ///
    /// # Errors
    /// No member answered, or the etcd user may not read it.
    pub async fn read(&self, election: ElectionIndex) -> Result<View, Error> {
        self.edge.look("read", election, None).await
    }
}

fn look_failed(error: &Error, round: Round) -> ElectionInput {
    tracing::debug!(%error, "could not look");
    ElectionInput::LookFailed { round }
}

impl Edge {
    pub(super) async fn look(
        &self,
        name: &'static str,
        election: ElectionIndex,
        lease: Option<LeaseId>,
    ) -> Result<View, Error> {
        self.look_by(&self.patient(name), election, lease).await
    }

    pub(super) async fn look_by(
        &self,
        call: &Call,
        election: ElectionIndex,
        lease: Option<LeaseId>,
    ) -> Result<View, Error> {
        let (keys, name) = (self.keys(election), call.name);
        let read = |full| self.txn(call, Txn::new().and_then(view_ops(keys, lease, full)));
        let mut done = read(true).await;
        // Foreign candidates may carry values of 1.5 MB each. Then the queue is read without values, and nobody in it counts as
        // one of ours: the election goes on, and hands over to nobody.
        if matches!(&done, Err(failed) if failed.error.kind() == Kind::TooLarge) {
            done = read(false).await;
        }
        let done = done.map_err(|failed| failed.error)?;
        let mut answers = Answers::new(name, &done.value)?;
        self.complain_of_ids(keys, answers.gets.get(QUEUE_ANSWER));
        let view = view(keys, &mut answers, done.sent_at, lease)?;
        self.complain_of_generation(keys, &view.generation);
        self.complain_of_control(keys, &view.control);
        self.complain_of_namesakes(election, &view.queue);
        self.place(name, keys, lease, view).await
    }

    /// Completes a view whose own key lies behind the part of the queue that was read.
    ///
    /// Which key is just ahead can only be asked by the own key's `create_revision`. So that is a second read, of everything
    /// again, and all of the view that is returned comes from that one. It is right only if the own key is still the one that
    /// was asked for; if not, ask again.
    pub(super) async fn place(
        &self,
        name: &'static str,
        keys: &Keys,
        lease: Option<LeaseId>,
        mut view: View,
    ) -> Result<View, Error> {
        for _ in 0..PLACE_TRIES {
            let Some(own) = view.own.clone().filter(|own| !view.queue.iter().any(|entry| entry.key == *own)) else {
                return Ok(view);
            };
            let last_ahead = GetOptions::new()
                .with_prefix()
                .with_sort(SortTarget::Create, SortOrder::Descend)
                .with_max_create_revision(own.created.0.saturating_sub(1))
                .with_limit(1)
                .with_keys_only();
            let mut ops = view_ops(keys, lease, true);
            ops.push(TxnOp::get(keys.candidates.clone(), Some(last_ahead)));
            let done = self.txn(&self.patient(name), Txn::new().and_then(ops)).await.map_err(|failed| failed.error)?;
            let mut answers = Answers::new(name, &done.value)?;
            view = self::view(keys, &mut answers, done.sent_at, lease)?;
            if view.own.as_ref() == Some(&own) && view.ahead.is_none() {
                view.ahead = answers.next()?.kvs().first().and_then(|kv| {
                    Some(CandidateKey { suffix: keys.suffix(kv.key())?, created: Revision(kv.create_revision()) })
                });
                return Ok(view);
            }
        }
        Err(Error::Malformed { operation: name, what: "the own key keeps changing" })
    }

    async fn feel(&self, election: ElectionIndex, suffixes: &[String]) -> Result<Pulse, Error> {
        let keys = self.keys(election);
        let get = |key: Vec<u8>| TxnOp::get(key, Some(GetOptions::new().with_keys_only()));
        let mut ops = vec![get(keys.generation.clone().into()), get(keys.control.clone().into())];
        ops.extend(suffixes.iter().map(|suffix| get(keys.candidate(suffix))));
        let done = self.txn(&self.patient("feel"), Txn::new().and_then(ops)).await.map_err(|failed| failed.error)?;
        let mut answers = Answers::new("feel", &done.value)?;
        let header = answers.header(done.sent_at);
        let mut modified = || -> Result<Revision, Error> {
            Ok(Revision(answers.next()?.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision)))
        };
        let (generation, control) = (modified()?, modified()?);
        let mut found = Vec::with_capacity(suffixes.len());
        for suffix in suffixes {
            let created = answers.next()?.kvs().first().map_or(0, etcd_client::KeyValue::create_revision);
            found.push(CandidateKey { suffix: suffix.clone(), created: Revision(created) });
        }
        Ok(Pulse { header, generation, control, keys: found })
    }

    /// Sends a transaction.
    pub(super) async fn txn(&self, call: &Call, txn: Txn) -> Result<Done<TxnResponse>, Failed> {
        let txn = &txn;
        let done = self
            .pool
            .hedged(call, |target| async move {
                let mut kv = target.live.client.kv_client().max_decoding_message_size(ANSWER_LIMIT);
                kv.txn(txn.clone()).await.map_err(Cause::from)
            })
            .await?;
        // A quorum stands behind it: whoever shows less than this is behind. A connection of its own may have found another
        // server, whose revisions compare with nothing.
        if !call.fresh {
            self.pool.shown(done.value.header().map_or(Revision(0), |header| Revision(header.revision())));
        }
        Ok(done)
    }
}

/// The reads that make a view, in the order in which [`view`] takes their answers.
pub(super) fn view_ops(keys: &Keys, lease: Option<LeaseId>, full: bool) -> Vec<TxnOp> {
    let mut ops =
        vec![TxnOp::get(keys.generation.clone(), None), TxnOp::get(keys.control.clone(), None), queue_op(keys, full)];
    // Never `keys_only`: from 3.7 on etcd leaves the lease out of such answers (etcd-io/etcd#22209), and `view` asks for it.
    ops.extend(lease.map(|lease| TxnOp::get(keys.own(lease), None)));
    ops
}

/// The head of the queue. Without `full` its entries have no value, and from etcd 3.7 on no lease either, so that none of them
/// counts as a candidate of ours. Its answer's `count` is that of the whole queue: etcd sorts before it cuts (`range.go`).
pub(super) fn queue_op(keys: &Keys, full: bool) -> TxnOp {
    let limit = i64::try_from(QUEUE_LIMIT).unwrap_or(i64::MAX);
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(limit);
    TxnOp::get(keys.candidates.clone(), Some(if full { options } else { options.with_keys_only() }))
}

/// Takes the answers to [`view_ops`].
pub(super) fn view(
    keys: &Keys,
    answers: &mut Answers,
    sent_at: clock::Instant,
    lease: Option<LeaseId>,
) -> Result<View, Error> {
    let generation = keys.generation_cell(answers.next()?.kvs());
    let control = codec::control_cell(answers.next()?.kvs().first().map(codec::Stored::from));
    let range = answers.next()?;
    let queue: Vec<_> = range.kvs().iter().filter_map(|kv| codec::queue_entry(keys, kv.into())).collect();
    let mut own = None;
    if let Some(lease) = lease {
        let answer = answers.next()?;
        // A key of our name that hangs on no lease, or on another one, is a foreign key that happens to be in our way.
        own = answer
            .kvs()
            .first()
            .filter(|kv| lease_of(kv) == lease)
            .map(|kv| CandidateKey::of(lease, Revision(kv.create_revision())));
    }
    let at = own.as_ref().and_then(|own| queue.iter().position(|entry| entry.key == *own));
    let ahead = at.and_then(|at| at.checked_sub(1)).map(|ahead| queue[ahead].key.clone());
    let queued = usize::try_from(range.count()).unwrap_or(queue.len());
    Ok(View { header: answers.header(sent_at), generation, control, queue, queued, own, ahead })
}

/// What the reads of a transaction answered, in order.
pub(super) struct Answers {
    operation: &'static str,
    header: Header,
    gets: VecDeque<GetResponse>,
}

impl Answers {
    pub(super) fn new(operation: &'static str, response: &TxnResponse) -> Result<Self, Error> {
        let header = header(response.header(), clock::Instant::default());
        let header = header.ok_or(Error::Malformed { operation, what: "no header" })?;
        let get = |op| if let TxnOpResponse::Get(get) = op { Some(get) } else { None };
        Ok(Self { operation, header, gets: response.op_responses().into_iter().filter_map(get).collect() })
    }

    pub(super) fn next(&mut self) -> Result<GetResponse, Error> {
        let missing = Error::Malformed { operation: self.operation, what: "fewer answers than questions" };
        self.gets.pop_front().ok_or(missing)
    }

    pub(super) const fn header(&self, sent_at: clock::Instant) -> Header {
        Header { sent_at, ..self.header }
    }
}
