//! Whom we trust: what webpki accepts, and the very certificates that the file of authorities holds.
//!
//! etcd's own tools accept a server whose certificate stands in `--cacert` itself (Go's `x509.Verify` ends a chain at any
//! certificate of the pool). webpki accepts no end of a chain that calls itself an authority (`CA:TRUE`), which is what
//! `openssl req -x509` makes, nor one whose issuer is missing. So a certificate that is byte for byte one of the file is
//! accepted, if it is valid now, for this use, and has the name; the handshake proves as ever that the peer has its key.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::Facts;
use super::provider;

type Trusted = Vec<CertificateDer<'static>>;

/// Judges servers.
#[derive(Debug)]
pub(super) struct Server {
    webpki: Arc<WebPkiServerVerifier>,
    trusted: Trusted,
}

/// Judges clients.
#[derive(Debug)]
pub(super) struct Client {
    webpki: Arc<dyn ClientCertVerifier>,
    trusted: Trusted,
}

fn roots(trusted: &[CertificateDer<'static>]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // What cannot be an authority can still be accepted as itself.
    roots.add_parsable_certificates(trusted.iter().cloned());
    Arc::new(roots)
}

impl Server {
    pub(super) fn new(trusted: &[CertificateDer<'static>]) -> Result<Self, Error> {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots(trusted), provider()).build();
        let webpki = webpki.map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { webpki, trusted: trusted.to_vec() })
    }
}

impl Client {
    pub(super) fn new(trusted: &[CertificateDer<'static>]) -> Result<Self, Error> {
        let webpki = WebPkiClientVerifier::builder_with_provider(roots(trusted), provider()).build();
        let webpki = webpki.map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { webpki, trusted: trusted.to_vec() })
    }
}

/// Accepts a certificate that is one of the file, where webpki did not; else webpki's reason stands.
fn itself(
    shown: &CertificateDer<'_>,
    trusted: &Trusted,
    now: UnixTime,
    fit: impl Fn(&Facts) -> bool,
    refused: Error,
) -> Result<(), Error> {
    if !trusted.iter().any(|own| own == shown) {
        return Err(refused);
    }
    let Ok(facts) = Facts::of(shown) else { return Err(refused) };
    let now = Duration::from_secs(now.as_secs());
    if now > facts.not_after {
        return Err(CertificateError::Expired.into());
    }
    if now < facts.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if fit(&facts) { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(shown, intermediates, name, ocsp, now) {
            Ok(verified) => Ok(verified),
            Err(refused) => {
                itself(shown, &self.trusted, now, |facts| facts.for_servers, refused)?;
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Client {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.webpki.verify_client_cert(shown, intermediates, now) {
            Ok(verified) => Ok(verified),
            Err(refused) => {
                itself(shown, &self.trusted, now, |facts| facts.for_clients, refused)?;
                Ok(ClientCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
