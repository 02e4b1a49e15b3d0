//! Unrelated servers behind one address, as new connections show them.

use std::collections::VecDeque;

use super::*;
use crate::clock::{Hlc, Wall};
use crate::election::Settings;
use crate::election::event::{ElectionInput, Round};
use crate::election::ids::{CandidateKey, Generation, MemberId, RaftTerm, Revision};
use crate::election::pause::Jitter;
use crate::election::record::{Cause, Cell, GenerationRecord, Holder, View};
use crate::timing::Timing;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// What one of the servers shows: its revision, and whom it elected at revision 3.
fn view(sent_at: Instant, revision: i64, holder: &str) -> View {
    let record = GenerationRecord {
        generation: Generation(1),
        term: 0,
        holder: Some(Holder {
            id: holder.to_owned(),
            url: String::new(),
            key: CandidateKey { suffix: holder.to_owned(), created: Revision(2) },
        }),
        cause: Cause::Elected,
        elected_at: Wall::default(),
        hlc: Hlc::default(),
        leaderless_ms: 0,
    };
    View {
        header: Header { sent_at, revision: Revision(revision), raft_term: RaftTerm(2), member: MemberId(1) },
        generation: Cell::Valid { value: record, modified: Revision(3) },
        control: Cell::Absent,
        queue: Vec::new(),
        queued: 0,
        own: None,
        ahead: None,
    }
}

fn core(now: Instant) -> Core {
    let settings = Settings {
        timing: Timing::default(),
        observe: vec![false],
        by_revision: false,
        remembered: None,
        moved: false,
    };
    Core::new(settings, now)
}

/// Answers the look that is under way; `Some(again)` where that showed another history.
fn look(core: &mut Core, ms: u64, aside: bool, revision: i64, holder: &str) -> Option<(Sign, bool)> {
    core.handle(at(ms), Jitter(0), Input::Tick);
    let mut asked = None;
    while let Some(output) = core.poll_output() {
        if let Output::Look { round, .. } = output {
            asked = Some(round);
        }
    }
    let round: Round = asked.expect("a vacancy is looked at often");
    let view = view(at(ms + 1), revision, holder);
    let answer = if aside { ElectionInput::LookedAside { round, view } } else { ElectionInput::Looked { round, view } };
    core.handle(at(ms + 2), Jitter(0), Input::Election(ElectionIndex(0), answer));
    let mut found = None;
    let mut kept = VecDeque::new();
    while let Some(output) = core.poll_output() {
        match output {
            Output::Rewound { sign, again, .. } => found = Some((sign, again)),
            other => kept.push_back(other),
        }
    }
    core.outputs = kept;
    found
}

#[test]
fn servers_that_answer_in_turn_are_told_from_a_restore_by_the_second_time() {
    let mut core = core(at(1_000));
    assert_eq!(look(&mut core, 1_010, true, 9, "a"), None);
    assert_eq!(
        look(&mut core, 3_100, true, 5, "b"),
        Some((Sign::WentBack, false)),
        "a restore, as far as one can tell"
    );
    assert_eq!(look(&mut core, 5_200, true, 5, "b"), None);
    let back = look(&mut core, 7_300, true, 9, "a");
    assert_eq!(back, Some((Sign::OtherRecord, true)), "and what was lost comes back");
    let until = core.contests[0].queue_at;
    assert_eq!(until, at(7_302) + Timing::default().ttl() * DIVIDED_TTLS);
}

#[test]
fn one_revision_holds_one_record() {
    let mut core = core(at(1_000));
    assert_eq!(look(&mut core, 1_010, true, 3, "a"), None);
    assert_eq!(look(&mut core, 3_100, true, 3, "a"), None);
    assert_eq!(look(&mut core, 5_200, true, 3, "b"), Some((Sign::OtherRecord, false)));
}

#[test]
fn two_restores_in_one_ttl_are_two_restores_where_no_new_connection_says_otherwise() {
    let mut core = core(at(1_000));
    assert_eq!(look(&mut core, 1_010, false, 9, "a"), None);
    assert_eq!(look(&mut core, 3_100, false, 7, "a"), Some((Sign::WentBack, false)));
    assert_eq!(look(&mut core, 5_200, false, 5, "a"), Some((Sign::WentBack, false)));
}
