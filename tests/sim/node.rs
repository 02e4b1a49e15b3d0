//! One daemon: the real core, its clocks, what readers see of it, and what the driver and the edge keep for it.

use std::collections::VecDeque;

use super::network::{REQUESTS, mix};
use super::plan::{MS, Plan};
use crate::clock::Instant;
use crate::edge::Edge;
use crate::election::event::{Input, Round};
use crate::election::guard::Guard;
use crate::election::ids::{ClusterId, ElectionIndex, Generation, LeaseId, MemberId};
use crate::election::one_cluster::{Identity, OneCluster, Verdict};
use crate::election::promise::Promises;
use crate::election::record::HighWater;
use crate::election::role::Role;
use crate::election::{Core, Settings};
use crate::timing::Timing;

/// The most elections of a plan.
pub(super) const ELECTIONS: usize = 2;

/// How many may be on their way at once: a jump of the clocks begins another round.
pub(super) const RENEWALS: usize = 8;

pub(super) struct Node {
    pub(super) core: Core,
    pub(super) edge: Edge,
    /// The daemon's own rule of whom to heed, over three endpoints.
    pub(super) one: OneCluster,
    pub(super) up: bool,
    /// Bumped by a crash and by a rewind: answers to earlier requests are dropped.
    pub(super) run: u32,
    pub(super) inbox: VecDeque<Input>,
    pub(super) remembered: HighWater,
    pub(super) clock: Clock,
    /// How much faster than true time its clients' clocks run.
    pub(super) client_ppm: i64,
    pub(super) shown: Shown,
    pub(super) ledgers: [Promises; ELECTIONS],
    pub(super) trouble: Trouble,
    /// It was paused with its clocks, and nothing has told it so: since this moment of its boot clock.
    pub(super) unaware: Option<Instant>,
    /// When a request of it was last lost, slow or not sent, or will be: since then it reaches etcd.
    pub(super) unreached: u64,
    /// What is watched of each election, by suffix; `None` where no stream is open.
    pub(super) watching: [Option<Vec<String>>; ELECTIONS],
    /// The newest revision that its stale watch has, since when the edge knows that there is a newer one, and how many probes have
    /// shown it to be behind.
    pub(super) stale_at: i64,
    pub(super) behind: Option<u32>,
    /// An event of the generation key is not delivered before the one ahead of it.
    pub(super) heard_at: u64,
    /// When the next tick is due, and when one is on the agenda.
    pub(super) wake_at: u64,
    pub(super) wake_set: u64,
    pub(super) counts: [u32; REQUESTS],
    /// The newest renewals that etcd carried out, and the newest that a deposed leader only claimed.
    pub(super) renewals: [Option<(LeaseId, Round, Instant)>; RENEWALS],
    pub(super) deceived: Option<(LeaseId, Round, Instant)>,
    /// The latest guard that etcd's own answers allow: `invariants/self_fencing.rs`.
    pub(super) earned: Instant,
    pub(super) held: [Held; ELECTIONS],
    /// By when a stop must have ended.
    pub(super) stop_by: Option<Instant>,
}

/// What this daemon's clients hold of one election, and what the audit said last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// The end of the last promise, in true time, as its holder counts it.
    pub(super) promised: u64,
    /// Bumped when the clients give their promises up, or are frozen with them.
    pub(super) given_up: u32,
    /// The ledger was read: no promise may follow in this leadership.
    pub(super) sealed: bool,
    /// How many leaderships began here.
    pub(super) leaderships: u32,
    /// As the last transition left them; follower and none at a start.
    pub(super) audited: Option<(Role, Generation)>,
}

/// What readers see: `snapshot.rs`, as far as leadership goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) guard: Option<Guard>,
    /// The wall clock's offset, in ns.
    pub(super) wall: i64,
    pub(super) roles: [(Role, Generation); ELECTIONS],
}

/// What befalls it, and until when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) paused: u64,
    pub(super) cut: u64,
    pub(super) mute: u64,
    pub(super) stale: u64,
    pub(super) deposed: u64,
    /// The deposed leader is all that the daemon reaches.
    pub(super) only: bool,
    pub(super) lagging: u64,
    /// Which member that is, besides the usual ones: each time another one.
    pub(super) other: u64,
    /// The lagging member has yet to answer its first write.
    pub(super) first_write: bool,
    pub(super) zombie: u64,
    /// The last of its endpoints is another cluster's.
    pub(super) elsewhere: u64,
    /// And that is all the daemon reaches.
    pub(super) lost_home: bool,
}

