//! Probes: for kubelets, load balancers and people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use hyper::StatusCode;

use super::answer::{Answer, Problem, json, text};
use super::app::App;
use super::call::Call;
use super::code::Code;
use super::document;
use super::moment::Moment;
use crate::election::ids::ElectionIndex;

/// One check of a probe: its name, and what is wrong.
type Check = (&'static str, Option<Cow<'static, str>>);

fn check(name: &'static str, well: bool, wrong: &'static str) -> Check {
    (name, (!well).then_some(wrong.into()))
}

fn turns(moment: &Moment) -> Check {
    check("loop", !moment.stalled, "the daemon's own loop stands still")
}

/// The loop turned within the limit. Never depends on etcd: an outage of it must not restart every pod.
pub fn livez(app: &App, call: &Call) -> Answer {
    verdict(call, "livez", Code::NotLive, &[turns(&app.moment())])
}

/// Has been in the queue of each election, may do in etcd all that leading needs, and does not drain. Never means leadership: a service would lose all its standbys.
pub fn readyz(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let about = &app.service.about;
    let ttl = moment.snapshot.session.map_or(about.ttl, |session| session.ttl);
    let contact = moment.contact_age();
    let resigning = moment.snapshot.elections.iter().any(|e| e.leaving);
    let mut checks = vec![
        turns(&moment),
        check("started", contact.is_some(), "etcd was not reached yet"),
        // Of a wrong role or a full etcd, too, a rolling update must not take the pods that still lead.
        check("joined", moment.snapshot.joined, "etcd has not let it into each queue yet"),
        ("rights", app.service.rights.wanting().map(Cow::Owned)),
        check("not-draining", !moment.snapshot.draining && !resigning, "draining"),
    ];
    if about.strict_ready {
        checks.push(check("etcd", contact.is_some_and(|age| age <= ttl), "no answer of etcd within the ttl"));
    }
    verdict(call, "readyz", Code::NotReady, &checks)
}

/// The loop has turned at all. A native sidecar's start-up probe holds the application back, so etcd is left out unless
/// the configuration says otherwise.
pub fn startupz(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let control = &app.service.control;
    let before = app.started.load(Ordering::Relaxed);
    // A loop that never turned is as old as the clock.
    let turned = u128::from(moment.at.now.as_nanos()) > control.loop_age(moment.at.now).as_nanos();
    let mut checks = vec![check("loop", before || turned, "the daemon's own loop does not run yet")];
    if app.service.about.startup_wait_for_etcd {
        checks.push(check("session", before || moment.session().is_some(), "no session yet"));
    }
    let started = checks.iter().all(|(_, wrong)| wrong.is_none());
    app.started.fetch_or(started, Ordering::Relaxed);
    verdict(call, "startupz", Code::NotStarted, &checks)
}

/// This daemon leads at this instant.
pub fn leader(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    Ok(with_status(app, &moment, e, moment.leading(e).is_some()))
}

/// It does not, and knows who does.
pub fn follower(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let follows = !moment.stalled && moment.leading(e).is_none() && moment.leader(e).is_some();
    Ok(with_status(app, &moment, e, follows))
}

/// It has a live session.
pub fn health(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let well = !moment.stalled && moment.session().is_some();
    Ok(with_status(app, &moment, e, well))
}

fn with_status(app: &App, moment: &Moment, e: ElectionIndex, well: bool) -> warp::reply::Response {
    json(code(well), &document::status(app, moment, e))
}

const fn code(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// `ok`, a problem, or with `?verbose` the list of checks in the form that Kubernetes knows.
fn verdict(call: &Call, probe: &str, problem: Code, checks: &[Check]) -> Answer {
    let failed: Vec<_> = checks.iter().filter(|(_, wrong)| wrong.is_some()).collect();
    if call.query.switch("verbose").map_err(Problem::malformed)? {
        return Ok(text(code(failed.is_empty()), listed(probe, checks)));
    }
    if failed.is_empty() {
        return Ok(text(StatusCode::OK, "ok"));
    }
    let why: Vec<_> = failed.iter().filter_map(|(_, wrong)| wrong.as_deref()).collect();
    let names: Vec<_> = failed.iter().map(|(name, _)| name).collect();
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem, why.join("; ")).with("failed", names))
}

fn listed(probe: &str, checks: &[Check]) -> String {
    let mut list = String::new();
    for (name, wrong) in checks {
        // Writing to a string does not fail.
        let _ = match wrong {
            None => writeln!(list, "[+]{name} ok"),
            Some(why) => writeln!(list, "[-]{name} failed: {why}"),
        };
    }
    let passed = checks.iter().all(|(_, wrong)| wrong.is_none());
    let _ = writeln!(list, "{probe} check {}", if passed { "passed" } else { "failed" });
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_checks_has_the_form_that_kubernetes_knows() {
        let checks = [check("loop", true, ""), check("started", false, "not yet")];
        assert_eq!(listed("readyz", &checks), "[+]loop ok\n[-]started failed: not yet\nreadyz check failed\n");
        assert_eq!(listed("livez", &checks[..1]), "[+]loop ok\nlivez check passed\n");
    }
}
