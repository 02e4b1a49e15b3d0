//! The table of routes: what is served where, and how a path finds its row.
#![allow(
    clippy::disallowed_types,
    reason = "the clock of tokio's own timers, which bound a request and decide nothing else"
)]

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::StreamExt;
use hyper::body::Buf;
use hyper::{HeaderMap, Method};
use tokio::time::Instant;
use warp::filters::BoxedFilter;
use warp::path::Tail;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::app::App;
use super::auth::AdminToken;
use super::call::{Call, Chunks, Slash};
use super::listen::Face;
use super::query::Query;
use super::seats::Seat;

/// What an election's paths start with.
const ELECTION: &str = "/v1/elections/{election}";

/// What a route does. Handlers are chosen by it in `app`, documentation in `openapi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The loop turns.
    Livez,
    /// Ready for traffic.
    Readyz,
    /// Started.
    Startupz,
    /// This daemon leads.
    Leader,
    /// It does not, and another does.
    Follower,
    /// It has a live session.
    Health,
    /// Yes or no, for proxies.
    Gate,
    /// Leads to the leader.
    Redirect,
    /// The fencing token with its promise.
    Token,
    /// The status documents of all elections.
    Elections,
    /// The status document of one.
    Status,
    /// Who leads.
    LeaderObject,
    /// The queue.
    Candidates,
    /// Whether a token is current.
    Verify,
    /// Step down.
    Resign,
    /// Stop leading, everywhere.
    Drain,
    /// Take part again.
    Undrain,
    /// The application has stopped.
    Drained,
    /// This daemon's audit log.
    Transitions,
    /// The cluster's history.
    History,
    /// Prometheus metrics.
    Metrics,
    /// The program's version.
    Version,
    /// The description of this interface.
    OpenApi,
    /// The status page.
    Page,
}

impl Endpoint {
    /// Whether it is one of those that are asked again and again, and must never be waited for.
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz | Self::Startupz | Self::Leader | Self::Follower | Self::Health)
    }
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Public,
    /// Whoever reaches the control listener.
    Control,
    /// Likewise, and with the admin token where that is on TCP: it changes something.
    Verb,
}

/// Which methods a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// GET and HEAD; OPTIONS names them.
    Get,
    /// The same, and OPTIONS answers with the probe's own status, which is what `HAProxy` asks for.
    Probe,
    /// POST only.
    Post,
    /// Any.
    Any,
}

/// A row of the table.
#[derive(Debug)]
pub struct Route {
    /// The path as documents and metrics name it. `{path}` at its end stands for the rest, slashes included.
    pub template: &'static str,
    /// What it does.
    pub endpoint: Endpoint,
    /// Who may use it.
    pub access: Access,
    /// Which methods it takes.
    pub takes: Takes,
}

const fn row(template: &'static str, takes: Takes, access: Access, endpoint: Endpoint) -> Route {
    Route { template, endpoint, access, takes }
}

