//! An HTTP client that shares no code with the daemon: one connection per request, every step bounded.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `127.0.0.1:4790`
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The whole of a response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A request that got no answer, and why.
#[derive(Clone, Debug)]
pub struct Failed(pub String);

/// Long enough for a verb that waits for a commit and a promise; a caller with less patience says so.
pub const TIMEOUT: Duration = Duration::from_secs(10);

impl Target {
    /// `unix:/path` is a socket; anything else is `host:port`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text.trim_start_matches("http://").to_owned()),
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Failed> {
        self.send(request(Method::GET, path, Bytes::new())).await
    }

    /// GET with one more header.
    pub async fn get_with(&self, path: &str, name: &'static str, value: &str) -> Result<Answer, Failed> {
        let mut request = request(Method::GET, path, Bytes::new());
        request.headers_mut().insert(name, value.parse().expect("a plain header value"));
        self.send(request).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failed> {
        let mut request = request(Method::POST, path, body.to_string().into());
        let json = "application/json".parse().expect("a plain header value");
        request.headers_mut().insert("content-type", json);
        self.send(request).await
    }

    /// Any request at all, within [`TIMEOUT`].
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        self.send_within(TIMEOUT, request).await
    }

    pub async fn send_within(&self, timeout: Duration, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        let exchange = async {
            match self {
                Self::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
                Self::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failed(format!("{self:?}: {error}"))),
            Err(_) => Err(Failed(format!("{self:?}: no answer within {timeout:?}"))),
        }
    }
}

impl Answer {
    /// # Panics
    /// If the body is not JSON: every body that a test asks for by this name has to be.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error} in the body of a {}: {:?}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A request with the `Host` that HTTP/1.1 asks for and nothing else.
pub fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let built = Request::builder().method(method).uri(path).header("host", "localhost").body(Full::new(body));
    built.unwrap_or_else(|error| panic!("{path:?} is no path: {error}"))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    // Driven here and not in a task, so that the socket is closed when this returns. The connection may end before the
    // body has been read to its end, and its own error is less telling than the exchange's.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ended = connection => exchange.await,
    }
}
