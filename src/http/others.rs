//! Metrics, version, and the description of this interface.

use hyper::StatusCode;
use hyper::header::ACCEPT;
use warp::reply::Response;

use super::answer::{json, with_type};
use super::app::App;
use super::call::Call;
use crate::clock;
use crate::metrics::Format;

/// Prometheus metrics, in the form that the client asks for.
pub fn metrics(app: &App, call: &Call) -> Response {
    let format = Format::negotiate(call.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()));
    let body = app.service.metrics.render(&app.service.reader, clock::reading(), format);
    with_type(StatusCode::OK, format.content_type(), body)
}

/// Which program this is.
pub fn version(app: &App) -> Response {
    let about = &app.service.about;
    json(StatusCode::OK, &serde_json::json!({ "version": about.version, "revision": about.revision }))
}

/// The description of this interface.
pub fn openapi(document: &str) -> Response {
    with_type(StatusCode::OK, "application/json", document.to_owned())
}
