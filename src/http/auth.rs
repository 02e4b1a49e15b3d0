//! The bearer token of control listeners on TCP.

use std::fs;
use std::path::PathBuf;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// The largest token file that is read: 64 KiB.
const LARGEST: u64 = 64 << 10;

/// Where the token is.
#[derive(Clone, Debug)]
pub struct AdminToken(PathBuf);

impl AdminToken {
    /// Names the file, after one look whether it holds a token.
    ///
    /// # Errors
    /// Says in words what is wrong with it.
    pub fn at(path: &std::path::Path) -> Result<Self, String> {
        let token = Self(path.to_owned());
        token.read().map(|_| token)
    }

    /// Whether the request carries the token. The file is read at each verb, so that a new token needs no restart; without a
    /// readable token nobody is let in.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, credentials)) = split_at_space(value.as_bytes()) else { return false };
        match self.read() {
            Ok(token) => scheme.eq_ignore_ascii_case(b"bearer") && same(&token, credentials.trim_ascii()),
            Err(error) => {
                tracing::error!(%error, "no admin token: every verb on this listener is refused");
                false
            }
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let named = |what: &dyn std::fmt::Display| format!("{}: {what}", self.0.display());
        if fs::metadata(&self.0).map_err(|e| named(&e))?.len() > LARGEST {
            return Err(named(&"larger than 64 KiB"));
        }
        let token = fs::read(&self.0).map_err(|e| named(&e))?.trim_ascii().to_vec();
        if token.is_empty() { Err(named(&"empty")) } else { Ok(token) }
    }
}

fn split_at_space(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|b| *b == b' ')?;
    Some((&value[..at], &value[at + 1..]))
}

/// Compares in a time that depends on the length of `given` only, so that the time does not tell how much of it was right.
fn same(token: &[u8], given: &[u8]) -> bool {
    let differ = given.iter().enumerate().fold(0, |d, (i, byte)| d | (byte ^ token[i % token.len()]));
    std::hint::black_box(differ) == 0 && token.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(token: &AdminToken, value: &str) -> bool {
        let value = value.parse().expect("a header value");
        token.admits(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    #[test]
    fn only_the_token_is_let_in_and_a_new_one_needs_no_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        assert!(AdminToken::at(&path).is_err(), "no file");
        fs::write(&path, " \n").expect("written");
        assert!(AdminToken::at(&path).is_err(), "no token");
        fs::write(&path, "secret\n").expect("written");
        let token = AdminToken::at(&path).expect("a token");
        assert!(admits(&token, "Bearer secret") && admits(&token, "bearer  secret"));
        for wrong in ["Bearer", "Bearer ", "secret", "Basic secret", "Bearer secre", "Bearer secretsecret", "Bearer x"]
        {
            assert!(!admits(&token, wrong), "{wrong}");
        }
        assert!(!token.admits(&HeaderMap::new()));
        fs::write(&path, "other").expect("written");
        assert!(admits(&token, "Bearer other") && !admits(&token, "Bearer secret"));
        fs::remove_file(&path).expect("removed");
        assert!(!admits(&token, "Bearer other"), "no file, nobody");
    }
}
