//! TLS as etcd's own tools take it: what works with etcdctl works here, and what cannot work is said with file and reason.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Certs, Daemon, Etcd, eventually, tenure};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn certs(trusted: &str, server: &str, client: &str) -> Certs {
    Certs {
        ca: fixture(trusted),
        server_cert: fixture(&format!("{server}.crt")),
        server_key: fixture(&format!("{server}.key")),
        client_cert: fixture(&format!("{client}.crt")),
        client_key: fixture(&format!("{client}.key")),
    }
}

async fn leads(etcd: &Etcd, tls: serde_json::Value) {
    let daemon = Daemon::builder("pod-0", etcd).set("etcd.tls", tls).start().await;
    eventually("a leader", async || daemon.is_leader().await.then_some(())).await;
}

#[tokio::test]
async fn a_daemon_leads_on_the_p521_certificate_that_etcd_makes_for_itself() {
    let etcd = Etcd::builder().auto_tls().start().await;
    let text = fs::read_to_string(etcd.auto_certificate()).expect("etcd made one");
    assert!(text.contains("CERTIFICATE"), "{text}");
    leads(&etcd, json!({"ca_file": etcd.auto_certificate()})).await;
}

#[tokio::test]
async fn a_daemon_leads_with_a_client_certificate_of_version_1_as_etcdctl_writes_with_it() {
    let etcd = Etcd::builder().tls_files(certs("ca.crt", "server", "v1")).start().await;
    etcd.ctl(&["put", "x", "y"]).await;
    let tls = json!({"ca_file": fixture("ca.crt"), "cert_file": fixture("v1.crt"), "key_file": fixture("v1.key")});
    leads(&etcd, tls).await;
}

/// The certificate of such a server calls itself an authority, and is the only one in the client's file.
#[tokio::test]
async fn a_daemon_leads_on_a_certificate_that_signed_itself_and_with_a_p521_key_of_its_own() {
    let etcd = Etcd::builder().tls_files(certs("p521.crt", "p521", "p521")).start().await;
    etcd.ctl(&["put", "x", "y"]).await;
    let tls =
        json!({"ca_file": fixture("p521.crt"), "cert_file": fixture("p521.crt"), "key_file": fixture("p521-sec1.key")});
    leads(&etcd, tls).await;
}

#[tokio::test]
async fn a_config_check_names_the_file_and_the_reason_for_etcd_and_for_our_own_listeners() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = async |section: &str, ca: &str, cert: &str, key: &str| {
        let file = dir.path().join("tenure.yaml");
        let [ca, cert, key] = [ca, cert, key].map(|name| fixture(name).display().to_string());
        let text = if section == "etcd" {
            format!(
                "etcd:\n  endpoints: ['https://h:1']\n  tls:\n    ca_file: {ca}\n    cert_file: {cert}\n    key_file: {key}\n"
            )
        } else {
            format!("http:\n  tls:\n    client_ca_file: {ca}\n    cert_file: {cert}\n    key_file: {key}\n")
        };
        fs::write(&file, format!("id: a\nelections: [orders]\n{text}")).expect("written");
        let output = tenure(&["config", "check", file.to_str().expect("UTF-8")]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for section in ["etcd", "http"] {
        let ca_file = if section == "etcd" { "ca_file" } else { "client_ca_file" };
        let (code, said) = check(section, "ca.crt", "client.crt", "client.key").await;
        assert_eq!(code, Some(0), "{section}: {said}");
        for (ca, cert, key, at, says) in [
            (
                "ca.crt",
                "client.crt",
                "client-encrypted.key",
                "key_file",
                "client-encrypted.key: the private key is encrypted",
            ),
            ("ca.crt", "client.crt", "v1.key", "key_file", "v1.key: the private key belongs to another certificate"),
            ("client.key", "client.crt", "client.key", ca_file, "client.key: holds no certificate, but: private key"),
            ("ca.crt", "client.crt", "ca.crt", "key_file", "ca.crt: holds no private key"),
            ("README.md", "client.crt", "client.key", ca_file, "README.md: holds no certificate; accepted: PEM"),
        ] {
            let (code, said) = check(section, ca, cert, key).await;
            assert_eq!(code, Some(3), "{section} {says}: {said}");
            let place = format!("{section}.tls.{at}: ");
            assert!(said.contains(&place) && said.contains(says), "{place} {says}: {said}");
            assert!(said.contains("tenure.yaml:"), "with its place: {said}");
        }
    }
}

#[tokio::test]
async fn a_config_check_refuses_certificates_out_of_their_time_and_warns_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = |name: &str, not_before, not_after| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (not_before, not_after);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let (cert, secret) = (dir.path().join(format!("{name}.crt")), dir.path().join(format!("{name}.key")));
        fs::write(&cert, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        fs::write(&secret, key.serialize_pem()).expect("written");
        (cert, secret)
    };
    let day = rcgen::date_time_ymd;
    let soon = std::time::SystemTime::now() + std::time::Duration::from_hours(48);
    for ((cert, key), code, says) in [
        (made("past", day(2001, 1, 1), day(2002, 1, 1)), 3, "CN=past expired at 2002-01-01T00:00:00Z"),
        (made("future", day(2980, 1, 1), day(2990, 1, 1)), 3, "CN=future is not valid before 2980-01-01T00:00:00Z"),
        (made("soon", day(2001, 1, 1), soon.into()), 0, "warning: "),
    ] {
        for section in [
            "etcd: {endpoints: ['https://h:1'], tls: {ca_file: CA, cert_file: CERT, key_file: KEY}}",
            "http: {tls: {cert_file: CERT, key_file: KEY}}",
        ] {
            let section = section.replace("CA,", &format!("{},", fixture("ca.crt").display()));
            let section =
                section.replace("CERT", &cert.display().to_string()).replace("KEY", &key.display().to_string());
            let file = dir.path().join("tenure.yaml");
            fs::write(&file, format!("id: a\nelections: [orders]\n{section}\n")).expect("written");
            let output = tenure(&["config", "check", file.to_str().expect("UTF-8")]).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(code) && said.contains(says), "{section}: {:?} {said}", output.status);
            assert!(said.contains(&format!("tls.cert_file: {}: ", cert.display())), "{said}");
        }
    }
}
