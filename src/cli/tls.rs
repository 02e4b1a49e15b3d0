//! TLS of the command line's client.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::exit::{Exit, Failure};
use crate::tls::Files;

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
        let files = Files { trusted: Some(ca.clone()), cert: self.cert_file.clone(), key: self.key_file.clone() };
        let material = files.read().material().map_err(|e| Failure::failed(e.to_string()))?;
        let config = material.client(b"http/1.1").map_err(|e| Failure::failed(format!("no TLS: {e}")))?;
        let expected = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(expected.to_owned()).map_err(|_| {
            Failure::new(Exit::Usage, format!("`{expected}` cannot stand in a certificate; accepted: --server-name"))
        })?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}
