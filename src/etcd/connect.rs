//! Connections: one client per member, made when first needed, made anew when its certificates, its history or its patience
//! ran out. One client over several members would pick at random, remember nothing about their health, and hang on a silent
//! one (tower's p2c balancer under tonic's `balance_channel`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Endpoint;

use super::Telemetry;
use super::aside::Aside;
use super::connector::Connector;
use super::error::{Cause, Error, Kind};
use super::identity::{Heeded, name_foreign};
use super::session::Renewer;
use super::tls::Tls;
use crate::clock::{self, Instant};
use crate::config::EtcdConfig;
use crate::timing::Timing;

/// etcd kills connections that are pinged more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
/// How long a ping may stay unanswered.
const PING_LIMIT: Duration = Duration::from_secs(3);
/// How often the TLS files are looked at, when something uses a connection.
const TLS_CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same after a failure to connect, which an expired certificate may have caused.
const TLS_CHECK_SOON: Duration = Duration::from_secs(1);
/// How long a refused password is not tried again; etcd hashes each try with bcrypt, on purpose slowly.
const LOGIN_BACKOFF: Duration = Duration::from_secs(5);
/// So many tries in a row without an answer, over at least this time, and the connection is made anew: after a partition, TCP
/// itself would wait out its last retransmission time-out, which by then is many seconds.
const SILENT_TRIES: u32 = 3;
const SILENT_FOR: Duration = Duration::from_secs(2);

/// How often the same refusal is logged.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// All members.
pub(super) struct Pool {
    pub members: Vec<Member>,
    pub telemetry: Arc<dyn Telemetry>,
    /// The member that answered last: asked first.
    pub preferred: AtomicUsize,
    /// The member that answered the last renewal.
    pub renewed_by: AtomicUsize,
    /// Counts the resets; whoever holds a stream or waits for an answer listens.
    pub epoch: watch::Sender<u64>,
    pub rng: Mutex<fastrand::Rng>,
    pub settings: EtcdConfig,
    /// Whose answers are heeded.
    pub heeded: Heeded,
    /// When a look last went by a connection of its own, and until when each does.
    pub aside: Mutex<Aside>,
    /// A key that we may read.
    pub probe_key: String,
    /// How long a member may keep silent before others are asked.
    pub hedge: Duration,
    tls: Option<Mutex<Tls>>,
    /// What was complained of last, and when.
    complained: Mutex<Option<(Kind, Instant)>>,
    /// Numbers the clients, so that a stream knows whether it belongs to the present one.
    serial: AtomicU64,
}

/// One member.
pub(super) struct Member {
    pub endpoint: String,
    /// Its keep-alive stream, while nobody uses it.
    pub renewer: Mutex<Option<Renewer>>,
    // An async lock, but held only while a client is put together, which touches no network.
    slot: tokio::sync::Mutex<Option<Live>>,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    up: Option<bool>,
    silent: u32,
    silent_since: Option<Instant>,
    /// Another cluster answers there.
    foreign: bool,
}

/// A client and what belongs to it.
#[derive(Clone)]
pub(super) struct Live {
    pub client: Client,
    pub serial: u64,
    epoch: u64,
    tls_version: u64,
    retired: Arc<AtomicBool>,
    login: Arc<Login>,
}

/// Who we are to one member. Each client has a token of its own, and the client library offers no way to share one.
#[derive(Default)]
struct Login {
    /// How often a token was obtained; also names the present one.
    count: AtomicU32,
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
}

impl Pool {
    pub(super) fn new(
        settings: &EtcdConfig,
        telemetry: Arc<dyn Telemetry>,
        (probe_key, timing): (String, &Timing),
        seed: u64,
    ) -> Result<Self, Error> {
        if settings.endpoints.is_empty() {
            return Err(Error::Settings { what: "no endpoints".into() });
        }
        if let Some(path) = settings.username.as_ref().and(settings.password_file.as_ref()) {
            read_file(path)?;
        }
        let secure = settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let tls = secure.then(|| Tls::load(&settings.tls.clone().unwrap_or_default()).map(Mutex::new)).transpose()?;
        let mut rng = fastrand::Rng::with_seed(seed);
        // Daemons that start together spread over the members.
        let preferred = AtomicUsize::new(rng.usize(..settings.endpoints.len()));
        let member = |endpoint: &String| Member {
            endpoint: endpoint.clone(),
            renewer: Mutex::default(),
            slot: tokio::sync::Mutex::default(),
            health: Mutex::default(),
        };
        Ok(Self {
            members: settings.endpoints.iter().map(member).collect(),
            telemetry,
            renewed_by: AtomicUsize::new(0),
            preferred,
            epoch: watch::Sender::new(0),
            rng: Mutex::new(rng),
            heeded: Heeded::new(settings, timing.ttl()),
            aside: Mutex::new(Aside::new(timing.ttl(), settings.username.is_some())),
            probe_key,
            hedge: timing.hedge_after(),
            settings: settings.clone(),
            tls,
            complained: Mutex::default(),
            serial: AtomicU64::new(0),
        })
    }

