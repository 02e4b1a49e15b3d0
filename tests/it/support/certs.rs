//! A certificate authority for one test, with a server's and a client's certificate.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// PEM files in one directory.
#[derive(Clone, Debug)]
pub struct Certs {
    pub ca: PathBuf,
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
}

impl Certs {
    /// Makes all of them in `dir`: the server's for 127.0.0.1 and localhost, the client's with `client` as its common name.
    pub fn make(dir: &Path, client: &str) -> Self {
        Self::made(dir, client, None)
    }

    /// [`Certs::make`], but server's and client's end at that time.
    pub fn make_until(dir: &Path, client: &str, until: std::time::SystemTime) -> Self {
        Self::made(dir, client, Some(until))
    }

    fn made(dir: &Path, client: &str, until: Option<std::time::SystemTime>) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names to be refused");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "tenure test authority");
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("a self-signed certificate");
        let certs = Self {
            ca: dir.join("ca.pem"),
            server_cert: dir.join("server.pem"),
            server_key: dir.join("server.key"),
            client_cert: dir.join("client.pem"),
            client_key: dir.join("client.key"),
        };
        write(&certs.ca, &authority.pem());
        let names = ["127.0.0.1", "localhost"].map(String::from).to_vec();
        // etcd's own gateway connects to its own port with the server's certificate, so that is a client's as well.
        let server = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        issue(&authority, names, ("etcd", until), &server, &certs.server_cert, &certs.server_key);
        let use_as = [ExtendedKeyUsagePurpose::ClientAuth];
        issue(&authority, Vec::new(), (client, until), &use_as, &certs.client_cert, &certs.client_key);
        certs
    }
}

fn issue(
    authority: &CertifiedIssuer<'_, KeyPair>,
    names: Vec<String>,
    (common_name, until): (&str, Option<std::time::SystemTime>),
    use_as: &[ExtendedKeyUsagePurpose],
    cert_file: &Path,
    key_file: &Path,
) {
    let mut params = CertificateParams::new(names).expect("addresses and plain names");
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.extended_key_usages = use_as.to_vec();
    if let Some(until) = until {
        params.not_after = until.into();
    }
    let key = key();
    let cert = params.signed_by(&key, authority).expect("the authority may sign");
    write(cert_file, &cert.pem());
    write(key_file, &key.serialize_pem());
}

fn key() -> KeyPair {
    KeyPair::generate().expect("ring makes P-256 keys")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
