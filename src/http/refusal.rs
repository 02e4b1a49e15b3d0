//! Questions that find no room, refused at the door.
//!
//! While as many connections wait for etcd as may, the next question hears 503 `busy` whatever it is. A flood of them must not
//! cost what a conversation costs, or whoever comes behind, a probe perhaps, waits until all of it was read: so a question that has
//! arrived whole with its connection is answered by the accept loop itself.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::answer::Problem;
use super::app::App;
use super::listen::Face;
use super::query::Query;
use super::routes::{Endpoint, ROUTES, Route};

/// A question is shorter; anything longer takes the usual way.
const HEAD: usize = 2048;
const HEADERS: usize = 32;
/// Headers of a request that more may come of.
const MORE: [&str; 4] = ["content-length", "transfer-encoding", "expect", "upgrade"];
/// What an election's questions start with.
const BEFORE: &str = "/v1/elections/";

/// What one listener refuses, and how.
pub struct Refusal {
    app: Arc<App>,
    face: Face,
    answer: String,
}

impl Refusal {
    /// For a listener of that kind.
    pub fn new(app: Arc<App>, face: Face) -> Self {
        let body = Problem::busy().document();
        let answer = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\ncache-control: no-store\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            StatusCode::SERVICE_UNAVAILABLE,
            body.len(),
        );
        Self { app, face, answer }
    }

    /// Answers `busy` where a question is all that has come on this new connection; then it may be closed. It waits for nothing.
    pub fn answers(&self, socket: &impl AsFd) -> bool {
        let mut head = [0; HEAD];
        let come =
            recv(socket, &mut head[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map_or(0, |(_, come)| come.min(HEAD));
        let Some(route) = self.question(&head[..come]) else { return false };
        // What was not read when the socket closes would make that a reset, and the client might lose the answer.
        let _ = recv(socket, &mut head[..come], RecvFlags::DONTWAIT);
        // Whoever has gone does not want to know, and a new connection has room for all of it.
        let _ = send(socket, self.answer.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        self.app.service.metrics.http_request(route.template, "GET", status, Duration::ZERO);
        true
    }

    /// The row of the question that these bytes are, no less and no more.
    fn question(&self, bytes: &[u8]) -> Option<&'static Route> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(bytes) != Ok(httparse::Status::Complete(bytes.len())) || request.method != Some("GET") {
            return None;
        }
        let target = request.path?;
        if request.headers.iter().any(|header| MORE.iter().any(|name| name.eq_ignore_ascii_case(header.name))) {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (election, name) = path.strip_prefix(BEFORE)?.split_once('/')?;
        let fits = |r: &&Route| {
            r.template.strip_prefix("/v1/elections/{election}/").is_some_and(|rest| rest == name) && r.on(self.face)
        };
        let route = ROUTES.iter().find(fits)?;
        let asks = match route.endpoint {
            Endpoint::Candidates | Endpoint::History => true,
            Endpoint::LeaderObject => Query::new(query.to_owned()).switch("linearizable") == Ok(true),
            _ => false,
        };
        self.app.service.reader.load().find(election)?;
        asks.then_some(route)
    }
}
