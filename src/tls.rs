//! TLS: the one reader of its files, and the one place that says what is accepted, for etcd, for our own listeners and for
//! the command line's client.
//!
//! * `files` PEM files → [`Material`], or words for what is wrong with them · `certificate` what a certificate says of itself
//! * `verify` whom we trust: webpki, and the very certificates of the file besides · `p521` the curve that ring has not

mod certificate;
mod files;
mod p521;
mod verify;

pub use certificate::{Facts, date};
pub use files::{Complaint, Contents, Files, Material, Part, Problem, Problems, Rotating, Side};

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use tokio_rustls::rustls::{self, ClientConfig, ServerConfig};

/// ring, and P-521 besides.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let ring = crypto::ring::default_provider();
    let known = ring.signature_verification_algorithms;
    // rustls wants them for ever; this is made once a process.
    let all = Box::leak([known.all, p521::ALGORITHMS].concat().into_boxed_slice());
    let mapping = Box::leak([p521::MAPPING, known.mapping].concat().into_boxed_slice());
    Arc::new(CryptoProvider {
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all, mapping },
        key_provider: &p521::Keys,
        ..ring
    })
});

/// The cryptography of every TLS connection.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Makes ours the one that libraries take when they are told nothing (kube's).
pub fn install_provider() {
    // Fails only where one was installed before, which is this one.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

impl Material {
    /// For connections to others.
    ///
    /// # Errors
    /// rustls refuses what the files hold.
    pub fn client(&self, alpn: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let verifier = verify::Server::new(&self.trusted)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.own {
            // By a resolver: rustls itself would refuse a certificate of X.509 version 1, which etcd accepts.
            Some(own) => builder.with_client_cert_resolver(Arc::clone(own) as _),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// For connections that others make to us.
    ///
    /// # Errors
    /// There is no certificate, or rustls refuses what the files hold.
    pub fn server(&self, alpn: &[u8]) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = if self.trusted.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_verifier(Arc::new(verify::Client::new(&self.trusted)?))
        };
        let own = self.own.as_ref().ok_or(rustls::Error::NoCertificatesPresented)?;
        let mut config = builder.with_cert_resolver(Arc::clone(own) as _);
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
