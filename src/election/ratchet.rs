//! The high-water ratchet: notices that etcd's history went backwards.

use std::collections::BTreeSet;

use super::ids::{ElectionIndex, Generation, MemberId, RaftTerm, Revision};
use super::mutant::{self, Mutant};
use super::record::{Header, HighWater};
use crate::clock::Instant;

/// The most members that are held in doubt at once: more than any cluster has.
const MEMBERS: usize = 16;

/// What linearizable reads and watches showed so far, and what must never be issued again.
///
/// Invariant: `floor` never decreases, whatever etcd says. Every generation this daemon mints lies above it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ratchet {
    /// The newest history: a later read that shows less was answered by another history.
    expected: HighWater,
    /// When the revision or the raft term last grew. A read that left before that may rightly show less.
    grown_at: Option<Instant>,
    /// The same of each generation.
    generation_grown_at: Vec<Option<Instant>>,
    /// The members that showed an older term than known in an answer that went through the log, since one last showed no older one.
    suspected: BTreeSet<MemberId>,
    /// Per election, the highest generation that any history ever showed.
    floor: Vec<Generation>,
}

impl Ratchet {
    /// Starts from what an earlier run remembered, or from nothing.
    #[must_use]
    pub fn new(elections: usize, remembered: Option<HighWater>) -> Self {
        let mut expected = remembered.unwrap_or_default();
        expected.generations.resize(elections, Generation::default());
        // What was remembered came from a file that anyone may have written.
        expected.generations.iter_mut().filter(|g| **g > Generation::MAX).for_each(|g| *g = Generation(0));
        Self {
            floor: expected.generations.clone(),
            expected,
            grown_at: None,
            suspected: BTreeSet::new(),
            generation_grown_at: vec![None; elections],
        }
    }

    /// Takes note of a linearizable answer. `false` when it shows that history was rewound.
    ///
    /// An older raft term at a revision that is no older is believed only of answers that went through etcd's log (`logged`), and
    /// only of two from the same member, with none in between that shows the term. A member that caught up by a snapshot shows
    /// its old term until it has applied its next entry (measured on 3.5 and 3.6), and may answer even that entry's request
    /// before it notes the term (`server.go`, `apply`); two members that did so, one after the other, are no rewind.
    pub fn header_fits(&mut self, now: Instant, header: &Header, logged: bool) -> bool {
        let (seen, known) = (header, &mut self.expected);
        let older_term = seen.raft_term < known.raft_term;
        if seen.revision < known.revision {
            return !left_after(header.sent_at, self.grown_at);
        }
        if logged && left_after(header.sent_at, self.grown_at) {
            let member = if mutant::on(Mutant::DoubtOfAnyMember) { MemberId(0) } else { seen.member };
            if !older_term {
                self.suspected.clear();
            } else if self.suspected.contains(&member) {
                return false;
            } else if self.suspected.len() < MEMBERS {
                self.suspected.insert(member);
            }
        }
        if seen.revision > known.revision || seen.raft_term > known.raft_term {
            known.revision = seen.revision;
            known.raft_term = known.raft_term.max(seen.raft_term);
            self.grown_at = Some(now);
        }
        true
    }

    /// The highest raft term that the present history showed.
    #[must_use]
    pub const fn raft_term(&self) -> RaftTerm {
        self.expected.raft_term
    }

    /// Takes note of the generation that a linearizable answer showed. `false` when it shows that this election's history was
    /// rewound: its key was deleted or overwritten, or etcd was restored in a way that its revisions do not show.
    pub fn generation_fits(
        &mut self,
        now: Instant,
        header: &Header,
        election: ElectionIndex,
        seen: Generation,
    ) -> bool {
        if seen < self.expected.generations[election.0] {
            return !left_after(header.sent_at, self.generation_grown_at[election.0]);
        }
        self.raise(now, election, seen);
        true
    }

    /// Takes note of a generation that is known to be committed.
    pub fn raise(&mut self, now: Instant, election: ElectionIndex, seen: Generation) {
        let known = &mut self.expected.generations[election.0];
        if seen > *known {
            *known = seen;
            self.generation_grown_at[election.0] = Some(now);
        }
        self.floor[election.0] = self.floor[election.0].max(seen);
    }

    /// Takes note of a revision that a watch told of. It is committed, so no read that leaves from now on may show less.
    pub fn heard(&mut self, now: Instant, revision: Revision) {
        if revision > self.expected.revision {
            self.expected.revision = revision;
            self.grown_at = Some(now);
        }
    }

    /// Begins anew with another history, whose first answer this is. The floor rises above all that was known: a daemon that
    /// knows nothing of the lost history may have minted its last generation once more.
    pub fn begin_anew(&mut self, now: Instant, first: &Header) {
        for floor in self.floor.iter_mut().filter(|f| **f > Generation(0)) {
            *floor = floor.next().min(Generation::MAX);
        }
        self.expected = HighWater { revision: first.revision, raft_term: first.raft_term, ..HighWater::default() };
        self.expected.generations.resize(self.floor.len(), Generation::default());
        self.grown_at = Some(now);
        self.suspected.clear();
        self.generation_grown_at.fill(Some(now));
    }

    /// The same of one election only, whose generation went back.
    pub fn election_begins_anew(&mut self, now: Instant, ElectionIndex(election): ElectionIndex) {
        let floor = &mut self.floor[election];
        if *floor > Generation(0) {
            *floor = floor.next().min(Generation::MAX);
        }
        self.expected.generations[election] = Generation(0);
        self.generation_grown_at[election] = Some(now);
    }

    /// The highest generation ever seen in an election.
    #[must_use]
    pub fn floor(&self, election: ElectionIndex) -> Generation {
        self.floor[election.0]
    }

