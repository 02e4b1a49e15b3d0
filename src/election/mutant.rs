//! Faults for the model checker and the simulation to catch. They exist in test builds only: everywhere else `on` is a
//! constant `false`, and what it guards is not compiled in.
//!
//! Each breaks one rule that the safety argument (`docs/safety.md`) rests on. A check that lets one pass checks nothing.

#[cfg(not(test))]
pub(super) const fn on(_: Mutant) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::on;

/// A rule that is broken on purpose.
#[allow(dead_code, reason = "outside of tests nobody switches one on; some of them live in the tests' own edge")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A renewal's guard counts from its answer, not from when its request left.
    DeadlineFromAnswer,
    /// A grant's guard counts from its answer.
    GrantFromAnswer,
    /// A keep-alive's answer counts without a confirming read.
    UnconfirmedRenewal,
    /// The confirming read's raft term is not compared with the answer's.
    TermsNotCompared,
    /// Any member may confirm what another answered.
    MembersNotCompared,
    /// A renewal confirmed at a raft term below the known one counts.
    OldTermBelieved,
    /// The confirming read of a session without keys reads nothing.
    EmptyConfirm,
    /// Readers trust the role until the core's next input.
    GuardByTimer,
    /// Neither drift nor slack is taken off the TTL.
    GuardWithoutMargin,
    /// Only the slack is.
    DriftIgnored,
    /// The elect transaction does not ask for the own key.
    ElectWithoutOwnKey,
    /// The elect transaction overlooks a candidate one revision ahead.
    RangeOffByOne,
    /// The elect transaction does not ask for the control key.
    ElectWhilePaused,
    /// The hand-over does not ask for the control key.
    HandOverWhilePaused,
    /// The hand-over does not ask for the successor's key.
    SuccessorNotChecked,
    /// The hand-over does not wait for promises.
    PromiseIgnored,
    /// A promise may outlast the guard.
    PromisePastGuard,
    /// The caller is told all of a promise, as though its clock were ours.
    PromiseWithoutDrift,
    /// A generation that was led with and released is led with again.
    GenerationReused,
    /// What the daemon remembers of a lost history does not lift the next generation.
    CounterAfterRestore,
    /// Readers are told last, after the effects.
    PublishAfterEffect,
    /// A rewind is noticed, and nobody waits for leaders of the lost history.
    RewindWithoutWait,
    /// A generation of one election that went back ends all of them.
    OneRewindForAll,
    /// An older raft term is believed of two answers in a row, whichever members gave them.
    DoubtOfAnyMember,
    /// A raised generation is elected over at once.
    RaiseWithoutWait,
    /// Nobody waits for the vacancy grace.
    GraceIgnored,
    /// A jump of the clocks changes nothing.
    ClockJumpIgnored,
    /// An election won while the guard is void is led with.
    WonOnVoidGuard,
    /// A leader whose key is gone goes on.
    OwnKeyLossIgnored,
    /// A leader who sees a higher generation goes on.
    SupersededIgnored,
    /// The application's word that it has stopped ends a leadership that it does not mean.
    DrainedOfAnother,
    /// A drain that is undone leads on with the generation that it gave up.
    UndrainLeadsOn,
    /// The edge keeps a watch that is behind what linearizable answers show.
    StaleWatchTrusted,
    /// The edge compares the generation key's value only.
    GenerationByValue,
    /// The edge compares the generation key's revision only.
    GenerationByRevision,
    /// An answer counts whichever cluster gave it.
    ForeignClusterHeeded,
    /// Whatever failed or was lost is tried again at once.
    NoPause,
    /// A single success ends a pause that grew, however soon what was won is lost again.
    PauseEndedBySuccess,
}

#[cfg(test)]
impl Mutant {
    /// Every one, for the tests that must catch it.
    #[allow(dead_code, reason = "the unit tests include this module too, and break nothing")]
    pub(crate) const ALL: [Self; 38] = [
        Self::DeadlineFromAnswer,
        Self::GrantFromAnswer,
        Self::UnconfirmedRenewal,
        Self::TermsNotCompared,
        Self::MembersNotCompared,
        Self::EmptyConfirm,
        Self::OldTermBelieved,
        Self::GuardByTimer,
        Self::GuardWithoutMargin,
        Self::DriftIgnored,
        Self::ElectWithoutOwnKey,
        Self::RangeOffByOne,
        Self::ElectWhilePaused,
        Self::HandOverWhilePaused,
        Self::SuccessorNotChecked,
        Self::PromiseIgnored,
        Self::PromisePastGuard,
        Self::PromiseWithoutDrift,
        Self::GenerationReused,
        Self::CounterAfterRestore,
        Self::PublishAfterEffect,
        Self::RewindWithoutWait,
        Self::OneRewindForAll,
        Self::DoubtOfAnyMember,
        Self::RaiseWithoutWait,
        Self::GraceIgnored,
        Self::ClockJumpIgnored,
        Self::WonOnVoidGuard,
        Self::OwnKeyLossIgnored,
        Self::SupersededIgnored,
        Self::DrainedOfAnother,
        Self::UndrainLeadsOn,
        Self::StaleWatchTrusted,
        Self::GenerationByValue,
        Self::GenerationByRevision,
        Self::ForeignClusterHeeded,
        Self::NoPause,
        Self::PauseEndedBySuccess,
    ];
}

#[cfg(test)]
pub(crate) mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! { static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) }; }

    /// Whether this rule is broken in this thread.
    pub(crate) fn on(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// Runs `act` with a rule broken, or with none.
    #[allow(dead_code, reason = "the unit tests include this module too, and break nothing")]
    pub(crate) fn with<T>(mutant: Option<Mutant>, act: impl FnOnce() -> T) -> T {
        let before = ACTIVE.replace(mutant);
        let result = act();
        ACTIVE.set(before);
        result
    }
}
