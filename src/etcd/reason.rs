//! Why a member does not serve, in the words of whoever must mend it.
//!
//! What the libraries say is kept in brackets: it is what people search for.

use super::error::{Cause, Error, Kind};
use crate::health::Reason;

/// A text in a failure, the stable word for it, and what it means.
type Row = (&'static str, &'static str, &'static str);

/// In this order: the first text that occurs decides. Texts of etcd before those of connections, since they say more.
const TABLE: &[Row] = &[
    // etcd: `api/v3rpc/rpctypes/error.go`.
    (
        "not supported for learner",
        "learner",
        "it is a learner, which serves nothing that is needed: promote it, or name another member",
    ),
    (
        "etcdserver: no leader",
        "no_leader",
        "it has no leader: its cluster has lost its quorum, or it is cut off from the others",
    ),
    ("leader changed", "no_leader", "its cluster was changing its leader"),
    (
        "request timed out",
        "no_quorum",
        "it cannot commit or read within its own limit: no quorum, a leader that is lost, or a slow disk",
    ),
    ("server stopped", "stopping", "it is stopping"),
    ("database space exceeded", "no_space", "its database is full: compact, defragment, then `etcdctl alarm disarm`"),
    ("corrupt cluster", "corrupt", "it has raised the CORRUPT alarm: its data differs from the other members'"),
    ("too many requests", "overloaded", "it is overloaded and refuses requests"),
    ("permission denied", "permission", "its user lacks a permission: `tenure doctor` names it"),
    ("authentication failed", "password", "user name or password are wrong: see etcd.username and etcd.password_file"),
    ("user name not found", "password", "it does not know the user of etcd.username"),
    (
        "not logged in within",
        "login",
        "logging in there takes longer than a request may: it is busy, for it hashes each password slowly on purpose, or it hangs",
    ),
    ("none is configured", "no_user", "it asks for a user: set etcd.username and etcd.password_file"),
    ("user name is empty", "no_user", "it asks for a user: set etcd.username and etcd.password_file"),
    (
        "invalid auth token",
        "token",
        "it does not accept the token that it gave out: its clock or its auth-token settings differ",
    ),
    ("is old", "token", "its users or roles were changed just now"),
    ("cluster ID mismatch", "other_cluster", "it belongs to another cluster"),
    ("unknown service", "not_etcd", "it speaks gRPC and is no etcd: is the port right?"),
    // TLS: rustls' words for what the member showed, then the member's alerts about what we showed.
    (
        "invalid peer certificate: UnknownIssuer",
        "certificate_issuer",
        "its certificate is not trusted: no authority in etcd.tls.ca_file issued it",
    ),
    (
        "invalid peer certificate: BadSignature",
        "certificate_issuer",
        "its certificate is not trusted: no authority in etcd.tls.ca_file issued it; one there has the issuer's name and another key",
    ),
    ("certificate expired", "certificate_expired", "its certificate has expired"),
    ("certificate not valid yet", "certificate_not_yet_valid", "its certificate is not valid yet: is a clock wrong?"),
    (
        "certificate not valid for name",
        "certificate_name",
        "its certificate is for another name: see etcd.tls.server_name",
    ),
    (
        "CaUsedAsEndEntity",
        "certificate_authority",
        "its certificate is one of an authority (CA:TRUE), which is no server's",
    ),
    (
        "UnsupportedCertVersion",
        "certificate_version",
        "its certificate is of X.509 version 1, which has no place for names and is not supported: give it one of version 3, with its name in subjectAltName (openssl: `-extfile`)",
    ),
    ("invalid peer certificate", "certificate", "its certificate is not trusted"),
    (
        "alert: CertificateRequired",
        "client_certificate_missing",
        "it asks for a client certificate: set etcd.tls.cert_file and key_file",
    ),
    ("alert: UnknownCA", "client_certificate_refused", "it does not trust our client certificate's authority"),
    ("alert: CertificateExpired", "client_certificate_expired", "our client certificate has expired"),
    ("alert: BadCertificate", "client_certificate_refused", "it does not accept our client certificate, or wants one"),
    ("alert: CertificateUnknown", "client_certificate_refused", "it does not accept our client certificate"),
    ("received fatal alert", "tls", "it ended the TLS handshake"),
    ("InvalidContentType", "plain", "it does not speak TLS: is it http:// instead of https://?"),
    ("but not HTTP/2", "not_etcd", "it speaks TLS and no HTTP/2: is the port right, or a proxy in between?"),
    ("TLS handshake timeout", "silent", "it accepts connections and does not answer the TLS handshake"),
    (
        "tls handshake eof",
        "tls",
        "it closed the connection within the TLS handshake: does it speak TLS at all (http:// instead of https://)?",
    ),
    // Connections.
    ("dns error", "name", "its name does not resolve"),
    ("Connection refused", "refused", "connection refused: no etcd listens there"),
    (
        "tcp connect error: no answer",
        "unreachable",
        "nothing answers at its address: a network or a firewall in between, or its host is down",
    ),
    ("No route to host", "unreachable", "there is no way to its host"),
    ("Network is unreachable", "unreachable", "there is no way to its network"),
    ("tcp connect error", "unreachable", "no connection to it"),
    ("keep-alive timed out", "silent", "its connection stands and is silent"),
    (
        "frame with invalid size",
        "not_etcd",
        "it does not speak HTTP/2: is it https:// instead of http://, or is the port right?",
    ),
    ("HTTP/1", "not_etcd", "it speaks HTTP/1 only: is the port right, or a proxy in between?"),
];

/// The word for a connection that ended without saying why.
pub(super) const CLOSED_WORD: &str = "closed";
/// A connection that ended before it was of any use.
const CLOSED: &[&str] = &[
    "connection closed",
    "stream closed",
    "Connection reset",
    "Broken pipe",
    "connection error",
    "unexpected end of file",
];

impl Error {
    /// Why a member does not serve, in words. What a person reads in the log, in `tenure status` and from `tenure doctor`.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request { source, endpoint, .. } => of_cause(source, endpoint),
            Self::Exhausted { last: Some(last), .. } => last.reason(),
            Self::Silent { limit, .. } | Self::Exhausted { limit, last: None, .. } => {
                silent(&format!("no answer within {limit:?}"))
            }
            Self::Malformed { what, .. } => {
                Reason::new("malformed", format!("its answers make no sense ({what}): is a proxy in between?"))
            }
            Self::Foreign { found, pinned, .. } => Reason::new(
                "foreign",
                format!(
                    "this is etcd cluster {found}, and ours is {pinned}: this endpoint counts for nothing; list the members of \
                     one cluster only"
                ),
            ),
            Self::Mixed { .. } => Reason::new(
                "mixed",
                "this address is not one etcd: different clusters answer there in turn, so that it counts for nothing",
            ),
            Self::Undecided { .. } => Reason::new("undecided", self.to_string()),
            Self::Reset { .. } | Self::NotOurs { .. } | Self::File { .. } | Self::Settings { .. } => {
                Reason::new("local", self.to_string())
            }
        }
    }
}

