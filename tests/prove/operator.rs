//! What somebody does to etcd by hand, past every rule of ours.

use crate::election::ids::{ElectionIndex, Generation, Revision};
use crate::election::record::{Cause, Cell, ControlRecord, GenerationRecord};
use crate::etcd::{Change, Event, Key, Store};

impl Store {
    /// Pauses or resumes an election.
    pub fn control(&mut self, election: ElectionIndex, paused: bool, events: &mut Vec<Event>) {
        self.revision += 1;
        let cell = Cell::Valid { value: ControlRecord { paused }, modified: Revision(self.revision) };
        self.put_control(election, cell, events);
    }

    /// Puts something under the control key that is none of ours.
    pub fn corrupt_control(&mut self, election: ElectionIndex, events: &mut Vec<Event>) {
        self.revision += 1;
        self.put_control(election, Cell::Corrupt { modified: Revision(self.revision) }, events);
    }

    /// Deletes the control key: nothing is paused.
    pub fn clear_control(&mut self, election: ElectionIndex, events: &mut Vec<Event>) {
        self.revision += 1;
        self.put_control(election, Cell::Absent, events);
    }

    fn put_control(&mut self, election: ElectionIndex, cell: Cell<ControlRecord>, events: &mut Vec<Event>) {
        self.elections[election.0].control = cell.clone();
        events.push(Event { election, change: Change::Control(cell), revision: Revision(self.revision) });
    }

    /// Puts something under the generation key that is none of ours.
    pub fn corrupt_generation(&mut self, election: ElectionIndex, events: &mut Vec<Event>) {
        self.revision += 1;
        self.put_generation(election, Cell::Corrupt { modified: Revision(self.revision) }, events);
    }

    /// Puts an earlier record back, or deletes the key.
    pub fn heal_generation(
        &mut self,
        election: ElectionIndex,
        record: Option<GenerationRecord>,
        events: &mut Vec<Event>,
    ) {
        self.revision += 1;
        let modified = Revision(self.revision);
        let cell = record.map_or(Cell::Absent, |value| Cell::Valid { value, modified });
        self.put_generation(election, cell, events);
    }

    fn put_generation(&mut self, election: ElectionIndex, cell: Cell<GenerationRecord>, events: &mut Vec<Event>) {
        self.elections[election.0].generation = cell.clone();
        events.push(Event { election, change: Change::Generation(cell), revision: Revision(self.revision) });
    }

    /// Lifts the generation, as an application does whose storage has seen a higher token.
    pub fn raise_by_hand(&mut self, election: ElectionIndex, to: Generation, events: &mut Vec<Event>) {
        if self.newest(election) < to && !matches!(self.keys(election).generation, Cell::Corrupt { .. }) {
            self.revision += 1;
            self.write_generation(election, to, None, Cause::Raised, events);
        }
    }

    /// Somebody deletes a candidate's key by hand.
    pub fn delete_by_hand(&mut self, election: ElectionIndex, suffix: &str, events: &mut Vec<Event>) {
        self.revision += 1;
        self.delete(election, suffix, events);
    }

    /// A client of etcd's own election recipe queues, without a lease.
    pub fn queue_foreign(&mut self, election: ElectionIndex, suffix: &str) {
        self.revision += 1;
        let key = Key { created: self.revision, lease: 0, owner: None };
        self.elections[election.0].queue.insert(suffix.to_owned(), key);
    }
}
