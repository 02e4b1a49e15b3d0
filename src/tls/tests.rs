//! Files as they go wrong, and handshakes with what etcd's own tools accept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn files(trusted: &Path, own: Option<(&Path, &Path)>) -> Files {
    let own = own.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
    Files { trusted: Some(trusted.to_owned()), cert: own.clone().map(|o| o.0), key: own.map(|o| o.1) }
}

fn material(files: &Files) -> Material {
    files.read().material().unwrap_or_else(|e| panic!("{files:?}: {e}"))
}

/// What the server said of it, what the client said of it.
async fn handshake(server: &Material, client: &Material, name: &str) -> (Result<(), String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = TlsAcceptor::from(Arc::new(server.server(b"h2").expect("a server")));
    let connector = TlsConnector::from(Arc::new(client.client(b"h2").expect("a client")));
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let serve = async {
        use tokio::io::AsyncReadExt as _;
        let mut stream = acceptor.accept(far).await?;
        // In TLS 1.3 a client hears only now that its certificate is refused.
        stream.read_u8().await.map(|_| ())
    };
    let connect = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = connector.connect(name, near).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        match stream.read_u8().await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
            other => other.map(|_| ()),
        }
    };
    let (there, here) = tokio::join!(serve, connect);
    (there.map_err(|e: std::io::Error| e.to_string()), here.map_err(|e: std::io::Error| e.to_string()))
}

/// A certificate of our own making, in files.
struct Made {
    _dir: tempfile::TempDir,
    cert: PathBuf,
    key: PathBuf,
}

fn made(change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("a certificate");
    in_files(&cert.pem(), &key.serialize_pem())
}

