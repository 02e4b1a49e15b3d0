//! TLS towards etcd, from files that may be rotated under us. The client bakes certificates in when it connects, so a change
//! means new clients.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use etcd_client::{Certificate, Identity, TlsOptions};

use super::error::Error;
use crate::config::EtcdTls;

/// No certificate or password file is larger; a mistaken path (a device, a log) is refused unread.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Where distributions keep the system's authorities, for a configuration that names none.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the files looked like when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<Option<(SystemTime, u64)>>);

/// The files of one configuration.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    config: EtcdTls,
    handshake: Duration,
}

impl TlsFiles {
    pub(super) fn new(config: EtcdTls, handshake: Duration) -> Self {
        Self { config, handshake }
    }

    /// Length and modification time of every file: cheap, and enough to notice a rotation.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let EtcdTls { ca_file, cert_file, key_file, .. } = &self.config;
        let look = |path: &PathBuf| std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        Fingerprint([ca_file, cert_file, key_file].into_iter().flatten().map(look).collect())
    }

    /// Reads the files.
    pub(super) fn load(&self) -> Result<TlsOptions, Error> {
        // tonic's handshake timeout is the only bound on a handshake with a silent peer: `connect_timeout` ends with TCP.
        let mut options = TlsOptions::new().timeout(self.handshake);
        if let Some(path) = &self.config.ca_file {
            options = options.ca_certificate(Certificate::from_pem(read_file(path)?));
        } else {
            let bundle = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
            options = options.ca_certificates(bundle.map(Certificate::from_pem));
        }
        if let (Some(cert), Some(key)) = (&self.config.cert_file, &self.config.key_file) {
            options = options.identity(Identity::from_pem(read_file(cert)?, read_file(key)?));
        }
        if let Some(name) = &self.config.server_name {
            options = options.domain_name(name.clone());
        }
        Ok(options)
    }
}

/// Reads a small file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(file)?.len();
    if length > FILE_LIMIT {
        return Err(file(std::io::Error::other("larger than 1 MiB")));
    }
    std::fs::read(path).map_err(file)
}
