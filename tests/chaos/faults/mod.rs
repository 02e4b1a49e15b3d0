//! The kinds of faults, and how one is begun and ended.

mod clock;
mod cluster;
mod disk;
mod network;
mod processes;
pub mod takes;

use std::time::{Duration, Instant};

use super::arena::Arena;
use super::history::{Phase, now};
use super::net::Cut;
use super::sys::{Done, pause};

pub use clock::main as clock_main;
pub use cluster::upgrade;
use network::Way;
use processes::Whom;

/// What a fault needs for itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Claim {
    /// etcd: one fault of its members at a time, or no quorum would be the rule and nothing were attacked.
    Members,
    Daemon(usize),
    /// There is one wall clock.
    Clock,
    /// There is one slow proxy.
    Slow,
    /// Nothing else is broken meanwhile.
    Alone,
}

/// Ends a fault.
type Undo = Box<dyn FnOnce(&mut Arena) -> Done>;

/// A fault that is under way.
pub struct Begun {
    target: String,
    detail: String,
    /// The daemon that it holds.
    daemon: Option<usize>,
    undo: Undo,
}

/// A kind of fault.
pub struct Fault {
    pub name: &'static str,
    needs: &'static [Claim],
    /// How long it is held, in ms.
    hold: (u64, u64),
    begin: fn(&mut Arena) -> Done<Begun>,
}

const fn fault(
    name: &'static str,
    needs: &'static [Claim],
    hold: (u64, u64),
    begin: fn(&mut Arena) -> Done<Begun>,
) -> Fault {
    Fault { name, needs, hold, begin }
}

const MEMBERS: &[Claim] = &[Claim::Members];
const ALONE: &[Claim] = &[Claim::Alone];
const ANY: (u64, u64) = (500, 6_000);
/// Longer than a lease and etcd's election together.
const LONG: (u64, u64) = (3_000, 7_000);
/// Long enough for etcd's election, the lease, and the grace of the daemons on the oldest etcd: somebody else then leads.
const STALE_FOR: (u64, u64) = (7_500, 9_500);
const AT_ONCE: (u64, u64) = (0, 500);

/// Those that cost little time: every round has some.
pub const LIGHT: &[Fault] = &[
    fault("partition-member", MEMBERS, ANY, |a| network::member(a, Way::Both)),
    fault("partition-member-in", MEMBERS, LONG, |a| network::member(a, Way::In)),
    fault("partition-member-out", MEMBERS, LONG, |a| network::member(a, Way::Out)),
    fault("partition-peers", MEMBERS, LONG, network::peers),
    fault("cut-daemon", &[], ANY, |a| network::daemon(a, Way::Both, Cut::BlackHole)),
    fault("cut-daemon-in", &[], LONG, |a| network::daemon(a, Way::In, Cut::BlackHole)),
    fault("cut-daemon-out", &[], LONG, |a| network::daemon(a, Way::Out, Cut::BlackHole)),
    fault("cut-daemon-reset", &[], ANY, |a| network::daemon(a, Way::Out, Cut::Reset)),
    fault("cut-daemon-unreachable", &[], ANY, |a| network::daemon(a, Way::Out, Cut::Unreachable)),
    fault("one-member-only", &[], LONG, network::one_member_only),
    fault("cut-register", &[], ANY, network::register),
    fault("slow-daemon", &[Claim::Slow], LONG, network::slow_daemon),
    fault("slow-peers", &[Claim::Slow, Claim::Members], LONG, network::slow_peers),
    fault("stop-daemon", &[], ANY, |a| processes::stop(a, Whom::Daemon)),
    fault("stop-client", &[], ANY, |a| processes::stop(a, Whom::Client)),
    fault("stop-both", &[], ANY, |a| processes::stop(a, Whom::Both)),
    fault("kill-daemon", &[], ANY, |a| Ok(processes::kill_daemon(a))),
    fault("term-daemon", &[], AT_ONCE, processes::term_daemon),
    fault("resign", &[], AT_ONCE, processes::resign),
    fault("stop-member", MEMBERS, ANY, |a| processes::stop_members(a, 1)),
    fault("stop-quorum", MEMBERS, ANY, |a| processes::stop_members(a, 2)),
    fault("kill-member", MEMBERS, ANY, |a| Ok(processes::kill_member(a))),
    fault("kill-etcd-leader", MEMBERS, ANY, processes::kill_etcd_leader),
    fault("move-leader", MEMBERS, AT_ONCE, cluster::move_leader),
    fault("defrag", MEMBERS, AT_ONCE, cluster::defrag),
    fault("compact-restart", MEMBERS, AT_ONCE, cluster::compact_and_restart),
    fault("freeze-disk", MEMBERS, ANY, disk::freeze),
    fault("stale-keep-alive", MEMBERS, STALE_FOR, disk::stale_keep_alive),
    fault("clock-jump", &[Claim::Clock], AT_ONCE, clock::jump),
    // Of a quorum that is broken they might take effect long after their end.
    fault("key-deleted", MEMBERS, AT_ONCE, cluster::delete_key),
    fault("lease-revoked", MEMBERS, AT_ONCE, cluster::revoke_lease),
];

