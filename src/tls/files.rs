//! The files of TLS: read in one go, judged with the reason and the file in words, and noticed when their content changes.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use super::certificate::Facts;
use super::{date, provider};

/// Larger than any file of certificates; a mistaken path (a device, a log) is not read to its end.
const FILE_MAX: u64 = 1 << 20;

/// How the label of a certificate ends that `openssl x509 -trustout` wrote.
const TRUSTED: &str = "TRUSTED CERTIFICATE-----";

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We connect.
    Client,
    /// Others connect to us.
    Server,
}

/// Which files; the own certificate and its key come together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The authorities, or the very certificates, of those whom we trust.
    pub trusted: Option<PathBuf>,
    /// Our own certificate, first, and what leads from it to an authority.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Files::trusted`].
    Trusted,
    /// [`Files::cert`].
    Cert,
    /// [`Files::key`].
    Key,
}

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {what}", path.display())]
pub struct Problem {
    /// What it is for.
    pub part: Part,
    /// Which file.
    pub path: PathBuf,
    /// Why it is of no use, and what would be.
    pub what: String,
}

/// All that is wrong; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl std::error::Error for Problems {}

/// What usable files imply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// About which file.
    pub problem: Problem,
    /// Connections fail by it now, as opposed to some, or later.
    pub serious: bool,
}

/// What the files held at one moment. Two are equal if every byte is.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    trusted: Option<Content>,
    cert: Option<Content>,
    key: Option<Content>,
}

#[derive(Clone, PartialEq, Eq)]
struct Content {
    part: Part,
    path: PathBuf,
    bytes: Result<Vec<u8>, String>,
}

impl Content {
    fn problem(&self, what: String) -> Problem {
        Problem { part: self.part, path: self.path.clone(), what }
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contents(..)")
    }
}

/// What connections are made of.
#[derive(Clone, Debug)]
pub struct Material {
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) own: Option<Arc<SingleCertAndKey>>,
    facts: Vec<(PathBuf, Part, Facts)>,
}

/// Files that are read again now and then.
#[derive(Debug)]
pub struct Rotating {
    files: Files,
    seen: Contents,
}

impl Files {
    /// Reads them all, as they are now.
    #[must_use]
    pub fn read(&self) -> Contents {
        let content =
            |path: &Option<PathBuf>, part| path.clone().map(|path| Content { bytes: bytes(&path), part, path });
        Contents {
            trusted: content(&self.trusted, Part::Trusted),
            cert: content(&self.cert, Part::Cert),
            key: content(&self.key, Part::Key),
        }
    }
}

impl Rotating {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(files: Files) -> Result<(Self, Material), Problems> {
        let seen = files.read();
        let material = seen.material()?;
        Ok((Self { files, seen }, material))
    }

    /// Reads them again. `None` while they hold what they held at the last reading; so what is wrong is told once.
    pub fn changed(&mut self) -> Option<Result<Material, Problems>> {
        let now = self.files.read();
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(self.seen.material())
    }
}

