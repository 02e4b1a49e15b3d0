//! Invariant 4: a leader cut off from etcd says so no later than its guard, with no message from anyone.
//!
//! Judged from what readers see, at every event, against a guard that is earned here once more: from the answers that etcd
//! really gave, and only from renewals that a quorum carried. And "the leader steps down within milliseconds of its watch": when
//! it has heard that its key is gone, it does not lead. Under every attack. Besides, where no one interferes by hand: the key of
//! whoever leads stands in etcd.

use std::time::Duration;

use crate::edge::{Request, nanos};
use crate::election::event::{ElectionInput, Input, Output, SessionInput};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::Role;
use crate::etcd::{Change, Event, Member};
use crate::sim::plan::Attack;
use crate::sim::world::World;
use crate::timing::TimingSpec;

const NAME: &str = "self_fencing";

/// What a renewal earns, written out once more: the core's own function is what is judged.
fn span(granted: Duration, spec: TimingSpec) -> Duration {
    let drift = Duration::from_nanos(nanos(granted) / 1_000_000 * u64::from(spec.drift_ppm));
    granted.saturating_sub(drift).saturating_sub(spec.slack)
}

impl World<'_> {
    /// etcd answered: what guard does that allow?
    pub(in crate::sim) fn earn(&mut self, n: usize, request: &Request, answer: &Input, by: Member) {
        let spec = self.timing.spec();
        let node = &mut self.nodes[n];
        match (&request.output, answer) {
            (_, Input::Session(SessionInput::Granted { ttl, header, .. })) => {
                let earned = span(*ttl, spec);
                node.earned = node.earned.max(header.sent_at + earned);
            }
            (_, Input::Session(SessionInput::KeepAliveAnswered { lease, round, header, .. })) => match by {
                Member::Deposed | Member::Forwarding => node.deceived = Some((*lease, *round, header.sent_at)),
                Member::Good | Member::Lagging | Member::CaughtUp => node.renewed(*lease, *round, header.sent_at),
            },
            (Output::Confirm { lease, round, .. }, Input::Session(SessionInput::Confirmed { .. })) => {
                let renewal = node.renewals.iter().flatten().find(|(l, r, _)| l == lease && r == round);
                if let Some((_, _, sent_at)) = renewal {
                    node.earned = node.earned.max(*sent_at + span(spec.ttl, spec));
                }
            }
            _ => {}
        }
    }

    /// Readers see a guard: etcd's answers must allow it.
    pub(in crate::sim) fn guard_is_earned(&mut self, n: usize) {
        let node = &self.nodes[n];
        let earned = node.earned;
        if let Some(guard) = node.shown.guard.filter(|guard| guard.deadline() > earned) {
            self.fail(NAME, || {
                format!("n{n} has a guard until {:?}, and earned one until {earned:?}", guard.deadline())
            });
        }
    }

    pub(in crate::sim) fn self_fencing(&mut self) {
        let max_jump = self.max_jump();
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let leads = (0..self.plan.elections).any(|i| node.leads(ElectionIndex(i), self.now, max_jump).is_some());
            if leads && node.clock.at(self.now) >= node.earned {
                self.fail(NAME, || format!("n{n} still leads past its guard"));
            }
        }
    }

    /// A leader hears that its key is gone: is this the end of what it leads with?
    pub(in crate::sim) fn leads_on(&self, n: usize, input: &Input) -> Option<(ElectionIndex, Generation)> {
        let Input::Election(election, ElectionInput::KeyDeleted { suffix, revision }) = input else { return None };
        let standing = self.nodes[n].core.standing(*election);
        let gone = standing.key.is_some_and(|key| key.suffix == *suffix && key.created < *revision);
        standing.own.filter(|_| gone).map(|token| (*election, token))
    }

    /// It has heard so, and all that follows was carried out.
    pub(in crate::sim) fn has_ended(&mut self, n: usize, leadership: Option<(ElectionIndex, Generation)>) {
        if let Some((election, token)) = leadership
            && self.nodes[n].shown.roles[election.0] == (Role::Leader, token)
        {
            self.fail(NAME, || format!("n{n} leads on with {token}, and was told that its key is gone"));
        }
    }

    /// A daemon says that it leads from now on: its guard must hold.
    pub(in crate::sim) fn begins_with_a_guard(&mut self, n: usize, election: ElectionIndex) {
        if self.nodes[n].leads(election, self.now, self.max_jump()).is_none() {
            self.fail(NAME, || format!("n{n} begins to lead, and its guard does not hold"));
        }
    }

    /// A key went, by this daemon's hand or by its lease's end: nobody may be leading on it.
    pub(in crate::sim) fn key_went(&mut self, event: &Event, by: Option<usize>) {
        let Change::Deleted(suffix) = &event.change else { return };
        if by.is_some() && suffix.starts_with("foreign") {
            self.fail(NAME, || format!("n{by:?} deleted {suffix}, which is another system's"));
        }
        if !matches!(self.plan.attack, Attack::Quiet | Attack::Faults) {
            return;
        }
        let max_jump = self.max_jump();
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let own = node.core.standing(event.election).key.is_some_and(|key| key.suffix == *suffix);
            if own && node.unaware.is_none() && node.leads(event.election, self.now, max_jump).is_some() {
                self.fail(NAME, || format!("n{n} leads while its key goes"));
            }
        }
    }
}
