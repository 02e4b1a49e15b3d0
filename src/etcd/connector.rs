//! One connection to one member: TCP, and TLS where the endpoint asks for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tonic::codegen::http::Uri;
use tower_service::Service;

use super::dial::Dial;

/// gRPC is HTTP/2, and a server that does not choose it by ALPN speaks something else.
pub(super) const ALPN: &[u8] = b"h2";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Dial,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    handshake: Duration,
}

impl Connector {
    /// `limit` is that of the handshake of TLS; `dial` has one of its own.
    pub(super) fn new(dial: Dial, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>, limit: Duration) -> Self {
        let tls = tls.map(|(config, name)| (TlsConnector::from(config), name));
        Self { dial, tls, handshake: limit }
    }

    /// Connects, and returns which certificates were shown; none without TLS.
    pub(super) async fn certificates(self, url: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let tcp = self.dial.connect(&url.parse()?).await?;
        let Some((connector, name)) = self.tls else { return Ok(Vec::new()) };
        let stream =
            timeout(self.handshake, connector.connect(name, tcp)).await.map_err(|_| "TLS handshake timeout")??;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(shown.iter().map(|cert| cert.clone().into_owned()).collect())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (dial, tls, limit) = (self.dial.clone(), self.tls.clone(), self.handshake);
        Box::pin(async move {
            let tcp = dial.connect(&uri).await?;
            let Some((connector, name)) = tls else { return Ok(TokioIo::new(Box::new(tcp) as Box<dyn Stream>)) };
            let stream = timeout(limit, connector.connect(name, tcp)).await.map_err(|_| "TLS handshake timeout")??;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err("it speaks TLS, but not HTTP/2, so it is no etcd".into());
            }
            Ok(TokioIo::new(Box::new(dial.listen(stream)) as Box<dyn Stream>))
        })
    }
}
