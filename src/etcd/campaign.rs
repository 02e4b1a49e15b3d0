//! The transactions of the protocol.
//!
//! # What an answer proves
//!
//! A call may have sent several copies of a transaction (see [`hedge`](super::hedge)). At most one commits, since each compares
//! the generation key's `mod_revision`, or its own key's `create_revision`, which the commit changes. Then for its outcome:
//!
//! * *Then* ran: this copy committed. Won, or done.
//! * *Else* ran, and the generation key holds what this call wrote: an earlier copy committed. Won, or done, as well. The
//!   answer's header is given as of that commit and of the moment before the first copy left, so that it claims no more than it
//!   proves.
//! * *Else* ran, with an earlier copy open: refused only if some compare is false *for good*. `mod_revision` and
//!   `create_revision` of a key never return to an old value, so a copy that compares them with one is dead. A candidate ahead
//!   in the queue is different, since it may leave: then an earlier copy may commit yet, and the outcome is unknown.
//! * No answer: not applied where every copy was refused with an error that says so; else unknown. Where a right lacks, the copies
//!   under way are waited for, since each is refused as well: etcd looks at the rights before it applies. One such error says too much:
//!   a transaction that crosses etcd's quota is applied, and only then answered with "no space" (`quotaApplierV3.Txn`). So the
//!   core looks after every refusal before it relies on it.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};

use super::error::{Error, Kind};
use super::hedge::{Done, Failed};
use super::keys::Keys;
use super::look::{Answers, queue_op, view, view_ops};
use super::{Edge, Etcd, Stamp, codec, lease_of};
use crate::clock;
use crate::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, SessionInput};
use crate::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, Revision};
use crate::election::record::{Cause, Cell, GenerationRecord, Header, Holder, QueueEntry};
use crate::election::txn::{Condition, ElectTxn, HandOverTxn, MAX_SKIPPED};

impl Etcd {
    /// Puts the own key, if it does not exist.
    pub async fn queue(&self, election: ElectionIndex, lease: LeaseId) -> Input {
        match self.edge.queue(election, lease).await {
            Ok((created, header)) => Input::Election(election, ElectionInput::Queued { lease, created, header }),
            Err(error) if error.kind() == Kind::LeaseUnknown => Input::Session(SessionInput::LeaseUnknown { lease }),
            Err(error) => {
                tracing::debug!(%error, "not queued");
                Input::Election(election, ElectionInput::QueueFailed { lease })
            }
        }
    }

    /// Commits the elect transaction: one commit proves that we are first and that our key exists, and mints the token.
    pub async fn elect(&self, election: ElectionIndex, txn: &ElectTxn, stamp: Stamp) -> Input {
        let key = CandidateKey::of(txn.lease, txn.created);
        let outcome = self.edge.elect(election, txn, stamp).await;
        Input::Election(election, ElectionInput::ElectAnswered { key, outcome })
    }

    /// Commits the hand-over transaction. More than `MAX_SKIPPED` skipped keys, or a successor that is not a Tenure candidate,
    /// are refused here.
    pub async fn hand_over(&self, election: ElectionIndex, txn: &HandOverTxn, stamp: Stamp) -> Input {
        let key = txn.key.clone();
        let outcome = match &txn.successor {
            Some(_) => self.edge.hand_over(election, txn, stamp).await,
            None => self.edge.leave(election, txn).await,
        };
        Input::Election(election, ElectionInput::HandOverAnswered { key, outcome })
    }

    /// Lifts the generation to `at_least`, if it is still the one of `modified`, and never down. The term stays.
    pub async fn raise(
        &self,
        election: ElectionIndex,
        at_least: Generation,
        modified: Revision,
        stamp: Stamp,
    ) -> Input {
        let raised = self.edge.raise(election, at_least, modified, stamp).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "not raised");
            false
        });
        Input::Election(election, ElectionInput::RaiseAnswered { raised })
    }
}

