//! TLS of our own listeners, with files that are read again when they change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::clock::{self, Instant};
use crate::config::HttpTls;
use crate::tls::{Material, Problems, Rotating, Side};

/// How often the files are read again, at the most; and only when somebody connects.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A certificate that ends within this time is told of when it is read.
const SOON: Duration = Duration::from_hours(24);

/// Why TLS cannot be had from the configured files.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Files are of no use.
    #[error("{0}")]
    Files(#[from] Problems),
    /// The TLS library refuses what they hold.
    #[error("no TLS: {0}")]
    Use(#[from] rustls::Error),
}

/// The configuration that new connections get.
#[derive(Debug)]
pub struct Tls {
    config: ArcSwap<ServerConfig>,
    files: Mutex<(Instant, Rotating)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`TlsError`] says.
    pub fn load(config: &HttpTls) -> Result<Self, TlsError> {
        let (files, material) = Rotating::load(config.files())?;
        let config = ArcSwap::from_pointee(server(&material)?);
        Ok(Self { config, files: Mutex::new((clock::now(), files)) })
    }

    /// The newest usable configuration. Files that are half replaced, or broken, leave the one before in use.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.check();
        self.config.load_full()
    }

    fn check(&self) {
        let now = clock::now();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(files.0) < READ_EVERY {
            return;
        }
        files.0 = now;
        let Some(changed) = files.1.changed() else { return };
        match changed.map_err(TlsError::from).and_then(|material| server(&material)) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!("certificate read again");
            }
            Err(error) => tracing::warn!(%error, "the certificate changed and is not usable; the old one stays"),
        }
    }
}

fn server(material: &Material) -> Result<ServerConfig, TlsError> {
    for complaint in material.complaints(Side::Server, clock::wall().since_1970(), SOON) {
        tracing::warn!(error = %complaint.problem, "a certificate of our own listeners");
    }
    Ok(material.server(b"http/1.1")?)
}