/// Its clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    ppm: i64,
    /// What it showed when it last changed its rate, and how long it had run by then, in true time.
    offset: u64,
    ran: u64,
    /// How long the whole machine stood still with its clocks, in all; since when it does; and how many ms after it wakes up its
    /// wall clock will be set right, if at all.
    frozen: u64,
    pub(super) frozen_since: Option<u64>,
    pub(super) set_after: u32,
    /// Wall clock minus boot clock, in ns: now; as the driver holds it against; as of the newest renewal that left.
    pub(super) wall: i64,
    pub(super) wall_held: i64,
    pub(super) wall_sent: i64,
}

impl Clock {
    fn new(plan: &Plan, n: usize) -> Self {
        let offset = (1 + mix(plan.seed, 4, n as u64, 0) % 1_000_000) * MS;
        let ppm = i64::from(plan.rates[n]);
        Self { ppm, offset, ran: 0, frozen: 0, frozen_since: None, set_after: 0, wall: 0, wall_held: 0, wall_sent: 0 }
    }

    /// The boot clock at this true time.
    pub(super) fn at(&self, now: u64) -> Instant {
        let run = (self.frozen_since.unwrap_or(now) - self.frozen - self.ran).cast_signed();
        Instant::from_nanos(self.offset + (run + run * self.ppm / 1_000_000).cast_unsigned())
    }

    /// How much true time passes while the boot clock counts so much.
    pub(super) fn true_span(&self, span: u64) -> u64 {
        true_span(self.ppm, span)
    }

    /// From now on it runs at another rate.
    pub(super) fn run_at(&mut self, ppm: i64, now: u64) {
        self.offset = self.at(now).as_nanos();
        self.ran = self.frozen_since.unwrap_or(now) - self.frozen;
        self.ppm = ppm;
    }

    /// Somebody sets the wall clock.
    pub(super) const fn jump(&mut self, by: u64) {
        self.wall += by.cast_signed();
    }

    /// Ends a pause of the whole machine. Returns how long it took, if there was one: no clock shows that, until somebody sets
    /// the wall clock right.
    pub(super) fn thaw(&mut self, now: u64) -> Option<u64> {
        let paused = now - self.frozen_since.take()?;
        // It counts one nanosecond of that, so that what was sent before can be told from what is sent after.
        self.frozen += paused.saturating_sub(1);
        Some(paused)
    }
}

/// How much true time passes while a clock of this rate counts so much.
pub(super) fn true_span(ppm: i64, span: u64) -> u64 {
    (span.cast_signed() - span.cast_signed() * ppm / (1_000_000 + ppm)).cast_unsigned()
}

impl Shown {
    fn new() -> Self {
        Self { guard: None, wall: 0, roles: [(Role::Follower, Generation(0)); ELECTIONS] }
    }
}

impl Node {
    pub(super) fn new(plan: &Plan, timing: &Timing, n: usize) -> Self {
        let clock = Clock::new(plan, n);
        Self {
            core: Core::new(settings(plan, timing, None), clock.at(0)),
            edge: Edge::new(plan.elections),
            one: acquainted(timing, None, clock.at(0), false),
            up: true,
            run: 0,
            inbox: VecDeque::new(),
            remembered: HighWater::default(),
            clock,
            client_ppm: i64::from(plan.clients[n]),
            shown: Shown::new(),
            ledgers: [Promises::default(); ELECTIONS],
            trouble: Trouble::default(),
            unaware: None,
            unreached: 0,
            watching: [None, None],
            stale_at: 0,
            behind: None,
            heard_at: 0,
            wake_at: u64::MAX,
            wake_set: u64::MAX,
            counts: [0; REQUESTS],
            renewals: [None; RENEWALS],
            deceived: None,
            earned: Instant::default(),
            held: [Held::default(); ELECTIONS],
            stop_by: None,
        }
    }

    /// etcd carried a renewal out.
    pub(super) fn renewed(&mut self, lease: LeaseId, round: Round, sent_at: Instant) {
        self.renewals.rotate_right(1);
        self.renewals[0] = Some((lease, round, sent_at));
    }