impl Edge {
    async fn queue(&self, election: ElectionIndex, lease: LeaseId) -> Result<(Revision, Header), Error> {
        let keys = self.keys(election);
        let own = keys.own(lease);
        let value = codec::encode_candidate(&self.candidate(election, 0), None);
        let put = || TxnOp::put(own.clone(), value.clone(), Some(PutOptions::new().with_lease(lease.0)));
        let txn = Txn::new()
            .when([Compare::create_revision(own.clone(), CompareOp::Equal, 0)])
            .and_then([put(), TxnOp::get(own.clone(), None)])
            .or_else([TxnOp::get(own.clone(), None)]);
        let done = self.txn(&self.patient("queue"), txn).await.map_err(|failed| failed.error)?;
        let (key, header) = own_key(&done)?;
        if lease_of(&key) == lease {
            return Ok((Revision(key.create_revision()), header));
        }
        // Somebody put our key by hand, and so took it off our lease: it would outlive us and block the election for ever.
        // Nobody else has a use for a key of this name, so hang it on the lease again.
        let txn = Txn::new()
            .when([Compare::mod_revision(own.clone(), CompareOp::Equal, key.mod_revision())])
            .and_then([put(), TxnOp::get(own.clone(), None)])
            .or_else([TxnOp::get(own.clone(), None)]);
        let done = self.txn(&self.patient("queue"), txn).await.map_err(|failed| failed.error)?;
        let (key, header) = own_key(&done)?;
        let stolen = Error::Malformed { operation: "queue", what: "the own key hangs on another lease" };
        if lease_of(&key) == lease { Ok((Revision(key.create_revision()), header)) } else { Err(stolen) }
    }

    async fn elect(&self, election: ElectionIndex, txn: &ElectTxn, stamp: Stamp) -> ElectOutcome {
        let keys = self.keys(election);
        let info = self.candidate(election, txn.term);
        let key = CandidateKey::of(txn.lease, txn.created);
        let record = GenerationRecord {
            generation: txn.generation,
            term: txn.term,
            holder: Some(Holder { id: info.id.clone(), url: info.url.clone(), key }),
            cause: Cause::Elected,
            elected_at: stamp.wall,
            hlc: stamp.hlc,
            leaderless_ms: txn.leaderless_ms,
        };
        let own = keys.own(txn.lease);
        let request = Txn::new()
            .when(compares(keys, &txn.conditions()))
            .and_then([
                put_generation(keys, &record),
                TxnOp::put(
                    own,
                    codec::encode_candidate(&info, Some(txn.generation)),
                    Some(PutOptions::new().with_lease(txn.lease.0)),
                ),
                put_record(keys, &record),
                queue_op(keys, true),
            ])
            .or_else(view_ops(keys, Some(txn.lease), true));
        match self.txn(&self.patient("elect"), request).await {
            Ok(done) => self.judge_elect(keys, txn, &record, &done).await.unwrap_or(ElectOutcome::Unknown),
            Err(failed) if failed.open => {
                tracing::warn!(error = %failed.error, "it is unknown whether the election committed");
                ElectOutcome::Unknown
            }
            // That a right lacks is said once a minute, with what mends it.
            Err(failed) if failed.error.kind() == Kind::Permission => {
                tracing::debug!(error = %failed.error, "not elected");
                ElectOutcome::Failed
            }
            Err(failed) => {
                tracing::warn!(error = %failed.error, "not elected");
                ElectOutcome::Failed
            }
        }
    }

    /// See the module's documentation.
    async fn judge_elect(
        &self,
        keys: &Keys,
        txn: &ElectTxn,
        record: &GenerationRecord,
        done: &Done<etcd_client::TxnResponse>,
    ) -> Result<ElectOutcome, Error> {
        let mut answers = Answers::new("elect", &done.value)?;
        if done.value.succeeded() {
            let header = answers.header(done.sent_at);
            keys.wrote_generation(record, header.revision);
            let queue = answers.next()?.kvs().iter().filter_map(|kv| codec::queue_entry(keys, kv.into())).collect();
            return Ok(ElectOutcome::Won { header, record: record.clone(), queue });
        }
        let view = view(keys, &mut answers, done.sent_at, Some(txn.lease))?;
        let ours = view.own.as_ref().is_some_and(|own| own.created == txn.created);
        if ours && let Some(modified) = wrote(&view.generation, record) {
            let header = as_of(modified, done.began, &view.header);
            return Ok(ElectOutcome::Won { header, record: record.clone(), queue: view.queue });
        }
        let for_good = !ours
            || view.generation.modified() != txn.generation_modified
            || view.control.modified() != txn.control_modified;
        if done.open && !for_good {
            return Ok(ElectOutcome::Unknown);
        }
        // Completing the view may need another read. If that fails, nothing more is lost than the view.
        let own = view.header;
        let view = self.place("elect", keys, Some(txn.lease), view).await?;
        Ok(ElectOutcome::Refused { logged: view.header == own, view })
    }