    /// The client of a member, logged in if there is a user. Takes as long as the member does to log us in; the caller bounds it.
    pub(super) async fn live(&self, index: usize, operation: &'static str) -> Result<Live, Error> {
        let live = self.connected(index, operation).await?;
        if self.settings.username.is_some() && live.token() == 0 {
            self.login(index, &live, 0).await?;
        }
        Ok(live)
    }

    async fn connected(&self, index: usize, operation: &'static str) -> Result<Live, Error> {
        let member = &self.members[index];
        let (tls, tls_version) = self.tls_config();
        let epoch = *self.epoch.borrow();
        let mut slot = member.slot.lock().await;
        if let Some(live) = slot.as_ref() {
            let current = live.epoch == epoch && live.tls_version == tls_version;
            if current && !live.retired.load(Ordering::Acquire) {
                return Ok(live.clone());
            }
        }
        let client = self.client(&member.endpoint, tls, operation).await?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let live = Live { client, serial, epoch, tls_version, retired: Arc::default(), login: Arc::default() };
        *slot = Some(live.clone());
        Ok(live)
    }

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
        let limit = self.settings.connect_timeout + self.settings.request_timeout;
        let (mut client, login, telemetry) =
            (live.client.clone(), Arc::clone(&live.login), Arc::clone(&self.telemetry));
        let task = tokio::spawn(async move {
            let began = clock::now();
            let result = authenticate(&mut client, user, &path, &endpoint, limit).await;
            telemetry.request(
                "authenticate",
                result.as_ref().map_or_else(Error::code, |()| "ok"),
                clock::now().since(began),
            );
            match &result {
                Ok(()) => {
                    login.count.fetch_add(1, Ordering::AcqRel);
                    *gate = None;
                }
                Err(error) if matches!(error.kind(), Kind::Auth | Kind::Permission | Kind::Invalid) => {
                    *gate = Some(Refusal { until: clock::now() + LOGIN_BACKOFF, text: error.to_string() });
                }
                Err(_) => {}
            }
            result
        });
        task.await.unwrap_or(Err(Error::Malformed { operation: "authenticate", what: "the task was stopped" }))
    }

    /// Takes note of how a try ended.
    pub(super) fn note(&self, index: usize, live: Option<&Live>, result: Result<(), &Error>) {
        let member = &self.members[index];
        if let Err(error) = &result {
            self.complain(error);
        }
        let Some(answered) = result.map_or_else(Error::answered, |()| Some(true)) else { return };
        let mut health = lock(&member.health);
        let foreign = name_foreign(&member.endpoint, &mut health.foreign, result.err());
        if answered {
            (health.silent, health.silent_since) = (0, None);
        } else {
            if foreign.is_none() {
                self.unheard(index);
            }
            health.silent += 1;
            let since = *health.silent_since.get_or_insert_with(clock::now);
            if health.silent >= SILENT_TRIES && clock::now().since(since) >= SILENT_FOR {
                (health.silent, health.silent_since) = (0, None);
                if let Some(live) = live {
                    live.retired.store(true, Ordering::Release);
                }
            }
            self.tls_check_soon();
        }
        if health.up.replace(answered) != Some(answered) {
            self.telemetry.endpoint_up(&member.endpoint, answered);
            match &result {
                Err(error) if !answered && foreign.is_none() => {
                    tracing::warn!(%error, endpoint = member.endpoint, "etcd does not answer");
                }
                _ => tracing::debug!(endpoint = member.endpoint, "etcd answers"),
            }
        }
    }

    /// Says what only a person can mend; each minute at most, since it is met at every request.
    fn complain(&self, error: &Error) {
        let kind = error.kind();
        if !matches!(kind, Kind::Permission | Kind::Auth | Kind::NoSpace | Kind::Corrupt | Kind::Invalid) {
            return;
        }
        let mut complained = lock(&self.complained);
        let now = clock::now();
        if complained.is_none_or(|(last, at)| last != kind || now.since(at) >= COMPLAIN_EVERY) {
            *complained = Some((kind, now));
            tracing::error!(%error, "etcd refuses what we need");
        }
    }

    /// Drops every client and every stream.
    pub(super) fn reset(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
        lock(&self.aside).suspect(clock::now());
        for member in &self.members {
            *lock(&member.renewer) = None;
        }
    }

    /// `by`, made between half and one and a half times as long, so that daemons that failed together do not return together.
    pub(super) fn jittered(&self, by: Duration) -> Duration {
        by.mul_f64(0.5 + lock(&self.rng).f64())
    }

    fn tls_config(&self) -> (Option<Arc<ClientConfig>>, u64) {
        let Some(tls) = &self.tls else { return (None, 0) };
        let (config, version) = lock(tls).current(TLS_CHECK_EVERY);
        (Some(config), version)
    }

    fn tls_check_soon(&self) {
        if let Some(tls) = &self.tls {
            lock(tls).current(TLS_CHECK_SOON);
        }
    }

    /// A client of one member, which connects when it is first used.
    async fn client(
        &self,
        url: &str,
        tls: Option<Arc<ClientConfig>>,
        operation: &'static str,
    ) -> Result<Client, Error> {
        let endpoint = endpoint(url)?
            .keep_alive_while_idle(false)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT);
        let connector = self.connector_with(&endpoint, tls)?;
        let channel = Channel::Tonic(endpoint.connect_with_connector_lazy(connector));
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        // Connects nothing yet. With a user in its options it would authenticate here, unbounded.
        Client::from_channel(channel, Some(options)).await.map_err(|error| {
            let endpoint = url.to_owned();
            Error::Request { operation, endpoint, source: error.into() }
        })
    }

    /// How connections to a member are made now.
    pub(super) fn connector(&self, url: &str) -> Result<Connector, Error> {
        self.connector_with(&endpoint(url)?, self.tls_config().0)
    }

    fn connector_with(&self, endpoint: &Endpoint, tls: Option<Arc<ClientConfig>>) -> Result<Connector, Error> {
        let tls = match tls.filter(|_| endpoint.uri().scheme_str() == Some("https")) {
            Some(config) => Some((config, self.server_name(endpoint)?)),
            None => None,
        };
        Ok(Connector::new(tls, self.settings.connect_timeout))
    }

    /// A client of one member on a connection of its own, logged in if there is a user.
    pub(super) async fn fresh(&self, index: usize, operation: &'static str) -> Result<Live, Error> {
        let (tls, tls_version) = self.tls_config();
        let client = self.client(&self.members[index].endpoint, tls, operation).await?;
        let (serial, epoch) = (self.serial.fetch_add(1, Ordering::Relaxed), *self.epoch.borrow());
        let live = Live { client, serial, epoch, tls_version, retired: Arc::default(), login: Arc::default() };
        if self.logs_in() {
            self.login(index, &live, 0).await?;
        }
        Ok(live)
    }

    /// Whether there is a user.
    pub(super) fn logs_in(&self) -> bool {
        self.settings.username.is_some()
    }

    /// Below which everything of ours lies.
    pub(super) fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// The name that the member's certificate must have.
    fn server_name(&self, endpoint: &Endpoint) -> Result<ServerName<'static>, Error> {
        let configured = self.settings.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let host = endpoint.uri().host().unwrap_or_default();
        let name = configured.unwrap_or_else(|| host.trim_start_matches('[').trim_end_matches(']'));
        let what = || format!("`{name}` cannot stand in a certificate; accepted: etcd.tls.server_name");
        ServerName::try_from(name.to_owned()).map_err(|_| Error::Settings { what: what() })
    }
}

fn endpoint(url: &str) -> Result<Endpoint, Error> {
    Endpoint::from_shared(url.to_owned()).map_err(|e| Error::Settings { what: format!("{url}: {e}") })
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

/// Locks; a panic elsewhere leaves these values usable, since each is written in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No password file is larger; a mistaken path (a device, a log) is refused unread.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Reads a small file.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(file)?.len();
    if length > FILE_LIMIT {
        return Err(file(std::io::Error::other("larger than 1 MiB")));
    }
    std::fs::read(path).map_err(file)
}
