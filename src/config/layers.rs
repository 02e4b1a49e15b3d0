//! Lays the environment and the flags over the file's tree: flags win over the environment, that over the file.

use super::env::Env;
use super::keys::{self, KEYS};
use super::node::{Key, Kind, Node, Scalar, Value, printable};
use super::report::{Place, Problem};

/// What overrides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--id`.
    pub id: Option<String>,
    /// `--election`, each a name; together they replace the file's list.
    pub elections: Vec<String>,
    /// `--etcd-endpoints`.
    pub etcd_endpoints: Vec<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
    /// Where `TENURE_<SECTION>__<KEY>` and the variables of `${VAR}` come from.
    pub env: Env,
}

const PREFIX: &str = "TENURE_";
/// Variables of the client commands, and what `tenure` hands to programs; no settings of the daemon.
const RESERVED: &[&str] = &["CONTROL", "TOKEN", "ELECTION", "CONFIG"];
/// Variables of the tests.
const RESERVED_BEGINNINGS: &[&str] = &["TEST", "ETCD_3_"];

/// Applies all of it to `root`, which is a mapping.
pub(super) fn apply(root: &mut Node, overrides: &Overrides, problems: &mut Vec<Problem>) {
    for (name, value) in overrides.env.starting_with(PREFIX) {
        match setting(name) {
            Setting::Key(key) => set(root, key, &variable_place(name), value),
            Setting::Unknown(what) => {
                problems.push(Problem { place: variable_place(name), key: String::new(), what });
            }
            Setting::Foreign => {}
        }
    }
    for name in overrides.env.unreadable().filter(|name| matches!(setting(name), Setting::Key(_))) {
        let what = "its value is not UTF-8".to_owned();
        problems.push(Problem { place: variable_place(name), key: String::new(), what });
    }
    let lists = [
        ("--election", "elections", &overrides.elections),
        ("--etcd-endpoints", "etcd.endpoints", &overrides.etcd_endpoints),
    ];
    for (flag, key, values) in lists.into_iter().filter(|(_, _, values)| !values.is_empty()) {
        set(root, key, &Place::Flag(flag), &values.join(","));
    }
    let singles = [
        ("--id", "id", &overrides.id),
        ("--log-level", "log.level", &overrides.log_level),
        ("--log-format", "log.format", &overrides.log_format),
    ];
    for (flag, key, value) in singles {
        if let Some(value) = value {
            set(root, key, &Place::Flag(flag), value);
        }
    }
}

/// Names of variables are free text too, and must not break a report's lines.
fn variable_place(name: &str) -> Place {
    Place::Variable(printable(name))
}

enum Setting {
    Key(&'static str),
    Unknown(String),
    Foreign,
}

fn setting(name: &str) -> Setting {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    if RESERVED.contains(&rest) || RESERVED_BEGINNINGS.iter().any(|b| rest.starts_with(b)) || is_service_link(rest) {
        return Setting::Foreign;
    }
    if let Some(key) = KEYS.iter().find(|key| variable(key) == name) {
        return Setting::Key(key);
    }
    let first = rest.split('_').next().unwrap_or_default().to_lowercase();
    if !rest.contains("__") && !keys::is_section(&first) {
        return Setting::Foreign;
    }
    let names: Vec<String> = KEYS.iter().map(|key| variable(key)).collect();
    let near = keys::nearest(&name.to_uppercase(), names.iter().map(String::as_str));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Setting::Unknown(format!("no such setting{hint}"))
}

/// The variable of a key: `etcd.tls.ca_file` → `TENURE_ETCD__TLS__CA_FILE`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Kubernetes puts variables for every Service into every pod: one named `tenure-etcd` gives `TENURE_ETCD_SERVICE_HOST`,
/// `TENURE_ETCD_PORT`, `TENURE_ETCD_PORT_2379_TCP_ADDR`, and the daemon must start all the same.
fn is_service_link(rest: &str) -> bool {
    let rest = rest.strip_prefix("SERVICE_").map_or_else(|| rest.to_owned(), |r| format!("X_SERVICE_{r}"));
    let rest = if rest.starts_with("PORT") { format!("X_{rest}") } else { rest };
    let port = |r: &str| {
        let mut parts = r.split('_');
        parts.next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.ends_with("_PORT")
        || rest.match_indices("_PORT_").any(|(at, _)| port(&rest[at + "_PORT_".len()..]))
}

/// Replaces the value at a dotted key. A section that is no mapping is left alone: the walk reports it.
fn set(root: &mut Node, key: &str, place: &Place, text: &str) {
    let mut at = root;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if matches!(at.value, Value::Null) {
            at.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut at.value else { return };
        let index = entries.iter().position(|(k, _)| k.name == part).unwrap_or_else(|| {
            let node = Node { place: place.clone(), value: Value::Null };
            entries.push((Key { name: part.to_owned(), place: place.clone() }, node));
            entries.len() - 1
        });
        at = &mut entries[index].1;
        if parts.peek().is_none() {
            let scalar = Scalar { text: text.to_owned(), shown: text.to_owned(), kind: Kind::Override };
            *at = Node { place: place.clone(), value: Value::Scalar(scalar) };
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_no_settings() {
        for name in [
            "TENURE_SERVICE_HOST",
            "TENURE_PORT",
            "TENURE_PORT_4790_TCP",
            "TENURE_ETCD_SERVICE_HOST",
            "TENURE_ETCD_SERVICE_PORT_CLIENT",
            "TENURE_ETCD_PORT",
            "TENURE_HTTP_PORT_4790_TCP_ADDR",
            "TENURE_CONTROL",
            "TENURE_ETCD_3_5",
            "TENURE_TEST_KEEP",
            "TENURE_VERSION",
        ] {
            assert!(matches!(setting(name), Setting::Foreign), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_setting_but_is_none_is_refused_with_the_name_that_was_meant() {
        for (name, meant) in [
            ("TENURE_LOG_LEVEL", "TENURE_LOG__LEVEL"),
            ("TENURE_SESSION__TLL", "TENURE_SESSION__TTL"),
            ("TENURE_ETCD_ENDPOINTS", "TENURE_ETCD__ENDPOINTS"),
            ("TENURE_etcd__prefix", "TENURE_ETCD__PREFIX"),
        ] {
            let Setting::Unknown(what) = setting(name) else { panic!("{name} was not refused") };
            assert!(what.contains(meant), "{name}: {what}");
        }
    }
}