/// The same, of what TLS said.
pub(super) fn of_alert(text: &str, endpoint: &str) -> Reason {
    of_cause(&Cause::local(Kind::Unreachable, text), endpoint)
}

fn silent(what: &str) -> Reason {
    Reason::new("silent", format!("{what}: it hangs, its disk is slow, it has no quorum, or packets are lost"))
}

fn of_cause(cause: &Cause, endpoint: &str) -> Reason {
    let raw = cause.to_string();
    if let Some((_, word, text)) = TABLE.iter().find(|(part, _, _)| raw.contains(part)) {
        return Reason::new(word, format!("{text} ({raw})"));
    }
    if CLOSED.iter().any(|part| raw.contains(part)) {
        // Neither side says why. Who speaks the wrong protocol, or has the wrong certificate, meets it at every try.
        let text = if endpoint.starts_with("https://") {
            "it closed the connection: it is stopping or, if this lasts, it wants a client certificate (etcd.tls.cert_file and \
             key_file), or does not accept ours"
        } else {
            "it closed the connection: it is stopping or, if this lasts, it speaks TLS (https:// instead of http://), or is no etcd"
        };
        return Reason::new(CLOSED_WORD, format!("{text} ({raw})"));
    }
    let (word, text) = match cause.kind() {
        Kind::WrongMember => ("unimplemented", "it cannot serve what is needed: too old, or a proxy in between"),
        Kind::Auth => ("token", "it refuses our user or token"),
        Kind::Unreachable => ("unreachable", "no connection to it"),
        _ => ("failed", "it failed"),
    };
    Reason::new(word, format!("{text} ({raw})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(endpoint: &str, kind: Kind, text: &str) -> &'static str {
        of_cause(&Cause::local(kind, text), endpoint).word
    }

    #[test]
    fn what_the_libraries_say_is_told_in_the_operators_words() {
        // As met on real servers, or as the libraries write them.
        let table = [
            ("unavailable: invalid peer certificate: UnknownIssuer", "certificate_issuer"),
            (
                "unavailable: invalid peer certificate: certificate expired: verification time 2 (UNIX), but certificate is not valid after 1 (1 seconds ago)",
                "certificate_expired",
            ),
            (
                "unavailable: invalid peer certificate: certificate not valid yet: verification time 1",
                "certificate_not_yet_valid",
            ),
            (
                "unavailable: invalid peer certificate: certificate not valid for name \"127.0.0.1\"; certificate is only valid for IpAddress(127.0.0.2)",
                "certificate_name",
            ),
            ("unavailable: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "certificate_authority"),
            ("unavailable: invalid peer certificate: BadSignature", "certificate_issuer"),
            ("unavailable: invalid peer certificate: Revoked", "certificate"),
            ("unavailable: received fatal alert: CertificateRequired", "client_certificate_missing"),
            ("unavailable: received fatal alert: HandshakeFailure", "tls"),
            ("unavailable: tls handshake eof", "tls"),
            ("unavailable: tcp connect error: 127.0.0.1:1: Connection refused (os error 111)", "refused"),
            ("unavailable: dns error: etcd.invalid: failed to lookup address information", "name"),
            ("unavailable: tcp connect error: no answer within 5s", "unreachable"),
            ("unavailable: etcdserver: rpc not supported for learner", "learner"),
            ("unavailable: etcdserver: no leader", "no_leader"),
            ("unavailable: etcdserver: request timed out", "no_quorum"),
            ("invalid_argument: etcdserver: authentication failed, invalid user ID or password", "password"),
            ("not logged in within the limit", "login"),
            ("permission_denied: etcdserver: permission denied", "permission"),
            ("resource_exhausted: etcdserver: too many requests", "overloaded"),
            ("cancelled: operation was canceled: connection closed", "closed"),
        ];
        for (text, expected) in table {
            assert_eq!(word("https://a:2379", Kind::Unknown, text), expected, "{text}");
        }
        assert_eq!(word("http://a:2379", Kind::WrongMember, "unimplemented: unknown method"), "unimplemented");
    }

    #[test]
    fn a_connection_that_ends_at_once_is_told_by_what_was_tried() {
        let text = |endpoint| of_cause(&Cause::local(Kind::Unknown, "connection closed"), endpoint).text;
        assert!(text("https://a:2379").contains("client certificate"));
        assert!(text("http://a:2379").contains("https:// instead of http://"));
    }
}
