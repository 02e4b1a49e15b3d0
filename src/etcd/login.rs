//! Who we are to each member: tokens, and the password that they are obtained with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use etcd_client::Client;
use tokio::time::timeout;

use super::connect::{Live, Pool};
use super::error::{Cause, Error, Kind};
use crate::clock::{self, Instant};

/// How long a refused password is not tried again; etcd hashes each try with bcrypt, on purpose slowly.
const LOGIN_BACKOFF: Duration = Duration::from_secs(5);
/// How long one login may take. More than etcd's own limit of a request, since a login that is given up costs etcd its hash all the
/// same, and the next one another: on a busy etcd that would feed itself.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);
/// Who we are to one member. Each client has a token of its own, and the client library offers no way to share one.
#[derive(Default)]
pub(super) struct Login {
    /// How often a token was obtained; also names the present one.
    count: AtomicU32,
    /// How long that took last, in milliseconds.
    took: AtomicU32,
    /// Held while a token is being obtained: one at a time, since etcd hashes the password each time.
    gate: Arc<tokio::sync::Mutex<Option<Refusal>>>,
}

struct Refusal {
    until: Instant,
    text: String,
}

impl Live {
    /// Names the present token; 0 before the first.
    pub(super) fn token(&self) -> u32 {
        self.login.count.load(Ordering::Acquire)
    }

    /// How long logging in took; nothing before the first.
    pub(super) fn login_took(&self) -> Duration {
        Duration::from_millis(self.login.took.load(Ordering::Acquire).into())
    }
}

impl Pool {
    /// Obtains a token, unless somebody else has since the one named `stale`.
    ///
    /// The request runs in a task of its own, so that a try that gives up waiting does not throw the work away.
    pub(super) async fn login(&self, index: usize, live: &Live, stale: u32) -> Result<(), Error> {
        let endpoint = self.members[index].endpoint.clone();
        let failed = |source| Error::Request { operation: "authenticate", endpoint: endpoint.clone(), source };
        let (Some(user), Some(path)) = (self.settings.username.clone(), self.settings.password_file.clone()) else {
            return Err(failed(Cause::local(Kind::Auth, "etcd asks for a user, and none is configured")));
        };
        let mut gate = Arc::clone(&live.login.gate).lock_owned().await;
        if live.token() != stale {
            return Ok(());
        }
        if let Some(refusal) = gate.as_ref().filter(|refusal| clock::now() < refusal.until) {
            return Err(failed(Cause::local(Kind::Auth, refusal.text.clone())));
        }
        let limit = LOGIN_LIMIT.max(self.settings.request_timeout);
        let (mut client, login, telemetry) =
            (live.client.clone(), Arc::clone(&live.login), Arc::clone(&self.telemetry));
        let task = tokio::spawn(async move {
            let began = clock::now();
            let result = authenticate(&mut client, user, &path, &endpoint, limit).await;
            let took = clock::now().since(began);
            telemetry.request("authenticate", result.as_ref().map_or_else(Error::code, |()| "ok"), took);
            match &result {
                Ok(()) => {
                    login.took.store(u32::try_from(took.as_millis()).unwrap_or(u32::MAX), Ordering::Release);
                    login.count.fetch_add(1, Ordering::AcqRel);
                    *gate = None;
                }
                Err(error) if matches!(error.kind(), Kind::Auth | Kind::Permission | Kind::Invalid) => {
                    let text =
                        if let Error::Request { source, .. } = error { source.to_string() } else { error.to_string() };
                    *gate = Some(Refusal { until: clock::now() + LOGIN_BACKOFF, text });
                }
                Err(_) => {}
            }
            result
        });
        task.await.unwrap_or(Err(Error::Malformed { operation: "authenticate", what: "the task was stopped" }))
    }
}

async fn authenticate(
    client: &mut Client,
    user: String,
    path: &Path,
    endpoint: &str,
    limit: Duration,
) -> Result<(), Error> {
    let operation = "authenticate";
    let failed = |source| Error::Request { operation, endpoint: endpoint.to_owned(), source };
    // Read each time: passwords are rotated by replacing the file.
    let text = read_file(path)?;
    let password = String::from_utf8_lossy(&text).trim_end_matches(['\r', '\n']).to_owned();
    match timeout(limit, client.update_user(Some((user, password)))).await {
        Ok(Ok(())) => Ok(()),
        // Auth may be switched on later; until then requests need no token.
        Ok(Err(error)) if error.to_string().contains("authentication is not enabled") => Ok(()),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(_) => Err(Error::Silent { operation, endpoint: endpoint.to_owned(), limit }),
    }
}

/// No password file is larger; a mistaken path (a device, a log) is refused unread.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Reads a small file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(file)?.len();
    if length > FILE_LIMIT {
        return Err(file(std::io::Error::other("larger than 1 MiB")));
    }
    std::fs::read(path).map_err(file)
}
