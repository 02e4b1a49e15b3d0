//! Giving leadership, or a place in the queue, up in order: stop acting, let promises run out, hand over.

use std::time::Duration;

use super::contest::{Contest, Context, State};
use super::event::{HandOverOutcome, Output, Reply, Ticket, Transition};
use super::ids::{CandidateKey, Generation};
use super::mutant::{self, Mutant};
use super::pause::{self, Pause};
use super::record::{Cell, QueueEntry};
use super::role::{Reason, Role};
use super::txn::{HandOverTxn, MAX_SKIPPED, Succession};
use crate::clock::Instant;

/// After so many refusals the key is deleted without naming anyone: an etcd out of space refuses every put, but no delete.
const NAMING_TRIES: u32 = 2;

/// What is still to be done before this daemon has left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    pub(super) key: CandidateKey,
    /// The generation that we held; `None` for a candidate that leaves the queue.
    pub(super) generation: Option<Generation>,
    pub(super) release: Release,
    /// Whom to tell.
    pub(super) tickets: Vec<Ticket>,
    /// The successor in the newest hand-over transaction.
    pub(super) named: Option<QueueEntry>,
    phase: Phase,
    since: Instant,
    /// A full look came after the release was decided: by it the successor is chosen, and an empty queue in it is believed.
    looked: bool,
    /// Our transaction did not commit, or nobody knows: nothing more is sent before a look.
    blind: bool,
    refusals: u32,
}

/// When the hand-over may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Release {
    /// Not while a drain holds it: until the application's word, the drain's end or time, or a stop.
    Held,
    /// Once the last promise has run out.
    WhenSafe,
    /// At once: the application has said that it stopped.
    Now,
}

