//! One daemon of the simulation: the real core, its clock, and what the driver and the edge would keep for it.

use std::collections::VecDeque;

use fastrand::Rng;
use tenure::clock::{Instant, Wall};
use tenure::election::event::{ElectOutcome, ElectionInput, HandOverOutcome, Input, Output};
use tenure::election::ids::Revision;
use tenure::election::promise::Promises;
use tenure::election::record::{Cell, HighWater};
use tenure::election::{Core, Settings};
use tenure::timing::Timing;

use super::MS;

pub(super) struct Node {
    pub(super) core: Core,
    /// Bumped by a crash and by a rewind: answers to earlier requests are dropped.
    pub(super) epoch: u64,
    pub(super) rate: f64,
    pub(super) offset: u64,
    pub(super) paused_until: u64,
    pub(super) cut_until: u64,
    pub(super) wake_at: u64,
    pub(super) queue: VecDeque<Input>,
    pub(super) promises: Promises,
    pub(super) promised: u64,
    pub(super) watching: Vec<String>,
    pub(super) down: bool,
    pub(super) remembered: HighWater,
    /// The newest value of the generation key that it read.
    pub(super) known: Option<(Revision, Wall)>,
    /// How long the virtual machine was paused with its clocks stopped, in all; and since when it is now.
    pub(super) frozen: u64,
    pub(super) frozen_since: Option<u64>,
}

impl Node {
    /// Ends a pause of the whole machine. `true` when there was one.
    pub(super) fn thaw(&mut self, now: u64) -> bool {
        let since = self.frozen_since.take();
        self.frozen += since.map_or(0, |since| now - since);
        since.is_some()
    }

    /// What the edge remembers of the generation key's value.
    pub(super) fn note(&mut self, input: &Input) {
        let Input::Election(_, input) = input else { return };
        let cell = match input {
            ElectionInput::Looked { view, .. }
            | ElectionInput::ElectAnswered { outcome: ElectOutcome::Refused { view }, .. } => view.generation.clone(),
            ElectionInput::GenerationChanged { cell, .. } => cell.clone(),
            ElectionInput::ElectAnswered { outcome: ElectOutcome::Won { header, record, .. }, .. }
            | ElectionInput::HandOverAnswered {
                outcome: HandOverOutcome::Done { header, record: Some(record) }, ..
            } => Cell::Valid { value: record.clone(), modified: header.revision },
            _ => return,
        };
        if let Some(record) = cell.value()
            && self.known.is_none_or(|(at, _)| at <= cell.modified())
        {
            self.known = Some((cell.modified(), record.elected_at));
        }
    }

    pub(super) fn compared(&self, output: &Output) -> Option<Wall> {
        let modified = match output {
            Output::Elect { txn, .. } => txn.generation_modified,
            Output::HandOver { txn, .. } => txn.successor.as_ref()?.generation_modified,
            Output::Raise { modified, .. } => *modified,
            _ => return None,
        };
        self.known.filter(|(at, _)| *at == modified).map(|(_, value)| value)
    }

    pub(super) fn new(timing: &Timing, rng: &mut Rng) -> Self {
        // Two clocks differ in rate by less than the drift bound of 1 %.
        let rate = 1.0 + (f64::from(rng.u32(..9_000)) - 4_500.0) / 1_000_000.0;
        let offset = rng.u64(1..1_000_000) * MS;
        Self {
            core: Core::new(settings(timing, None), Instant::from_nanos(offset)),
            epoch: 0,
            rate,
            offset,
            paused_until: 0,
            cut_until: 0,
            wake_at: 0,
            queue: VecDeque::new(),
            promises: Promises::default(),
            promised: 0,
            watching: Vec::new(),
            down: false,
            remembered: HighWater::default(),
            known: None,
            frozen: 0,
            frozen_since: None,
        }
    }
}

pub(super) fn settings(timing: &Timing, remembered: Option<HighWater>) -> Settings {
    Settings { timing: timing.clone(), observe: vec![false], by_revision: false, remembered }
}
