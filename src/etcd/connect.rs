//! Connections: one client per member, made when first needed, made anew when its certificates, its history or its patience
//! ran out. One client over several members would pick at random, remember nothing about their health, and hang on a silent
//! one (tower's p2c balancer under tonic's `balance_channel`).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Endpoint;

use super::Telemetry;
use super::aside::Aside;
use super::connector::Connector;
use super::dial::Dial;
use super::error::{Error, Kind};
use super::identity::Heeded;
use super::login::{Login, read_file};
use super::noting::Silence;
use super::session::Renewer;
use super::tls::Tls;
use super::voice::Voice;
use crate::clock::{self, Instant};
use crate::config::EtcdConfig;
use crate::election::ids::Revision;
use crate::health::Health;
use crate::timing::Timing;

/// etcd kills connections that are pinged more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
/// How long a ping may stay unanswered.
const PING_LIMIT: Duration = Duration::from_secs(3);
/// How often the TLS files are looked at, when something uses a connection.
const TLS_CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same after a failure to connect, which an expired certificate may have caused.
const TLS_CHECK_SOON: Duration = Duration::from_secs(1);
/// All members.
pub(super) struct Pool {
    pub members: Vec<Member>,
    pub telemetry: Arc<dyn Telemetry>,
    /// How every member answers, for whoever shows it; and what the log says of that.
    pub health: Health,
    pub(super) voice: Mutex<Voice>,
    /// The member that answered last: asked first.
    pub preferred: AtomicUsize,
    /// The member that answered the last renewal.
    pub renewed_by: AtomicUsize,
    /// The newest revision that a quorum is known to have.
    pub newest: watch::Sender<Revision>,
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
    /// What was complained of, and when last.
    pub(super) complained: Mutex<Vec<(Kind, Instant)>>,
    /// Numbers the clients, so that a stream knows whether it belongs to the present one.
    serial: AtomicU64,
}

/// One member.
pub(super) struct Member {
    pub endpoint: String,
    pub(super) dial: Dial,
    /// Its keep-alive stream, while nobody uses it.
    pub renewer: Mutex<Option<Renewer>>,
    // An async lock, but held only while a client is put together, which touches no network.
    slot: tokio::sync::Mutex<Option<Live>>,
    pub(super) silence: Mutex<Silence>,
}

/// A client and what belongs to it.
#[derive(Clone)]
pub(super) struct Live {
    pub client: Client,
    pub serial: u64,
    epoch: u64,
    tls_version: u64,
    pub(super) retired: Arc<AtomicBool>,
    pub(super) login: Arc<Login>,
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
            dial: Dial::new(settings.connect_timeout),
            renewer: Mutex::default(),
            slot: tokio::sync::Mutex::default(),
            silence: Mutex::default(),
        };
        Ok(Self {
            members: settings.endpoints.iter().map(member).collect(),
            telemetry,
            voice: Mutex::new(Voice::new(settings.endpoints.len())),
            health: Health::new(&settings.endpoints, clock::now()),
            renewed_by: AtomicUsize::new(0),
            preferred,
            newest: watch::Sender::new(Revision(0)),
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
        let client = self.client(index, tls, operation).await?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let live = Live { client, serial, epoch, tls_version, retired: Arc::default(), login: Arc::default() };
        *slot = Some(live.clone());
        Ok(live)
    }

    /// A linearizable answer showed this revision.
    pub(super) fn shown(&self, revision: Revision) {
        self.newest.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        });
    }

    /// Drops every client and every stream.
    pub(super) fn reset(&self) {
        self.newest.send_replace(Revision(0));
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

    pub(super) fn tls_check_soon(&self) {
        if let Some(tls) = &self.tls {
            lock(tls).current(TLS_CHECK_SOON);
        }
    }

    /// A client of one member, which connects when it is first used.
    async fn client(
        &self,
        index: usize,
        tls: Option<Arc<ClientConfig>>,
        operation: &'static str,
    ) -> Result<Client, Error> {
        let member = &self.members[index];
        let endpoint = endpoint(&member.endpoint)?
            .keep_alive_while_idle(false)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT);
        let connector = self.connector_with(&endpoint, member.dial.clone(), tls)?;
        let channel = Channel::Tonic(endpoint.connect_with_connector_lazy(connector));
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        // Connects nothing yet. With a user in its options it would authenticate here, unbounded.
        Client::from_channel(channel, Some(options)).await.map_err(|error| {
            let endpoint = member.endpoint.clone();
            Error::Request { operation, endpoint, source: error.into() }
        })
    }

    /// How connections to a member are made now.
    pub(super) fn connector(&self, url: &str) -> Result<Connector, Error> {
        self.connector_with(&endpoint(url)?, Dial::new(self.settings.connect_timeout), self.tls_config().0)
    }

    fn connector_with(
        &self,
        endpoint: &Endpoint,
        dial: Dial,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Connector, Error> {
        let tls = match tls.filter(|_| endpoint.uri().scheme_str() == Some("https")) {
            Some(config) => Some((config, self.server_name(endpoint)?)),
            None => None,
        };
        Ok(Connector::new(dial, tls, self.settings.connect_timeout))
    }

    /// A client of one member on a connection of its own, logged in if there is a user.
    pub(super) async fn fresh(&self, index: usize, operation: &'static str) -> Result<Live, Error> {
        let (tls, tls_version) = self.tls_config();
        let client = self.client(index, tls, operation).await?;
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

/// Locks; a panic elsewhere leaves these values usable, since each is written in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
