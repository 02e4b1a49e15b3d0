//! HTTP to a daemon: one request a connection, over a Unix socket or TCP, every one with a limit.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::exit::{Exit, Failure};
use super::tls::{Tls, TlsFiles};

/// A thousand history records are far below it.
const BODY_MAX: usize = 8 << 20;
/// Limit for connecting: a daemon is near.
const CONNECT: Duration = Duration::from_secs(2);

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket of the file system.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// The same, with TLS.
    Tls(String),
}

impl Target {
    /// Reads `unix:/path`, `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// What would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let accepted = "accepted: unix:/path, http://host:port or https://host:port";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(PathBuf::from(path))) } else { Err(accepted.to_owned()) };
        }
        let uri: Uri = text.strip_suffix('/').unwrap_or(text).parse().map_err(|_| accepted.to_owned())?;
        match (uri.scheme_str(), uri.authority(), uri.port_u16(), uri.path()) {
            (Some(scheme), Some(authority), Some(_), "/") if !authority.as_str().contains('@') => match scheme {
                "http" => Ok(Self::Tcp(authority.to_string())),
                "https" => Ok(Self::Tls(authority.to_string())),
                _ => Err(accepted.to_owned()),
            },
            _ => Err(accepted.to_owned()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
        }
    }
}

/// A client of one daemon.
#[derive(Clone)]
pub struct Client {
    target: Target,
    tls: Option<Tls>,
    bearer: Option<HeaderValue>,
    limit: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.target)
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body; null where it is no JSON.
    pub body: Value,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The request was not sent.
    Unreachable(String),
    /// It was sent: whatever it asks for may have been done.
    NoAnswer(String),
}

impl ClientError {
    /// As the end of a command; `changes` says whether the request would have changed something.
    #[must_use]
    pub fn failure(self, changes: bool) -> Failure {
        match self {
            Self::NoAnswer(why) if changes => {
                Failure::new(Exit::OutcomeUnknown, format!("the outcome is unknown: {why}"))
            }
            Self::Unreachable(why) | Self::NoAnswer(why) => Failure::new(Exit::Unavailable, why),
        }
    }
}

impl Client {
    /// A client with `limit` for each request.
    ///
    /// # Errors
    /// A bearer token that no header can carry; an https target, whose files [`Client::with`] takes.
    pub fn new(target: Target, bearer: Option<&str>, limit: Duration) -> Result<Self, Failure> {
        Self::with(target, &TlsFiles::default(), bearer, limit)
    }

    /// A client of any target.
    ///
    /// # Errors
    /// As [`Client::new`], and files for https that cannot be used.
    pub fn with(target: Target, files: &TlsFiles, bearer: Option<&str>, limit: Duration) -> Result<Self, Failure> {
        let tls = match &target {
            Target::Tls(authority) => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                Some(files.load(host.trim_start_matches('[').trim_end_matches(']'))?)
            }
            Target::Unix(_) | Target::Tcp(_) => None,
        };
        let header = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::failed("the admin token has characters that no HTTP header may hold"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self { target, tls, bearer: bearer.map(header).transpose()?, limit })
    }

    /// Whom it talks to.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The limit for each request.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Answer, ClientError> {
        self.request(Method::GET, path, None, limit).await
    }

    /// Tells.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Answer, ClientError> {
        self.request(Method::POST, path, Some(body), limit).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let request = self.build(method, path, body)?;
        let target = &self.target;
        let unreachable = |why: &dyn fmt::Display| ClientError::Unreachable(format!("{target}: cannot connect: {why}"));
        let refused = |e: std::io::Error| unreachable(&format!("{e}; {}", remedy(e.kind())));
        let connect = CONNECT.min(limit);
        match target {
            Target::Unix(path) => {
                let stream = timeout(connect, UnixStream::connect(path)).await;
                let stream = stream.map_err(|_| unreachable(&"no answer"))?.map_err(refused)?;
                self.exchange(stream, request, limit).await
            }
            Target::Tcp(authority) | Target::Tls(authority) => {
                let stream = timeout(connect, TcpStream::connect(authority.as_str())).await;
                let stream = stream.map_err(|_| unreachable(&"no answer"))?.map_err(refused)?;
                let Some(tls) = &self.tls else { return self.exchange(stream, request, limit).await };
                let stream = timeout(connect, tls.connector.connect(tls.name.clone(), stream)).await;
                let stream = stream.map_err(|_| unreachable(&"no answer"))?.map_err(|e| unreachable(&e))?;
                self.exchange(stream, request, limit).await
            }
        }
    }

    fn build(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp(authority) | Target::Tls(authority) => authority,
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(CONNECTION, "close");
        request = request.header(ACCEPT, "application/json, application/problem+json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        request
            .body(Full::from(bytes))
            .map_err(|e| ClientError::Unreachable(format!("no request can be made of it: {e}")))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |e: &dyn fmt::Display| ClientError::NoAnswer(format!("{}: no answer: {e}", self.target));
        let talk = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
            // Ends with the sender, whose last use is below; its error shows there as well.
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|e| broken(&e))?;
            let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
            Ok(Answer { status, body })
        };
        timeout(limit, talk)
            .await
            .map_err(|_| broken(&format!("none within {}", crate::config::duration_text(limit))))?
    }
}

