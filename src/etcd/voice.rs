//! What the log says of members: that one ceased to serve, and why, when it happens and once a minute while it lasts; and that
//! it serves again, once that lasts. Requests are many, so that most of what they meet was said already.

use std::time::Duration;

use crate::clock::Instant;
use crate::health::Report;

/// How often it is said again while it lasts.
const AGAIN: Duration = Duration::from_mins(1);
/// How soon something else may be said of the same member: one that comes and goes must not fill the log.
const SOON: Duration = Duration::from_secs(10);
/// An outage is over once it was followed by so long without a failure.
const SETTLED: Duration = Duration::from_secs(3);
/// Where the next one begins within `AGAIN`, so many times as long: what fails every few seconds for ever is one outage.
const UNSETTLED: u32 = 4;

/// What was said of one member, or of all together.
#[derive(Clone, Debug, Default)]
struct Said {
    outage: Option<Outage>,
    /// When a line was written last.
    at: Option<Instant>,
    /// When the last outage was over, and how long that took to settle.
    ended: Option<(Instant, Duration)>,
}

/// From the first failure until no more follow.
#[derive(Clone, Debug)]
struct Outage {
    since: Instant,
    /// The reasons that were said.
    words: Vec<&'static str>,
    /// It serves since then.
    well: Option<Instant>,
    /// It served in between.
    interrupted: bool,
    /// For so long it must serve until it is over.
    settled: Duration,
}

impl Said {
    /// It does not serve; if that is new, `since` then.
    fn fails(&mut self, since: Instant, now: Instant) -> &Outage {
        let ended = self.ended.filter(|(at, _)| now.since(*at) < AGAIN);
        let settled = ended.map_or(SETTLED, |(_, settled)| (settled * UNSETTLED).min(AGAIN));
        let new = || Outage { since, words: Vec::new(), well: None, interrupted: false, settled };
        let outage = self.outage.get_or_insert_with(new);
        outage.interrupted |= outage.well.take().is_some();
        outage
    }

