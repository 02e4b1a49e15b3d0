//! The gate, for proxies, and the redirect to the leader. Both read memory only, and never the body.

use hyper::header::{HeaderValue, LOCATION};
use hyper::{HeaderMap, StatusCode, Uri};

use super::answer::{Answer, Problem, json, set};
use super::app::App;
use super::call::Call;
use super::code::Code;
use super::document;
use super::routes::Endpoint;
use crate::election::ids::{ElectionIndex, Generation};
use crate::metrics::{Door, GateAnswer};
use crate::snapshot::LeaderView;

/// The token that a request carries, or an answer grants.
pub const FENCING_TOKEN: &str = "fencing-token";

/// What a request's own badge is worth.
#[derive(Debug, PartialEq, Eq)]
enum Badge {
    /// It carries none, or none that is out of date.
    Fine,
    /// Below the newest generation.
    Stale,
    /// No number.
    Malformed,
}

/// Exactly 200 while leader, else exactly 403.
pub fn gate(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    // Proxies append their client's own path and query after the prefix: there, `?election=` is that client's, and must
    // not choose. `/gate/` is such a prefix, too: that client asked for `/`.
    let e = if call.election.is_some() || (call.tail.is_empty() && !call.slash) {
        call.election(&moment.snapshot)?
    } else {
        ElectionIndex(0)
    };
    let metrics = &app.service.metrics;
    let newest = moment.view(e).observed;
    let leader = moment.leader(e);
    let refuse = |answer, code, detail| {
        metrics.gate(e, answer);
        Err(refusal(code, detail, newest, leader.as_ref()))
    };
    match badge(&call.headers, newest) {
        Badge::Fine => {}
        Badge::Stale => {
            metrics.fenced(e, Door::Gate);
            return refuse(
                GateAnswer::Stale,
                Code::Stale,
                "the request's fencing token is older than the newest generation",
            );
        }
        Badge::Malformed => {
            return refuse(GateAnswer::Malformed, Code::Malformed, "the request's Fencing-Token is no number");
        }
    }
    let Some((generation, _)) = moment.leading(e) else {
        return refuse(GateAnswer::NotLeader, Code::NotLeader, "this daemon does not lead");
    };
    metrics.gate(e, GateAnswer::Allowed);
    let holder = moment.snapshot.id.as_str();
    let body = serde_json::json!({"election": moment.view(e).name.as_str(), "token": generation.0, "holder": holder});
    let mut response = json(StatusCode::OK, &body);
    set(&mut response, FENCING_TOKEN, &generation.to_string());
    set(&mut response, "fencing-holder", holder);
    Ok(response)
}

fn badge(headers: &HeaderMap, newest: Generation) -> Badge {
    let number = |value: &HeaderValue| {
        let text = value.to_str().ok()?.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let mut badge = Badge::Fine;
    for value in headers.get_all(FENCING_TOKEN) {
        match number(value) {
            None => return Badge::Malformed,
            Some(token) if Generation(token) < newest => badge = Badge::Stale,
            Some(_) => {}
        }
    }
    badge
}

fn refusal(code: Code, detail: &str, newest: Generation, leader: Option<&LeaderView>) -> Problem {
    let problem = Problem::new(StatusCode::FORBIDDEN, code, detail)
        .with("generation", newest.0)
        .with("leader", document::leader(leader));
    let Some(leader) = leader else { return problem };
    let header = |problem: Problem, name, value: &str| match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) => problem.header(hyper::header::HeaderName::from_static(name), value),
        // From etcd, where others may write too: what no header can hold is left out.
        Err(_) => problem,
    };
    header(header(problem, "fencing-leader", &leader.id), "fencing-leader-url", &leader.url)
}

/// 307 to the leader's url, with path and query kept.
pub fn redirect(app: &App, call: &Call) -> Answer {
    debug_assert!(call.route.is_some_and(|r| r.endpoint == Endpoint::Redirect), "the path names the election");
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    if moment.leading(e).is_some() {
        return Ok(json(StatusCode::OK, &serde_json::json!({"here": true})));
    }
    let nobody = |why| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::NoLeader, why).soon());
    let Some(leader) = moment.leader(e) else { return nobody("no leader is known") };
    if !leader.url.is_empty() && leader.url == app.service.about.url {
        return nobody(
            "the leader announces this very url: a former run of this daemon, or another one with its address",
        );
    }
    let Some(location) = location(&leader.url, &call.tail, call.query.raw()) else {
        return nobody("the leader has announced no url to go to");
    };
    let mut response =
        json(StatusCode::TEMPORARY_REDIRECT, &serde_json::json!({"leader": document::leader(Some(&leader))}));
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Where to send the client. The url comes from etcd, where others may write too: only plain `http(s)://host/…` will do.
/// What follows it cannot lead to another host, since the url's own host ends before it.
fn location(url: &str, tail: &str, query: &str) -> Option<HeaderValue> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && uri.query().is_none()
        && url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>'));
    let mark = if query.is_empty() { "" } else { "?" };
    // A fragment is not part of a `Uri`, so the url is put together from what was parsed.
    let base = format!("{}://{authority}{}", uri.scheme_str()?, uri.path().trim_end_matches('/'));
    plain.then(|| HeaderValue::from_str(&format!("{base}/{tail}{mark}{query}")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_badge_of_a_request_is_checked() {
        let judge = |values: &[&str]| {
            let name = hyper::header::HeaderName::from_static(FENCING_TOKEN);
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, value.parse().expect("a header value"));
            }
            badge(&headers, Generation(42))
        };
        assert_eq!(judge(&[]), Badge::Fine);
        assert_eq!(judge(&["42"]), Badge::Fine);
        assert_eq!(judge(&["41"]), Badge::Stale);
        assert_eq!(judge(&["42", "41"]), Badge::Stale);
        for wrong in ["", "x", "-1", "+42", "4 2", "42.0", "99999999999999999999"] {
            assert_eq!(judge(&[wrong]), Badge::Malformed, "{wrong}");
        }
    }

    #[test]
    fn a_redirect_stays_on_the_leaders_host() {
        let to = |url, tail, query| location(url, tail, query).map(|v| v.to_str().expect("ascii").to_owned());
        assert_eq!(to("http://10.0.0.5:4790", "a/b", "x=1").as_deref(), Some("http://10.0.0.5:4790/a/b?x=1"));
        assert_eq!(to("https://h/app/", "", "").as_deref(), Some("https://h/app/"));
        assert_eq!(to("http://h", "/evil.example", "").as_deref(), Some("http://h//evil.example"));
        assert_eq!(to("http://h/#frag", "x", "").as_deref(), Some("http://h/x"));
        for bad in
            ["", "h", "/x", "javascript:alert(1)", "ftp://h/", "http://u:p@h/", "http://h/?q=", "http://h\r\nX: y"]
        {
            assert_eq!(to(bad, "x", ""), None, "{bad}");
        }
    }
}
