//! Answers: JSON documents, plain text, and problems (RFC 9457).

use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::code::Code;
use crate::control::ControlError;

/// What a handler gives back.
pub type Answer = Result<Response, Problem>;

/// An error as clients see it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// An error with its stable code, and words for people.
    pub fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), extra: Map::new(), headers: Vec::new() }
    }

    /// Adds a member to the document.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.extra.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The client's request makes no sense.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Malformed, detail)
    }

    /// Nothing is served at this path of this listener; `elsewhere` is for what the control listener serves.
    pub fn not_found(elsewhere: bool) -> Self {
        let what = if elsewhere {
            "this is the public listener; tokens and verbs are on the control listener (http.control, by default \
             unix:/run/tenure/control.sock)"
        } else {
            "nothing is served at this path of this listener"
        };
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, what)
    }

    /// The election is not configured.
    pub fn unknown_election() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::UnknownElection, "no election of this name is configured here")
    }

    /// The path is right, the method is not.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, format!("accepted here: {allow}"))
            .header(ALLOW, HeaderValue::from_static(allow))
    }

    /// The verb needs the admin token.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, "this call needs the admin token")
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tenure\""))
    }

    /// The client took too long to send its request.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, "the request was not complete in time")
            .header(hyper::header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The body is larger than any that we read.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "a body may have 1 MiB at the most")
    }

    /// etcd did not answer, or not in time; nothing was changed.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, detail).soon()
    }

    /// Too many questions wait for etcd; nothing was changed.
    pub fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Busy, "too many requests wait already").soon()
    }

    /// The change may have been committed or not.
    pub fn outcome_unknown(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::OutcomeUnknown, detail)
    }

    /// Invites the client to try again in a second.
    pub fn soon(self) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// What it says.
    pub fn document(&self) -> String {
        let mut document = json!({
            "type": format!("urn:tenure:problem:{}", self.code.as_str()),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.extra.clone());
        }
        document.to_string()
    }

    /// The answer to a client.
    pub fn into_response(self) -> Response {
        let mut response = with_type(self.status, "application/problem+json", self.document());
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A verb or question that the driver did not carry out. `NotLeader` is for the caller to word.
impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotLeader => Self::new(StatusCode::CONFLICT, Code::NotLeader, "this daemon does not lead"),
            ControlError::Stale => {
                Self::new(StatusCode::CONFLICT, Code::Stale, "the token is not the one that this daemon leads with")
            }
            ControlError::NotDraining => {
                Self::new(StatusCode::CONFLICT, Code::NotDraining, "this daemon does not drain")
            }
            ControlError::Unavailable(why) => Self::unavailable(why),
            ControlError::Busy => Self::busy(),
            ControlError::OutcomeUnknown(why) => Self::outcome_unknown(format!("it may have happened or not: {why}")),
        }
    }
}

/// A JSON document.
pub fn json(status: StatusCode, document: &impl Serialize) -> Response {
    // Our documents hold no map with keys that are not text, which is all that can fail.
    with_type(status, "application/json", serde_json::to_string(document).unwrap_or_default())
}

/// Plain text.
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// Nothing but a status.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// A body with its content type.
pub fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Sets a header, but not to a value that no header can hold: ids and urls come from etcd, where others may write too.
pub fn set(response: &mut Response, name: &'static str, value: &str) {
    // An id may hold letters beyond ASCII, which a header carries as they are.
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_could_split_the_head_is_left_out() {
        let mut response = empty(StatusCode::OK);
        set(&mut response, "fencing-leader", "pod-0\r\nSet-Cookie: x");
        set(&mut response, "fencing-holder", "pod-0");
        set(&mut response, "fencing-leader-url", "http://größe");
        assert_eq!(response.headers().len(), 2);
    }
}
