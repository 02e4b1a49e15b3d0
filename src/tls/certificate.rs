//! What a certificate says of itself. Whether it is to be believed, `verify` judges.

use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};

/// `anyExtendedKeyUsage`, `serverAuth` and `clientAuth` of RFC 5280, 4.2.1.12.
const ANY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// The statements of a certificate that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is, such as `CN=etcd-0`.
    pub subject: String,
    /// Since when it is valid, counted from 1970.
    pub not_before: Duration,
    /// Until when.
    pub not_after: Duration,
    /// It has names that clients can compare (`subjectAltName`); X.509 version 1 has no place for them.
    pub named: bool,
    /// It may be shown to servers by their clients.
    pub for_clients: bool,
    /// It may be shown by a server.
    pub for_servers: bool,
    /// The public key with its kind, as DER.
    pub(super) public_key: Vec<u8>,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = Certificate::from_der(certificate).map_err(|e| e.to_string())?;
        let tbs = &parsed.tbs_certificate;
        let public_key = tbs.subject_public_key_info.to_der().map_err(|e| e.to_string())?;
        let usages = tbs.get::<ExtendedKeyUsage>().map_err(|e| e.to_string())?;
        // Without the extension it is for everything.
        let may = |use_of| usages.as_ref().is_none_or(|(_, usages)| usages.0.iter().any(|u| *u == use_of || *u == ANY));
        Ok(Self {
            subject: tbs.subject.to_string(),
            not_before: tbs.validity.not_before.to_unix_duration(),
            not_after: tbs.validity.not_after.to_unix_duration(),
            named: tbs.get::<SubjectAltName>().map_err(|e| e.to_string())?.is_some(),
            for_clients: may(CLIENT),
            for_servers: may(SERVER),
            public_key,
        })
    }

    /// Why it is not valid at `now`, if so.
    #[must_use]
    pub fn invalid_at(&self, now: Duration) -> Option<String> {
        if now > self.not_after {
            return Some(format!("expired at {}", date(self.not_after)));
        }
        (now < self.not_before).then(|| {
            let (from, now) = (date(self.not_before), date(now));
            format!("is not valid before {from}, and this machine's clock says {now}")
        })
    }
}

/// A time since 1970, for people.
#[must_use]
pub fn date(at: Duration) -> String {
    // Where RFC 3339 ends: a certificate without an end says so by the year 9999.
    let at = at.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + at).to_string()
}
