//! The configuration in effect, in the shape of the file: what `tenure config check --output yaml` prints.

use serde_json::{Value, json};

use super::values::{duration_text, size_text};
use super::{
    Config, ElectionConfig, GenerationSource, HttpConfig, KubernetesConfig, Listen, LogFormat, LogLevel, Route,
};

/// Every setting with its value, in the shape of the file: as [`effective_text`] it loads to the same [`Config`] again. It
/// holds no secrets, as the configuration itself holds only the names of their files.
#[must_use]
pub fn effective(config: &Config) -> Value {
    let etcd = &config.etcd;
    let spec = config.timing.spec();
    json!({
        "id": config.id,
        "elections": config.elections.iter().map(election).collect::<Vec<_>>(),
        "etcd": {
            "endpoints": etcd.endpoints,
            "prefix": etcd.prefix,
            "cluster_id": etcd.cluster_id.map(|id| id.to_string()),
            "username": etcd.username,
            "password_file": etcd.password_file,
            "tls": etcd.tls.as_ref().map(|tls| json!({
                "ca_file": tls.ca_file,
                "cert_file": tls.cert_file,
                "key_file": tls.key_file,
                "server_name": tls.server_name,
            })),
            "connect_timeout": duration_text(etcd.connect_timeout),
            "request_timeout": duration_text(etcd.request_timeout),
        },
        "session": {
            "ttl": duration_text(spec.ttl),
            "drift": percent(spec.drift_ppm),
            "slack": duration_text(spec.slack),
            "promise": duration_text(spec.promise),
            "vacancy_grace": duration_text(spec.vacancy_grace),
            "drain_timeout": duration_text(config.drain_timeout),
        },
        "http": http(&config.http),
        "readiness": {"strict": config.readiness_strict},
        "startup": {"wait_for_etcd": config.startup_wait_for_etcd},
        "state_dir": config.state_dir,
        "audit": {
            "file": config.audit.file,
            "rotate_bytes": size_text(config.audit.rotate_bytes),
            "keep": config.audit.keep,
        },
        "history_limit": config.history_limit,
        "generation_source": match config.generation_source {
            GenerationSource::Counter => "counter",
            GenerationSource::Revision => "revision",
        },
        "log": {
            "format": match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
            "level": level(config.log.level),
        },
        "kubernetes": kubernetes(config.kubernetes.as_ref()),
    })
}

/// A tree of settings as the text of a file. Its texts are taken as they are: no `$` of theirs means a variable.
///
/// # Errors
/// What the serializer says; a tree of JSON values gives it no reason to.
pub fn effective_text(settings: &Value) -> Result<String, String> {
    let mut settings = settings.clone();
    escape(&mut settings);
    serde_yaml::to_string(&settings).map_err(|e| e.to_string())
}

fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(members) => members.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn election(election: &ElectionConfig) -> Value {
    json!({"name": election.name.as_str(), "priority": election.priority, "observe": election.observe})
}

fn http(http: &HttpConfig) -> Value {
    let addresses = |list: &[Listen]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "public": addresses(&http.public),
        "control": addresses(&http.control),
        "request_timeout": duration_text(http.request_timeout),
        "admin_token_file": http.admin_token_file,
        "advertise_url": http.advertise_url,
        "max_connections": http.max_connections,
        "tls": http.tls.as_ref().map(|tls| json!({
            "cert_file": tls.cert_file,
            "key_file": tls.key_file,
            "client_ca_file": tls.client_ca_file,
        })),
    })
}

fn kubernetes(kubernetes: Option<&KubernetesConfig>) -> Value {
    let (word, label, service, address) = match kubernetes.map(|k| &k.route) {
        None => ("none", None, None, None),
        Some(Route::Label { label }) => ("label", Some(label), None, None),
        Some(Route::EndpointSlice { service, address }) => ("endpoint_slice", None, Some(service), Some(address)),
    };
    json!({
        "route": word,
        "election": kubernetes.map(|k| k.election.as_str()),
        "label": label,
        "service": service,
        "pod": kubernetes.map(|k| &k.pod),
        "namespace": kubernetes.and_then(|k| k.namespace.as_ref()),
        "address": address,
    })
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn percent(ppm: u32) -> String {
    let fraction = format!("{:04}", ppm % 10_000);
    let text = format!("{}.{}", ppm / 10_000, fraction.trim_end_matches('0'));
    format!("{}%", text.trim_end_matches('.'))
}

impl std::fmt::Display for Listen {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
