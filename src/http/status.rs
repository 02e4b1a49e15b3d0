//! Who leads: status documents, the long poll, the leader object.
#![allow(
    clippy::disallowed_types,
    reason = "the clock of tokio's own timers, which bound a request and decide nothing else"
)]

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::{Instant, sleep_until};
use warp::reply::Response;

use super::answer::{Answer, Problem, empty, json};
use super::app::App;
use super::call::Call;
use super::code::Code;
use super::document;
use super::moment::Moment;
use super::seats::Doing;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::Role;

/// The longest that a long poll waits; more is taken for this.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// All elections.
pub fn elections(app: &App) -> Response {
    let moment = app.moment();
    let all: Vec<_> = (0..moment.snapshot.elections.len())
        .map(|e| document::status(&moment, &app.service.reader, ElectionIndex(e)))
        .collect();
    json(StatusCode::OK, &serde_json::json!({ "elections": all }))
}

/// One election, at once or as soon as something changed.
pub async fn status(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let wait = call.query.duration("wait").map_err(Problem::malformed)?;
    let after = call.query.number("after").map_err(Problem::malformed)?.map(Generation);
    let moment = match wait {
        None => moment,
        Some(wait) => {
            let known = (after.unwrap_or(moment.view(e).observed), moment.role(e));
            call.doing(Doing::Polling);
            let changed = change(app, call, e, known, Instant::now() + wait.min(LONGEST_WAIT)).await;
            call.doing(Doing::Serving);
            match changed {
                Some(moment) => moment,
                None => return Ok(empty(StatusCode::NOT_MODIFIED)),
            }
        }
    };
    Ok(json(StatusCode::OK, &document::status(&moment, &app.service.reader, e)))
}

/// Waits until the generation passes the known one or the role is another; `None` when neither happened in time.
async fn change(app: &App, call: &Call, e: ElectionIndex, known: (Generation, Role), until: Instant) -> Option<Moment> {
    let mut reader = app.service.reader.clone();
    loop {
        // Looked at before the snapshot is: a change in between ends the wait at once.
        let changed = reader.changed();
        let moment = app.moment();
        if moment.view(e).observed > known.0 || moment.role(e) != known.1 {
            return Some(moment);
        }
        // A guard that passes changes the role without anyone publishing it.
        let guard = moment.leading(e).map_or(LONGEST_WAIT, |(_, guard)| guard.remaining(moment.at.now));
        let look = Instant::now() + guard + Duration::from_millis(1);
        tokio::select! {
            () = changed => {}
            () = sleep_until(look.min(until)) => {
                if look >= until {
                    return None;
                }
            }
            () = hurried(call) => return None,
        }
    }
}

async fn hurried(call: &Call) {
    match &call.seat {
        Some(seat) => seat.asked_to_hurry().await,
        None => std::future::pending().await,
    }
}

/// The leader object, as far as etcd told, or by asking it now.
pub async fn leader(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let leader = if call.query.switch("linearizable").map_err(Problem::malformed)? {
        call.question(app.service.control.inquire(e)).await?.leader
    } else {
        moment.leader(e)
    };
    match document::leader(leader.as_ref()) {
        Some(leader) => Ok(json(StatusCode::OK, &leader)),
        None => Err(Problem::new(StatusCode::NOT_FOUND, Code::NoLeader, "no leader is known").soon()),
    }
}
