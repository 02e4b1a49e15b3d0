//! Builds the parts, wires them, and owns the order of start and stop.
//!
//! Two threads turn: the driver's, which nothing may hold up, and the one of HTTP, so that clients, however many and
//! however rude, cannot cost a leadership. Routing in Kubernetes, where it is configured, has a third. Start: files,
//! listeners, routing, driver. Stop: driver (which hands over), then routing and HTTP.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::audit::Audit;
use crate::clock::{self};
use crate::config::{Config, ElectionConfig, GenerationSource, Listen, duration_text};
use crate::control::{Control, Heartbeat};
use crate::driver::{Driver, Parts};
use crate::election::ids::{ElectionIndex, ElectionName};
use crate::election::record::HighWater;
use crate::election::role::Role;
use crate::election::{Core, Settings};
use crate::etcd::{self, Etcd, Identity, Telemetry};
use crate::http::{self, About, Addresses, BindError, Service};
use crate::logging;
use crate::memory::{self, Mark, Memory};
use crate::metrics::Metrics;
use crate::rights::Rights;
use crate::shutdown::Signals;
use crate::snapshot::{self, ElectionView, Snapshot};
use crate::supervisor;
use crate::tls;
#[cfg(feature = "kubernetes")]
use crate::{config::KubernetesConfig, kubernetes::Routing, snapshot::Reader};

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, where the build said so.
pub const REVISION: &str = match option_env!("TENURE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What `tenure run` adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Written once the listeners are bound: their real addresses and our process id, as JSON.
    pub ready_file: Option<PathBuf>,
}