    /// All of etcd was restored: no member of before goes on, and every lease that came back starts afresh, so that whatever was
    /// sent until now counts as a renewal.
    pub(super) fn etcd_restored(&mut self) {
        (self.trouble.deposed, self.trouble.lagging) = (0, 0);
        if let Some((lease, round, sent_at)) = self.deceived.take() {
            self.renewed(lease, round, sent_at);
        }
    }

    /// The process dies. Its clients do not, and hold what they were promised.
    pub(super) fn die(&mut self) {
        self.up = false;
        self.unaware = None;
        self.forget_connections();
        self.shown = Shown::new();
        self.stop_by = None;
    }

    /// No answer to an earlier request comes any more.
    pub(super) fn forget_connections(&mut self) {
        self.run += 1;
        self.inbox.clear();
        self.watching = [None, None];
        self.behind = None;
        self.edge = Edge::new(ELECTIONS);
    }

    /// A new process on the same machine.
    pub(super) fn start(&mut self, plan: &Plan, timing: &Timing, now: u64) {
        self.unaware = None;
        let clock = &mut self.clock;
        (clock.wall_held, clock.wall_sent) = (clock.wall, clock.wall);
        self.core = Core::new(settings(plan, timing, Some(self.remembered.clone())), self.clock.at(now));
        // With its memory goes the pin.
        let pin = Some(HOME).filter(|_| self.remembered != HighWater::default());
        self.one = acquainted(timing, pin, self.clock.at(now), self.trouble.elsewhere > now);
        self.up = true;
        self.ledgers = [Promises::default(); ELECTIONS];
        self.trouble.paused = 0;
        self.shown = Shown { wall: self.clock.wall, ..Shown::new() };
        for held in &mut self.held {
            (held.sealed, held.audited) = (false, None);
        }
    }

    /// An answer comes from this endpoint: does it count?
    pub(super) fn heeds(&mut self, now: u64, endpoint: u64, cluster: ClusterId) -> bool {
        let said = Identity { cluster, member: MemberId(endpoint) };
        let (now, endpoint) = (self.clock.at(now), usize::try_from(endpoint).expect("few"));
        self.one.heard(now, endpoint, said) == Verdict::Ours
    }

    /// Whether the process runs at `now`.
    pub(super) const fn turns(&self, now: u64) -> bool {
        self.up && self.trouble.paused <= now
    }

    /// The leadership that a reader sees at this moment, as `Snapshot::leads_at` judges it. A machine that stands still shows
    /// nothing; a process that does would, to the first who asks.
    pub(super) fn leads(&self, election: ElectionIndex, now: u64, max_jump: u64) -> Option<(Generation, Guard)> {
        let (Role::Leader, generation) = self.shown.roles[election.0] else { return None };
        if !self.up || self.clock.frozen_since.is_some() || self.clock.wall.abs_diff(self.shown.wall) > max_jump {
            return None;
        }
        self.shown.guard.filter(|guard| guard.holds_at(self.clock.at(now))).map(|guard| (generation, guard))
    }

    /// The newest generation that it knows of, or would after a start.
    pub(super) fn knows(&self, election: ElectionIndex) -> Generation {
        let mark = if self.up { self.core.high_water() } else { self.remembered.clone() };
        mark.generations.get(election.0).copied().unwrap_or_default()
    }
}

/// The cluster that the daemons contest, and another.
pub(super) const HOME: ClusterId = ClusterId(1);
pub(super) const ELSEWHERE: ClusterId = ClusterId(2);
/// The endpoints of each daemon.
pub(super) const ENDPOINTS: u64 = 3;

/// A daemon that asked all of its endpoints who they are.
fn acquainted(timing: &Timing, pin: Option<ClusterId>, now: Instant, last_elsewhere: bool) -> OneCluster {
    let urls: Vec<_> = (0..ENDPOINTS).map(|i| format!("http://m{i}:2379")).collect();
    let mut one = OneCluster::new(&urls, None, pin, timing.ttl());
    for i in 0..ENDPOINTS {
        let cluster = if last_elsewhere && i + 1 == ENDPOINTS { ELSEWHERE } else { HOME };
        one.heard(now, usize::try_from(i).expect("few"), Identity { cluster, member: MemberId(i) });
    }
    one
}

fn settings(plan: &Plan, timing: &Timing, remembered: Option<HighWater>) -> Settings {
    Settings {
        timing: timing.clone(),
        observe: vec![false; plan.elections],
        by_revision: plan.by_revision,
        remembered,
        moved: false,
    }
}
