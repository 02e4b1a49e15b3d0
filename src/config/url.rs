//! URLs of etcd and of the application.

use std::net::Ipv6Addr;

use hyper::Uri;

use super::node::Scalar;
use super::values::{Parsed, quoted, text};

/// `http://host:port` or `https://host:port` and nothing more.
pub(super) fn endpoint(scalar: &Scalar) -> Parsed<String> {
    let url = text(scalar)?;
    let accepted = "accepted: http://host:port or https://host:port";
    let uri = parse(scalar, &url, accepted)?;
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("{} has no port; accepted: the port too, such as :2379", quoted(scalar)));
    }
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let bare = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
    if url != bare {
        return Err(format!("{} has more than a host and a port; {accepted}", quoted(scalar)));
    }
    Ok(url)
}

/// A URL that others can follow.
pub(super) fn advertised(scalar: &Scalar) -> Parsed<String> {
    let url = text(scalar)?;
    parse(scalar, &url, "accepted: a URL such as http://10.0.0.5:4790")?;
    if url.len() > 1024 {
        return Err("longer than 1024 characters".to_owned());
    }
    Ok(url)
}

fn parse(scalar: &Scalar, url: &str, accepted: &str) -> Parsed<Uri> {
    // Before anything quotes it: there may be a password in it.
    if url.contains('@') {
        return Err(format!("no user or password in a URL; {accepted}, and username with password_file"));
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(format!("{} does not begin with http:// or https://; {accepted}", quoted(scalar)));
    }
    let uri: Uri = url.parse().map_err(|_| {
        // What http://${POD_IP}:4790 becomes in a cluster with IPv6.
        let bare = url.split("://").nth(1).is_some_and(|rest| !rest.starts_with('[') && rest.matches(':').count() > 1);
        let brackets = if bare { ", and an IPv6 address in brackets, such as http://[fd00::5]:4790" } else { "" };
        format!("{} is no URL; {accepted}{brackets}", quoted(scalar))
    })?;
    let host = uri.host().unwrap_or_default();
    let bracketed = host.strip_prefix('[').map(|rest| rest.trim_end_matches(']'));
    if bracketed.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_err()) {
        return Err(format!("{} has brackets around what is no IPv6 address; {accepted}", quoted(scalar)));
    }
    if host.is_empty() || url.contains('#') {
        return Err(format!("{} is no URL with a host; {accepted}", quoted(scalar)));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::super::node::Kind;
    use super::*;

    #[test]
    fn endpoints_are_a_scheme_a_host_and_a_port() {
        let plain = |t: &str| Scalar { text: t.to_owned(), shown: t.to_owned(), kind: Kind::Plain };
        for good in ["http://127.0.0.1:2379", "https://etcd-0.etcd:2379", "http://[::1]:2379"] {
            assert_eq!(endpoint(&plain(good)).as_deref(), Ok(good));
        }
        for bad in [
            "127.0.0.1:2379",
            "http://h",
            "http://h:0",
            "http://h:99999",
            "http://h:1/",
            "http://h:1/x?y",
            "ftp://h:1",
            "http://:1",
            "http://[10.0.0.5]:1",
            "http://[::1%eth0]:1",
            "http://u:secret@h:1",
        ] {
            let what = endpoint(&plain(bad)).expect_err(bad);
            assert!(!what.contains("secret"), "{what}");
            assert!(!what.contains("in brackets"), "{what}");
        }
        let what = advertised(&plain("http://fd00::1:4790")).expect_err("without brackets");
        assert!(what.contains("in brackets, such as http://[fd00::5]:4790"), "{what}");
    }
}