/// What mends a connection that cannot be made.
const fn remedy(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::PermissionDenied => {
            "you need the group of the socket, `tenure` where the packages' unit runs it, 65532 in pods"
        }
        _ => "is the daemon running there? Its control listener is told by --control, $TENURE_CONTROL, or -c FILE",
    }
}

impl Answer {
    /// The body of a 2xx; anything else ends the command by its problem's `code`.
    ///
    /// # Errors
    /// What the daemon said.
    pub fn accepted(self) -> Result<Value, Failure> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.refusal()) }
    }

    /// A refusal as the end of a command.
    #[must_use]
    pub fn refusal(&self) -> Failure {
        let text = |pointer: &str| super::output::cell(&self.body, pointer);
        let code = text("/code");
        let exit = match code.as_str() {
            "not_leader" | "no_leader" | "guard_expired" | "draining" | "not_draining" | "stale" | "not_issued" => {
                Exit::NotSo
            }
            "outcome_unknown" => Exit::OutcomeUnknown,
            "unavailable" => Exit::Unavailable,
            _ if matches!(self.status.as_u16(), 408 | 429 | 502..=504) => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let mut message = match (code.as_str(), text("/detail").as_str()) {
            ("-", _) => format!("the daemon answered {}", self.status),
            (code, "-") => code.to_owned(),
            (code, detail) => format!("{code}: {detail}"),
        };
        let leader = text("/leader/id");
        if leader != "-" {
            message = format!("{message}; {leader} leads with token {}", text("/leader/generation"));
        }
        let current = text("/current/token");
        if current != "-" {
            message = format!("{message}; the current token is {current}, held by {}", text("/current/holder"));
        }
        let failure = Failure::new(exit, message);
        if self.body.is_object() { failure.with(self.body.clone()) } else { failure }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_are_a_socket_or_http_with_or_without_tls() {
        assert_eq!(Target::parse("unix:/run/x.sock"), Ok(Target::Unix("/run/x.sock".into())));
        assert_eq!(Target::parse("http://[::1]:4791/"), Ok(Target::Tcp("[::1]:4791".to_owned())));
        assert_eq!(Target::parse("https://h:4791"), Ok(Target::Tls("h:4791".to_owned())));
        for bad in ["", "unix:x", "/run/x.sock", "http://h", "ftp://h:1", "https://u:p@h:1", "http://h:1/x", "h:1"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_end_with_the_code_that_scripts_rely_on() {
        for (status, code, exit) in [
            (503, "not_leader", Exit::NotSo),
            (409, "not_leader", Exit::NotSo),
            (409, "stale", Exit::NotSo),
            (409, "not_draining", Exit::NotSo),
            (503, "unavailable", Exit::Unavailable),
            (503, "outcome_unknown", Exit::OutcomeUnknown),
            (401, "unauthorized", Exit::Failed),
            (404, "unknown_election", Exit::Failed),
            (503, "something_new", Exit::Unavailable),
        ] {
            let body = json!({"code": code, "detail": "why", "leader": {"id": "pod-1", "generation": 7}});
            let failure = Answer { status: StatusCode::from_u16(status).expect("a status"), body }.refusal();
            assert_eq!(failure.exit, exit, "{code}");
            assert_eq!(failure.message, format!("{code}: why; pod-1 leads with token 7"));
        }
    }

    #[test]
    fn a_request_that_was_not_sent_changed_nothing_and_one_that_was_may_have() {
        let end = |e: ClientError, changes| e.failure(changes).exit;
        assert_eq!(end(ClientError::Unreachable(String::new()), true), Exit::Unavailable);
        assert_eq!(end(ClientError::NoAnswer(String::new()), true), Exit::OutcomeUnknown);
        assert_eq!(end(ClientError::NoAnswer(String::new()), false), Exit::Unavailable);
    }
}