/// Those that take a cluster several seconds, or that need it for themselves.
pub const HEAVY: &[Fault] = &[
    fault("restore", ALONE, AT_ONCE, cluster::restore),
    fault("auth", MEMBERS, LONG, cluster::auth),
    fault("nospace", MEMBERS, LONG, cluster::nospace),
    fault("corrupt", MEMBERS, LONG, cluster::corrupt),
    fault("replace-member", MEMBERS, AT_ONCE, cluster::replace),
];

/// The attack that the daemon's confirmed renewals are there for.
pub const STALE: &[Fault] = &[fault("stale-keep-alive", MEMBERS, STALE_FOR, disk::stale_keep_alive)];

/// Whether there are faults of all these names, and every fault has its figure.
pub fn known(names: &[&str]) -> Done {
    let all: Vec<_> = LIGHT.iter().chain(HEAVY).map(|fault| fault.name).collect();
    all.iter().try_for_each(|name| takes::takes(name).map(|_| ()))?;
    let unknown = names.iter().find(|name| !all.contains(name));
    unknown.map_or(Ok(()), |name| Err(format!("no fault is called {name}; there are {}", all.join(", "))))
}

/// A fault under way and when it is to end.
struct Active {
    fault: &'static Fault,
    begun: Begun,
    due: Instant,
}

/// The faults of one kind in random order, again and again.
pub struct Deck {
    kinds: Vec<&'static Fault>,
    left: Vec<&'static Fault>,
}

impl Deck {
    /// All of these kinds, or those of them that are named.
    pub fn new(kinds: &'static [Fault], only: &[&str]) -> Self {
        let wanted = |fault: &&Fault| only.is_empty() || only.contains(&fault.name);
        Self { kinds: kinds.iter().filter(wanted).collect(), left: Vec::new() }
    }

    /// The next that gets what it needs; it then has it. When none of the rest does, any kind that does.
    fn draw(&mut self, arena: &mut Arena) -> Option<&'static Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            arena.rng.shuffle(&mut self.left);
        }
        let busy = &arena.busy;
        let fits = |fault: &&'static Fault| match fault.needs {
            ALONE => busy.is_empty(),
            needs => !busy.contains(&Claim::Alone) && !needs.iter().any(|need| busy.contains(need)),
        };
        let fault = match self.left.iter().rposition(fits) {
            Some(place) => self.left.remove(place),
            None => arena.rng.choice(self.kinds.iter().copied().filter(fits).collect::<Vec<_>>())?,
        };
        arena.busy.extend(fault.needs);
        Some(fault)
    }
}

/// One round: some faults that overlap, each ended in its time, and then a leader again.
pub fn round(arena: &mut Arena, decks: &mut [(&mut Deck, usize)]) -> Done {
    arena.round();
    let mut active = Vec::new();
    for (deck, count) in decks {
        for _ in 0..*count {
            let free = arena.busy.clone();
            let Some(fault) = deck.draw(arena) else { continue };
            if let Some(begun) = begin(arena, fault)? {
                active.push(begun);
            } else {
                arena.busy = free;
            }
            pause(Duration::from_millis(arena.rng.u64(..400)))?;
        }
    }
    active.sort_by_key(|active| active.due);
    for Active { fault, begun, due } in active {
        pause(due.saturating_duration_since(Instant::now()))?;
        // Its end is not in the history then: the fault lasts.
        (begun.undo)(arena)
            .map_err(|error| format!("{} of {} could not be ended: {error}", fault.name, begun.target))?;
        if fault.needs.iter().any(|need| [Claim::Members, Claim::Alone].contains(need)) {
            // Only then has it ended: what it takes is counted from here.
            arena.cluster.serves()?;
        }
        let detail = std::mem::take(&mut arena.remark);
        arena.fault(now(), fault.name, &begun.target, Phase::End, &detail);
        release(arena, fault, begun.daemon);
    }
    arena.recovered()?;
    pause(Duration::from_millis(arena.rng.u64(800..2_000)))
}

/// What cannot be begun is said and left out: some of them need what another has just broken.
fn begin(arena: &mut Arena, fault: &'static Fault) -> Done<Option<Active>> {
    let at = now();
    match (fault.begin)(arena) {
        Ok(begun) => {
            arena.fault(at, fault.name, &begun.target, Phase::Begin, &begun.detail);
            let hold = Duration::from_millis(arena.rng.u64(fault.hold.0..=fault.hold.1));
            Ok(Some(Active { fault, begun, due: Instant::now() + hold }))
        }
        Err(error) => {
            pause(Duration::ZERO)?;
            arena.fault(at, fault.name, "", Phase::Begin, &format!("failed: {error}"));
            arena.fault(now(), fault.name, "", Phase::End, "");
            Ok(None)
        }
    }
}

fn release(arena: &mut Arena, fault: &Fault, daemon: Option<usize>) {
    arena.busy.retain(|claim| !fault.needs.contains(claim) && daemon.is_none_or(|n| *claim != Claim::Daemon(n)));
}

impl Begun {
    fn new(target: impl Into<String>, undo: impl FnOnce(&mut Arena) -> Done + 'static) -> Self {
        Self { target: target.into(), detail: String::new(), daemon: None, undo: Box::new(undo) }
    }

    /// Nothing is to be ended.
    fn done(target: impl Into<String>) -> Self {
        Self::new(target, |_| Ok(()))
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    fn of(mut self, daemon: usize) -> Self {
        self.daemon = Some(daemon);
        self
    }
}
