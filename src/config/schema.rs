//! The schema: one walk over the tree makes a [`Config`] and collects everything that is wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::files;
use super::layers::{self, Overrides};
use super::listen::{collide, listen};
use super::node::{self, Node, Scalar, Value};
use super::report::{Place, Problem, Report, Warning};
use super::values::{self, Parsed, boolean, duration, identity, integer, path, quoted, share, size, text, word};
use super::walk::{Section, Walk};
use super::{
    AuditConfig, Config, ElectionConfig, GenerationSource, HttpConfig, HttpTls, Listen, LogConfig, LogFormat, LogLevel,
    MAX_ELECTIONS, substitute,
};
use crate::election::ids::{ElectionName, id_flaw};
use crate::timing::{TTL_FLOOR, Timing, TimingError, TimingSpec};

const SECOND: Duration = Duration::from_secs(1);
/// The shortest duration that a limit may have.
const MILLI: Duration = Duration::from_millis(1);
/// More addresses than any one listener needs.
const MAX_LISTENERS: usize = 16;

/// Reads the file at `path` (none: only overrides and defaults count), and checks all of it. Nothing is contacted.
///
/// # Errors
/// Everything that is wrong, in one report.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    let Some(path) = path else {
        return check(Node { place: Place::NoFile, value: Value::Map(Vec::new()) }, Vec::new(), overrides);
    };
    let file = node::printable(&path.to_string_lossy());
    let whole = |what| Problem { place: Place::File(Arc::from(file.as_str())), key: String::new(), what };
    let bytes = files::read(path).map_err(|what| Report::new(vec![whole(what)]))?;
    load_bytes(&file, &bytes, overrides)
}

/// How long a drain holds what was led: an election must not stay blocked because somebody forgot.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// [`load`] of what a file of this name holds.
///
/// # Errors
/// Everything that is wrong, in one report.
pub fn load_bytes(file: &str, bytes: &[u8], overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    let (root, problems) = tree(&Arc::from(file), bytes).map_err(Report::new)?;
    check(root, problems, overrides)
}

fn tree(file: &Arc<str>, bytes: &[u8]) -> Result<(Node, Vec<Problem>), Vec<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => node::parse(text, file),
        Err(e) => {
            let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]).into_owned();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let place = Place::At { file: Arc::clone(file), line, column };
            Err(vec![Problem { place, key: String::new(), what: "not UTF-8; accepted: UTF-8".to_owned() }])
        }
    }
}

fn check(mut root: Node, found: Vec<Problem>, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    let mut walk = Walk::new();
    walk.problems = found;
    substitute::replace(&mut root, "", &overrides.env, &mut walk.problems);
    if matches!(root.value, Value::Map(_)) {
        layers::apply(&mut root, overrides, &mut walk.problems);
    }
    match config(&mut walk, &root, overrides) {
        Some(config) if walk.problems.is_empty() => Ok((config, walk.warnings)),
        _ => Err(Report::new(walk.problems)),
    }
}

/// `None` only where the walk has problems.
fn config(walk: &mut Walk, root: &Node, overrides: &Overrides) -> Option<Config> {
    let top = walk.open(Some(root), String::new(), "", &root.place);
    if !matches!(root.value, Value::Map(_)) {
        return None;
    }
    let id = id(walk, &top, overrides);
    let elections = elections(walk, &top);
    let etcd = super::etcd::etcd(walk, &top);
    let timing = timing(walk, &top);
    let section = walk.section(&top, "session");
    let longest = Duration::from_hours(24);
    let drain_timeout = walk.value(&section, "drain_timeout", DRAIN_TIMEOUT, |s| duration(s, Duration::ZERO, longest));
    let http = http(walk, &top);
    let section = walk.section(&top, "readiness");
    let readiness_strict = walk.value(&section, "strict", false, boolean);
    let section = walk.section(&top, "startup");
    let startup_wait_for_etcd = walk.value(&section, "wait_for_etcd", false, boolean);
    let state_dir = walk.optional(&top, "state_dir", path);
    if let Some(Err(what)) = state_dir.as_deref().map(files::directory) {
        walk.complain(top.place("state_dir"), "state_dir", what);
    }
    let audit = audit(walk, &top);
    let history_limit = walk.value(&top, "history_limit", 1_000, |s| count(s, 1, 100_000));
    let sources = [("counter", GenerationSource::Counter), ("revision", GenerationSource::Revision)];
    let generation_source = walk.value(&top, "generation_source", GenerationSource::Counter, |s| word(s, &sources));
    let log = log(walk, &top);
    let kubernetes = super::kubernetes::kubernetes(walk, &top, &elections, &overrides.env);
    Some(Config {
        id: id?,
        elections,
        etcd,
        timing: timing?,
        drain_timeout,
        http,
        readiness_strict,
        startup_wait_for_etcd,
        state_dir,
        audit,
        history_limit,
        generation_source,
        log,
        kubernetes,
    })
}

