//! `/`: the first election's document for programs, a plain page for people.

use std::fmt::Write as _;

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderValue};

use super::answer::{Answer, json, with_type};
use super::app::App;
use super::call::Call;
use super::document;
use super::moment::Moment;
use crate::election::ids::ElectionIndex;

/// The document, unless the client would rather have a page.
pub fn page(app: &App, call: &Call) -> Answer {
    let moment = app.moment();
    let e = call.election(&moment.snapshot)?;
    let accepts = call.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    if !prefers_html(accepts) {
        return Ok(json(StatusCode::OK, &document::status(app, &moment, e)));
    }
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", html(&moment));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// Browsers name `text/html` first; whoever names JSON as well and before it gets JSON.
fn prefers_html<'a>(accepts: impl Iterator<Item = &'a str>) -> bool {
    let wanted = accepts.flat_map(|v| v.split(',')).map(|v| v.split(';').next().unwrap_or_default().trim());
    wanted.into_iter().find_map(|media| match media {
        "text/html" | "application/xhtml+xml" => Some(true),
        "application/json" => Some(false),
        _ => None,
    }) == Some(true)
}

fn html(moment: &Moment) -> String {
    let mut rows = String::new();
    for index in 0..moment.snapshot.elections.len() {
        let e = ElectionIndex(index);
        let view = moment.view(e);
        let leader = moment.leader(e);
        let who = match &leader {
            Some(leader) => leader.id.as_str(),
            None if view.foreign => "(a client that is not Tenure)",
            None => "(nobody)",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(view.name.as_str()),
            moment.role(e).as_str(),
            escape(who),
            view.observed,
            moment.reason(e).as_str(),
        );
    }
    let id = escape(&moment.snapshot.id);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tenure: {id}</title></head>\n<body>\
         <h1>Tenure: {id}</h1>\n<table>\n<tr><th>Election</th><th>Role here</th><th>Leader</th><th>Generation</th>\
         <th>Reason</th></tr>\n{rows}</table>\n</body></html>\n"
    )
}

/// Ids come from etcd, where others may write too.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_the_page_and_programs_the_document() {
        let html = |accept: &str| prefers_html([accept].into_iter());
        assert!(html("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!html("*/*") && !html("application/json, text/html") && !prefers_html(std::iter::empty()));
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}
