//! The transactions by themselves, against *every* small state of etcd: whatever the core believes when it sends one, it commits
//! only where the protocol says so.

use crate::clock::{Hlc, Wall};
use crate::edge::Known;
use crate::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, Revision};
use crate::election::mutant::Mutant;
use crate::election::record::{CandidateInfo, Cause, Cell, ControlRecord, GenerationRecord, QueueEntry};
use crate::election::txn::{ElectTxn, HandOverTxn, Succession};
use crate::etcd::{Key, Store};

const E: ElectionIndex = ElectionIndex(0);
/// Every key is absent, or was created at one of these revisions.
const CREATED: [Option<i64>; 4] = [None, Some(3), Some(4), Some(5)];

/// Every small state of etcd: three candidates' keys, two generations, a control key that is absent or paused.
fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for created in 0..64_usize {
        let key = |n: usize| CREATED[created / 4_usize.pow(u32::try_from(n).expect("small")) % 4];
        for modified in [6, 7] {
            for paused in [false, true] {
                let mut store = Store::new(1);
                store.revision = 9;
                for n in 0..3 {
                    let lease = i64::try_from(n + 1).expect("small");
                    if let Some(created) = key(n) {
                        let entry = Key { created, lease, owner: Some(n) };
                        store.elections[0].queue.insert(LeaseId(lease).to_string(), entry);
                    }
                }
                store.elections[0].generation = generation(modified);
                if paused {
                    let value = ControlRecord { paused };
                    store.elections[0].control = Cell::Valid { value, modified: Revision(8) };
                }
                stores.push(store);
            }
        }
    }
    stores
}

fn generation(modified: i64) -> Cell<GenerationRecord> {
    let value = GenerationRecord {
        generation: Generation(1),
        term: 0,
        holder: None,
        cause: Cause::Raised,
        elected_at: Wall(modified.unsigned_abs()),
        hlc: Hlc::default(),
        leaderless_ms: 0,
    };
    Cell::Valid { value, modified: Revision(modified) }
}

/// What daemon 1 knows: the generation of revision 6, and no control key.
fn known() -> Known {
    generation(6).value().map(Known::of).expect("valid")
}

fn elect(created: i64) -> ElectTxn {
    ElectTxn {
        lease: LeaseId(1),
        created: Revision(created),
        generation_modified: Revision(6),
        control_modified: Revision(0),
        generation: Generation(2),
        term: 0,
        leaderless_ms: 0,
    }
}

fn hand_over(own: i64, successor: i64, skipped: Option<i64>) -> HandOverTxn {
    let key = |lease: i64, created: i64| CandidateKey::of(LeaseId(lease), Revision(created));
    let info = CandidateInfo { id: "1".into(), url: String::new(), term: 0, priority: 0, version: String::new() };
    let succession = Succession {
        entry: QueueEntry { key: key(2, successor), lease: 2, candidate: Some(info) },
        generation_modified: Revision(6),
        control_modified: Revision(0),
        generation: Generation(2),
        term: 0,
        skipped: skipped.map(|created| key(3, created)).into_iter().collect(),
        leaderless_ms: 0,
    };
    HandOverTxn { key: key(1, own), successor: Some(succession) }
}

/// The first commit that the protocol does not allow.
pub fn wrong_commit() -> Option<String> {
    let created = |store: &Store, lease: i64| store.created(E, &LeaseId(lease).to_string());
    for store in stores() {
        let unchanged = store.keys(E).generation.modified() == Revision(6);
        let paused = store.keys(E).control.value().is_some_and(|c| c.paused);
        for own in [3, 4, 5] {
            let first = store.keys(E).queue.values().all(|k| k.created >= own);
            let allowed = created(&store, 1) == own && first && unchanged && !paused;
            if store.admits(E, &elect(own).conditions(), Some(&known())) != allowed {
                return Some(format!("elect of {own} in {store:?}"));
            }
            for (successor, skipped) in [(3, None), (4, None), (5, None), (5, Some(4)), (4, Some(5))] {
                let txn = hand_over(own, successor, skipped);
                let passed_by = skipped.is_none_or(|c| created(&store, 3) == c);
                let stands = created(&store, 1) == own && created(&store, 2) == successor && passed_by;
                if store.admits(E, &txn.conditions(), Some(&known())) != (stands && unchanged && !paused) {
                    return Some(format!("hand-over of {own} to {successor} in {store:?}"));
                }
            }
        }
    }
    None
}

/// Goal: a transaction commits exactly where `protocol.md` says. Method: all small states of etcd.
#[test]
fn transactions_commit_exactly_where_the_protocol_says() {
    assert_eq!(wrong_commit(), None);
    assert_eq!(stores().len(), 256);
}

/// What the exhaustive check of transactions is there to catch.
pub const CAUGHT_HERE: &[Mutant] = &[
    Mutant::ElectWithoutOwnKey,
    Mutant::RangeOffByOne,
    Mutant::ElectWhilePaused,
    Mutant::HandOverWhilePaused,
    Mutant::SuccessorNotChecked,
    Mutant::GenerationByValue,
];
