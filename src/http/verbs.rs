//! Verbs: what changes something. Each answers after etcd has committed, or says that it cannot know.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json as value;

use super::answer::{Answer, Problem, json};
use super::app::App;
use super::call::Call;
use super::document::leader;
use crate::control::ControlError;

/// The longest cooldown: a day. Whoever is to stay out for longer is better stopped.
const LONGEST_COOLDOWN: Duration = Duration::from_hours(24);

/// The body of `resign`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resign {
    #[serde(default, deserialize_with = "super::call::whole")]
    cooldown_ms: u64,
}

/// The body of verbs that say nothing more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Steps down, hands over, and queues again after the cooldown.
pub async fn resign(app: &App, call: &mut Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    let Resign { cooldown_ms } = call.object().await?.unwrap_or_default();
    let cooldown = Duration::from_millis(cooldown_ms);
    if cooldown > LONGEST_COOLDOWN {
        return Err(Problem::malformed("`cooldown_ms` is a day (86400000) at the most"));
    }
    // A hand-over waits for promises by design, so that wait comes on top of the request's own limit.
    let promised = app.service.reader.promised(e, crate::clock::now());
    let asked = app.service.control.resign(e, cooldown);
    // The time limit's verdict ends it here; the driver's own is looked at below.
    let answer = Call::verb(call.deadline + promised, async { Ok(asked.await) }).await?;
    let name = app.service.reader.load().elections[e.0].name.to_string();
    match answer {
        Ok(successor) => Ok(json(StatusCode::OK, &value!({ "election": name, "leader": leader(successor.as_ref()) }))),
        Err(ControlError::NotLeader) => {
            Err(Problem::from(ControlError::NotLeader).with("leader", leader(app.moment().leader(e).as_ref())))
        }
        Err(other) => Err(other.into()),
    }
}

/// Not leader from this instant, in every election; the session is kept.
pub async fn drain(app: &App, call: &mut Call) -> Answer {
    call.object::<Nothing>().await?;
    Call::verb(call.deadline, app.service.control.drain()).await?;
    Ok(json(StatusCode::ACCEPTED, &value!({ "draining": true })))
}

/// The application has stopped acting: hand over now.
pub async fn drained(app: &App, call: &mut Call) -> Answer {
    let e = call.election(&app.service.reader.load())?;
    call.object::<Nothing>().await?;
    Call::verb(call.deadline, app.service.control.drained(e)).await?;
    let name = app.service.reader.load().elections[e.0].name.to_string();
    Ok(json(StatusCode::ACCEPTED, &value!({ "election": name, "drained": true })))
}
