//! TLS towards etcd, from files that may be rotated under us. A connection keeps what it was made with, so a change means new
//! connections.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;

use super::connector::ALPN;
use super::error::Error;
use crate::clock::{self, Instant};
use crate::config::EtcdTls;
use crate::tls::{Material, Rotating, Side};

/// A certificate that ends within this time is told of when it is read.
const SOON: Duration = Duration::from_hours(24);

/// The files as last read, and what connections are made of.
pub(super) struct Tls {
    files: Rotating,
    config: Arc<ClientConfig>,
    version: u64,
    checked: Instant,
}

impl Tls {
    pub(super) fn load(config: &EtcdTls) -> Result<Self, Error> {
        let wrong = |what: String| Error::Settings { what };
        let (files, material) = Rotating::load(config.files()).map_err(|e| wrong(e.to_string()))?;
        let config = material.client(ALPN).map_err(|e| wrong(e.to_string()))?;
        complain(&material);
        Ok(Self { files, config: Arc::new(config), version: 0, checked: clock::now() })
    }

    /// What a connection that is made now is made of, and its number. Files are read again after `every`.
    pub(super) fn current(&mut self, every: Duration) -> (Arc<ClientConfig>, u64) {
        if clock::now().since(self.checked) >= every {
            self.check();
        }
        (Arc::clone(&self.config), self.version)
    }

    /// Files of no use leave things as they are: a rotation may be half done, and then their content changes once more.
    fn check(&mut self) {
        self.checked = clock::now();
        let Some(changed) = self.files.changed() else { return };
        let made = changed.map_err(|e| e.to_string()).and_then(|material| {
            complain(&material);
            material.client(ALPN).map_err(|e| e.to_string())
        });
        match made {
            Ok(config) => {
                tracing::info!("the TLS files for etcd changed: connecting anew");
                (self.config, self.version) = (Arc::new(config), self.version + 1);
            }
            Err(error) => {
                tracing::warn!(%error, "the TLS files for etcd changed, and are of no use: keeping the old ones");
            }
        }
    }
}

fn complain(material: &Material) {
    for complaint in material.complaints(Side::Client, clock::wall().since_1970(), SOON) {
        tracing::warn!(error = %complaint.problem, "a certificate for etcd");
    }
}
