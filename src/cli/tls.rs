//! TLS of the command line's client.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::exit::{Exit, Failure};

/// Whom to trust, and who we are.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFiles {
    /// Trust this authority for https, a PEM file; none is built in
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Show this certificate, a PEM file, where the daemon asks for one
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// Expect this name in the daemon's certificate [default: the host of the address]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// What a TLS connection is made with.
#[derive(Clone)]
pub struct Tls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

impl TlsFiles {
    /// Reads the files, for a daemon at `host`.
    ///
    /// # Errors
    /// No authority, a file that cannot be used, a name that cannot stand in a certificate.
    pub fn load(&self, host: &str) -> Result<Tls, Failure> {
        let Some(ca) = &self.ca_file else {
            return Err(Failure::new(Exit::Usage, "https needs --ca-file, the authority to trust: none is built in"));
        };
        let mut roots = RootCertStore::empty();
        for cert in certificates(ca)? {
            roots.add(cert).map_err(|e| unusable(ca, &e))?;
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Failure::failed(format!("no TLS: {e}")))?
            .with_root_certificates(roots);
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
                builder.with_client_auth_cert(certificates(cert)?, secret).map_err(|e| unusable(cert, &e))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let expected = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(expected.to_owned()).map_err(|_| {
            Failure::new(Exit::Usage, format!("`{expected}` cannot stand in a certificate; accepted: --server-name"))
        })?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| unusable(path, &e))?;
    if all.is_empty() { Err(unusable(path, &"no certificate in it")) } else { Ok(all) }
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> Failure {
    Failure::failed(format!("{} cannot be used: {why}", path.display()))
}
