//! From a matched request to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Method, StatusCode};
use warp::reply::Response;

use super::answer::{Answer, Problem, empty};
use super::auth::AdminToken;
use super::call::Call;
use super::moment::Moment;
use super::routes::{Access, Endpoint, ROUTES, Takes};
use super::trim::trim;
use super::version::Versions;
use super::{Service, gate, lists, openapi, others, page, probes, status, token, verbs};
use crate::clock::{self, Instant};

/// The route's name in metrics where none fits.
const OTHER: &str = "other";
/// What is said of a method that no path takes.
const ALLOW_ANYWHERE: &str = "GET, HEAD, OPTIONS, POST";

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    /// The daemon's side.
    pub service: Service,
    /// Limit for one request.
    pub request_timeout: Duration,
    /// When we began to serve.
    pub born: Instant,
    /// Whether `/startupz` has said yes: it does not take that back.
    pub started: AtomicBool,
    /// Of the documents.
    pub versions: Versions,
    stopping: AtomicBool,
    openapi: String,
}

impl App {
    /// Ready to answer.
    pub fn new(service: Service, request_timeout: Duration) -> Self {
        let methods = |takes| match takes {
            Takes::Get | Takes::Any | Takes::Probe => "GET",
            Takes::Post => "POST",
        };
        service.metrics.serve_routes(ROUTES.iter().map(|r| (r.template, methods(r.takes))));
        let openapi = openapi::document(service.about.version).to_string();
        // The tree that it was made from was megabytes.
        trim();
        let flag = AtomicBool::default;
        let versions = Versions::new(service.reader.load().elections.len());
        Self { service, request_timeout, born: clock::now(), started: flag(), versions, stopping: flag(), openapi }
    }

    /// What is true now.
    pub fn moment(&self) -> Moment {
        Moment::now(&self.service, self.born)
    }

    /// From now on every answer ends its connection.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Answers, counts, and marks the answer as not to be stored.
    pub async fn answer(self: Arc<Self>, mut call: Call, token: Option<&AdminToken>) -> Response {
        let began = clock::now();
        let route = call.route.map_or(OTHER, |route| route.template);
        let method = call.method.clone();
        let answer = self.dispatch(&mut call, token).await;
        self.finish(route, &method, began, answer.unwrap_or_else(Problem::into_response))
    }

    fn finish(&self, route: &'static str, method: &Method, began: Instant, mut response: Response) -> Response {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let took = clock::now().since(began);
        self.service.metrics.http_request(route, method.as_str(), response.status().as_u16(), took);
        response
    }

    async fn dispatch(&self, call: &mut Call, token: Option<&AdminToken>) -> Answer {
        let route = call.route.ok_or_else(|| Problem::not_found(call.elsewhere))?;
        if !route.takes(&call.method) {
            return Err(Problem::method_not_allowed(route.allow()));
        }
        if route.access == Access::Verb && token.is_some_and(|token| !token.admits(&call.headers)) {
            return Err(Problem::unauthorized());
        }
        if call.method == Method::OPTIONS && route.takes == Takes::Get {
            if call.election.is_some() {
                call.election(&self.service.reader.load())?;
            }
            let mut response = empty(StatusCode::NO_CONTENT);
            response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(route.allow()));
            return Ok(response);
        }
        if route.endpoint.is_probe() && call.query.get("wait").is_some() {
            return Err(Problem::malformed(
                "a probe answers at once; `wait` belongs to /v1/elections/NAME and to /token",
            ));
        }
        match route.endpoint {
            Endpoint::Livez => probes::livez(self, call),
            Endpoint::Readyz => probes::readyz(self, call),
            Endpoint::Startupz => probes::startupz(self, call),
            Endpoint::Leader => probes::leader(self, call),
            Endpoint::Follower => probes::follower(self, call),
            Endpoint::Health => probes::health(self, call),
            Endpoint::Gate => gate::gate(self, call),
            Endpoint::Redirect => gate::redirect(self, call),
            Endpoint::Token => token::token(self, call).await,
            Endpoint::Elections => Ok(status::elections(self)),
            Endpoint::Status => status::status(self, call).await,
            Endpoint::LeaderObject => status::leader(self, call).await,
            Endpoint::Candidates => lists::candidates(self, call).await,
            Endpoint::Transitions => lists::transitions(self, call),
            Endpoint::History => lists::history(self, call).await,
            Endpoint::Verify => token::verify(self, call).await,
            Endpoint::Resign => verbs::resign(self, call).await,
            Endpoint::Drain => verbs::drain(self, call).await,
            Endpoint::Undrain => verbs::undrain(self, call).await,
            Endpoint::Drained => verbs::drained(self, call).await,
            Endpoint::Metrics => Ok(others::metrics(self, call)),
            Endpoint::Version => Ok(others::version(self)),
            Endpoint::OpenApi => Ok(others::openapi(&self.openapi)),
            Endpoint::Page => page::page(self, call),
        }
    }
}

/// The answer to `CONNECT`, which names no path.
pub fn connect_refused(app: &App) -> Response {
    let refused = Problem::method_not_allowed(ALLOW_ANYWHERE).into_response();
    app.finish(OTHER, &Method::CONNECT, clock::now(), refused)
}