    /// Whether these reasons are to be said now. Then they count as said.
    fn say(&mut self, words: &[&'static str], now: Instant) -> bool {
        let said = self.outage.as_ref().map_or(&[][..], |outage| &outage.words);
        let new = words.iter().any(|word| !said.contains(word));
        let pause = if new { SOON } else { AGAIN };
        let due = self.at.is_none_or(|at| now.since(at) >= pause);
        if due {
            self.told(words, now);
        }
        due
    }

    fn told(&mut self, words: &[&'static str], now: Instant) {
        self.at = Some(now);
        if let Some(Outage { words: said, .. }) = &mut self.outage {
            let new: Vec<_> = words.iter().filter(|word| !said.contains(word)).collect();
            said.extend(new);
        }
    }

    /// It serves. Returns how long the outage was, once that is over, if anything was said of it.
    fn serves(&mut self, now: Instant) -> Option<Duration> {
        let outage = self.outage.as_mut()?;
        let well = *outage.well.get_or_insert(now);
        if now.since(well) < outage.settled {
            return None;
        }
        self.ended = Some((now, outage.settled));
        let outage = self.outage.take()?;
        (!outage.words.is_empty()).then(|| well.since(outage.since))
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

    /// A member serves; it is named by `endpoint`.
    pub(super) fn serves(&mut self, member: usize, endpoint: &str, now: Instant) -> Option<Line> {
        let again = self.members[member].serves(now);
        if let Some(lasted) = self.whole.serves(now) {
            return Some(Line::WholeAgain(format!("etcd answers again after {}", seconds(lasted))));
        }
        again.map(|lasted| {
            Line::MemberAgain(format!("the etcd member {endpoint} serves again after {}", seconds(lasted)))
        })
    }

    /// A member does not serve; `now_is` is how things are.
    pub(super) fn fails(&mut self, member: usize, now_is: &Report, now: Instant) -> Option<Line> {
        let of = &now_is.members[member];
        let reason = of.reason.as_ref()?;
        self.members[member].fails(of.since, now);
        if now_is.reachable != Some(false) {
            let line = || Line::Member(format!("the etcd member {} does not serve: {reason}", of.endpoint));
            return self.members[member].say(&[reason.word], now).then(line);
        }
        // One line for all: in most outages each would say the same.
        let outage = self.whole.fails(now_is.since, now).clone();
        let words: Vec<_> = now_is.members.iter().filter_map(|m| m.reason.as_ref().map(|r| r.word)).collect();
        if !self.whole.say(&words, now) {
            return None;
        }
        for (said, word) in self.members.iter_mut().zip(&words) {
            said.told(&[word], now);
        }
        Some(Line::Whole(format!("{}: {}", unreachable(&outage, now), now_is.reasons())))
    }
}

/// That nobody serves, and since when, unless that is just now.
fn unreachable(outage: &Outage, now: Instant) -> String {
    let lasted = now.since(outage.since);
    if lasted < Duration::from_secs(1) {
        return "etcd is unreachable".to_owned();
    }
    let now_and_then = if outage.interrupted { " now and then" } else { "" };
    format!("etcd has been unreachable{now_and_then} for {}", seconds(lasted))
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
            drop(self.health.note(member, Ok(()), now));
            self.voice.serves(member, &format!("m{member}"), now)
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
        assert_eq!((141..144).find_map(|now| scene.serves(0, at(now))), None, "it may fail again");
        assert_eq!(scene.serves(0, at(144)), Some(Line::WholeAgain("etcd answers again after 140 s".into())));
        assert_eq!(scene.serves(0, at(145)), None);
    }

    #[test]
    fn an_outage_that_begins_just_now_has_no_length() {
        let mut scene = Scene::new(1);
        assert_eq!(scene.fails(0, "refused", at(0)), Some(Line::Whole("etcd is unreachable: m0: refused".into())));
    }

    #[test]
    fn an_etcd_that_fails_and_serves_in_turn_for_ever_is_one_outage() {
        // As behind `etcd grpc-proxy`, and less and more often.
        for every in [2, 5, 11, 45] {
            let mut scene = Scene::new(1);
            let lines = (0..=600).filter_map(|now| match now % every {
                0 => scene.fails(0, "silent", at(now)),
                _ => scene.serves(0, at(now)),
            });
            let lines: Vec<_> = lines.collect();
            let ends = lines.iter().filter(|line| matches!(line, Line::WholeAgain(_))).count();
            assert!(ends <= 3 && lines.len() <= 11 + 2 * ends, "every {every} s: {lines:#?}");
            let Some(Line::Whole(last)) = lines.last() else { panic!("it is not over: {lines:#?}") };
            assert!(last.starts_with("etcd has been unreachable now and then for "), "{last}");
        }
    }

    #[test]
    fn reasons_that_alternate_are_said_when_they_first_come_and_then_once_a_minute() {
        let mut scene = Scene::new(1);
        let word = |now| if now % 2 == 0 { "not_etcd" } else { "closed" };
        let said = (0..=140).filter(|now| scene.fails(0, word(*now), at(*now)).is_some()).collect::<Vec<_>>();
        assert_eq!(said, [0, 11, 71, 131]);
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
        assert_eq!(scene.serves(1, at(20)), None, "it may fail again");
        assert_eq!(
            scene.serves(1, at(23)),
            Some(Line::MemberAgain("the etcd member m1 serves again after 18 s".into()))
        );
    }

    #[test]
    fn etcd_answers_again_with_its_first_member_and_the_others_are_said_by_name() {
        let mut scene = Scene::new(2);
        assert!(matches!(scene.fails(0, "refused", at(0)), Some(Line::Member(_))));
        assert_eq!(
            scene.fails(1, "refused", at(1)),
            Some(Line::Whole("etcd has been unreachable for 1 s: m0: refused; m1: refused".into()))
        );
        assert_eq!(scene.serves(1, at(20)), None);
        assert_eq!(scene.fails(0, "refused", at(21)), None, "it was said within the minute");
        assert_eq!(scene.serves(1, at(24)), Some(Line::WholeAgain("etcd answers again after 20 s".into())));
        let said = scene.fails(0, "refused", at(61));
        assert_eq!(said, Some(Line::Member("the etcd member m0 does not serve: refused".into())));
        assert_eq!(scene.serves(0, at(70)), None);
        assert!(matches!(scene.serves(0, at(73)), Some(Line::MemberAgain(_))));
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
        assert!(lines <= 3, "{lines} lines in a minute");
    }
}