    async fn hand_over(&self, election: ElectionIndex, txn: &HandOverTxn, stamp: Stamp) -> HandOverOutcome {
        let keys = self.keys(election);
        let Some(request) = hand_over_txn(keys, txn, stamp) else { return HandOverOutcome::Refused };
        let (request, record) = request;
        let done = match self.txn(&self.patient("hand_over"), request).await {
            Ok(done) => done,
            Err(failed) => return not_handed_over(&failed),
        };
        let judge = || -> Result<HandOverOutcome, Error> {
            let mut answers = Answers::new("hand_over", &done.value)?;
            let header = answers.header(done.sent_at);
            if done.value.succeeded() {
                keys.wrote_generation(&record, header.revision);
                return Ok(HandOverOutcome::Done { header, record: Some(record.clone()) });
            }
            let generation = keys.generation_cell(answers.next()?.kvs());
            if let Some(modified) = wrote(&generation, &record) {
                let header = as_of(modified, done.began, &header);
                return Ok(HandOverOutcome::Done { header, record: Some(record.clone()) });
            }
            // All compares are of the kind that stays false, so no copy can commit any more. One may have committed and been
            // overwritten since, though: with the generation moved on, that cannot be told from here.
            let modified = txn.successor.as_ref().map_or(Revision(0), |to| to.generation_modified);
            let overwritten = done.open && generation.modified() != modified;
            Ok(if overwritten { HandOverOutcome::Unknown } else { HandOverOutcome::Refused })
        };
        judge().unwrap_or(HandOverOutcome::Unknown)
    }

    /// Leaves the queue without naming anybody.
    async fn leave(&self, election: ElectionIndex, txn: &HandOverTxn) -> HandOverOutcome {
        let keys = self.keys(election);
        let delete = TxnOp::delete(keys.candidate(&txn.key.suffix), None);
        let request = Txn::new().when(compares(keys, &txn.conditions())).and_then([delete]);
        match self.txn(&self.patient("hand_over"), request).await {
            Ok(done) => match Answers::new("hand_over", &done.value) {
                Ok(answers) if done.value.succeeded() => {
                    HandOverOutcome::Done { header: answers.header(done.sent_at), record: None }
                }
                // The key is gone. With an open copy it is unknown whether that was us.
                Ok(_) if !done.open => HandOverOutcome::Refused,
                Ok(_) | Err(_) => HandOverOutcome::Unknown,
            },
            Err(failed) => not_handed_over(&failed),
        }
    }

    async fn raise(
        &self,
        election: ElectionIndex,
        at_least: Generation,
        modified: Revision,
        stamp: Stamp,
    ) -> Result<bool, Error> {
        let keys = self.keys(election);
        let get = || TxnOp::get(keys.generation.clone(), None);
        let done = self.txn(&self.patient("raise"), Txn::new().and_then([get()])).await.map_err(|f| f.error)?;
        let present = keys.generation_cell(Answers::new("raise", &done.value)?.next()?.kvs());
        let lower = present.value().is_none_or(|record| record.generation < at_least);
        if present.modified() != modified || !lower || at_least > Generation::MAX {
            return Ok(false);
        }
        let record = GenerationRecord {
            generation: at_least,
            // A floor for the token is none for the application's term: who is behind it must stay behind.
            term: present.value().map_or(0, |record| record.term),
            holder: None,
            cause: Cause::Raised,
            elected_at: stamp.wall,
            hlc: stamp.hlc,
            leaderless_ms: 0,
        };
        let request = Txn::new()
            .when(keys.unchanged(modified))
            .and_then([put_generation(keys, &record), put_record(keys, &record)])
            .or_else([get()]);
        let done = self.txn(&self.patient("raise"), request).await.map_err(|failed| failed.error)?;
        if done.value.succeeded() {
            return Ok(true);
        }
        let present = keys.generation_cell(Answers::new("raise", &done.value)?.next()?.kvs());
        Ok(wrote(&present, &record).is_some())
    }
}