impl Release {
    pub(super) const fn no_later_than_safe(self) -> Self {
        match self {
            Self::Held | Self::WhenSafe => Self::WhenSafe,
            Self::Now => Self::Now,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The ledger of promises was asked for its last one.
    Sealing,
    /// That ends then; the hand-over does not commit earlier.
    Promised(Instant),
    /// The transaction is under way.
    Asked,
}

impl Leaving {
    pub(super) const fn from_leading(
        key: CandidateKey,
        generation: Generation,
        release: Release,
        now: Instant,
    ) -> Self {
        Self::new(key, Some(generation), release, Phase::Sealing, now)
    }

    /// A candidate leaves the queue: it promised nothing.
    pub(super) const fn withdrawal(key: CandidateKey, now: Instant) -> Self {
        Self::new(key, None, Release::Now, Phase::Promised(now), now)
    }

    const fn new(
        key: CandidateKey,
        generation: Option<Generation>,
        release: Release,
        phase: Phase,
        since: Instant,
    ) -> Self {
        Self {
            key,
            generation,
            release,
            tickets: Vec::new(),
            named: None,
            phase,
            since,
            looked: false,
            blind: false,
            refusals: 0,
        }
    }

    pub(super) fn looked(&mut self) {
        // What is seen while the application holds the release may be long past when it lets go.
        self.looked = self.release != Release::Held;
        self.blind = false;
    }

    /// Whether the queue is to be looked at before the release; a transaction under way has been decided.
    fn wants_look(&self) -> bool {
        !self.looked && !self.blind && self.release != Release::Held && self.phase != Phase::Asked
    }

    /// The own key is gone. `true` when that ends it; `false` while our own transaction may have done it and will say so.
    pub(super) fn own_key_gone(&self) -> bool {
        self.phase != Phase::Asked
    }

    /// Nobody knows yet whether the successor was named: the look that is under way tells.
    pub(super) const fn to_be_found_out(&self) -> bool {
        self.blind && self.named.is_some()
    }

    /// The transaction was refused, or nobody knows: look, and decide again.
    pub(super) fn refused(&mut self, now: Instant, certainly: bool) {
        self.refusals += u32::from(certainly);
        self.phase = Phase::Promised(now);
        self.looked = false;
        self.blind = true;
    }

    pub(super) fn reply_released(&mut self, out: &mut Vec<Output>, successor: Option<&QueueEntry>, newest: Generation) {
        for ticket in std::mem::take(&mut self.tickets) {
            let reply = Reply::Resigned { successor: successor.cloned(), generation: newest };
            out.push(Output::Reply { ticket, reply });
        }
    }

    pub(super) fn reply_unknown(&mut self, out: &mut Vec<Output>) {
        for ticket in std::mem::take(&mut self.tickets) {
            out.push(Output::Reply { ticket, reply: Reply::Unknown });
        }
    }

    /// When the hand-over may be sent, as far as time decides that.
    pub(super) fn wake_at(&self, pause: Pause) -> Option<Instant> {
        match (self.phase, self.release) {
            (Phase::Promised(until), Release::WhenSafe) => Some(until.max(pause.until())),
            // The application's own word makes promises moot, but not the pause between two tries.
            (Phase::Promised(_), Release::Now) => Some(pause.until()),
            (Phase::Promised(_), Release::Held) | (Phase::Sealing | Phase::Asked, _) => None,
        }
    }

    fn due(&self, now: Instant, pause: Pause) -> bool {
        self.wake_at(pause).is_some_and(|at| at <= now)
    }
}

impl Contest {
    /// Steps down from leading: publishes it, then sees to the promises, then gives up the key.
    pub(super) fn step_down(
        &mut self,
        ctx: &mut Context<'_>,
        key: CandidateKey,
        generation: Generation,
        reason: Reason,
        release: Release,
    ) {
        if reason.is_wish() {
            self.pauses.forgive();
        }
        self.become_(ctx, State::Leaving(Leaving::from_leading(key, generation, release, ctx.now)), reason);
        ctx.out.push(Output::SealPromises(self.index));
    }

    /// The refusal of a command that names a generation, or none, where it does not mean what we lead or give up now.
    fn refusal(&self, token: Option<Generation>) -> Option<Reply> {
        let own = match &self.state {
            State::Leading { generation, .. } => Some(*generation),
            State::Leaving(leaving) => leaving.generation,
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } => None,
        };
        match own {
            None => Some(Reply::NotLeader),
            Some(own) if token.is_none_or(|token| token == own) => None,
            Some(_) => Some(Reply::Stale),
        }
    }

    /// `resign`.
    pub(super) fn resign(
        &mut self,
        ctx: &mut Context<'_>,
        ticket: Ticket,
        cooldown: Duration,
        token: Option<Generation>,
    ) {
        if let Some(reply) = self.refusal(token) {
            ctx.out.push(Output::Reply { ticket, reply });
            return;
        }
        match &mut self.state {
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                self.queue_at = self.queue_at.max(ctx.now + cooldown);
                self.step_down(ctx, key, generation, Reason::Resigned, Release::WhenSafe);
                if let State::Leaving(leaving) = &mut self.state {
                    leaving.tickets.push(ticket);
                }
            }
            State::Leaving(leaving) => {
                leaving.release = leaving.release.no_later_than_safe();
                leaving.tickets.push(ticket);
            }
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } => {}
        }
    }

    /// `drained`: the application has stopped acting.
    pub(super) fn drained(&mut self, ctx: &mut Context<'_>, ticket: Ticket, token: Option<Generation>) {
        let token = token.filter(|_| !mutant::on(Mutant::DrainedOfAnother));
        let refusal = self.refusal(token);
        let refused = refusal.is_some();
        ctx.out.push(Output::Reply { ticket, reply: refusal.unwrap_or(Reply::HandingOver) });
        if refused {
            return;
        }
        match &mut self.state {
            State::Leading { key, generation } => {
                let (key, generation) = (key.clone(), *generation);
                self.step_down(ctx, key, generation, Reason::Drained, Release::Now);
            }
            State::Leaving(leaving) => leaving.release = Release::Now,
            State::Observing | State::Out | State::Queuing { .. } | State::Waiting { .. } => {}
        }
    }

    /// The mutant of an `undrain` that forgets what the drain gave up.
    pub(super) fn lead_on(&mut self, ctx: &mut Context<'_>) {
        if let State::Leaving(Leaving { key, generation: Some(generation), .. }) = &self.state {
            let (key, generation) = (key.clone(), *generation);
            self.state = State::Leading { key, generation };
            ctx.out.push(Output::Transition(Transition {
                election: self.index,
                from: Role::Follower,
                to: Role::Leader,
                old_generation: Generation(0),
                new_generation: generation,
                reason: Reason::Elected,
            }));
        }
    }

    pub(super) fn hand_over_answered(&mut self, ctx: &mut Context<'_>, asked: &CandidateKey, outcome: HandOverOutcome) {
        let State::Leaving(leaving) = &mut self.state else { return };
        if leaving.key != *asked {
            return;
        }
        match outcome {
            HandOverOutcome::Done { header, record } => {
                let successor = record.as_ref().and_then(|_| leaving.named.clone());
                if let Some(record) = record {
                    let cell = Cell::Valid { value: record, modified: header.revision };
                    self.seen.replace_generation(cell, header.revision, ctx.now);
                }
                let suffix = asked.suffix.clone();
                self.seen.key_deleted(&suffix, header.revision, ctx.now);
                self.released(ctx, successor.as_ref());
            }
            HandOverOutcome::Refused | HandOverOutcome::Unknown => {
                leaving.refused(ctx.now, matches!(outcome, HandOverOutcome::Refused));
                self.look_again(ctx.now);
            }
        }
    }

    /// Nothing of ours is left in this election: answer whoever asked for it, and queue again when that is due.
    pub(super) fn released(&mut self, ctx: &mut Context<'_>, successor: Option<&QueueEntry>) {
        if let State::Leaving(leaving) = &mut self.state {
            leaving.reply_released(ctx.out, successor, self.seen.newest());
        }
        let reason = self.reason;
        self.become_(ctx, State::Out, reason);
        self.watch(ctx);
    }

    /// Answer to `SealPromises`.
    pub(super) fn sealed(&mut self, until: Instant) {
        let until = if mutant::on(Mutant::PromiseIgnored) { Instant::default() } else { until };
        if let State::Leaving(leaving) = &mut self.state
            && leaving.phase == Phase::Sealing
        {
            leaving.phase = Phase::Promised(until);
        }
    }

    /// Sends the hand-over once it may be sent.
    pub(super) fn advance_leaving(&mut self, ctx: &mut Context<'_>) {
        let (looking, next) = (self.looking(), self.next_generation(ctx));
        let State::Leaving(leaving) = &mut self.state else { return };
        if ctx.held_until.is_none_or(|until| until <= ctx.now) {
            leaving.release = leaving.release.no_later_than_safe();
        }
        let record = self.seen.names(&leaving.key).map(|record| record.generation);
        let superseded = record.is_none() || record != leaving.generation;
        // A vacancy under a pause stays one: then nobody is named.
        let room = next <= Generation::MAX;
        let naming = !superseded && !self.seen.paused() && room && leaving.refusals < NAMING_TRIES;
        let term = self.seen.generation.value().map_or(0, |r| r.term);
        // A leader looks at the queue once a TTL: somebody of higher priority may have come since, or whom it knows be gone.
        // Asked for while promises run out, the look costs the hand-over no time.
        let to_look = naming && leaving.wants_look();
        if to_look && !looking {
            self.look_again(ctx.now);
        }
        let State::Leaving(leaving) = &mut self.state else { return };
        if to_look || leaving.blind || !leaving.due(ctx.now, self.pauses.hand_over) {
            return;
        }
        self.pauses.hand_over.begin(ctx.now, ctx.jitter, pause::HAND_OVER);
        let choice = if naming { choose(&self.seen.queue, &leaving.key, term) } else { None };
        let (key, since) = (leaving.key.clone(), leaving.since);
        leaving.phase = Phase::Asked;
        leaving.named = choice.as_ref().map(|c| c.0.clone());
        let successor = choice.map(|(entry, skipped)| Succession {
            entry,
            skipped,
            generation_modified: self.seen.generation.modified(),
            control_modified: self.seen.control.modified(),
            generation: next,
            term,
            leaderless_ms: u64::try_from(ctx.now.since(since).as_millis()).unwrap_or(u64::MAX),
        });
        ctx.out.push(Output::HandOver { election: self.index, txn: HandOverTxn { key, successor } });
    }
}

