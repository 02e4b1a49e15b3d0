//! A schedule as a value: made from a seed, written as text, read back, and made smaller piece by piece.
//!
//! What the network does to a message is a function of the seed and the message's name (`network.rs`), so that a fault taken
//! out disturbs the rest as little as may be.

use fastrand::Rng;

use super::network::mix;

/// A millisecond of virtual time.
pub(super) const MS: u64 = 1_000_000;

/// What a schedule may do, and with that what must hold. Each file of `invariants` says which it is judged under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// A good network, and one end of a leadership after the other: the protocol's bounds hold to the millisecond.
    Quiet,
    /// Everything that may befall daemons, machines, the network and etcd's members; and what operators may rightly do.
    Faults,
    /// Keys deleted and leases revoked by hand besides: they end a leadership before its guard and its promises.
    OutOfBand,
    /// etcd restored from a snapshot besides, its generation key deleted: every daemon remembers the newest generation.
    Restore,
}

/// Makes the enum, its list and its words out of one table.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// What happens to whom.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            pub(super) const fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }
        }
    };
}

kinds! {
    /// The process stands still; its clocks do not.
    Pause = "pause",
    /// The machine stands still, and its clocks with it. `arg` ms after it wakes up, its wall clock is set right; where that is
    /// more than [`NEVER`], it is not, as on KVM.
    Freeze = "freeze",
    /// Nothing passes between the daemon and etcd.
    Cut = "cut",
    /// Its watches keep silent.
    Mute = "mute",
    /// The member that serves its watches answers everything, and applies nothing: what happens is told when it is over.
    Stale = "stale",
    /// Its boot clock runs at another rate from now on, `span`, and its clients' clocks at another one, `arg`: in ppm, modulo what
    /// the drift allows, from the slowest on.
    Rate = "rate",
    /// Its wall clock jumps by `span`.
    Jump = "jump",
    /// It dies, and starts again after `span`; with `arg`, without what it remembered.
    Crash = "crash",
    /// `resign` with a cooldown of `span`.
    Resign = "resign",
    /// `drain`; `arg` ms later the application has stopped, after `span` the daemon is told to stop.
    Drain = "drain",
    /// `drained`.
    Drained = "drained",
    /// A stop with `span` to its deadline; it starts again `arg` ms later.
    Shutdown = "shutdown",
    /// etcd elects another leader; no daemon reaches the old one.
    EtcdLeader = "etcd-leader",
    /// The same, and the old one goes on answering the daemon's keep-alives for `span`; with `arg` it is all the daemon reaches.
    Deposed = "deposed",
    /// The daemon's member caught up by a snapshot: its reads show the raft term before. Each time it is another member.
    Lagging = "lagging",
    /// The election is paused by its control key for `span`.
    Hold = "hold",
    /// The control key holds nonsense for `span`.
    BadControl = "bad-control",
    /// The generation key holds nonsense for `span`; with `arg` it is deleted then, else put back.
    BadGeneration = "bad-generation",
    /// A foreign client of the election recipe queues for `span`.
    Foreign = "foreign",
    /// The generation is raised by `arg` by hand.
    Raise = "raise",
    /// The next elect transaction finds that the election was paused the moment before it came, for `span`.
    HoldAtElect = "hold-at-elect",
    /// The next hand-over that names somebody finds the same.
    HoldAtHandOver = "hold-at-hand-over",
    /// The next elect transaction finds the generation raised the moment before it came.
    RaiseAtElect = "raise-at-elect",
    /// The next elect transaction is carried out, and the wall clock jumps by `span` and more before its answer comes.
    JumpAtElect = "jump-at-elect",
    /// The clients of the daemon stand still with their tokens for `span`.
    Zombie = "zombie",
    /// Somebody deletes the key at this place of the queue.
    Delete = "delete",
    /// Somebody revokes the lease of the key at this place of the queue.
    Revoke = "revoke",
    /// The next elect transaction finds its own key deleted the moment before it came.
    DeleteAtElect = "delete-at-elect",
    /// The next hand-over finds its successor's key deleted the moment before it came.
    DeleteAtHandOver = "delete-at-hand-over",
    /// A snapshot of etcd is taken.
    Snapshot = "snapshot",
    /// etcd is restored from the last snapshot.
    Restore = "restore",
    /// Somebody deletes the generation key of one election; with `arg`, puts the record of the last snapshot there.
    LoseGeneration = "lose-generation",
    /// `drain`, which holds what was led for `arg` ms at the most; after `span` it is undone.
    Undrain = "undrain",
    /// `drained`, late and of the leadership before.
    LateDrained = "late-drained",
    /// One of the daemon's endpoints is another cluster's for `span`; with `arg` it reaches no other.
    Elsewhere = "elsewhere",
}

