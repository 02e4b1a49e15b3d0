//! The fencing token with its promise, and the question whether a token is current.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Problem, json as document, set};
use super::app::App;
use super::call::Call;
use super::code::Code;
use super::document::{leader, millis};
use super::gate::FENCING_TOKEN;
use super::moment::Moment;
use super::status;
use crate::control::Current;
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::role::{Reason, Role};
use crate::metrics::Door;
use crate::snapshot::Token;

/// The token, if we lead, or as soon as we do. The promise is in the ledger before the answer leaves.
///
/// After a wait the promise still counts from when the request was sent, and is over: the client asks again for one that lasts.
pub async fn token(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let moment = match status::waits(call)? {
        Some(until) => {
            status::poll(app, call, until, |now| now.leading(e).is_some()).await.unwrap_or_else(|| app.moment())
        }
        None => moment,
    };
    let may = !moment.stalled && !moment.snapshot.draining;
    let given = may.then(|| app.service.reader.token(e, moment.at)).flatten();
    match given.map(|token| (token, millis(token.valid_for))) {
        Some((token, valid_for @ 1..)) => Ok(granted(&moment, e, token, valid_for, app)),
        // Less than a millisecond is left: nothing that a caller could use.
        Some(_) | None => Err(refused(&moment, e)),
    }
}

fn granted(moment: &Moment, e: ElectionIndex, token: Token, valid_for: u64, app: &App) -> warp::reply::Response {
    // The ledger's snapshot may be newer than ours by one election; the term must be that generation's.
    let newer = app.service.reader.load();
    let term = [moment.view(e), &newer.elections[e.0]]
        .into_iter()
        .find(|view| view.observed == token.generation)
        .map_or(0, |view| view.term);
    let mut response = document(
        StatusCode::OK,
        &json!({
            "election": moment.view(e).name.as_str(),
            "token": token.generation.0,
            "term": term,
            "holder": moment.snapshot.id,
            "valid_for_ms": valid_for,
            "guard_ms": millis(token.guard),
        }),
    );
    set(&mut response, FENCING_TOKEN, &token.generation.to_string());
    set(&mut response, "fencing-valid-for-ms", &valid_for.to_string());
    response
}

fn refused(moment: &Moment, e: ElectionIndex) -> Problem {
    let unavailable = |code, detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).soon();
    if moment.withdrawing(e) {
        return unavailable(Code::Draining, "this daemon is draining and gives no promise");
    }
    let known = moment.leader(e);
    if known.is_none() && lapsed(moment, e) {
        return unavailable(Code::GuardExpired, "leadership lapsed, and nothing newer is known")
            .with("leader", leader(None));
    }
    unavailable(Code::NotLeader, "this daemon does not lead").with("leader", leader(known.as_ref()))
}

/// Whether we led last, and lost it without handing over.
fn lapsed(moment: &Moment, e: ElectionIndex) -> bool {
    let view = moment.view(e);
    let lost =
        matches!(view.reason, Reason::GuardExpired | Reason::ClockJumped | Reason::LeaseLost | Reason::KeyDeleted);
    view.role == Role::Leader || (view.role == Role::Follower && lost)
}

/// The body of `verify`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[serde(deserialize_with = "super::call::whole")]
    token: u64,
}

/// What a token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Current,
    Stale,
    NotIssued,
}

/// Asks etcd whether a token is the newest and held.
pub async fn verify(app: &App, call: &mut Call) -> Answer {
    let e = call.election(&app.moment().snapshot)?;
    let claim: Claim = call.object().await?.ok_or_else(|| Problem::malformed("the body must be {\"token\": n}"))?;
    let current = call.question(app.service.control.inquire(e)).await?;
    let verdict = judge(Generation(claim.token), &current);
    let holder = current.leader.as_ref().map(|l| l.id.as_str());
    let newest = json!({"token": current.generation.0, "holder": holder});
    let refusal = |code, detail| {
        app.service.metrics.fenced(e, Door::Verify);
        Err(Problem::new(StatusCode::CONFLICT, code, detail).with("verdict", code.as_str()).with("current", &newest))
    };
    match verdict {
        Verdict::Current => Ok(document(
            StatusCode::OK,
            &json!({
                "verdict": "current",
                "election": app.service.reader.load().elections[e.0].name.as_str(),
                "token": claim.token,
                "holder": holder,
                "current": newest,
            }),
        )),
        Verdict::Stale => refusal(Code::Stale, "the token is not the one that leads now"),
        Verdict::NotIssued => refusal(Code::NotIssued, "no such token was issued"),
    }
}

/// A generation that nobody of ours leads with (a vacancy, a raised floor, a foreign leader) admits no token.
fn judge(token: Generation, current: &Current) -> Verdict {
    let held = current.leader.as_ref().is_some_and(|l| l.generation == token) && !current.foreign;
    if token > current.generation || token == Generation(0) {
        Verdict::NotIssued
    } else if token == current.generation && held {
        Verdict::Current
    } else {
        Verdict::Stale
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Current as Yes, NotIssued, Stale};
    use super::*;
    use crate::clock::Wall;
    use crate::snapshot::LeaderView;

    #[test]
    fn only_the_newest_token_that_one_of_ours_leads_with_is_current() {
        let ours = LeaderView {
            id: "pod-0".to_owned(),
            url: String::new(),
            generation: Generation(42),
            elected_at: Wall::default(),
        };
        let held = Current { generation: Generation(42), leader: Some(ours), foreign: false };
        let verdicts = [0, 1, 41, 42, 43, u64::MAX].map(|t| judge(Generation(t), &held));
        assert_eq!(verdicts, [NotIssued, Stale, Stale, Yes, NotIssued, NotIssued]);
        let vacant = Current { leader: None, ..held.clone() };
        assert_eq!(judge(Generation(42), &vacant), Stale);
        let raised = Current { generation: Generation(50), ..held };
        assert_eq!(judge(Generation(50), &raised), Stale, "nobody was given the floor");
    }
}