/// Why the daemon did not start.
#[derive(Debug, Error)]
pub enum Error {
    /// No runtime, thread or signal handler could be had.
    #[error("cannot start: {0}")]
    System(#[source] io::Error),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A file for etcd could not be read.
    #[error(transparent)]
    Etcd(#[from] etcd::Error),
    /// `state_dir` cannot be used.
    #[error("state_dir: {0}")]
    Memory(#[from] memory::Error),
    /// `state_dir` cannot be written.
    #[error("state_dir: cannot write to {path}: {source}")]
    StateDir {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The audit file cannot be opened.
    #[error("audit.file: cannot open {path}: {source}")]
    Audit {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The ready file cannot be written.
    #[error("cannot write {path}: {source}")]
    Ready {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs until stopped by a signal. Errors were logged when this returns.
#[must_use]
pub fn run(config: Config, options: &Options) -> ExitCode {
    match try_run(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(config: Config, options: &Options) -> Result<(), Error> {
    tls::install_provider();
    let runtime = runtime()?;
    let _entered = runtime.enter();
    // Before anything else: from here on a signal stops us in order.
    let signals = Signals::install().map_err(Error::System)?;
    let names: Vec<ElectionName> = config.elections.iter().map(|e| e.name.clone()).collect();
    let remembered = config.state_dir.as_deref().map_or(Ok(None), |dir| remembered(dir, &names))?;
    let audit = audit(&config, &names)?;
    let metrics = Metrics::new(VERSION, REVISION, &names, &config.etcd.endpoints, config.timing.ttl());
    metrics.etcd_methods(etcd::METHODS);
    let web = Web::start(&config)?;
    let identity = identity(&config, &web.addresses);
    let about = about(&config, identity.url.clone());
    let etcd = Etcd::new(&config.etcd, identity, &config.timing, Arc::new(Counted(metrics.clone())), entropy())?;
    introduce(&config, &web.addresses);
    let candidacies = candidacies(&config);
    let heartbeat = Heartbeat::default();
    heartbeat.beat(clock::now());
    let (control, requests) = Control::new(audit.trail(), heartbeat.clone());
    let (publisher, reader) = snapshot::channel(first_snapshot(&config), config.timing.clone(), etcd.health());
    let core = core(&config, remembered, &etcd);
    let memory = config.state_dir.map(|dir| Memory::start(dir, names.clone())).transpose().map_err(Error::System)?;
    if let Some(path) = &options.ready_file {
        ready(path, &web.addresses).map_err(|source| Error::Ready { path: path.clone(), source })?;
    }
    #[cfg(feature = "kubernetes")]
    let routing = routing(config.kubernetes, &config.etcd.prefix, &reader, &metrics)?;
    runtime.spawn(etcd.clone().call_the_roll());
    runtime.spawn(etcd.clone().look_for_namesakes());
    let (rights, find_out) = Rights::find_out(etcd.clone(), candidacies);
    runtime.spawn(find_out);
    runtime.spawn(supervisor::accompany(reader.clone(), heartbeat.clone(), about.stall_limit));
    let web = web.serve(Service { reader, control: control.clone(), metrics: metrics.clone(), rights, about });
    let driver = Driver::new(Parts {
        id: config.id,
        elections: names,
        core,
        etcd,
        publisher,
        requests,
        heartbeat,
        audit,
        memory,
        metrics,
        timing: config.timing,
        drain_timeout: config.drain_timeout,
        request_timeout: config.etcd.request_timeout,
        jitter: fastrand::Rng::with_seed(entropy()),
        history_limit: config.history_limit,
    });
    runtime.spawn(signals.heed(control));
    supervisor::started();
    if !runtime.block_on(driver.run()) {
        tracing::warn!("stopped without knowing that the lease is gone; it ends by its TTL");
    }
    #[cfg(feature = "kubernetes")]
    drop(routing);
    web.stop();
    Ok(())
}

/// Where this daemon may come to lead.
fn candidacies(config: &Config) -> Vec<(ElectionIndex, ElectionName)> {
    let all = config.elections.iter().enumerate().filter(|(_, e)| !e.observe);
    all.map(|(i, e)| (ElectionIndex(i), e.name.clone())).collect()
}

/// The one line at a start: who this is, and where everything is.
fn introduce(config: &Config, addresses: &Addresses) {
    let all = |listeners: &[Listen]| listeners.iter().map(address).collect::<Vec<_>>().join(", ");
    let elections: Vec<_> = config.elections.iter().map(|e| e.name.as_str()).collect();
    tracing::info!(
        version = VERSION,
        id = config.id,
        elections = elections.join(", "),
        public = all(&addresses.public),
        control = all(&addresses.control),
        etcd = config.etcd.endpoints.join(", "),
        prefix = config.etcd.prefix,
        ttl = duration_text(config.timing.ttl()),
        "started"
    );
}

/// An address as the configuration writes it.
fn address(listener: &Listen) -> String {
    match listener {
        Listen::Tcp(at) => at.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn about(config: &Config, url: String) -> About {
    About {
        url,
        version: VERSION,
        revision: REVISION,
        strict_ready: config.readiness_strict,
        startup_wait_for_etcd: config.startup_wait_for_etcd,
        stall_limit: config.timing.stall_limit(),
        ttl: config.timing.ttl(),
    }
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread().enable_all().build().map_err(Error::System)
}

#[cfg(feature = "kubernetes")]
fn routing(
    config: Option<KubernetesConfig>,
    prefix: &str,
    reader: &Reader,
    metrics: &Metrics,
) -> Result<Option<Routing>, Error> {
    let routing = config.map(|config| Routing::start(config, prefix, reader.clone(), metrics, entropy()));
    routing.transpose().map_err(Error::System)
}

fn remembered(dir: &Path, names: &[ElectionName]) -> Result<Option<Mark>, Error> {
    fs::create_dir_all(dir).map_err(|source| Error::StateDir { path: dir.into(), source })?;
    Ok(memory::load(dir, names)?)
}

fn audit(config: &Config, names: &[ElectionName]) -> Result<Audit, Error> {
    Audit::start(config.id.clone(), names.to_vec(), &config.audit).map_err(|source| {
        let path = config.audit.file.clone().unwrap_or_default();
        Error::Audit { path, source }
    })
}

/// Randomness for jitter and lease ids, from the operating system by way of the standard library's hasher keys. Two
/// daemons that started alike must not choose the same lease.
fn entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn identity(config: &Config, addresses: &Addresses) -> Identity {
    // An address that names no interface names no host either: better no url than one that leads nowhere.
    let reachable = addresses.public.iter().find_map(|l| match l {
        Listen::Tcp(at) if !at.ip().is_unspecified() => {
            let scheme = if config.http.tls.is_some() { "https" } else { "http" };
            Some(format!("{scheme}://{at}"))
        }
        Listen::Tcp(_) | Listen::Unix(_) => None,
    });
    Identity {
        id: config.id.clone(),
        url: config.http.advertise_url.clone().or(reachable).unwrap_or_default(),
        version: VERSION.to_owned(),
        elections: config.elections.iter().map(|e| (e.name.clone(), e.priority)).collect(),
    }
}

fn core(config: &Config, remembered: Option<Mark>, etcd: &Etcd) -> Core {
    let moved = remembered.as_ref().and_then(|mark| mark.cluster).is_some_and(|cluster| etcd.remember(cluster));
    Core::new(settings(config, remembered.map(|mark| mark.water), moved), clock::now())
}

fn settings(config: &Config, remembered: Option<HighWater>, moved: bool) -> Settings {
    Settings {
        timing: config.timing.clone(),
        observe: config.elections.iter().map(|e| e.observe).collect(),
        by_revision: config.generation_source == GenerationSource::Revision,
        remembered,
        moved,
    }
}

fn first_snapshot(config: &Config) -> Snapshot {
    let since = clock::wall();
    let election = |e: &ElectionConfig| {
        let role = if e.observe { Role::Observer } else { Role::Follower };
        ElectionView::starting(e.name.clone(), role, since)
    };
    Snapshot {
        id: config.id.clone(),
        session: None,
        elections: config.elections.iter().map(election).collect(),
        draining: false,
        joined: false,
        offset_ms: clock::reading().offset_ms,
        max_jump: config.timing.slack(),
        etcd_seen: None,
    }
}

/// Writes the ready file whole, or not at all.
fn ready(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let all = |l: &[Listen]| l.iter().map(address).collect::<Vec<_>>();
    let public = all(&addresses.public);
    let json = serde_json::json!({
        "public": public.first(),
        "public_all": public,
        "control": all(&addresses.control),
        "pid": std::process::id(),
    });
    let temporary = path.with_extension("new");
    fs::write(&temporary, json.to_string())?;
    fs::rename(&temporary, path)
}

/// The thread of HTTP.
struct Web {
    addresses: Addresses,
    service: oneshot::Sender<Service>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The same, serving.
struct Serving {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Web {
    /// Binds the listeners, on the thread that will serve them.
    fn start(config: &Config) -> Result<Self, Error> {
        let (bound, addresses) = mpsc::sync_channel(1);
        let (service, given) = oneshot::channel::<Service>();
        let (stop, stopped) = oneshot::channel::<()>();
        let http = config.http.clone();
        let runtime = runtime()?;
        let serve = move || {
            let _whole = WholeOrNothing;
            runtime.block_on(async move {
                let listeners = match http::bind(&http).await {
                    Ok(listeners) => listeners,
                    Err(e) => return drop(bound.send(Err(e))),
                };
                // The main thread waits for this; if it is gone, so is what we would serve.
                let _ = bound.send(Ok(listeners.addresses().clone()));
                if let Ok(service) = given.await {
                    listeners.serve(service, async { drop(stopped.await) }).await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("http".into()).spawn(serve).map_err(Error::System)?;
        let gone = || Error::System(io::Error::other("the thread of HTTP ended"));
        let addresses = addresses.recv().map_err(|_| gone())??;
        Ok(Self { addresses, service, stop, thread })
    }

    fn serve(self, service: Service) -> Serving {
        // It fails only when the thread is gone, which `Serving` reports.
        let _ = self.service.send(service);
        Serving { stop: self.stop, thread: self.thread }
    }
}

impl Serving {
    /// Ends it; `Bound::serve` bounds how long that takes.
    fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread of HTTP had panicked");
        }
    }
}

/// Ends the process when its thread panics: a daemon that nobody can ask must not go on leading.
struct WholeOrNothing;

impl Drop for WholeOrNothing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            logging::flush();
            std::process::abort();
        }
    }
}

/// Carries what the edge tells into the metrics.
struct Counted(Metrics);

impl Telemetry for Counted {
    fn request(&self, method: &'static str, code: &'static str, took: Duration) {
        self.0.etcd_request(method, code, took);
    }

    fn endpoint_up(&self, endpoint: &str, up: bool) {
        self.0.endpoint_up(endpoint, up);
    }

    fn keepalive_failed(&self, endpoint: &str) {
        self.0.keepalive_failed(endpoint);
    }

    fn watch_restarted(&self, cause: &'static str) {
        self.0.watch_restarted(cause);
    }
}