/// Everything that is served.
pub const ROUTES: &[Route] = &[
    row("/", Takes::Get, Access::Public, Endpoint::Page),
    row("/livez", Takes::Probe, Access::Public, Endpoint::Livez),
    row("/readyz", Takes::Probe, Access::Public, Endpoint::Readyz),
    row("/startupz", Takes::Probe, Access::Public, Endpoint::Startupz),
    row("/leader", Takes::Probe, Access::Public, Endpoint::Leader),
    row("/primary", Takes::Probe, Access::Public, Endpoint::Leader),
    row("/read-write", Takes::Probe, Access::Public, Endpoint::Leader),
    row("/follower", Takes::Probe, Access::Public, Endpoint::Follower),
    row("/replica", Takes::Probe, Access::Public, Endpoint::Follower),
    row("/health", Takes::Probe, Access::Public, Endpoint::Health),
    row("/gate", Takes::Any, Access::Public, Endpoint::Gate),
    row("/gate/{path}", Takes::Any, Access::Public, Endpoint::Gate),
    row("/token", Takes::Get, Access::Control, Endpoint::Token),
    row("/v1/elections", Takes::Get, Access::Public, Endpoint::Elections),
    row("/v1/elections/{election}", Takes::Get, Access::Public, Endpoint::Status),
    row("/v1/elections/{election}/leader", Takes::Get, Access::Public, Endpoint::LeaderObject),
    row("/v1/elections/{election}/candidates", Takes::Get, Access::Public, Endpoint::Candidates),
    row("/v1/elections/{election}/gate", Takes::Any, Access::Public, Endpoint::Gate),
    row("/v1/elections/{election}/gate/{path}", Takes::Any, Access::Public, Endpoint::Gate),
    row("/v1/elections/{election}/redirect", Takes::Any, Access::Public, Endpoint::Redirect),
    row("/v1/elections/{election}/redirect/{path}", Takes::Any, Access::Public, Endpoint::Redirect),
    row("/v1/elections/{election}/token", Takes::Get, Access::Control, Endpoint::Token),
    row("/v1/elections/{election}/verify", Takes::Post, Access::Control, Endpoint::Verify),
    row("/v1/elections/{election}/transitions", Takes::Get, Access::Control, Endpoint::Transitions),
    row("/v1/elections/{election}/history", Takes::Get, Access::Control, Endpoint::History),
    row("/v1/elections/{election}/resign", Takes::Post, Access::Verb, Endpoint::Resign),
    row("/v1/elections/{election}/drained", Takes::Post, Access::Verb, Endpoint::Drained),
    row("/v1/drain", Takes::Post, Access::Verb, Endpoint::Drain),
    row("/v1/undrain", Takes::Post, Access::Verb, Endpoint::Undrain),
    row("/metrics", Takes::Get, Access::Public, Endpoint::Metrics),
    row("/version", Takes::Get, Access::Public, Endpoint::Version),
    row("/openapi.json", Takes::Get, Access::Public, Endpoint::OpenApi),
];

impl Route {
    /// Whether it is served on that listener.
    #[must_use]
    pub fn on(&self, face: Face) -> bool {
        face == Face::Control || self.access == Access::Public
    }

    /// The methods, as the `Allow` header lists them.
    #[must_use]
    pub const fn allow(&self) -> &'static str {
        match self.takes {
            Takes::Get | Takes::Probe => "GET, HEAD, OPTIONS",
            Takes::Post => "POST",
            Takes::Any => "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, TRACE",
        }
    }

    /// Whether it takes this method.
    #[must_use]
    pub fn takes(&self, method: &Method) -> bool {
        match self.takes {
            Takes::Get | Takes::Probe => [Method::GET, Method::HEAD, Method::OPTIONS].contains(method),
            Takes::Post => method == Method::POST,
            Takes::Any => true,
        }
    }
}

/// A path, taken apart.
#[derive(Debug, Default)]
struct Target {
    route: Option<&'static Route>,
    election: Option<String>,
    tail: String,
}

