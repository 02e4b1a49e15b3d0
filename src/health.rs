//! How etcd answers this daemon: member by member, and as a whole, each with the reason in words.
//!
//! The etcd edge writes it, whoever shows it reads it. Nothing is decided by it: leadership rests on the guard.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Instant;

/// Why a member does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable word, such as `certificate_expired`: two failures with the same word are the same to a person.
    pub word: &'static str,
    /// What it means and, where that is known, what mends it. No line break, no end stop.
    pub text: String,
}

impl Reason {
    /// A reason in words.
    pub fn new(word: &'static str, text: impl Into<String>) -> Self {
        Self { word, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its endpoint, as configured.
    pub endpoint: String,
    /// Whether it serves what is needed: linearizable reads and writes; `None` before the first answer.
    pub serves: Option<bool>,
    /// Since when that is so.
    pub since: Instant,
    /// Why it does not serve; `None` while it does.
    pub reason: Option<Reason>,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether any member serves; `None` before the first answer or failure of every member.
    pub reachable: Option<bool>,
    /// Since when that is so. For an etcd that is unreachable: since its last answer, or since the start.
    pub since: Instant,
    /// When a member last served us.
    pub last_answer: Option<Instant>,
    /// Why the member that failed last did not serve; kept when etcd answers again.
    pub last_error: Option<Reason>,
    /// Why nobody's answers count: the endpoints are not known to be one cluster.
    pub undecided: Option<String>,
    /// Why the last renewal of the lease failed, while none has succeeded since.
    pub renewals: Option<Reason>,
    /// In the order of the configuration.
    pub members: Vec<Member>,
}

impl Report {
    /// Why etcd does not serve, in one line: what every member says that does not serve, and why the answers of others do not count.
    #[must_use]
    pub fn reasons(&self) -> String {
        let down = self.members.iter().filter_map(|m| m.reason.as_ref().map(|r| format!("{}: {r}", m.endpoint)));
        let down: Vec<_> = down.collect();
        let others = self.undecided.clone().filter(|_| down.len() < self.members.len());
        down.into_iter().chain(others).collect::<Vec<_>>().join("; ")
    }
}

/// The shared value; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Report>>);

impl Health {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(endpoints: &[String], now: Instant) -> Self {
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), serves: None, since: now, reason: None };
        let members = endpoints.iter().map(member).collect();
        let (reachable, last_answer, last_error, undecided, renewals) = (None, None, None, None, None);
        Self(Arc::new(Mutex::new(Report {
            reachable,
            since: now,
            last_answer,
            last_error,
            undecided,
            renewals,
            members,
        })))
    }

    /// A copy to read.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Whether this member serves; `None` before the first answer.
    #[must_use]
    pub fn serves(&self, member: usize) -> Option<bool> {
        self.lock().members[member].serves
    }

    /// The member served us, or did not and why. Returns how things were before, where that changed them.
    #[must_use]
    pub fn note(&self, member: usize, outcome: Result<(), Reason>, now: Instant) -> Option<Report> {
        let mut report = self.lock();
        let (serves, reason) = (outcome.is_ok(), outcome.err());
        if serves {
            report.last_answer = Some(now);
        }
        let word = |reason: &Option<Reason>| reason.as_ref().map(|r| r.word);
        let of = &report.members[member];
        if of.serves == Some(serves) && word(&of.reason) == word(&reason) {
            return None;
        }
        let before = report.clone();
        report.last_error = reason.clone().or(report.last_error.take());
        let of = &mut report.members[member];
        of.reason = reason;
        if of.serves.replace(serves) != Some(serves) {
            of.since = now;
        }
        let none = report.members.iter().all(|m| m.serves == Some(false));
        let reachable = if none { Some(false) } else { Some(true).filter(|_| serves).or(report.reachable) };
        if report.reachable != reachable {
            report.reachable = reachable;
            // What nobody answers has been out of reach since the last answer.
            report.since = if serves { now } else { report.last_answer.unwrap_or(report.since) };
        }
        Some(before)
    }

    /// Nobody's answers count, and why; or some do.
    pub fn undecided(&self, why: Option<String>) {
        self.lock().undecided = why;
    }

    /// A renewal of the lease succeeded, or did not and why.
    pub fn renewed(&self, outcome: Result<(), Reason>) {
        self.lock().renewals = outcome.err();
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        // Each field is a moment of its own: a panic elsewhere leaves none half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn etcd_is_unreachable_since_its_last_answer_once_every_member_failed() {
        let health = Health::new(&["a".to_owned(), "b".to_owned()], at(1));
        let refused = || Err(Reason::new("refused", "connection refused"));
        assert!(health.note(0, refused(), at(2)).is_some());
        assert_eq!(health.report().reachable, None, "b was not heard");
        assert_eq!(health.note(1, refused(), at(3)).and_then(|before| before.reachable), None);
        assert_eq!((health.report().reachable, health.report().since), (Some(false), at(1)), "since the start");
        assert_eq!(health.note(1, refused(), at(4)), None, "nothing new");
        assert_eq!(health.note(1, Ok(()), at(5)).and_then(|before| before.reachable), Some(false));
        assert_eq!((health.report().reachable, health.report().since), (Some(true), at(5)));
        assert_eq!(health.report().reasons(), "a: connection refused");
        assert_eq!(health.note(1, Ok(()), at(6)), None);
        assert!(health.note(1, refused(), at(9)).is_some());
        assert_eq!(health.report().since, at(6), "since the last answer");
        assert!(health.note(1, Err(Reason::new("silent", "no answer")), at(10)).is_some(), "another reason");
        assert_eq!(health.report().members[1].since, at(9), "it is the same outage");
    }
}
