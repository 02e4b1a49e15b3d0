//! Verbs: what changes something. Each answers after etcd has committed, or says that it cannot know.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json as value;

use super::answer::{Answer, Problem, json};
use super::app::App;
use super::call::Call;
use super::code::Code;
use super::document::leader;
use crate::clock::Wall;
use crate::control::{ControlError, Resignation};
use crate::election::ids::{ElectionIndex, Generation};

/// The longest cooldown: a day. Whoever is to stay out for longer is better stopped.
const LONGEST_COOLDOWN: Duration = Duration::from_hours(24);
/// The longest that a drain may hold what was led: whoever needs longer says so again.
const LONGEST_DRAIN: Duration = Duration::from_hours(24);

/// The body of `resign`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resign {
    #[serde(default, deserialize_with = "super::call::whole")]
    cooldown_ms: u64,
    #[serde(default, deserialize_with = "super::call::maybe_whole")]
    token: Option<u64>,
}

/// The body of `drain`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    #[serde(default)]
    hand_over: bool,
    #[serde(default, deserialize_with = "super::call::maybe_whole")]
    timeout_ms: Option<u64>,
}

/// The body of `drained`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drained {
    #[serde(default, deserialize_with = "super::call::maybe_whole")]
    token: Option<u64>,
}

/// The body of verbs that say nothing more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Steps down, hands over, and queues again after the cooldown.
pub async fn resign(app: &App, call: &mut Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    let Resign { cooldown_ms, token } = call.object().await?.unwrap_or_default();
    let cooldown = Duration::from_millis(cooldown_ms);
    if cooldown > LONGEST_COOLDOWN {
        return Err(Problem::malformed("`cooldown_ms` is a day (86400000) at the most"));
    }
    // A hand-over waits for promises by design, so that wait comes on top of the request's own limit.
    let promised = app.service.reader.promised(e, crate::clock::now());
    let asked = app.service.control.resign(e, Resignation { cooldown, token: token.map(Generation) });
    // The time limit's verdict ends it here; the driver's own is looked at below.
    let answer = Call::verb(call.deadline + promised, async { Ok(asked.await) }).await?;
    let name = app.service.reader.load().elections[e.0].name.to_string();
    match answer {
        Ok(successor) => Ok(json(StatusCode::OK, &value!({ "election": name, "leader": leader(successor.as_ref()) }))),
        Err(refused) => Err(refusal(app, e, refused)),
    }
}

/// A refused verb, with who leads where that is the reason.
fn refusal(app: &App, e: ElectionIndex, error: ControlError) -> Problem {
    let names_leader = matches!(error, ControlError::NotLeader | ControlError::Stale);
    let problem = Problem::from(error);
    if names_leader { problem.with("leader", leader(app.moment().leader(e).as_ref())) } else { problem }
}

/// Not leader from this instant, in every election; the session is kept.
pub async fn drain(app: &App, call: &mut Call) -> Answer {
    let Drain { hand_over, timeout_ms } = call.object().await?.unwrap_or_default();
    let timeout = timeout_ms.map(Duration::from_millis);
    if timeout.is_some_and(|timeout| timeout > LONGEST_DRAIN) {
        return Err(Problem::malformed("`timeout_ms` is a day (86400000) at the most"));
    }
    let longest = if hand_over { Some(Duration::ZERO) } else { timeout };
    let asked = app.service.control.drain(longest);
    let drain = Call::verb(call.deadline, asked).await?;
    let elections = &app.service.reader.load().elections;
    let held: Vec<_> = drain.held.iter().map(|e| elections[e.0].name.as_str()).collect();
    let at = drain.hands_over_at.map(Wall::rfc3339);
    Ok(json(StatusCode::ACCEPTED, &value!({ "draining": true, "held": held, "hands_over_at": at })))
}

/// Takes part again; what a drain still held is handed over first.
pub async fn undrain(app: &App, call: &mut Call) -> Answer {
    call.object::<Nothing>().await?;
    Call::verb(call.deadline, app.service.control.undrain()).await?;
    Ok(json(StatusCode::OK, &value!({ "draining": false })))
}

/// The application has stopped acting: hand over now.
pub async fn drained(app: &App, call: &mut Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    let Drained { token } = call.object().await?.unwrap_or_default();
    let asked = app.service.control.drained(e, token.map(Generation));
    let answer = Call::verb(call.deadline, async { Ok(asked.await) }).await?;
    answer.map_err(|refused| match refused {
        ControlError::NotLeader => {
            let what = "there is nothing to hand over: this daemon does not lead";
            Problem::new(StatusCode::CONFLICT, Code::NotLeader, what)
        }
        refused => refusal(app, e, refused),
    })?;
    let name = app.service.reader.load().elections[e.0].name.to_string();
    Ok(json(StatusCode::ACCEPTED, &value!({ "election": name, "drained": true })))
}
