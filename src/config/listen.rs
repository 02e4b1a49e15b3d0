//! Addresses to listen on, and which of them exclude each other.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Listen;
use super::node::Scalar;
use super::values::{Parsed, quoted, text};

/// The longest path that fits a Unix socket's address.
const SOCKET_PATH_MAX: usize = 107;

/// `ip:port` or `unix:/path`.
pub(super) fn listen(scalar: &Scalar) -> Parsed<Listen> {
    let address = text(scalar)?;
    if let Some(path) = address.strip_prefix("unix:") {
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(format!(
                "{} needs an absolute path of a socket; accepted: unix:/run/tenure/control.sock",
                quoted(scalar)
            ));
        }
        if path.len() > SOCKET_PATH_MAX {
            return Err(format!(
                "a socket's path is at most {SOCKET_PATH_MAX} bytes long, this one has {}",
                path.len()
            ));
        }
        return Ok(Listen::Unix(PathBuf::from(path)));
    }
    let hint = match address.rsplit_once(':') {
        Some(("", port)) => format!("did you mean `0.0.0.0:{port}`? "),
        Some(("localhost", port)) => format!("did you mean `127.0.0.1:{port}`? "),
        _ => String::new(),
    };
    let hint = if scalar.is_as_written() { hint } else { String::new() };
    let parsed = address.parse::<SocketAddr>();
    parsed
        .map(Listen::Tcp)
        .map_err(|_| format!("{} is no address; {hint}accepted: ip:port or unix:/path", quoted(scalar)))
}

/// Whether two listeners cannot both be had.
pub(super) fn collide(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(a), Listen::Unix(b)) => a == b,
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            // Port 0 takes a free one. `[::]` takes IPv4 as well, as Linux has it by default.
            let covers = |x: IpAddr, y: IpAddr| x.is_unspecified() && (x.is_ipv6() || y.is_ipv4());
            a.port() != 0
                && a.port() == b.port()
                && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
        }
        (Listen::Unix(_), Listen::Tcp(_)) | (Listen::Tcp(_), Listen::Unix(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Kind;
    use super::*;

    fn parsed(text: &str) -> Parsed<Listen> {
        listen(&Scalar { text: text.to_owned(), shown: text.to_owned(), kind: Kind::Plain })
    }

    #[test]
    fn listeners_collide_where_one_address_covers_the_other() {
        let collides = |a, b| collide(&parsed(a).expect(a), &parsed(b).expect(b));
        assert!(
            collides("0.0.0.0:1", "127.0.0.1:1") && collides("127.0.0.1:1", "[::]:1") && collides("unix:/a", "unix:/a")
        );
        assert!(
            !collides("127.0.0.1:1", "127.0.0.2:1")
                && !collides("0.0.0.0:0", "0.0.0.0:0")
                && !collides("0.0.0.0:1", "[::1]:1")
        );
    }

    #[test]
    fn addresses_without_an_ip_are_refused_with_what_was_meant() {
        assert!(parsed(":4790").expect_err("no ip").contains("`0.0.0.0:4790`"));
        assert!(parsed("localhost:1").expect_err("a name").contains("`127.0.0.1:1`"));
        for bad in ["unix:relative", "unix:", "4790", "1.2.3.4", "1.2.3.4:99999", &format!("unix:/{}", "x".repeat(107))]
        {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
