//! What the log says of members: that one ceased to serve, and why, when it happens and once a minute while it lasts; and that
//! it serves again. Requests are many, so that most of what they meet was said already.

use std::time::Duration;

use crate::clock::Instant;
use crate::health::Report;

/// How often the same is said again while it lasts.
const AGAIN: Duration = Duration::from_mins(1);
/// How soon something else may be said of the same member: one that comes and goes must not fill the log.
const SOON: Duration = Duration::from_secs(10);

/// What was said last, of one member or of all together.
#[derive(Clone, Debug, Default)]
struct Said {
    /// Of the present outage; `None` while there is none, or nothing was said of it yet.
    what: Option<String>,
    at: Option<Instant>,
}

impl Said {
    /// Whether `what` is to be said now. Then it counts as said.
    fn say(&mut self, what: &str, now: Instant) -> bool {
        let pause = if self.what.as_deref() == Some(what) { AGAIN } else { SOON };
        let due = self.at.is_none_or(|at| now.since(at) >= pause);
        if due {
            (self.what, self.at) = (Some(what.to_owned()), Some(now));
        }
        due
    }

    /// It is over. Whether anything was said of it.
    fn over(&mut self) -> bool {
        self.what.take().is_some()
    }
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// One member does not serve.
    Member(String),
    /// None does.
    Whole(String),
    /// One does again, and was alone in not doing so, or one of several.
    MemberAgain(String),
    /// The first one does again.
    WholeAgain(String),
}

impl Line {
    /// Writes it.
    pub(super) fn log(&self) {
        match self {
            Self::Member(text) | Self::Whole(text) => tracing::warn!("{text}"),
            Self::MemberAgain(text) | Self::WholeAgain(text) => tracing::info!("{text}"),
        }
    }
}

/// Speaks of all members.
#[derive(Debug)]
pub(super) struct Voice {
    members: Vec<Said>,
    whole: Said,
}

impl Voice {
    pub(super) fn new(members: usize) -> Self {
        Self { members: vec![Said::default(); members], whole: Said::default() }
    }

    /// A member serves again; `before` is how things were.
    pub(super) fn serves(&mut self, member: usize, before: &Report, now: Instant) -> Option<Line> {
        let of = &before.members[member];
        let (said, whole) = (self.members[member].over(), self.whole.over());
        let after = |since| seconds(now.since(since));
        if whole {
            return Some(Line::WholeAgain(format!("etcd answers again after {}", after(before.since))));
        }
        said.then(|| {
            Line::MemberAgain(format!("the etcd member {} serves again after {}", of.endpoint, after(of.since)))
        })
    }

    /// A member does not serve; `now_is` is how things are.
    pub(super) fn fails(&mut self, member: usize, now_is: &Report, now: Instant) -> Option<Line> {
        if now_is.reachable == Some(false) {
            // One line for all: in most outages each would say the same.
            let words: Vec<_> = now_is.members.iter().filter_map(|m| m.reason.as_ref().map(|r| r.word)).collect();
            return self.whole.say(&words.join(" "), now).then(|| {
                for said in &mut self.members {
                    *said = Said { what: Some(String::new()), at: Some(now) };
                }
                let since = seconds(now.since(now_is.since));
                Line::Whole(format!("etcd has been unreachable for {since}: {}", now_is.reasons()))
            });
        }
        let of = &now_is.members[member];
        let reason = of.reason.as_ref()?;
        let line = || Line::Member(format!("the etcd member {} does not serve: {reason}", of.endpoint));
        self.members[member].say(reason.word, now).then(line)
    }
}

/// For people: whole seconds, or milliseconds below one.
fn seconds(lasted: Duration) -> String {
    if lasted < Duration::from_secs(1) {
        format!("{} ms", lasted.as_millis())
    } else {
        format!("{} s", lasted.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Reason};

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    struct Scene {
        health: Health,
        voice: Voice,
    }

    impl Scene {
        fn new(members: usize) -> Self {
            let endpoints: Vec<_> = (0..members).map(|n| format!("m{n}")).collect();
            Self { health: Health::new(&endpoints, at(0)), voice: Voice::new(members) }
        }

        fn fails(&mut self, member: usize, word: &'static str, now: Instant) -> Option<Line> {
            drop(self.health.note(member, Err(Reason::new(word, word)), now));
            self.voice.fails(member, &self.health.report(), now)
        }

        fn serves(&mut self, member: usize, now: Instant) -> Option<Line> {
            let before = self.health.note(member, Ok(()), now)?;
            self.voice.serves(member, &before, now)
        }
    }

    #[test]
    fn an_outage_is_said_at_once_then_each_minute_and_when_it_ends() {
        let mut scene = Scene::new(1);
        assert_eq!(scene.serves(0, at(1)), None, "that it answers is what is expected");
        assert_eq!(
            scene.fails(0, "refused", at(9)),
            Some(Line::Whole("etcd has been unreachable for 8 s: m0: refused".into()))
        );
        let said = (10..=140).filter(|now| scene.fails(0, "refused", at(*now)).is_some()).collect::<Vec<_>>();
        assert_eq!(said, [69, 129]);
        assert_eq!(scene.serves(0, at(141)), Some(Line::WholeAgain("etcd answers again after 140 s".into())));
        assert_eq!(scene.serves(0, at(142)), None);
    }

    #[test]
    fn one_member_of_several_is_said_by_name() {
        let mut scene = Scene::new(2);
        scene.serves(0, at(1));
        assert_eq!(
            scene.fails(1, "learner", at(2)),
            Some(Line::Member("the etcd member m1 does not serve: learner".into()))
        );
        assert_eq!(scene.fails(1, "refused", at(3)), None, "another reason, too soon");
        assert!(scene.fails(1, "refused", at(12)).is_some());
        assert_eq!(
            scene.serves(1, at(20)),
            Some(Line::MemberAgain("the etcd member m1 serves again after 18 s".into()))
        );
    }

    #[test]
    fn members_that_come_and_go_do_not_fill_the_log() {
        let mut scene = Scene::new(2);
        scene.serves(0, at(0));
        let mut lines = 0;
        for tick in 0..600 {
            let now = Instant::default() + Duration::from_millis(tick * 100);
            lines += usize::from(scene.fails(1, if tick % 3 == 0 { "refused" } else { "silent" }, now).is_some());
            lines += usize::from(scene.serves(1, now).is_some());
        }
        assert!(lines <= 12, "{lines} lines in a minute");
    }
}
