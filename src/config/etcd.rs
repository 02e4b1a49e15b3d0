//! The `etcd` section.

use std::time::Duration;

use super::node::Scalar;
use super::schema::{both_or_none, readable};
use super::tls::judge;
use super::values::{Parsed, duration, quoted, text, username};
use super::walk::{Section, Walk};
use super::{EtcdConfig, EtcdTls};
use crate::election::ids::ClusterId;

/// More than any cluster has members.
const MAX_ENDPOINTS: usize = 32;

pub(super) fn etcd(walk: &mut Walk, top: &Section) -> EtcdConfig {
    let section = walk.section(top, "etcd");
    let endpoints = endpoints(walk, &section);
    let prefix = walk.value(&section, "prefix", "/tenure".to_owned(), prefix);
    let cluster_id = walk.optional(&section, "cluster_id", cluster_id);
    let username = walk.optional(&section, "username", username);
    let password_file = readable(walk, &section, "password_file");
    both_or_none(walk, &section, ["username", "password_file"]);
    let (least, most) = (Duration::from_millis(10), Duration::from_mins(1));
    let mut limit = |name: &str| walk.value(&section, name, Duration::from_secs(2), |s| duration(s, least, most));
    let connect_timeout = limit("connect_timeout");
    let request_timeout = limit("request_timeout");
    let tls = tls(walk, &section, &endpoints);
    EtcdConfig { endpoints, prefix, cluster_id, username, password_file, tls, connect_timeout, request_timeout }
}

fn endpoints(walk: &mut Walk, section: &Section) -> Vec<String> {
    let key = section.key("endpoints");
    if section.node("endpoints").is_none() {
        return vec!["http://127.0.0.1:2379".to_owned()];
    }
    let items = walk.items(section, "endpoints", false).unwrap_or_default();
    if items.len() > MAX_ENDPOINTS {
        walk.complain(section.place("endpoints"), key.clone(), format!("accepted: at most {MAX_ENDPOINTS} members"));
    }
    let mut all: Vec<String> = Vec::new();
    for (i, item) in items.iter().enumerate().take(MAX_ENDPOINTS) {
        let key = format!("{key}[{i}]");
        let Some(url) = walk.scalar(item, &key, super::url::endpoint) else { continue };
        if all.contains(&url) {
            walk.complain(item.place.clone(), key, "the same member twice; accepted: each once");
            continue;
        }
        if all.first().is_some_and(|first| is_https(first) != is_https(&url)) {
            walk.complain(item.place.clone(), key, "http and https mixed; accepted: the same scheme for every member");
        }
        all.push(url);
    }
    all
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

fn prefix(scalar: &Scalar) -> Parsed<String> {
    let prefix = text(scalar)?;
    let good = prefix.starts_with('/')
        && !prefix.ends_with('/')
        && !prefix.contains("//")
        && prefix.len() <= 512
        && prefix.bytes().all(|b| b.is_ascii_graphic());
    if good {
        return Ok(prefix);
    }
    Err(format!(
        "{} is no prefix of keys; accepted: such as /tenure, with a slash before and none behind",
        quoted(scalar)
    ))
}

fn cluster_id(scalar: &Scalar) -> Parsed<ClusterId> {
    // Digits alone are an id as well, so this is a text whatever YAML takes it for.
    ClusterId::parse(&scalar.text).ok_or_else(|| {
        format!(
            "{} is no cluster's id; accepted: hexadecimal, such as cdf818194e3a8c32, as `etcdctl --write-out=fields --hex endpoint status` shows it",
            quoted(scalar)
        )
    })
}

fn tls(walk: &mut Walk, etcd: &Section, endpoints: &[String]) -> Option<EtcdTls> {
    let section = walk.section(etcd, "tls");
    let tls = EtcdTls {
        ca_file: readable(walk, &section, "ca_file"),
        cert_file: readable(walk, &section, "cert_file"),
        key_file: readable(walk, &section, "key_file"),
        server_name: walk.optional(&section, "server_name", server_name),
    };
    both_or_none(walk, &section, ["cert_file", "key_file"]);
    let secure = endpoints.iter().any(|url| is_https(url));
    if secure && !section.has("ca_file") {
        let what = "https needs to know whom to trust, and no authorities are built in; accepted: ca_file, a file of PEM certificates";
        walk.complain(section.place("ca_file"), section.key("ca_file"), what);
    }
    let plain = !endpoints.is_empty() && !secure;
    if plain && tls != EtcdTls::default() {
        let what = "TLS is configured, but the endpoints are http; accepted: https://host:port, or no etcd.tls";
        walk.complain(etcd.place("tls"), etcd.key("tls"), what);
    }
    if secure {
        judge(walk, &section, &tls.files(), ["ca_file", "cert_file", "key_file"]);
    }
    secure.then_some(tls)
}

fn server_name(scalar: &Scalar) -> Parsed<String> {
    let name = text(scalar)?;
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.len() > 253 || !name.chars().all(host) {
        return Err(format!("{} is no host name; accepted: such as etcd.example.org", quoted(scalar)));
    }
    Ok(name)
}
