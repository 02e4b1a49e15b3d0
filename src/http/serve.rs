//! The accept loops, and what bounds every connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service as HyperService, service_fn};
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use warp::reply::Response;

use super::app::{App, connect_refused};
use super::call::Slash;
use super::listen::{Bound, Door, Socket};
use super::patient::Patient;
use super::refusal::Refusal;
use super::seats::{Doing, Seat, Seats};
use super::tls::Tls;
use super::trim::Trimmer;
use super::upload::Upload;
use super::{Service, routes};

/// The most of a request's head that is read, 64 KiB of headers and 8 KiB of request line; a longer one is answered 431.
const HEAD_BYTES: usize = (64 + 8) << 10;
/// The most headers: none is shorter than its name, its colon and the end of its line.
const HEADERS: usize = HEAD_BYTES / 4;
/// How long to leave `accept` alone after it failed: out of file descriptors, most likely, and asking at once costs a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in progress have to finish at a stop, if `http.request_timeout` is not shorter.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What all connections of one listener share.
struct Hall<S> {
    routes: S,
    app: Arc<App>,
    seats: Arc<Seats>,
    trimmer: Arc<Trimmer>,
    limit: Duration,
    tls: Option<Arc<Tls>>,
}

impl Bound {
    /// Serves until `shutdown` is ready; then takes no more connections, ends long polls and idle connections at once, and
    /// the rest when answered, after 2 s at the latest. Needs a tokio runtime with I/O and time, of either flavour.
    pub async fn serve(self, service: Service, shutdown: impl Future<Output = ()>) {
        let (closing, closed) = watch::channel(false);
        let app = Arc::new(App::new(service, self.request_timeout));
        let trimmer = Arc::new(Trimmer::default());
        let halls = self.doors.into_iter().map(|door| {
            let (app, trimmer, closed) = (Arc::clone(&app), Arc::clone(&trimmer), closed.clone());
            open(door, app, trimmer, self.max_connections, closed)
        });
        let stop = async {
            shutdown.await;
            app.stop();
            let _ = closing.send(true);
        };
        futures_util::future::join(join_all(halls), stop).await;
    }
}

async fn open(door: Door, app: Arc<App>, trimmer: Arc<Trimmer>, seats: usize, mut closed: watch::Receiver<bool>) {
    let limit = app.request_timeout;
    // Over TLS nobody has asked anything before the handshake.
    let refusal = door.tls.is_none().then(|| Refusal::new(Arc::clone(&app), door.face));
    let routes = TowerToHyperService::new(warp::service(routes::filter(&app, door.face, door.token)));
    let hall = Arc::new(Hall { routes, app, seats: Seats::new(seats), trimmer, limit, tls: door.tls });
    {
        let mut over = pin!(closed.wait_for(|closed| *closed));
        loop {
            let next = tokio::select! {
                _ = &mut over => break,
                next = door.socket.next() => next,
            };
            let peer = match next {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    hall.seats.send_someone_away();
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if hall.seats.no_more_questions() && refusal.as_ref().is_some_and(|refusal| refusal.answers(&peer)) {
                continue;
            }
            let seat = tokio::select! {
                _ = &mut over => break,
                seat = hall.seats.take() => seat,
            };
            peer.welcome(Arc::clone(&hall), seat);
            // Whoever is in is served before the next one enters: in a flood, a request that has arrived would otherwise look
            // like a client that keeps us waiting, and be sent away unread.
            tokio::task::yield_now().await;
        }
    }
    drop(door.socket);
    hall.seats.empty(STOP_LIMIT.min(limit)).await;
}

/// A connection that was accepted.
enum Peer {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    async fn next(&self) -> io::Result<Peer> {
        loop {
            let next = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // An answer is one write: waiting for more would only delay it. A socket that refuses is closing.
                    let _ = stream.set_nodelay(true);
                    Peer::Tcp(stream)
                }),
                Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Peer::Unix(stream)),
            };
            match next {
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Peer {
    fn welcome<S>(self, hall: Arc<Hall<S>>, seat: Seat)
    where
        S: HyperService<Request<Upload>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        tokio::spawn(async move {
            let trimmer = Arc::clone(&hall.trimmer);
            let (limit, seat) = (hall.limit, Arc::new(seat));
            let of_stream = Arc::clone(&seat);
            match (self, &hall.tls) {
                (Self::Tcp(stream), None) => converse(Patient::new(stream, limit, of_stream), hall, seat).await,
                (Self::Unix(stream), _) => converse(Patient::new(stream, limit, of_stream), hall, seat).await,
                (Self::Tcp(stream), Some(tls)) => {
                    let handshake = TlsAcceptor::from(tls.current()).accept(Patient::new(stream, limit, of_stream));
                    let shaken = tokio::select! {
                        shaken = timeout(limit, handshake) => shaken,
                        () = seat.asked_to_leave() => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => converse(stream, hall, seat).await,
                        // Anyone may cause these, so they are not worth a line each.
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake timed out"),
                    }
                }
            }
            trimmer.connection_ended();
        });
    }
}

/// Serves one connection to its end.
async fn converse<I, S>(io: I, hall: Arc<Hall<S>>, seat: Arc<Seat>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HyperService<Request<Upload>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let service = service_fn(|request| exchange(Arc::clone(&hall), Arc::clone(&seat), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Bounds a silent client, a partial head, and idleness between two requests.
        .header_read_timeout(hall.limit)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        // A client that sends no more still gets its answer; `Patient` sees whether it has gone.
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let ended = tokio::select! {
        // The connection first: it may hold a request that nobody has read yet.
        biased;
        ended = connection => ended,
        () = seat.asked_to_leave() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn exchange<S>(
    hall: Arc<Hall<S>>,
    seat: Arc<Seat>,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible>
where
    S: HyperService<Request<Upload>, Response = Response, Error = Infallible>,
{
    seat.now(Doing::Serving);
    let mut unread = false;
    // It names no path, and some of warp's filters panic on that.
    let mut response = if request.method() == Method::CONNECT {
        connect_refused(&hall.app)
    } else {
        let lingering = !request.headers().contains_key(EXPECT);
        request.extensions_mut().insert(Arc::clone(&seat));
        if request.uri().path().ends_with('/') {
            request.extensions_mut().insert(Slash);
        }
        let request = request.map(|body| Upload::new(body, hall.limit, lingering));
        let whole = request.body().whole();
        let response = hall.routes.call(request).await?;
        // What was announced may come late or never: a proxy must not send its next request into it.
        unread = !whole.load(Ordering::Relaxed);
        response
    };
    if unread || seat.crowded() || hall.app.stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    seat.now(Doing::Waiting);
    Ok(response)
}