/// Finds the row whose template is these parts, one after the other.
fn find(parts: [&'static str; 2], name: &str, target: Target) -> Ready<Result<Target, Rejection>> {
    let [before, after] = parts;
    let fits = |r: &&Route| {
        r.template.strip_prefix(before).and_then(|t| t.strip_suffix(after)).is_some_and(|middle| middle == name)
    };
    ready(match ROUTES.iter().find(fits) {
        Some(route) => Ok(Target { route: Some(route), ..target }),
        None => Err(warp::reject::not_found()),
    })
}

/// One filter for each shape that a path has, the most specific first.
fn target() -> BoxedFilter<(Target,)> {
    let rest = |tail: Tail| tail.as_str().to_owned();
    let verb = warp::path!("v1" / "elections" / String / String).and_then(|e, name: String| {
        find(["/v1/elections/{election}/", ""], &name, Target { election: Some(e), ..Target::default() })
    });
    let verb_rest = warp::path!("v1" / "elections" / String / String / ..).and(warp::path::tail().map(rest)).and_then(
        |e, name: String, tail| {
            find(["/v1/elections/{election}/", "/{path}"], &name, Target { election: Some(e), tail, route: None })
        },
    );
    let status = warp::path!("v1" / "elections" / String)
        .and_then(|e| find([ELECTION, ""], "", Target { election: Some(e), ..Target::default() }));
    let v1 = warp::path!("v1" / String).and_then(|name: String| find(["/v1/", ""], &name, Target::default()));
    let root = warp::path!(String).and_then(|name: String| find(["/", ""], &name, Target::default()));
    let root_rest = warp::path!(String / ..)
        .and(warp::path::tail().map(rest))
        .and_then(|name: String, tail| find(["/", "/{path}"], &name, Target { tail, ..Target::default() }));
    let page = warp::path::end().and_then(|| find(["/", ""], "", Target::default()));
    let nothing = warp::any().map(Target::default);
    root.or(verb)
        .unify()
        .or(root_rest)
        .unify()
        .or(verb_rest)
        .unify()
        .or(status)
        .unify()
        .or(v1)
        .unify()
        .or(page)
        .unify()
        .or(nothing)
        .unify()
        .boxed()
}

/// All of warp that one listener needs: from a request to its answer.
pub(super) fn filter(app: &Arc<App>, face: Face, token: Option<AdminToken>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    let token = token.map(Arc::new);
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    target()
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::body::stream())
        .and(warp::ext::optional::<Arc<Seat>>())
        .and(warp::ext::optional::<Slash>())
        .then(
            move |target: Target,
                  method: Method,
                  headers: HeaderMap,
                  query: String,
                  body,
                  seat,
                  slash: Option<Slash>| {
                let (app, token) = (Arc::clone(&app), token.clone());
                let call = Call {
                    route: target.route.filter(|route| route.on(face)),
                    elsewhere: target.route.is_some_and(|route| !route.on(face)),
                    election: target.election,
                    tail: target.tail,
                    slash: slash.is_some(),
                    method,
                    headers,
                    query: Query::new(query),
                    body: chunks(body),
                    seat,
                    deadline: Instant::now() + app.request_timeout,
                };
                async move { app.answer(call, token.as_deref()).await }
            },
        )
        .boxed()
}

fn chunks<B: Buf>(body: impl futures_util::Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static) -> Chunks {
    Box::pin(body.map(|chunk| chunk.map(|mut buf| buf.copy_to_bytes(buf.remaining()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    async fn found(path: &str) -> (Option<&'static str>, Option<String>, String) {
        let slot = Arc::new(std::sync::Mutex::new(Target::default()));
        let keep = Arc::clone(&slot);
        let service = warp::service(target().map(move |found| {
            *keep.lock().expect("one at a time") = found;
            warp::reply()
        }));
        let request = hyper::Request::get(path).body(http_body_util::Empty::<hyper::body::Bytes>::new());
        let routed = TowerToHyperService::new(service).call(request.expect("a request")).await.expect("infallible");
        assert_eq!(routed.status(), 200, "{path} is rejected by no filter");
        let target = std::mem::take(&mut *slot.lock().expect("one at a time"));
        (target.route.map(|r| r.template), target.election, target.tail)
    }

    #[tokio::test]
    async fn every_template_finds_its_own_row() {
        for route in ROUTES {
            let path = route.template.replace("{election}", "orders").replace("{path}", "a/b");
            assert_eq!(found(&path).await.0, Some(route.template), "{path}");
        }
    }

    #[tokio::test]
    async fn paths_are_taken_apart() {
        let at = "/v1/elections/{election}/gate/{path}";
        assert_eq!(found("/v1/elections/e/gate/a//b").await, (Some(at), Some("e".to_owned()), "a//b".to_owned()));
        assert_eq!(found("/gate/x?y=z").await, (Some("/gate/{path}"), None, "x".to_owned()));
        for nothing in ["/nope", "//", "/v1", "/v1/elections/e/nope", "/v1/elections/e/token/x", "/livez/x", "/{path}"]
        {
            assert_eq!(found(nothing).await.0, None, "{nothing}");
        }
    }
}
