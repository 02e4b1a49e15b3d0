//! A matched request.
#![allow(
    clippy::disallowed_types,
    reason = "the clock of tokio's own timers, which bound a request and decide nothing else"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize as _;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use tokio::time::{Instant, timeout_at};

use super::answer::Problem;
use super::code::Code;
use super::query::Query;
use super::routes::Route;
use super::seats::{Doing, Seat};
use crate::control::{ControlError, Page};
use crate::election::ids::ElectionIndex;
use crate::snapshot::Snapshot;

/// The most that is read of a body: 1 MiB.
const BODY_LIMIT: usize = 1 << 20;
/// How many entries a list holds where the client does not say.
const PAGE_DEFAULT: u64 = 100;
/// How many it holds at the most.
const PAGE_MOST: u64 = 1_000;

/// The chunks of a body.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// Goes with a request whose path ends with a slash. Found out before routing, since `warp::path::full` panics on a target that
/// is no path.
#[derive(Clone, Copy, Debug)]
pub struct Slash;

/// What the client asked.
pub struct Call {
    /// The row of the table, if any fits.
    pub route: Option<&'static Route>,
    /// It fits none of this listener, but one of the control listener.
    pub elsewhere: bool,
    /// The election in the path.
    pub election: Option<String>,
    /// What follows the route's fixed part, without the slash between.
    pub tail: String,
    /// Whether the path ends with a slash, which the route and the tail do not tell.
    pub slash: bool,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
    /// The query.
    pub query: Query,
    /// The body, unread.
    pub body: Chunks,
    /// The connection's seat.
    pub seat: Option<Arc<Seat>>,
    /// By when the request must be complete, and etcd must have answered.
    pub deadline: Instant,
}

impl Call {
    /// The election that the path names, or `?election=`, or the first.
    ///
    /// # Errors
    /// 404 where it is not configured.
    pub fn election(&self, snapshot: &Snapshot) -> Result<ElectionIndex, Problem> {
        match self.election.clone().or_else(|| self.query.get("election")) {
            Some(name) => snapshot.find(&name).ok_or_else(Problem::unknown_election),
            None if snapshot.elections.is_empty() => Err(Problem::unknown_election()),
            None => Ok(ElectionIndex(0)),
        }
    }

    /// `limit` and `before`.
    ///
    /// # Errors
    /// 400 for what is no number.
    pub fn page(&self) -> Result<Page, Problem> {
        let number = |name| self.query.number(name).map_err(Problem::malformed);
        let limit = number("limit")?.unwrap_or(PAGE_DEFAULT).min(PAGE_MOST);
        if limit == 0 {
            return Err(Problem::malformed("`limit` is at least 1"));
        }
        Ok(Page { limit: usize::try_from(limit).unwrap_or(1), before: number("before")? })
    }

    /// The body as a JSON object of exactly this shape; `None` where it is empty.
    ///
    /// # Errors
    /// 400 for anything else, 413 over 1 MiB, 408 when it does not arrive in time.
    pub async fn object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        let bytes = self.bytes().await?;
        match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
            None => Ok(None),
            // serde would also take a list of the members' values for the object.
            Some(b'{') => serde_json::from_slice(&bytes).map(Some).map_err(|e| Problem::malformed(e.to_string())),
            Some(_) => Err(Problem::malformed("the body must be a JSON object")),
        }
    }

    async fn bytes(&mut self) -> Result<Vec<u8>, Problem> {
        let announced = self.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        if announced.is_some_and(|length: u64| length > BODY_LIMIT as u64) {
            return Err(Problem::too_large());
        }
        self.doing(Doing::Waiting);
        let read = timeout_at(self.deadline, read(&mut self.body)).await.unwrap_or_else(|_| Err(Problem::too_slow()));
        self.doing(Doing::Serving);
        read
    }

    /// Tells the connection's seat what we do.
    pub fn doing(&self, doing: Doing) {
        if let Some(seat) = &self.seat {
            seat.now(doing);
        }
    }

    /// Puts a question to etcd, within the request's time.
    ///
    /// # Errors
    /// 503 `unavailable` without an answer, 503 `busy` where too many wait already, or the seat is wanted.
    pub async fn question<T>(&self, asked: impl Future<Output = Result<T, ControlError>>) -> Result<T, Problem> {
        let _leave = match &self.seat {
            Some(seat) => Some(seat.ask().ok_or_else(Problem::busy)?),
            None => None,
        };
        tokio::select! {
            answer = timeout_at(self.deadline, asked) => answer.map_or_else(
                |_| Err(Problem::unavailable("etcd did not answer in time")),
                |answer| answer.map_err(Problem::from),
            ),
            () = self.hurried() => Err(Problem::busy()),
        }
    }

    /// Ready when a poll or a question must end for somebody else's sake.
    pub async fn hurried(&self) {
        match &self.seat {
            Some(seat) => seat.asked_to_hurry().await,
            None => std::future::pending().await,
        }
    }

    /// Carries out a verb, until `deadline`.
    ///
    /// # Errors
    /// 503 `outcome_unknown` without an answer: it may yet happen.
    pub async fn verb<T>(
        deadline: Instant,
        asked: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, Problem> {
        timeout_at(deadline, asked).await.map_or_else(
            |_| Err(Problem::outcome_unknown("no answer in time: it may have happened, or may yet")),
            |answer| answer.map_err(Problem::from),
        )
    }
}

/// A whole number in a body, also where it is written `7.0`: to JSON Schema, and to languages without integers, that is the same.
///
/// # Errors
/// For any other number.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let float = number.as_f64().filter(|float| *float >= 0.0).map(f64::abs);
    // A float is printed with all of its digits, and with nothing behind them where it is whole.
    let whole = number.as_u64().or_else(|| float?.to_string().parse().ok());
    whole.ok_or_else(|| D::Error::custom("a number must be whole, not negative, and fit 64 bits"))
}

/// The same, or null.
///
/// # Errors
/// For any other number.
pub fn maybe_whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    /// Reads as [`whole`] does.
    #[derive(serde::Deserialize)]
    struct Whole(#[serde(deserialize_with = "whole")] u64);
    Ok(Option::<Whole>::deserialize(from)?.map(|Whole(number)| number))
}

async fn read(body: &mut Chunks) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, "the body broke off"))?;
        if bytes.len() + chunk.len() > BODY_LIMIT {
            return Err(Problem::too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
