//! The keys that exist: one table for the schema walk, the environment's names and the suggestions.

/// Every key that holds a value, dotted.
pub(super) const KEYS: &[&str] = &[
    "id",
    "elections",
    "etcd.endpoints",
    "etcd.prefix",
    "etcd.cluster_id",
    "etcd.username",
    "etcd.password_file",
    "etcd.tls.ca_file",
    "etcd.tls.cert_file",
    "etcd.tls.key_file",
    "etcd.tls.server_name",
    "etcd.connect_timeout",
    "etcd.request_timeout",
    "session.ttl",
    "session.drift",
    "session.slack",
    "session.promise",
    "session.vacancy_grace",
    "session.drain_timeout",
    "http.public",
    "http.control",
    "http.request_timeout",
    "http.admin_token_file",
    "http.advertise_url",
    "http.max_connections",
    "http.tls.cert_file",
    "http.tls.key_file",
    "http.tls.client_ca_file",
    "readiness.strict",
    "startup.wait_for_etcd",
    "state_dir",
    "audit.file",
    "audit.rotate_bytes",
    "audit.keep",
    "history_limit",
    "generation_source",
    "log.format",
    "log.level",
    "kubernetes.route",
    "kubernetes.election",
    "kubernetes.label",
    "kubernetes.service",
    "kubernetes.pod",
    "kubernetes.namespace",
    "kubernetes.address",
];

/// The keys of one entry of `elections`.
pub(super) const ELECTION_KEYS: &[&str] = &["name", "priority", "observe"];

/// Keys that the design has and this version has not, so that whoever read ahead is not told of a typing error.
const LATER: &[&str] = &["exec", "app", "hooks", "session.on_crash", "elections.preempt"];

/// The keys directly below `section` (the root where it is empty): sections and values alike, each once.
pub(super) fn below(section: &str) -> Vec<&'static str> {
    if section == "elections" {
        return ELECTION_KEYS.to_vec();
    }
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS {
        let rest =
            if section.is_empty() { Some(*key) } else { key.strip_prefix(section).and_then(|r| r.strip_prefix('.')) };
        if let Some(name) = rest.and_then(|r| r.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Whether a section of this name exists at the root.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.split_once('.').is_some_and(|(section, _)| section == name))
}

/// What to say about an unknown key below `section` (without indices).
pub(super) fn unknown(section: &str, name: &str) -> String {
    let dotted = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    if LATER.contains(&dotted.as_str()) {
        return "not in this version; accepted: leave it out".to_owned();
    }
    if name == "<<" {
        return "merge keys are not supported; accepted: the keys themselves".to_owned();
    }
    let siblings = below(section);
    if let Some(near) = nearest(name, siblings.iter().copied()) {
        return format!("unknown key; did you mean `{near}`?");
    }
    // The right word in the wrong place: `ttl` at the root.
    let elsewhere = |wanted: &str| KEYS.iter().find(|key| key.rsplit('.').next() == Some(wanted));
    match elsewhere(name) {
        Some(key) => format!("unknown key here; did you mean `{key}`?"),
        None => format!("unknown key; accepted: {}", siblings.join(", ")),
    }
}

/// The candidate most like `word`, if one is near enough to be meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word: String = word.chars().take(64).collect();
    let scored = candidates.map(|c| (strsim::jaro_winkler(&word, c), strsim::damerau_levenshtein(&word, c), c));
    let near = scored.filter(|(alike, edits, c)| *alike >= 0.85 || *edits * 3 <= c.len());
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, _, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_find_what_was_meant_and_strangers_do_not() {
        assert_eq!(unknown("", "elecions"), "unknown key; did you mean `elections`?");
        assert_eq!(unknown("etcd", "endpoint"), "unknown key; did you mean `endpoints`?");
        assert_eq!(unknown("etcd", "password"), "unknown key; did you mean `password_file`?");
        assert_eq!(unknown("", "ttl"), "unknown key here; did you mean `session.ttl`?");
        assert_eq!(unknown("readiness", "zebra"), "unknown key; accepted: strict");
        for (section, name) in [("", "exec"), ("", "hooks"), ("session", "on_crash"), ("elections", "preempt")] {
            assert!(unknown(section, name).starts_with("not in this version"), "{section}.{name}");
        }
    }
}