    /// What to remember across a restart.
    #[must_use]
    pub fn high_water(&self) -> HighWater {
        HighWater { generations: self.floor.clone(), ..self.expected.clone() }
    }
}

/// Whether a request that left at `sent_at` must show all that was known at `grown_at`; what an earlier run remembered
/// (`None`) was known before every request of this one.
fn left_after(sent_at: Instant, grown_at: Option<Instant>) -> bool {
    grown_at.is_none_or(|grown| sent_at > grown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::ids::MemberId;

    const E: ElectionIndex = ElectionIndex(0);

    fn header(sent_at: u64, revision: i64, term: u64) -> Header {
        let (sent_at, revision, raft_term) = (at(sent_at), Revision(revision), RaftTerm(term));
        Header { sent_at, revision, raft_term, member: MemberId::default() }
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn less_than_known_is_a_rewind_only_for_a_request_that_left_later() {
        let mut ratchet = Ratchet::new(1, None);
        assert!(ratchet.header_fits(at(10), &header(5, 100, 3), true));
        assert!(ratchet.header_fits(at(12), &header(9, 90, 3), false), "it left before 100 was known");
        assert!(!ratchet.header_fits(at(12), &header(11, 99, 3), false), "the revision went back");
        assert!(ratchet.header_fits(at(12), &header(11, 100, 2), false), "a member that caught up by a snapshot");
        assert!(
            ratchet.header_fits(at(12), &header(11, 100, 2), true),
            "it may have answered before it noted the term"
        );
        assert!(!ratchet.header_fits(at(14), &header(13, 100, 2), true), "the raft term went back");
    }

    #[test]
    fn two_members_that_caught_up_by_a_snapshot_are_no_rewind() {
        let mut ratchet = Ratchet::new(1, None);
        let by = |member, sent_at, term| Header { member: MemberId(member), ..header(sent_at, 100, term) };
        assert!(ratchet.header_fits(at(10), &by(1, 5, 3), true));
        assert!(ratchet.header_fits(at(12), &by(2, 11, 2), true), "the first entry that 2 applies after its snapshot");
        assert!(ratchet.header_fits(at(14), &by(3, 13, 2), true), "the same of 3");
        assert!(ratchet.header_fits(at(16), &by(2, 15, 3), true), "2 has noted the term");
        assert!(ratchet.header_fits(at(18), &by(3, 17, 2), true), "another snapshot, much later");
        assert!(ratchet.header_fits(at(20), &by(2, 19, 2), true), "and one of 2");
        assert!(!ratchet.header_fits(at(22), &by(3, 21, 2), true), "3 shows the old term twice, and nobody the other");
    }

    #[test]
    fn a_lower_generation_concerns_its_election_alone() {
        let other = ElectionIndex(1);
        let mut ratchet = Ratchet::new(2, None);
        assert!(ratchet.generation_fits(at(2), &header(1, 10, 2), E, Generation(42)));
        assert!(ratchet.generation_fits(at(2), &header(1, 10, 2), other, Generation(7)));
        assert!(!ratchet.generation_fits(at(4), &header(3, 11, 2), E, Generation(0)));
        ratchet.election_begins_anew(at(4), E);
        assert_eq!([ratchet.floor(E), ratchet.floor(other)], [Generation(43), Generation(7)]);
        assert!(
            ratchet.generation_fits(at(6), &header(5, 12, 2), E, Generation(0)),
            "the new history is taken as it is"
        );
        assert!(!ratchet.generation_fits(at(6), &header(5, 12, 2), other, Generation(6)), "the other's is still known");
    }

    #[test]
    fn what_leaves_no_room_is_no_floor() {
        let remembered = |g: u64| HighWater { generations: vec![Generation(g)], ..HighWater::default() };
        let floor = |g| Ratchet::new(1, Some(remembered(g))).floor(E);
        assert_eq!(floor((1 << 62) - 1), Generation::MAX);
        assert_eq!([floor(1 << 62), floor(i64::MAX as u64 - 1), floor(u64::MAX)], [Generation(0); 3]);
    }

    #[test]
    fn what_a_watch_told_of_binds_the_next_read() {
        let mut ratchet = Ratchet::new(1, None);
        assert!(ratchet.header_fits(at(10), &header(5, 100, 3), true));
        ratchet.heard(at(20), Revision(110));
        assert!(ratchet.header_fits(at(21), &header(15, 105, 3), false), "it left before the event was heard");
        assert!(!ratchet.header_fits(at(31), &header(30, 105, 3), false), "the event is gone");
    }

    #[test]
    fn the_floor_survives_a_rewind_and_a_restart() {
        let mut ratchet = Ratchet::new(1, None);
        assert!(ratchet.generation_fits(at(2), &header(1, 10, 2), E, Generation(42)));
        assert!(!ratchet.generation_fits(at(4), &header(3, 11, 2), E, Generation(5)));
        ratchet.begin_anew(at(5), &header(3, 3, 2));
        assert!(
            ratchet.generation_fits(at(7), &header(6, 4, 2), E, Generation(5)),
            "the new history is taken as it is"
        );
        assert_eq!(ratchet.floor(E), Generation(43));
        let restarted = Ratchet::new(1, Some(ratchet.high_water()));
        assert_eq!(restarted.floor(E), Generation(43));
    }

    #[test]
    fn what_an_earlier_run_remembered_binds_the_first_read() {
        let remembered = HighWater { revision: Revision(50), raft_term: RaftTerm(4), generations: vec![Generation(7)] };
        assert!(!Ratchet::new(1, Some(remembered)).header_fits(at(2), &header(1, 49, 4), false));
    }
}
