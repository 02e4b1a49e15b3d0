//! The configuration as a library: defaults, layers, and the documented example.

use std::fs;
use std::time::Duration;

use tenure::config::{self, Config, LogFormat, LogLevel, Overrides, Report, Warning};

fn load(yaml: &str, overrides: &Overrides) -> Result<(Config, Vec<Warning>), Report> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tenure.yaml");
    fs::write(&file, yaml).expect("the file");
    config::load(Some(&file), overrides)
}

fn env<const N: usize>(pairs: [(&str, &str); N]) -> Overrides {
    let all = pairs.into_iter().chain([("HOSTNAME", "pod-0")]);
    Overrides { env: all.collect(), ..Overrides::default() }
}

#[test]
fn the_example_documents_the_defaults() {
    let (example, warnings) = load(config::EXAMPLE, &env([])).expect("the example is right");
    let (default, _) = load("elections: [orders]", &env([])).expect("the least configuration");
    assert_eq!(example, default);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn the_example_shows_every_key_and_another_parser_agrees_on_it() {
    let (parsed, _) = load(config::EXAMPLE, &env([])).expect("the example is right");
    let other: serde_yaml::Value = serde_yaml::from_str(config::EXAMPLE).expect("YAML to another parser too");
    let ours = serde_yaml::to_value(config::effective(&parsed)).expect("a tree");
    let mut keys = (Vec::new(), Vec::new());
    paths(&other, "", &mut keys.0);
    paths(&ours, "", &mut keys.1);
    // A section that is not configured is null in the effective one.
    keys.0.retain(|k| !k.contains(".tls"));
    keys.1.retain(|k| !k.contains(".tls"));
    assert_eq!(keys.0, keys.1);
    assert_eq!(other["session"]["ttl"], ours["session"]["ttl"]);
    assert_eq!(other["audit"]["rotate_bytes"], ours["audit"]["rotate_bytes"]);
}

fn paths(value: &serde_yaml::Value, at: &str, into: &mut Vec<String>) {
    match value.as_mapping() {
        Some(map) => {
            for (key, value) in map {
                paths(value, &format!("{at}.{}", key.as_str().unwrap_or("?")), into);
            }
        }
        None => into.push(at.to_owned()),
    }
    into.sort();
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "id: file\nelections: [file]\nsession: {ttl: 20s, slack: 100ms}\nlog: {level: warn}\n";
    let mut overrides = env([
        ("TENURE_ID", "env"),
        ("TENURE_SESSION__TTL", "5s"),
        ("TENURE_ETCD__ENDPOINTS", "http://a:1, http://b:2"),
        ("TENURE_LOG__FORMAT", "json"),
        ("TENURE_HISTORY_LIMIT", "7"),
    ]);
    overrides.id = Some("flag".to_owned());
    overrides.elections = vec!["one".to_owned(), "two".to_owned()];
    let (config, _) = load(file, &overrides).expect("all of it is right");
    assert_eq!(config.id, "flag");
    assert_eq!(config.elections.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(config.timing.ttl(), Duration::from_secs(5));
    assert_eq!(config.timing.slack(), Duration::from_millis(100));
    assert_eq!(config.etcd.endpoints, ["http://a:1", "http://b:2"]);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Warn, LogFormat::Json));
    assert_eq!(config.history_limit, 7);
    assert_eq!(config.etcd.prefix, "/tenure");
}

#[test]
fn without_a_file_the_environment_is_enough() {
    let (config, _) = config::load(None, &env([("TENURE_ELECTIONS", "orders,shard")])).expect("enough");
    assert_eq!((config.id.as_str(), config.elections.len()), ("pod-0", 2));
    let report = config::load(None, &Overrides::default()).expect_err("nothing at all").to_string();
    assert!(report.contains("no file: id:") && report.contains("no file: elections:"), "{report}");
}

#[test]
fn errors_of_overrides_name_the_variable_and_the_flag() {
    let mut overrides =
        env([("TENURE_SESSION__TTL", "5"), ("TENURE_LOG_LEVEL", "info"), ("TENURE_CONTROL", "unix:/x")]);
    overrides.etcd_endpoints = vec!["nonsense".to_owned()];
    let report = load("elections: [a]", &overrides).expect_err("three errors");
    let lines: Vec<String> = report.problems().iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 3, "{report}");
    assert!(
        lines[0].starts_with("environment TENURE_LOG_LEVEL: no such setting; did you mean TENURE_LOG__LEVEL"),
        "{report}"
    );
    assert!(
        lines[1].starts_with("environment TENURE_SESSION__TTL: session.ttl: `5`: a duration needs a unit: 5s"),
        "{report}"
    );
    assert!(lines[2].starts_with("flag --etcd-endpoints: etcd.endpoints[0]: "), "{report}");
}

#[test]
fn a_variable_cannot_inject_structure() {
    let overrides = env([("NAME", "orders, extra: [x]"), ("ID", "5"), ("N", "12"), ("LIST", "[a, b]")]);
    let report = load("elections: [\"${NAME}\"]\n", &overrides).expect_err("one bad name").to_string();
    assert_eq!(report.lines().count(), 1, "{report}");
    let report = load("elections: ${LIST}\n", &overrides).expect_err("no list").to_string();
    assert!(report.contains("a single value where a list belongs"), "{report}");
    let (config, _) =
        load("id: ${ID}\nelections: [a]\nhistory_limit: ${N}\nstate_dir: ${UNSET:-}\n", &overrides).expect("right");
    assert_eq!((config.id.as_str(), config.history_limit, config.state_dir), ("5", 12, None));
}

#[test]
fn the_effective_configuration_loads_to_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    fs::write(&secret, "x\n").expect("the file");
    let s = secret.display();
    let tls = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let [ca, cert, key] = ["ca.crt", "client.crt", "client.key"].map(|name| tls.join(name).display().to_string());
    let yaml = format!(
        "id: a$$b\nelections: [{{name: a, priority: -3}}, {{name: b, observe: true}}]\n\
         etcd: {{endpoints: ['https://h:1'], username: '5', password_file: {s}, tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}, server_name: x}}}}\n\
         session: {{ttl: 5s, drift: 0.07%, promise: 1500ms}}\n\
         http: {{public: 127.0.0.1:0, control: ['0.0.0.0:5', 'unix:/x'], admin_token_file: {s}, advertise_url: 'http://h/$$', tls: {{cert_file: {cert}, key_file: {key}, client_ca_file: {ca}}}}}\n\
         audit: {{file: {s}, rotate_bytes: 5000B, keep: 0}}\nstate_dir: {}\ngeneration_source: revision\nlog: {{format: json, level: trace}}\n",
        dir.path().display()
    );
    let (config, _) = load(&yaml, &env([])).expect("right");
    let text = config::effective_text(&config::effective(&config)).expect("YAML");
    let (again, _) = load(&text, &env([])).expect("what we print is right");
    assert_eq!(config, again, "{text}");
}

#[test]
fn the_least_ttl_is_accepted_with_a_warning_at_its_place() {
    let (config, warnings) = load("elections: [a]\nsession:\n  ttl: 2s\n", &env([])).expect("accepted");
    assert_eq!(config.timing.ttl(), Duration::from_secs(2));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().contains("tenure.yaml:3:8: session.ttl: 2s is the least"), "{}", warnings[0]);
}

#[test]
fn anchors_may_be_used_for_what_is_said_twice() {
    let yaml = "elections: [a]\nsession: {ttl: &t 20s, vacancy_grace: *t}\n";
    let (config, _) = load(yaml, &env([])).expect("right");
    assert_eq!(config.timing.vacancy_grace(), Duration::from_secs(20));
}