/// Whom to name: the first of the highest priority among the candidates behind us. None past a foreign client: its turn
/// comes first, and no key of another system is ever deleted. None behind the recorded term. Also the keys passed by.
fn choose(queue: &[QueueEntry], own: &CandidateKey, term: u64) -> Option<(QueueEntry, Vec<CandidateKey>)> {
    let ours = |e: &&QueueEntry| e.candidate.is_some();
    let behind = queue.iter().filter(|e| e.key.created > own.created);
    let eligible: Vec<_> = behind.take_while(ours).take(MAX_SKIPPED + 1).collect();
    let priority = |e: &QueueEntry| e.candidate.as_ref().filter(|c| c.term >= term).map(|c| c.priority);
    let best = eligible.iter().filter_map(|e| priority(e)).max()?;
    let place = eligible.iter().position(|e| priority(e) == Some(best))?;
    let skipped = eligible[..place].iter().map(|e| e.key.clone()).collect();
    Some((eligible[place].clone(), skipped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::ids::Revision;
    use crate::election::record::CandidateInfo;

    fn entry(created: i64, priority: Option<i32>) -> QueueEntry {
        let info = |priority| CandidateInfo {
            id: format!("c{created}"),
            url: String::new(),
            term: 0,
            priority,
            version: String::new(),
        };
        let key = CandidateKey { suffix: format!("{created:x}"), created: Revision(created) };
        QueueEntry { key, lease: created, candidate: priority.map(info) }
    }

    fn chosen(queue: &[QueueEntry]) -> Option<(i64, usize)> {
        choose(queue, &queue[0].key, 0).map(|(e, skipped)| (e.lease, skipped.len()))
    }

    #[test]
    fn first_come_first_served_but_for_priority_and_never_past_a_foreign_client() {
        let (a, b, c, foreign) = (entry(1, Some(0)), entry(2, Some(0)), entry(3, Some(5)), entry(4, None));
        assert_eq!(chosen(std::slice::from_ref(&a)), None);
        assert_eq!(chosen(&[a.clone(), b.clone(), entry(9, Some(0))]), Some((2, 0)));
        assert_eq!(chosen(&[a.clone(), b.clone(), c.clone()]), Some((3, 1)));
        assert_eq!(chosen(&[a.clone(), b.clone(), foreign.clone(), entry(5, Some(9))]), Some((2, 0)));
        assert_eq!(chosen(&[a, foreign, entry(5, Some(9))]), None);
    }
}
