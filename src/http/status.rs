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
use crate::clock::Hlc;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::Role;

/// The longest that a long poll waits; more is taken for this.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// All elections.
pub fn elections(app: &App) -> Response {
    let moment = app.moment();
    let all: Vec<_> =
        (0..moment.snapshot.elections.len()).map(|e| document::status(app, &moment, ElectionIndex(e))).collect();
    json(StatusCode::OK, &serde_json::json!({ "elections": all }))
}

/// One election, at once or as soon as something changed.
pub async fn status(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let version = call.query.number("version").map_err(Problem::malformed)?;
    let after = call.query.number("after").map_err(Problem::malformed)?.map(Generation);
    let moment = match waits(call)? {
        None => moment,
        Some(until) => {
            let begun = Begun::at(&moment, e);
            let after = after.unwrap_or(moment.view(e).observed);
            let news = |moment: &Moment| match version {
                Some(known) => app.versions.of(moment, e) != known,
                None => moment.view(e).observed > after || Begun::at(moment, e) != begun,
            };
            match poll(app, call, until, news).await {
                Some(moment) => moment,
                None => return Ok(empty(StatusCode::NOT_MODIFIED)),
            }
        }
    };
    Ok(json(StatusCode::OK, &document::status(app, &moment, e)))
}

/// What a change of role changes, there and back again too: each has its own time.
#[derive(PartialEq)]
struct Begun(Role, Hlc);

impl Begun {
    fn at(moment: &Moment, e: ElectionIndex) -> Self {
        Self(moment.role(e), moment.view(e).hlc)
    }
}

/// Until when the client wants to wait, if it does.
pub fn waits(call: &Call) -> Result<Option<Instant>, Problem> {
    let wait = call.query.duration("wait").map_err(Problem::malformed)?;
    Ok(wait.map(|wait| Instant::now() + wait.min(LONGEST_WAIT)))
}

/// Waits for a moment with news; `None` when there was none in time, or somebody else needs the connection.
pub async fn poll(app: &App, call: &Call, until: Instant, news: impl Fn(&Moment) -> bool) -> Option<Moment> {
    call.doing(Doing::Polling);
    let mut reader = app.service.reader.clone();
    let found = loop {
        // Looked at before the snapshot is: a change in between ends the wait at once.
        let changed = reader.changed();
        let moment = app.moment();
        if news(&moment) {
            break Some(moment);
        }
        // What changes by the clock alone is published by nobody.
        let look = Instant::now() + moment.stands() + Duration::from_millis(1);
        tokio::select! {
            () = changed => {}
            () = sleep_until(look.min(until)) => {
                if look >= until {
                    break None;
                }
            }
            () = call.hurried() => break None,
        }
    };
    call.doing(Doing::Serving);
    found
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