fn id(walk: &mut Walk, top: &Section, overrides: &Overrides) -> Option<String> {
    if top.node("id").is_some() {
        let id = walk.value(top, "id", String::new(), identity);
        return (!id.is_empty()).then_some(id);
    }
    let Some(host) = overrides.env.filled("HOSTNAME") else {
        let what = "no id, and HOSTNAME is not set; accepted: `id: NAME`, TENURE_ID, --id";
        walk.complain(top.place("id"), "id", what);
        return None;
    };
    if let Some(flaw) = id_flaw(host) {
        let what = format!("no id, and HOSTNAME is none: {flaw}; accepted: `id: NAME`, TENURE_ID, --id");
        walk.complain(top.place("id"), "id", what);
        return None;
    }
    Some(host.to_owned())
}

fn count(scalar: &Scalar, least: u32, most: u32) -> Parsed<u64> {
    integer(scalar, i64::from(least), i64::from(most)).map(i64::unsigned_abs)
}

/// The same as an index or a number of things; bounds keep it within `usize` everywhere.
fn number(scalar: &Scalar, least: u32, most: u32) -> Parsed<usize> {
    count(scalar, least, most).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

fn elections(walk: &mut Walk, top: &Section) -> Vec<ElectionConfig> {
    if top.node("elections").is_none() {
        let what = "no elections; accepted: at least one, such as `elections: [orders]`, TENURE_ELECTIONS, --election";
        walk.complain(top.place("elections"), "elections", what);
    }
    let items = walk.items(top, "elections", false).unwrap_or_default();
    if items.len() > MAX_ELECTIONS {
        let what = format!("{} elections; accepted: at most {MAX_ELECTIONS} in one daemon", items.len());
        walk.complain(top.place("elections"), "elections", what);
    }
    let mut all: Vec<ElectionConfig> = Vec::new();
    // Past the limit one complaint says enough.
    for (i, item) in items.iter().enumerate().take(MAX_ELECTIONS) {
        let key = format!("elections[{i}]");
        let Some(election) = election(walk, item, &key) else { continue };
        if all.iter().any(|other| other.name == election.name) {
            // Without its name, which a variable may hold.
            walk.complain(item.place.clone(), key, "this election is listed twice; accepted: each name once");
            continue;
        }
        all.push(election);
    }
    all
}

fn election(walk: &mut Walk, item: &Node, key: &str) -> Option<ElectionConfig> {
    if !matches!(item.value, Value::Map(_)) {
        let name = walk.scalar(item, key, election_name)?;
        return Some(ElectionConfig { name, priority: 0, observe: false });
    }
    let section = walk.open(Some(item), key.to_owned(), "elections", &item.place);
    let bounds = (i64::from(i32::MIN), i64::from(i32::MAX));
    let priority = walk.value(&section, "priority", 0, |s| integer(s, bounds.0, bounds.1));
    let observe = walk.value(&section, "observe", false, boolean);
    if observe && priority != 0 {
        let what =
            "an observer never queues, so its priority means nothing; accepted: one of `observe: true` and `priority`";
        walk.complain(section.place("priority"), section.key("priority"), what);
    }
    if section.node("name").is_none() {
        walk.complain(item.place.clone(), section.key("name"), "an election needs a name; accepted: `name: orders`");
        return None;
    }
    let name = walk.value(&section, "name", None, |s| election_name(s).map(Some))?;
    Some(ElectionConfig { name, priority: i32::try_from(priority).unwrap_or(0), observe })
}

fn election_name(scalar: &Scalar) -> Parsed<ElectionName> {
    let name = ElectionName::parse(&text(scalar)?);
    name.ok_or_else(|| {
        format!(
            "{} is no election's name; accepted: up to 128 of A-Z a-z 0-9 . _ -, a letter or digit first",
            quoted(scalar)
        )
    })
}

fn timing(walk: &mut Walk, top: &Section) -> Option<Timing> {
    let section = walk.section(top, "session");
    let default = TimingSpec::default();
    let limit = Duration::from_hours(1);
    let mut time =
        |name: &str, default: Duration| walk.value(&section, name, default, |s| duration(s, Duration::ZERO, limit));
    let spec = TimingSpec {
        ttl: time("ttl", default.ttl),
        slack: time("slack", default.slack),
        promise: time("promise", default.promise),
        vacancy_grace: time("vacancy_grace", default.vacancy_grace),
        drift_ppm: walk.value(&section, "drift", default.drift_ppm, share),
    };
    let clean = walk.clean("session");
    let timing = match Timing::new(spec) {
        Ok(timing) => timing,
        Err(errors) => {
            // What relates several keys means nothing while one of them is not known; what limits one still does.
            let alone = |e: &TimingError| matches!(e, TimingError::Ttl(_) | TimingError::Drift);
            for error in errors.into_iter().filter(|e| clean || alone(e)) {
                walk.complain(section.place(error.key()), section.key(error.key()), error.to_string());
            }
            return None;
        }
    };
    if !clean {
        return None;
    }
    if timing.ttl() == TTL_FLOOR {
        let what = "2s is the least that etcd grants: one slow disk write there may cost the leadership; 5s and more is calmer";
        walk.warn(section.place("ttl"), section.key("ttl"), what);
    }
    Some(timing)
}

fn http(walk: &mut Walk, top: &Section) -> HttpConfig {
    let section = walk.section(top, "http");
    let public = listeners(walk, &section, "public", "0.0.0.0:4790");
    let control = listeners(walk, &section, "control", "unix:/run/tenure/control.sock");
    let request_timeout =
        walk.value(&section, "request_timeout", 5 * SECOND, |s| duration(s, MILLI * 100, 60 * SECOND));
    let admin_token_file = walk.optional(&section, "admin_token_file", path);
    if let Some(Err(what)) = admin_token_file.as_deref().map(files::secret) {
        walk.complain(section.place("admin_token_file"), section.key("admin_token_file"), what);
    }
    let advertise_url = walk.optional(&section, "advertise_url", super::url::advertised);
    let max_connections = walk.value(&section, "max_connections", 256, |s| number(s, 1, 65_536));
    let tls = http_tls(walk, &section);
    for (place, address) in &control {
        if let Listen::Tcp(tcp) = address
            && !tcp.ip().is_loopback()
            && !section.has("admin_token_file")
        {
            let what = "a control listener that others can reach needs http.admin_token_file; accepted: that, a loopback address, or unix:/path";
            walk.complain(place.clone(), section.key("control"), what);
        }
    }
    let all: Vec<_> = public.iter().map(|p| ("public", p)).chain(control.iter().map(|c| ("control", c))).collect();
    for (i, (name, (place, address))) in all.iter().enumerate() {
        if let Some((other, _)) = all[..i].iter().find(|(_, (_, before))| collide(before, address)) {
            let what = format!("the same address as one of http.{other}; accepted: a different port or path for each");
            walk.complain(place.clone(), section.key(name), what);
        }
    }
    let bare = |list: Vec<(Place, Listen)>| list.into_iter().map(|(_, l)| l).collect();
    HttpConfig {
        public: bare(public),
        control: bare(control),
        request_timeout,
        admin_token_file,
        advertise_url,
        max_connections,
        tls,
    }
}

fn listeners(walk: &mut Walk, section: &Section, name: &str, default: &str) -> Vec<(Place, Listen)> {
    if section.node(name).is_none() {
        let scalar = Scalar { text: default.to_owned(), shown: default.to_owned(), kind: node::Kind::Quoted };
        return listen(&scalar).into_iter().map(|l| (section.place(name), l)).collect();
    }
    let items = walk.items(section, name, true).unwrap_or_default();
    if items.len() > MAX_LISTENERS {
        walk.complain(section.place(name), section.key(name), format!("accepted: at most {MAX_LISTENERS} addresses"));
    }
    let key = |i: usize| if items.len() == 1 { section.key(name) } else { format!("{}[{i}]", section.key(name)) };
    let mut parsed = Vec::new();
    for (i, item) in items.iter().enumerate().take(MAX_LISTENERS) {
        parsed.extend(walk.scalar(item, &key(i), listen).map(|l| (item.place.clone(), l)));
    }
    parsed
}

fn http_tls(walk: &mut Walk, http: &Section) -> Option<HttpTls> {
    let section = walk.section(http, "tls");
    let cert_file = readable(walk, &section, "cert_file");
    let key_file = readable(walk, &section, "key_file");
    let client_ca_file = readable(walk, &section, "client_ca_file");
    both_or_none(walk, &section, ["cert_file", "key_file"]);
    if section.has("client_ca_file") && !section.has("cert_file") && !section.has("key_file") {
        walk.complain(
            section.place("client_ca_file"),
            section.key("client_ca_file"),
            "it needs cert_file and key_file",
        );
    }
    let tls = HttpTls { cert_file: cert_file?, key_file: key_file?, client_ca_file };
    super::tls::judge(walk, &section, &tls.files(), ["client_ca_file", "cert_file", "key_file"]);
    Some(tls)
}

/// An optional file that must be readable.
pub(super) fn readable(walk: &mut Walk, section: &Section, name: &str) -> Option<std::path::PathBuf> {
    let file = walk.optional(section, name, path)?;
    let holds = match name {
        "ca_file" | "client_ca_file" | "cert_file" => "certificates, in PEM",
        "key_file" => "the private key, in PEM",
        _ => "the secret",
    };
    if let Err(what) = files::holding(&file, holds) {
        walk.complain(section.place(name), section.key(name), what);
    }
    Some(file)
}

/// Two keys of which neither means anything without the other.
pub(super) fn both_or_none(walk: &mut Walk, section: &Section, pair: [&str; 2]) {
    for (has, lacks) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        if section.has(has) && !section.has(lacks) {
            let what = format!("it needs {} too; accepted: both or none", section.key(lacks));
            walk.complain(section.place(has), section.key(has), what);
        }
    }
}

fn audit(walk: &mut Walk, top: &Section) -> AuditConfig {
    let section = walk.section(top, "audit");
    let file = walk.optional(&section, "file", path);
    if let Some(Err(what)) = file.as_deref().map(files::appendable) {
        walk.complain(section.place("file"), section.key("file"), what);
    }
    AuditConfig {
        file,
        rotate_bytes: walk.value(&section, "rotate_bytes", 64 << 20, |s| size(s, 4 << 10, 1 << 40)),
        keep: walk.value(&section, "keep", 5, |s| number(s, 0, 1_000)),
    }
}

fn log(walk: &mut Walk, top: &Section) -> LogConfig {
    let section = walk.section(top, "log");
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    LogConfig {
        format: walk.value(&section, "format", LogFormat::Text, |s| word(s, &formats)),
        level: walk.value(&section, "level", LogLevel::Info, |s| values::word(s, &levels)),
    }
}