/// Two clocks differ in rate by less than the drift bound of 1 %.
pub(super) const FASTEST: i32 = 4_900;

/// How many kinds each attack draws from, in the order above.
const FAULTS: usize = 25;
const OUT_OF_BAND: usize = 29;
const RESTORES: usize = 32;

/// A wall clock that would be set right later than this, in ms, is not set at all.
pub(super) const NEVER: u32 = 250;

/// Whoever leads at that moment.
pub(super) const LEADER: u8 = u8::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// When, in ms.
    pub(super) at: u32,
    pub(super) kind: Kind,
    /// Which daemon, or [`LEADER`].
    pub(super) node: u8,
    pub(super) election: u8,
    /// In ms.
    pub(super) span: u32,
    pub(super) arg: u32,
}

/// What the network does besides, in 256ths of all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Net {
    pub(super) slow: u8,
    /// How slow, in ms.
    pub(super) slow_ms: u32,
    pub(super) lost: u8,
    /// A copy of a write arrives again, up to 8 s later.
    pub(super) late: u8,
    /// An event breaks the watch that carries it.
    pub(super) broken: u8,
    /// An event is not delivered, and nobody says so.
    pub(super) silent: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) attack: Attack,
    pub(super) daemons: usize,
    pub(super) elections: usize,
    /// Of the session, in ms, as are the next two.
    pub(super) ttl: u32,
    pub(super) promise: u32,
    pub(super) grace: u32,
    pub(super) by_revision: bool,
    /// When everything is healed, in ms.
    pub(super) storm: u32,
    /// How much faster than true time each daemon's clock runs, in ppm.
    pub(super) rates: Vec<i32>,
    /// The same of the clocks of each daemon's clients.
    pub(super) clients: Vec<i32>,
    pub(super) net: Net,
    /// In the order of their times.
    pub(super) faults: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let attack = match rng.u8(..20) {
            0..3 => Attack::Quiet,
            3..13 => Attack::Faults,
            13..16 => Attack::OutOfBand,
            _ => Attack::Restore,
        };
        let quiet = attack == Attack::Quiet;
        let daemons = [2, 2, 3, 3, 3, 3, 4, 5][rng.usize(..8)];
        let elections = 1 + usize::from(rng.u8(..5) == 0);
        let ttl = [2_000, 2_000, 3_000, 5_000][rng.usize(..4)];
        let promise = rng.u32(200..1_000);
        let out_of_band = attack == Attack::OutOfBand;
        let grace = if rng.u8(..6) < if out_of_band { 3 } else { 1 } { grace(&mut rng, ttl, promise) } else { 0 };
        let storm = ttl * rng.u32(5..8);
        let mut rates = || (0..daemons).map(|_| rng.i32(-FASTEST..FASTEST)).collect();
        let (rates, clients) = (rates(), rates());
        let mut net = if quiet || rng.u8(..5) == 0 { Net::default() } else { Net::any(&mut rng) };
        if attack == Attack::Restore {
            net.late = net.late.saturating_mul(3);
        }
        let mut plan = Self {
            seed,
            attack,
            daemons,
            elections,
            ttl,
            promise,
            grace,
            by_revision: rng.u8(..5) == 0,
            storm,
            rates,
            clients,
            net,
            faults: Vec::new(),
        };
        plan.faults = if quiet { plan.quiet(&mut rng) } else { plan.storm(&mut rng) };
        plan.faults.sort_by_key(|f| f.at);
        plan.variants();
        plan
    }

    /// Of some kinds every other fault is of a variant. Decided by the seed and the place: a kind that is added so leaves the
    /// rest of each plan as it was.
    fn variants(&mut self) {
        for (i, fault) in self.faults.iter_mut().enumerate() {
            let other = mix(self.seed, 8, i as u64, 0).is_multiple_of(2);
            fault.kind = match fault.kind {
                Kind::Drain if other => Kind::Undrain,
                Kind::Drained if other => Kind::LateDrained,
                // Not where the rarest coincidences are: these plans stay as they were.
                Kind::Cut if other && matches!(self.attack, Attack::Faults | Attack::OutOfBand) => Kind::Elsewhere,
                kind => kind,
            };
        }
    }

    /// One end of a leadership after the other, with time to recover in between.
    fn quiet(&mut self, rng: &mut Rng) -> Vec<Fault> {
        let ends = [Kind::Crash, Kind::Resign, Kind::Drain, Kind::Drained, Kind::Shutdown, Kind::Cut];
        let pace = self.ttl * 2 + self.grace + 2_500;
        self.storm = pace * 4;
        let fault = |i: u32, rng: &mut Rng| Fault {
            at: pace * i + rng.u32(..self.ttl / 2),
            kind: ends[rng.usize(..ends.len())],
            node: LEADER,
            election: rng.u8(..2) % u8::try_from(self.elections).unwrap_or(1),
            span: self.ttl + 1_000,
            arg: 0,
        };
        let ends: Vec<_> = (1..4).map(|i| fault(i, rng)).collect();
        let mut faults = ends.clone();
        for end in &ends {
            if rng.u8(..3) > 0 {
                continue;
            }
            // The watch of somebody goes stale before that, and stays so.
            let node = rng.u8(..u8::try_from(self.daemons).unwrap_or(1));
            let (at, span) = (end.at - rng.u32(1..self.ttl), pace + self.ttl);
            faults.push(Fault { at, kind: Kind::Stale, node, span, ..*end });
        }
        faults
    }

    fn storm(&self, rng: &mut Rng) -> Vec<Fault> {
        let kinds = match self.attack {
            Attack::Quiet | Attack::Faults => FAULTS,
            Attack::OutOfBand => OUT_OF_BAND,
            Attack::Restore => RESTORES,
        };
        let out_of_band = self.attack == Attack::OutOfBand;
        let mut at = 0;
        let mut faults = Vec::new();
        loop {
            at += rng.u32(10..self.ttl / 2);
            if at >= self.storm {
                return faults;
            }
            let special = (out_of_band && rng.u8(..3) == 0) || (self.attack == Attack::Restore && rng.u8(..3) == 0);
            let kind = match (special, out_of_band) {
                (true, true) => Kind::ALL[rng.usize(FAULTS..OUT_OF_BAND)],
                (true, false) => Kind::ALL[rng.usize(OUT_OF_BAND..kinds)],
                (false, _) => Kind::ALL[rng.usize(..FAULTS)],
            };
            if kind == Kind::Restore && rng.bool() {
                // Soon after a snapshot little differs, and much is still under way.
                let fault = |at, kind| Fault { at, kind, node: LEADER, election: 0, span: 0, arg: 0 };
                faults.push(fault(at, Kind::Snapshot));
                if rng.u8(..4) == 0 {
                    // A vacancy under a pause stays one: the generation does not move either.
                    faults.push(Fault { span: rng.u32(50..2_000), ..fault(at + 1, Kind::Hold) });
                }
                for _ in 0..rng.u8(1..4) {
                    at += rng.u32(1..400);
                    faults.push(fault(at, [Kind::Resign, Kind::Resign, Kind::Jump, Kind::Crash][rng.usize(..4)]));
                }
                at += rng.u32(1..1_000);
            }
            faults.push(Fault {
                at,
                kind,
                node: if rng.u8(..5) < 2 { LEADER } else { rng.u8(..u8::try_from(self.daemons).unwrap_or(1)) },
                election: if self.elections > 1 { rng.u8(..2) } else { 0 },
                span: if rng.u8(..4) == 0 { rng.u32(..50) } else { rng.u32(10..self.ttl * 2) },
                arg: if rng.u8(..3) == 0 { rng.u32(1..500) } else { 0 },
            });
        }
    }
}

/// A grace that the daemon would accept: the least of either kind, or any.
fn grace(rng: &mut Rng, ttl: u32, promise: u32) -> u32 {
    let for_promises = ((promise + ttl * 2 / 5) * 100).div_ceil(99);
    let for_one_leader = (ttl * 100).div_ceil(99);
    let least = for_promises.min(for_one_leader);
    match rng.u8(..4) {
        0 => least,
        1 => for_one_leader,
        _ => rng.u32(least..=ttl * 2),
    }
}

impl Net {
    fn any(rng: &mut Rng) -> Self {
        Self {
            slow: rng.u8(..32),
            slow_ms: rng.u32(10..1_500),
            lost: rng.u8(..10),
            late: rng.u8(..48),
            broken: rng.u8(..12),
            silent: rng.u8(..16),
        }
    }
}