impl Contents {
    /// Makes of them what connections need.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn material(&self) -> Result<Material, Problems> {
        let mut problems = Vec::new();
        let mut noted = |result: Result<Vec<(CertificateDer<'static>, Facts)>, Problem>| {
            result.map_err(|problem| problems.push(problem)).unwrap_or_default()
        };
        let trusted = self.trusted.as_ref().map(certificates).map(&mut noted).unwrap_or_default();
        let chain = self.cert.as_ref().map(certificates).map(&mut noted).unwrap_or_default();
        let key = self.key.as_ref().and_then(|c| private_key(c).map_err(|problem| problems.push(problem)).ok());
        let mut own = None;
        if let (Some(cert), Some(file), Some(key), false) = (&self.cert, &self.key, key, chain.is_empty()) {
            if let Some(problem) = belongs(&*key, &chain, cert, file) {
                problems.push(problem);
            } else {
                let chain = chain.iter().map(|(cert, _)| cert.clone()).collect();
                own = Some(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let told = |content: &Option<Content>, part, all: &[(CertificateDer<'static>, Facts)]| {
            let path = content.as_ref().map(|c| c.path.clone()).unwrap_or_default();
            all.iter().map(|(_, facts)| (path.clone(), part, facts.clone())).collect::<Vec<_>>()
        };
        let mut facts = told(&self.trusted, Part::Trusted, &trusted);
        facts.extend(told(&self.cert, Part::Cert, &chain));
        Ok(Material { trusted: trusted.into_iter().map(|(cert, _)| cert).collect(), own, facts })
    }
}

impl Material {
    /// What is wrong with usable files at `now`, counted from 1970, or within `soon` of it.
    #[must_use]
    pub fn complaints(&self, side: Side, now: Duration, soon: Duration) -> Vec<Complaint> {
        let mut all = Vec::new();
        let trusted = self.facts.iter().filter(|(_, part, _)| *part == Part::Trusted);
        // A bundle may hold expired authorities besides those in use.
        let every = trusted.clone().count() > 0 && trusted.clone().all(|(.., facts)| facts.invalid_at(now).is_some());
        for (path, part, facts) in &self.facts {
            let mut say = |serious, what: String| {
                all.push(Complaint { problem: Problem { part: *part, path: path.clone(), what }, serious });
            };
            let whose = if facts.subject.is_empty() { "the certificate".to_owned() } else { facts.subject.clone() };
            if let Some(why) = facts.invalid_at(now) {
                say(*part == Part::Cert || every, format!("{whose} {why}"));
            } else if facts.not_after < now + soon {
                say(false, format!("{whose} expires at {}", date(facts.not_after)));
            }
        }
        let own = self.facts.iter().find(|(_, part, _)| *part == Part::Cert);
        let Some((path, _, facts)) = own else { return all };
        let what = match side {
            Side::Client if !facts.for_clients => {
                "is not for clients (its extendedKeyUsage lacks clientAuth): a server that asks for a certificate refuses it"
            }
            Side::Server if !facts.for_servers => {
                "is not for servers (its extendedKeyUsage lacks serverAuth): clients refuse it"
            }
            Side::Server if !facts.named => {
                "has no subjectAltName, as X.509 version 1 never has: most clients refuse it"
            }
            Side::Client | Side::Server => return all,
        };
        all.push(Complaint {
            problem: Problem { part: Part::Cert, path: path.clone(), what: what.to_owned() },
            serious: false,
        });
        all
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e| format!("cannot be read: {e}"))?;
    let small = u64::try_from(bytes.len()).is_ok_and(|n| n <= FILE_MAX);
    if small { Ok(plain(&bytes)) } else { Err("is larger than 1 MiB, so it is no file of certificates".to_owned()) }
}

/// What the parser of PEM passes over, and etcd's own tools take: a mark of UTF-8 at the beginning, and OpenSSL's other name for
/// a certificate. The trust settings that may follow a certificate under that name are not followed, so it is refused with them.
fn plain(bytes: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let rest = bytes.strip_prefix(MARK).unwrap_or(bytes);
    match std::str::from_utf8(rest) {
        Ok(text) if text.contains(TRUSTED) => text.replace(TRUSTED, "CERTIFICATE-----").into_bytes(),
        Ok(_) | Err(_) => rest.to_vec(),
    }
}

/// Every certificate of a file; at least one.
fn certificates(content: &Content) -> Result<Vec<(CertificateDer<'static>, Facts)>, Problem> {
    let problem = |what: String| content.problem(what);
    let bytes = content.bytes.as_ref().map_err(|what| problem(what.clone()))?;
    let mut all = Vec::new();
    for (n, cert) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let nth = n + 1;
        let cert = cert.map_err(|e| problem(format!("certificate {nth} is broken: {}", broken(&e))))?;
        let facts =
            Facts::of(&cert).map_err(|e| problem(format!("certificate {nth} is broken: {e}{}", settings(&e))))?;
        all.push((cert, facts));
    }
    if all.is_empty() { Err(problem(instead("certificate", "CERTIFICATE", bytes))) } else { Ok(all) }
}

/// What to do about OpenSSL's trust settings, which follow the certificate in its own block.
pub(super) fn settings(error: &str) -> &'static str {
    if error.contains("trailing data") {
        "; are there trust settings of OpenSSL behind it? `openssl x509 -in` that file writes it without them"
    } else {
        ""
    }
}

fn private_key(content: &Content) -> Result<Arc<dyn SigningKey>, Problem> {
    let problem = |what: String| content.problem(what);
    let bytes = content.bytes.as_ref().map_err(|what| problem(what.clone()))?;
    let shown = content.path.display();
    let text = String::from_utf8_lossy(bytes);
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        let what = "the private key is encrypted, and there is nobody to ask for its passphrase; accepted: what";
        return Err(problem(format!(
            "{what} `openssl pkey -in {shown} -out plain.key` writes, readable by its user alone"
        )));
    }
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|e| match e {
        pem::Error::NoItemsFound => problem(instead("private key", "PRIVATE KEY", bytes)),
        other => problem(format!("the private key is broken: {}", broken(&other))),
    })?;
    provider().key_provider.load_private_key(key).map_err(|_| {
        let accepted = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, Ed25519";
        problem(format!("the private key is of a kind that is not accepted, or broken; accepted: {accepted}"))
    })
}

/// Whether the key is that of the first certificate.
fn belongs(
    key: &dyn SigningKey,
    chain: &[(CertificateDer<'static>, Facts)],
    cert: &Content,
    file: &Content,
) -> Option<Problem> {
    let public = key.public_key()?;
    let place = chain.iter().position(|(_, facts)| facts.public_key == public.as_ref());
    let shown = cert.path.display();
    match place {
        Some(0) => None,
        Some(n) => {
            let what = format!("the private key's own certificate comes first; here it is number {}", n + 1);
            Some(cert.problem(what))
        }
        None => {
            let what = format!("the private key belongs to another certificate than that in {shown}");
            Some(file.problem(what))
        }
    }
}

/// What there is where something else was expected.
fn instead(expected: &str, label: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let labels = text.split("-----BEGIN ").skip(1).filter_map(|rest| rest.split_once("-----")).map(|(label, _)| label);
    let mut found: Vec<String> = labels.filter(|l| l.len() < 40).map(str::to_lowercase).collect();
    found.dedup();
    if found.iter().any(|l| l.ends_with(&label.to_lowercase())) {
        return format!("the {expected} has no end; is the file cut off?");
    }
    if !found.is_empty() {
        found.truncate(3);
        return format!("holds no {expected}, but: {}", found.join(", "));
    }
    // A DER file begins with a SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return format!("holds no {expected} in PEM, but perhaps one in DER; `openssl … -inform DER` makes PEM of it");
    }
    format!("holds no {expected}; accepted: PEM, with a line `-----BEGIN {label}-----`")
}

fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it has no end; is the file cut off?".to_owned(),
        pem::Error::Base64Decode(_) => "no valid base64".to_owned(),
        other => other.to_string(),
    }
}
