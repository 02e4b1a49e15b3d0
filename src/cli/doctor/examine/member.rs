//! One endpoint by itself.

use super::super::{Failed, Member};
use super::{Level, Remark, Remarks};
use crate::config::Config;
use crate::etcd::Kind;
use crate::tls::date;

/// What a member without a leader answers to everything, since we ask only members that have one (`hasleader`).
const NO_LEADER: &str = "etcdserver: no leader";
/// How a reason begins that is a closed connection, and one that is silence.
const CLOSED: &str = "it closed the connection: ";
const SILENT: &str = "no answer";

/// What is said of an endpoint, `of` so many. `refused`: that we are not let in has been said.
#[must_use]
pub fn member(member: &Member, of: usize, refused: bool) -> Vec<Remark> {
    let mut remarks = Remarks::default();
    let Member { endpoint, greeting, status, read, .. } = member;
    // A minority may fail: every request goes to the next member. Of a majority `quorum` speaks.
    let level = if of == 1 { Level::Bad } else { Level::Warn };
    match (greeting, status, read) {
        (Err(why), ..) => remarks.say(level, format!("{endpoint} does not answer: {}", why.text)),
        (_, Ok(status), _) if status.learner => remarks.say(level, learner(endpoint)),
        (_, _, Err(why)) if why.kind == Kind::WrongMember => remarks.say(level, learner(endpoint)),
        _ if refused && !member.serves() => remarks.say(Level::Good, answers(member)),
        _ if member.serves() => remarks.say(Level::Good, answers(member)),
        (_, status, Err(why))
            if status.as_ref().map_or_else(|_| why.text.contains(NO_LEADER), |status| !status.led) =>
        {
            let why = "it knows no leader: etcd has no quorum, or this member is cut off from it";
            remarks.say(level, format!("{endpoint} serves nothing: {why}"));
        }
        (_, Ok(_), Err(why)) => remarks.say(level, silent_below(endpoint, why)),
        (_, Err(_), Err(why)) if member.memory.is_ok() => remarks.say(level, silent_below(endpoint, why)),
        (_, Err(_), Err(why)) => remarks.say(level, format!("{endpoint} {}", nothing(why))),
        // Serving was dealt with.
        (_, _, Ok(_)) => {}
    }
    for error in status.iter().flat_map(|s| &s.errors) {
        remarks.say(Level::Bad, format!("{endpoint} complains: {error}"));
    }
    certificates(member, &mut remarks);
    remarks.0
}

/// That we are not let in, which comes first: nothing else can be found out.
#[must_use]
pub fn not_let_in(failed: &Failed, config: &Config) -> Remark {
    let text = match &config.etcd.username {
        Some(user) => format!("etcd does not let `{user}` in: {}; etcd.username, etcd.password_file", failed.text),
        None => "etcd asks for a user, and none is configured: etcd.username and etcd.password_file".to_owned(),
    };
    Remark { level: Level::Bad, text }
}

fn learner(endpoint: &str) -> String {
    format!(
        "{endpoint} is a learner: it copies etcd's data and serves nothing; `etcdctl member promote`, or leave it out of etcd.endpoints"
    )
}

/// Of one of which nothing was had, not even from its memory.
fn nothing(why: &Failed) -> String {
    match why.text.strip_prefix(CLOSED) {
        Some(reason) => format!("closes the connection: {reason}"),
        None if why.text.starts_with(SILENT) => {
            format!("accepts connections and answers nothing: its process hangs, or it is no etcd ({})", why.text)
        }
        None => format!("serves nothing: {}", why.text),
    }
}

fn silent_below(endpoint: &str, why: &Failed) -> String {
    format!(
        "{endpoint} answers from memory, and takes no part: its disk hangs or is very slow, or it is cut off from the other members ({})",
        why.text
    )
}

fn answers(member: &Member) -> String {
    let version = member.version().map(|v| format!(", etcd {v}")).unwrap_or_default();
    let leads = if member.status.as_ref().is_ok_and(|status| status.leader) { ", leads etcd" } else { "" };
    format!("{} answers{version}{leads}", member.endpoint)
}

fn certificates(member: &Member, remarks: &mut Remarks) {
    let now = crate::clock::wall().since_1970();
    for facts in member.greeting.iter().flatten() {
        if facts.not_after < now + super::super::SOON {
            let (endpoint, subject, until) = (&member.endpoint, &facts.subject, date(facts.not_after));
            remarks.say(Level::Warn, format!("a certificate that {endpoint} shows ({subject}) expires at {until}"));
        }
    }
}
