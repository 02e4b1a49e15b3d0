//! The environment as a value. The only module that reads it, so that tests and hosts decide what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The variables that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    variables: BTreeMap<String, String>,
    /// Set, but not UTF-8. Taken for unset they would silently leave a setting at its default.
    unreadable: BTreeSet<String>,
}

impl Env {
    /// The environment of this process. `HOSTNAME` is filled in where the shell did not export it.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this module owns the environment")]
    pub fn of_process() -> Self {
        let mut env = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(env.variables.insert(name, value)),
                Err(_) => drop(env.unreadable.insert(name)),
            }
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if !host.is_empty() && host != "(none)" {
            env.variables.entry("HOSTNAME".to_owned()).or_insert(host);
        }
        env
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// The directories of `PATH`.
    #[must_use]
    pub fn path(&self) -> Vec<PathBuf> {
        self.get("PATH").map(|p| std::env::split_paths(p).collect()).unwrap_or_default()
    }

    pub(super) fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).filter(move |(n, _)| n.starts_with(prefix))
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let variables = pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        Self { variables, unreadable: BTreeSet::new() }
    }
}