fn in_files(cert: &str, key: &str) -> Made {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Made { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem"), _dir: dir };
    std::fs::write(&made.cert, cert).expect("written");
    std::fs::write(&made.key, key).expect("written");
    made
}

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[test]
fn every_kind_of_file_that_is_of_no_use_is_named_with_its_reason() {
    let der = in_files("", "");
    std::fs::write(&der.cert, [0x30, 0x82, 1, 2, 3]).expect("written");
    let cut = in_files("-----BEGIN CERTIFICATE-----\nMIIB", "-----BEGIN PRIVATE KEY-----\nMIIB");
    let noise = in_files("hello", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let wrong = in_files("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "");
    let small = in_files("", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let chain = std::fs::read_to_string(fixture("ca.crt")).expect("text")
        + &std::fs::read_to_string(fixture("client.crt")).expect("text");
    let swapped = in_files(&chain, "");
    let (ca, cert, key) = (fixture("ca.crt"), fixture("client.crt"), fixture("client.key"));
    let dir = der.cert.parent().expect("a directory").to_owned();
    let missing = dir.join("missing");
    for (trusted, cert, key, path, says) in [
        (&ca, &cert, &fixture("client-encrypted.key"), "client-encrypted.key", "is encrypted"),
        (&ca, &cert, &fixture("client-encrypted-old.key"), "client-encrypted-old.key", "openssl pkey -in"),
        (&ca, &cert, &fixture("v1.key"), "v1.key", "belongs to another certificate than that in"),
        (&ca, &swapped.cert, &key, "cert.pem", "comes first; here it is number 2"),
        (&key, &cert, &key, "client.key", "holds no certificate, but: private key"),
        (&ca, &key, &key, "client.key", "holds no certificate, but: private key"),
        (&ca, &cert, &ca, "ca.crt", "holds no private key, but: certificate"),
        (&der.cert, &cert, &key, "cert.pem", "openssl … -inform DER"),
        (&cut.cert, &cert, &key, "cert.pem", "cut off"),
        (&ca, &cert, &cut.key, "key.pem", "cut off"),
        (&noise.cert, &cert, &key, "cert.pem", "-----BEGIN CERTIFICATE-----"),
        (&noise.key, &cert, &key, "key.pem", "no valid base64"),
        (&wrong.cert, &cert, &key, "cert.pem", "certificate 1 is broken"),
        (&ca, &cert, &small.key, "key.pem", "P-256, P-384 or P-521"),
        (&missing, &cert, &key, "missing", "cannot be read: No such file"),
        (&dir, &cert, &key, "", "cannot be read"),
        (&PathBuf::from("/dev/zero"), &cert, &key, "/dev/zero", "larger than 1 MiB"),
    ] {
        let problems = files(trusted, Some((cert, key))).read().material().expect_err(says);
        assert_eq!(problems.0.len(), 1, "{problems}");
        let text = problems.to_string();
        assert!(text.contains(says) && problems.0[0].path.ends_with(path) | path.is_empty(), "{path}: {text}");
    }
    let all = files(&key, Some((&ca, &fixture("client-encrypted.key")))).read().material().expect_err("both");
    assert_eq!(all.0.iter().map(|p| p.part).collect::<Vec<_>>(), [Part::Trusted, Part::Key], "all at once: {all}");
}

#[test]
fn a_mark_of_utf_8_and_the_other_name_of_a_certificate_are_passed_over() {
    let (cert, key) = (fixture("client.crt"), fixture("client.key"));
    let text = |path: &Path| std::fs::read_to_string(path).expect("text");
    let marked = in_files(&format!("\u{feff}{}", text(&cert)), &format!("\u{feff}{}", text(&key)));
    let trusted = in_files(&text(&fixture("ca.crt")).replace(" CERTIFICATE", " TRUSTED CERTIFICATE"), "");
    material(&files(&trusted.cert, Some((&marked.cert, &marked.key))));
}

#[test]
fn trust_settings_of_openssl_are_refused_with_the_way_around_them() {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    let der = tokio_rustls::rustls::pki_types::CertificateDer::from_pem_file(fixture("ca.crt")).expect("a certificate");
    let error = super::certificate::Facts::of(&[&der[..], &[0x30, 0]].concat().into()).expect_err("more than it");
    assert!(super::files::settings(&error).contains("openssl x509 -in"), "{error}");
}

#[test]
fn a_certificate_that_is_out_of_time_or_of_another_use_is_complained_of() {
    let secs = Duration::from_secs;
    let (now, day) = (1_800_000_000_u64, 24 * 60 * 60);
    let at = |secs: u64| (std::time::UNIX_EPOCH + Duration::from_secs(secs)).into();
    let valid = |from: u64, to: u64| made(move |p| (p.not_before, p.not_after) = (at(from), at(to)));
    let good = fixture("server.crt");
    let complaints = |made: &Made, side| {
        let all = material(&files(&good, Some((&made.cert, &made.key)))).complaints(side, secs(now), secs(7 * day));
        all.into_iter().map(|c| (c.serious, c.problem.what)).collect::<Vec<_>>()
    };
    let says = |made: &Made, side, serious, what: &str| {
        let all = complaints(made, side);
        assert!(all.len() == 1 && all[0].0 == serious && all[0].1.contains(what), "{what}: {all:?}");
    };
    assert_eq!(complaints(&valid(now - day, now + 8 * day), Side::Client), []);
    says(&valid(now - day, now - day / 2), Side::Client, true, "expired at 2027-01-14T20:00:00Z");
    says(&valid(now + day, now + 99 * day), Side::Server, true, "this machine's clock says 2027-01-15T08:00:00Z");
    says(&valid(now - day, now + day), Side::Server, false, "expires at 2027-01-16T08:00:00Z");
    let usage = |usage| made(|p| p.extended_key_usages = vec![usage]);
    says(&usage(ExtendedKeyUsagePurpose::ServerAuth), Side::Client, false, "lacks clientAuth");
    says(&usage(ExtendedKeyUsagePurpose::ClientAuth), Side::Server, false, "lacks serverAuth");
    assert_eq!(complaints(&usage(ExtendedKeyUsagePurpose::Any), Side::Server), []);
    let v1 = files(&good, Some((&fixture("v1.crt"), &fixture("v1.key"))));
    let all = material(&v1).complaints(Side::Server, secs(now), secs(day));
    assert!(all.len() == 1 && all[0].problem.what.contains("no subjectAltName"), "{all:?}");
    assert_eq!(material(&v1).complaints(Side::Client, secs(now), secs(day)), []);
    // One of several authorities may have had its time; a file of nothing else is of no use.
    let old = valid(now - 2 * day, now - day);
    let text = std::fs::read_to_string(&old.cert).expect("text");
    let bundle = in_files(&(text + &std::fs::read_to_string(&good).expect("text")), "");
    let serious =
        |trusted: &Path| material(&files(trusted, None)).complaints(Side::Client, secs(now), secs(day))[0].serious;
    assert!(serious(&old.cert) && !serious(&bundle.cert));
}

#[test]
fn a_rotation_shows_by_content_when_time_and_length_are_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ca.pem");
    let [first, second] = [made(authority), made(authority)];
    // The same length: what differs is padded behind the certificate, where PEM takes anything.
    let texts = [&first, &second].map(|m| std::fs::read_to_string(&m.cert).expect("text"));
    let longest = texts.iter().map(String::len).max().expect("two");
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let put = |text: &str| {
        std::fs::write(&path, format!("{text:longest$}")).expect("written");
        std::fs::File::options().write(true).open(&path).expect("a file").set_modified(time).expect("set");
    };
    put(&texts[0]);
    let (mut rotating, before) = Rotating::load(files(&path, None)).expect("usable");
    assert!(rotating.changed().is_none());
    put(&texts[1]);
    let after = rotating.changed().expect("noticed").expect("usable");
    assert_ne!(before.trusted, after.trusted);
    put("broken");
    assert!(rotating.changed().expect("noticed").is_err());
    assert!(rotating.changed().is_none(), "told once");
    put(&texts[0]);
    assert!(rotating.changed().expect("noticed").is_ok());
}

#[tokio::test]
async fn p521_and_a_certificate_that_signed_itself_as_an_authority_are_accepted_on_both_sides() {
    let cert = fixture("p521.crt");
    for key in ["p521.key", "p521-sec1.key"] {
        let own = material(&files(&cert, Some((&cert, &fixture(key)))));
        for name in ["localhost", "127.0.0.1"] {
            assert_eq!(handshake(&own, &own, name).await, (Ok(()), Ok(())), "{key} {name}");
        }
        let (_, said) = handshake(&own, &own, "elsewhere.example").await;
        assert!(said.is_err_and(|e| e.contains("NotValidForName") || e.contains("not valid for name")));
    }
    let itself = made(authority);
    let own = material(&files(&itself.cert, Some((&itself.cert, &itself.key))));
    assert_eq!(handshake(&own, &own, "localhost").await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_certificate_that_is_only_like_one_of_the_file_is_refused() {
    // Another authority of the same name and the same names in it: not byte for byte the same, and not signed by it.
    let [one, other] = [made(authority), made(authority)];
    let server = material(&files(&one.cert, Some((&one.cert, &one.key))));
    let stranger = material(&files(&other.cert, Some((&other.cert, &other.key))));
    assert!(handshake(&server, &stranger, "localhost").await.1.is_err(), "the server is not of the client's file");
    let trusting = material(&files(&one.cert, Some((&other.cert, &other.key))));
    assert!(handshake(&server, &trusting, "localhost").await.0.is_err(), "the client is not of the server's file");
}

#[tokio::test]
async fn a_certificate_of_the_file_must_still_be_in_its_time_and_for_this_use() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 3] = [
        ("Expired", |p| p.not_after = rcgen::date_time_ymd(2001, 9, 9)),
        ("NotValidYet", |p| p.not_before = rcgen::date_time_ymd(2984, 1, 1)),
        ("InvalidPurpose", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
    ];
    for (says, change) in cases {
        let itself = made(|p| {
            authority(p);
            change(p);
        });
        let own = material(&files(&itself.cert, Some((&itself.cert, &itself.key))));
        let (_, said) = handshake(&own, &own, "localhost").await;
        assert!(said.as_ref().is_err_and(|e| e.contains(says)), "{says}: {said:?}");
    }
}

#[tokio::test]
async fn an_ordinary_authority_works_and_its_absence_is_refused() {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    authority(&mut params);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").signed_by(&key, &authority);
    let leaf = in_files(&leaf.expect("signed").pem(), &key.serialize_pem());
    let ca = in_files(&authority.pem(), "");
    let server = material(&files(&ca.cert, Some((&leaf.cert, &leaf.key))));
    assert_eq!(handshake(&server, &server, "localhost").await, (Ok(()), Ok(())));
    let nobody = material(&files(&ca.cert, None));
    assert!(handshake(&server, &nobody, "localhost").await.0.is_err(), "a client without a certificate");
    // The leaf alone, without its authority: what `etcdctl --cacert` takes as well.
    let pinned = material(&files(&leaf.cert, Some((&leaf.cert, &leaf.key))));
    assert_eq!(handshake(&server, &pinned, "localhost").await, (Ok(()), Ok(())));
}