/// Deletes the own key and the skipped ones, and names the successor. `None` for what must not be sent.
fn hand_over_txn(keys: &Keys, txn: &HandOverTxn, stamp: Stamp) -> Option<(Txn, GenerationRecord)> {
    let to = txn.successor.as_ref()?;
    let QueueEntry { key: successor, lease, candidate } = &to.entry;
    let info = candidate.as_ref().filter(|_| to.skipped.len() <= MAX_SKIPPED)?;
    let record = GenerationRecord {
        generation: to.generation,
        term: to.term,
        holder: Some(Holder { id: info.id.clone(), url: info.url.clone(), key: successor.clone() }),
        cause: Cause::HandedOver,
        elected_at: stamp.wall,
        hlc: stamp.hlc,
        leaderless_ms: to.leaderless_ms,
    };
    let delete = |key: &CandidateKey| TxnOp::delete(keys.candidate(&key.suffix), None);
    let mut ops = vec![delete(&txn.key)];
    ops.extend(to.skipped.iter().map(delete));
    ops.push(put_generation(keys, &record));
    // With its own lease: a key put without one would stay for ever.
    let value = codec::encode_candidate(info, Some(to.generation));
    ops.push(TxnOp::put(keys.candidate(&successor.suffix), value, Some(PutOptions::new().with_lease(*lease))));
    ops.push(put_record(keys, &record));
    let when = compares(keys, &txn.conditions());
    let request = Txn::new().when(when).and_then(ops).or_else([TxnOp::get(keys.generation.clone(), None)]);
    Some((request, record))
}

/// The conditions in etcd's words.
fn compares(keys: &Keys, conditions: &[Condition]) -> Vec<Compare> {
    let compare = |condition: &Condition| match condition {
        // Over a range, every key must satisfy the compare (etcd's txn.go, `applyCompare`).
        Condition::NobodyBefore(first) => {
            vec![
                Compare::create_revision(keys.candidates.clone(), CompareOp::Greater, first.0.saturating_sub(1))
                    .with_prefix(),
            ]
        }
        Condition::Stands(key) => {
            vec![Compare::create_revision(keys.candidate(&key.suffix), CompareOp::Equal, key.created.0)]
        }
        Condition::GenerationUnchanged(modified) => keys.unchanged(*modified),
        Condition::ControlUnchanged(modified) => {
            vec![Compare::mod_revision(keys.control.clone(), CompareOp::Equal, modified.0)]
        }
    };
    conditions.iter().flat_map(compare).collect()
}

fn not_handed_over(failed: &Failed) -> HandOverOutcome {
    tracing::warn!(error = %failed.error, unknown = failed.open, "not handed over");
    if failed.open { HandOverOutcome::Unknown } else { HandOverOutcome::Refused }
}

fn put_generation(keys: &Keys, record: &GenerationRecord) -> TxnOp {
    TxnOp::put(keys.generation.clone(), codec::encode_generation(record), None)
}

fn put_record(keys: &Keys, record: &GenerationRecord) -> TxnOp {
    TxnOp::put(keys.record(record.generation), codec::encode_generation(record), None)
}

/// The revision of the commit that wrote `record`, if the cell holds it. Holder, incarnation of his key and generation name one
/// election; the writer's HLC time tells a raise of ours from one of somebody else.
fn wrote(cell: &Cell<GenerationRecord>, record: &GenerationRecord) -> Option<Revision> {
    cell.value().filter(|present| *present == record).map(|_| cell.modified())
}

/// A header that claims no more than an earlier copy's commit proves: all that was answered before the first copy left is
/// older than that commit.
const fn as_of(commit: Revision, began: clock::Instant, answer: &Header) -> Header {
    Header { sent_at: began, revision: commit, ..*answer }
}

fn own_key(done: &Done<etcd_client::TxnResponse>) -> Result<(etcd_client::KeyValue, Header), Error> {
    let mut answers = Answers::new("queue", &done.value)?;
    let key = answers.next()?.kvs().first().cloned();
    let gone = Error::Malformed { operation: "queue", what: "the key just put is not there" };
    key.map(|key| (key, answers.header(done.sent_at))).ok_or(gone)
}
