//! The model as `stateright` searches it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stateright::{Model, Property};

use super::daemon::{E, Health, MS};
use super::world::{DRAINED, Deposed, HELD, Message, RESIGN, World, Wrong, timing};
use crate::election::event::{Command, Ticket};
use crate::election::ids::Generation;
use crate::election::mutant::{Mutant, switch};
use crate::timing::Timing;

/// What is searched.
#[derive(Clone, Debug)]
pub struct Search {
    pub timing: Timing,
    /// The clocks of the daemons, in parts per million too fast; one initial state each.
    pub clocks: Vec<Vec<i64>>,
    /// Faults in one run, at most.
    pub faults: u8,
    pub kinds: Kinds,
    /// No fault strikes before this moment, and each is over by `calm`; in nanoseconds.
    pub from: u64,
    pub calm: u64,
    /// How long after the last trouble somebody leads, at the latest; in nanoseconds.
    pub bound: u64,
    pub mutant: Option<Mutant>,
}

/// Which faults strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// What nature, the network and the application do.
    Nature,
    /// That, and an operator who restores etcd from its beginnings or from a backup.
    Restore,
    /// Keys deleted and leases revoked by hand: these end a leadership before its guard.
    ByHand,
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// What happens next if nothing interferes.
    Go,
    /// The next message is held.
    Hold,
    /// The next request never arrives.
    Lose,
    /// The next request is carried out, and its answer is lost.
    LoseAnswer,
    /// A copy of the next request is held: etcd meets it late, and once more.
    Copy,
    /// A held message arrives.
    Release(usize),
    Pause(usize),
    Freeze(usize),
    Crash(usize),
    Cut(usize),
    /// It ends.
    Recover(usize),
    Resign(usize),
    /// The application says that it has stopped; late, of the leadership before.
    Drained(usize),
    LateDrained(usize),
    Drain(usize),
    Undrain(usize),
    /// Etcd elects another leader, and the old one does not notice.
    Depose(usize, Deposed),
    /// It does.
    Notice,
    /// Elections are paused, or resumed.
    Control(bool),
    /// Etcd is restored from the backup, or from nothing.
    Restore {
        wiped: bool,
    },
    DeleteKey(usize),
    Revoke(usize),
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let start = |ppm: &Vec<i64>| {
            let mut world = World::new(&self.timing, ppm, self.faults);
            while world.now < self.from {
                world.settle(&self.timing);
                world.advance(&self.timing, self.from);
            }
            world.backup = (self.kinds == Kinds::Restore).then(|| Box::new(world.etcd.clone()));
            world
        };
        self.broken(|| self.clocks.iter().map(start).collect())
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.wrong.is_some() || world.now >= self.end() {
            return;
        }
        actions.push(Action::Go);
        if world.now >= self.calm {
            return;
        }
        if world.wire.is_empty() {
            actions.extend((0..world.held.len()).map(Action::Release));
            actions.extend(world.deposed.map(|_| Action::Notice));
            let ill = |n: &usize| world.daemons[*n].health != Health::Up || world.daemons[*n].cut.is_some();
            actions.extend((0..world.daemons.len()).filter(ill).map(Action::Recover));
            let drained = |n: &usize| world.daemons[*n].core.draining() && world.daemons[*n].health == Health::Up;
            actions.extend((0..world.daemons.len()).filter(drained).map(Action::Undrain));
            actions.extend(world.paused().then_some(Action::Control(false)));
        }
        if world.budget > 0 {
            self.faults_of(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let acted = catch_unwind(AssertUnwindSafe(|| self.broken(|| self.act(&mut next, action))));
        if acted.is_err() {
            next.wrong = Some(Wrong::Panicked);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const N: u8>(_: &Search, world: &World) -> bool {
            world.wrong.is_none_or(|wrong| wrong as u8 != N)
        }
        vec![
            Property::always("1 one leader", never::<{ Wrong::TwoLeaders as u8 }>),
            Property::always("1 a guard ends before its key", never::<{ Wrong::GuardOutlivesKey as u8 }>),
            Property::always("2 tokens only grow", never::<{ Wrong::TokenNotNewer as u8 }>),
            Property::always("3 fenced storage takes every leader's token", never::<{ Wrong::LeaderRefused as u8 }>),
            Property::always("4 self-fencing", never::<{ Wrong::NotSelfFenced as u8 }>),
            Property::always("5 progress", never::<{ Wrong::NoProgress as u8 }>),
            Property::always("6 nothing lost", never::<{ Wrong::SomethingLost as u8 }>),
            Property::always("promises are kept", never::<{ Wrong::PromiseBroken as u8 }>),
            Property::always("no assert of the core fails", never::<{ Wrong::Panicked as u8 }>),
        ]
    }
}

impl Search {
    /// Two daemons, or as many as there are clocks.
    pub fn new(clocks: &[&[i64]], faults: u8, kinds: Kinds) -> Self {
        let timing = timing();
        let clocks = clocks.iter().map(|c| c.to_vec()).collect();
        Self { timing, clocks, faults, kinds, from: 100 * MS, calm: 2_900 * MS, bound: 3_700 * MS, mutant: None }
    }

    /// The same, with faults from the very first message on.
    pub fn while_starting(self) -> Self {
        Self { from: 0, calm: 1_200 * MS, ..self }
    }

    /// A run, step by step, for a person to read.
    pub fn tell(&self, actions: &[Action]) -> Vec<String> {
        let mut lines = Vec::new();
        for start in self.init_states() {
            let mut world = start;
            let mut told = Vec::new();
            for action in actions {
                let (at, front) = (world.now / MS, world.wire.front().map(|m| format!("{m:?}")));
                world = self.next_state(&world, *action).expect("a state");
                told.push(format!("{at:>6} {action:?} {}", front.unwrap_or_default()));
                told.extend(world.daemons.iter().enumerate().map(|(n, d)| d.tell(n, world.now)));
            }
            if world.wrong.is_some() || lines.is_empty() {
                lines = told;
            }
        }
        lines
    }

    fn end(&self) -> u64 {
        self.calm + self.bound + 1_000 * MS
    }

    fn broken<T>(&self, act: impl FnOnce() -> T) -> T {
        switch::with(self.mutant, act)
    }

    fn faults_of(&self, world: &World, actions: &mut Vec<Action>) {
        match world.wire.front() {
            Some(Message::Request { request, copy: false, .. }) => {
                actions.extend([Action::Hold, Action::Lose, Action::LoseAnswer]);
                if !request.reads() {
                    actions.push(Action::Copy);
                }
            }
            Some(Message::Request { .. }) => {}
            Some(Message::Input { .. }) => actions.push(Action::Hold),
            None => {
                for n in 0..world.daemons.len() {
                    self.strikes(world, n, actions);
                }
                if self.kinds == Kinds::Restore && world.restorable() {
                    actions.extend([Action::Restore { wiped: false }, Action::Restore { wiped: true }]);
                }
                let pausable = self.kinds == Kinds::Nature && !world.paused();
                actions.extend(pausable.then_some(Action::Control(true)));
            }
        }
    }

    /// What may happen to one daemon.
    fn strikes(&self, world: &World, n: usize, actions: &mut Vec<Action>) {
        let daemon = &world.daemons[n];
        if daemon.health == Health::Up {
            actions.extend([Action::Pause(n), Action::Freeze(n), Action::Crash(n)]);
            let leads = daemon.leads(world.now).is_some();
            let words = [Action::Resign(n), Action::Drained(n), Action::LateDrained(n)];
            actions.extend(words.into_iter().filter(|_| leads));
            // As a fault of the last healthy one it would only end progress.
            let others = world.daemons.iter().filter(|d| !d.core.draining()).count();
            actions.extend((!daemon.core.draining() && others > 1).then_some(Action::Drain(n)));
        }
        if daemon.cut.is_none() && world.deposed.is_none() {
            actions.push(Action::Cut(n));
            if self.kinds == Kinds::Nature {
                let kinds = [Deposed::Alone, Deposed::Forwards, Deposed::CatchesUp, Deposed::Lagging];
                actions.extend(kinds.map(|kind| Action::Depose(n, kind)));
            }
        }
        if self.kinds == Kinds::ByHand && daemon.core.standing(E).key.is_some() {
            actions.extend([Action::DeleteKey(n), Action::Revoke(n)]);
        }
    }

    fn act(&self, world: &mut World, action: Action) {
        let timing = &self.timing;
        match action {
            Action::Go => return self.go(world),
            Action::Release(i) => {
                let message = world.held.remove(i);
                world.wire.push_front(message);
                world.deliver(timing);
            }
            Action::Recover(n) => world.recover(timing, n),
            Action::Notice => world.deposed = None,
            Action::Control(false) => world.control(false),
            Action::Undrain(n) => world.command(timing, n, Command::Undrain),
            fault => {
                world.budget -= 1;
                self.strike(world, fault);
            }
        }
        world.troubled = world.now;
    }

    fn strike(&self, world: &mut World, fault: Action) {
        let timing = &self.timing;
        match fault {
            Action::Hold => world.held.extend(world.wire.pop_front()),
            Action::Lose => world.lose(timing, false),
            Action::LoseAnswer => world.lose(timing, true),
            Action::Copy => {
                if let Some(Message::Request { from, epoch, sent_at, request, .. }) = world.wire.front().cloned() {
                    world.held.push(Message::Request { from, epoch, sent_at, request, copy: true });
                }
                world.deliver(timing);
            }
            Action::Pause(n) => world.daemons[n].health = Health::Paused,
            Action::Freeze(n) => {
                // No promise on a clock that stands still can be kept, and none is claimed to be.
                world.daemons[n].promised_until = 0;
                world.daemons[n].health = Health::Frozen(world.now);
            }
            Action::Crash(n) => {
                world.daemons[n].health = Health::Down;
                world.daemons[n].epoch += 1;
                world.daemons[n].inbox.clear();
                world.daemons[n].watching.clear();
            }
            Action::Cut(n) => world.daemons[n].cut = Some(false),
            Action::Resign(n) => world.command(timing, n, RESIGN),
            Action::Drained(n) => world.command(timing, n, DRAINED),
            Action::LateDrained(n) => {
                let led = world.daemons[n].core.standing(E).own.expect("it leads");
                let token = Some(Generation(led.0 - 1));
                world.command(timing, n, Command::Drained { election: E, ticket: Ticket(0), token });
            }
            Action::Drain(n) => {
                let until = world.daemons[n].clock.at(world.now) + HELD;
                world.command(timing, n, Command::Drain { until });
            }
            Action::Depose(n, kind) => {
                world.etcd.change_leader(world.now, 0);
                world.deposed = Some((n, kind));
            }
            Action::Control(paused) => world.control(paused),
            Action::Restore { wiped } => world.restore(timing, wiped),
            Action::DeleteKey(n) | Action::Revoke(n) => {
                world.interfered = true;
                let mut events = Vec::new();
                let key = world.daemons[n].core.standing(E).key.cloned().expect("it has one");
                if matches!(fault, Action::Revoke(_)) {
                    let lease = world.etcd.keys(E).queue.get(&key.suffix).map_or(0, |k| k.lease);
                    world.etcd.revoke(lease, &mut events);
                } else {
                    world.etcd.delete_by_hand(E, &key.suffix, &mut events);
                }
                world.announce(&events);
            }
            Action::Go | Action::Release(_) | Action::Recover(_) | Action::Notice | Action::Undrain(_) => {
                unreachable!("no fault")
            }
        }
    }

    /// The next message, or the next moment; and at its end, when all trouble is over, straight to the end of the run.
    fn go(&self, world: &mut World) {
        let timing = &self.timing;
        if world.now >= self.calm || (world.budget == 0 && world.healthy()) {
            return self.finish(world);
        }
        if world.wire.is_empty() {
            world.advance(timing, self.calm);
        } else {
            world.deliver(timing);
        }
        if world.budget == 0 {
            world.settle(timing);
        }
        if world.now >= self.calm {
            self.calm_down(world);
        }
    }

    /// All that is still out of order ends now.
    fn calm_down(&self, world: &mut World) {
        if !world.healthy() {
            world.troubled = world.now;
        }
        world.deposed = None;
        if world.paused() {
            world.control(false);
        }
        let held = std::mem::take(&mut world.held);
        world.wire.extend(held);
        world.settle(&self.timing);
        for n in 0..world.daemons.len() {
            if world.daemons[n].core.draining() {
                // A drain holds the leadership until the application says that it has stopped.
                world.command(&self.timing, n, DRAINED);
                world.settle(&self.timing);
            }
            while world.daemons[n].health != Health::Up || world.daemons[n].cut.is_some() {
                world.recover(&self.timing, n);
                world.settle(&self.timing);
            }
        }
    }

    /// Runs on without faults, to where somebody must lead.
    fn finish(&self, world: &mut World) {
        let timing = &self.timing;
        let until = world.troubled + self.bound;
        world.settle(timing);
        while world.now < until && world.wrong.is_none() {
            world.advance(timing, until);
            world.settle(timing);
        }
        let leaders = world.daemons.iter().filter(|d| d.leads(world.now).is_some()).count();
        world.expect(leaders == 1, if leaders == 0 { Wrong::NoProgress } else { Wrong::TwoLeaders });
        world.now = world.now.max(self.end());
    }
}
