//! TLS of our own listeners, with files that are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, crypto};

use crate::clock::{self, Instant};
use crate::config::HttpTls;

/// How often the files are looked at, at the most; and only when somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why TLS cannot be had from the configured files.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read as PEM of the right kind.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Certificate and key do not go together, or are of no use.
    #[error("cannot use {path}: {source}")]
    Use {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The client authority is of no use.
    #[error("cannot use {path}: {source}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// The configuration that new connections get.
#[derive(Debug)]
pub struct Tls {
    files: HttpTls,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<(Instant, Vec<Stamp>)>,
}

/// What tells one state of a file from another.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`TlsError`] says.
    pub fn load(files: &HttpTls) -> Result<Self, TlsError> {
        let stamps = stamps(files);
        let config = ArcSwap::from_pointee(read(files)?);
        Ok(Self { files: files.clone(), config, seen: Mutex::new((clock::now(), stamps)) })
    }

    /// The newest usable configuration. Files that are half replaced, or broken, leave the one before in use.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.look();
        self.config.load_full()
    }

    fn look(&self) {
        let now = clock::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(seen.0) < LOOK_EVERY {
            return;
        }
        seen.0 = now;
        let stamps = stamps(&self.files);
        if stamps == seen.1 {
            return;
        }
        match read(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                seen.1 = stamps;
                tracing::info!(cert_file = %self.files.cert_file.display(), "certificate read again");
            }
            Err(error) => tracing::warn!(%error, "the certificate changed and is not usable; the old one stays"),
        }
    }
}

fn stamps(files: &HttpTls) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &Path| -> io::Result<(SystemTime, u64, u64)> {
        let meta = fs::metadata(path)?;
        Ok((meta.modified()?, meta.len(), meta.ino()))
    };
    [Some(&files.cert_file), Some(&files.key_file), files.client_ca_file.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| stamp(path).ok())
        .collect()
}

fn read(files: &HttpTls) -> Result<ServerConfig, TlsError> {
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::Read { path, source }
    };
    let certs = read_certs(&files.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(unreadable(&files.key_file))?;
    let unusable = |source| TlsError::Use { path: files.cert_file.clone(), source };
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in read_certs(path)? {
                roots.add(cert).map_err(|source| TlsError::Use { path: path.clone(), source })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let certs: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if certs.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(certs) }
}
