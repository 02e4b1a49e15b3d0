//! The rules of the house, as a test: who may use whom, how long things may get, and what may not be written at all.
//!
//! Part of the one integration binary (`tests/it/main.rs` names it), so that it costs no link of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom: `docs/architecture.md`, "Who may use whom". A module may always use itself.
const MAY_USE: &[(&str, &str)] = &[
    ("main", "cli"),
    ("cli", "clock config daemon election etcd logging timing tls"),
    (
        "daemon",
        "audit clock config control driver election etcd http kubernetes logging memory metrics rights shutdown snapshot supervisor tls",
    ),
    ("driver", "audit clock control election etcd memory metrics snapshot timing"),
    ("http", "clock config control election health metrics rights snapshot timing tls"),
    ("etcd", "clock config election health timing tls"),
    ("kubernetes", "clock config election metrics snapshot"),
    ("audit", "clock config control election worker"),
    ("memory", "election worker"),
    ("metrics", "clock election logging snapshot"),
    ("control", "clock election snapshot"),
    ("rights", "clock election etcd"),
    ("shutdown", "clock control logging supervisor"),
    ("supervisor", "clock control election snapshot"),
    ("snapshot", "clock election health timing"),
    ("config", "election timing tls"),
    ("logging", "clock config"),
    ("health", "clock"),
    ("election", "clock timing"),
    ("timing", ""),
    ("tls", ""),
    ("worker", ""),
    ("clock", ""),
];

/// Crates and words that only one module may know.
const OWNED: &[(&str, &str)] = &[
    ("etcd_client", "etcd"),
    ("tonic::", "etcd"),
    ("p521::", "tls"),
    ("use warp", "http"),
    ("prometheus::", "metrics"),
    ("saphyr_parser::", "config"),
    ("kube::", "kubernetes"),
    ("sd_notify::", "supervisor"),
    ("k8s_openapi::", "kubernetes"),
];

/// Nothing of this under `src/election`: the core has no clock, no I/O, no async, no randomness, and no errors.
const NOT_IN_THE_CORE: &[&str] = &[
    "tokio",
    "etcd_client",
    "warp",
    "fastrand",
    "clock::now",
    "wall()",
    "async ",
    ".await",
    "std::fs",
    "std::net",
    "println!",
];

/// Nowhere in `src`, but for the part of a file that holds its tests.
const NOWHERE: &[&str] = &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX", ".unwrap()", "static mut"];

const FILE_LINES: usize = 420;
const FUNCTION_LINES: usize = 70;

struct Source {
    module: String,
    path: PathBuf,
    /// Without the tests at its end.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    let source = |path: PathBuf| {
        let inside = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        let module = inside.split(['/', '.']).next().unwrap_or_default().to_owned();
        let text = fs::read_to_string(&path).expect("text");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        Source { module, path, code }
    };
    paths.into_iter().map(source).filter(|s| s.module != "lib").collect()
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// Without comments, where prose may name anything.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.code.lines().enumerate().map(|(n, line)| (n + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_use_only_those_below_them() {
    let rules: BTreeMap<_, Vec<_>> = MAY_USE.iter().map(|(m, uses)| (*m, uses.split(' ').collect())).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(allowed) = rules.get(source.module.as_str()) else {
            wrong.push(format!("{}: module {} is not in the table", source.path.display(), source.module));
            continue;
        };
        for (n, line) in code_lines(&source) {
            for mention in line.split("crate::").skip(1).chain(line.split("use tenure::").skip(1)) {
                let used: String = mention.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let known = rules.contains_key(used.as_str());
                if known && used != source.module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{n}: {} may not use {used}", source.path.display(), source.module));
                }
            }
        }
    }
    none("who may use whom", &wrong);
}

#[test]
fn crates_stay_with_the_module_that_owns_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (n, line) in code_lines(&source) {
            for (word, owner) in OWNED.iter().filter(|(w, o)| line.contains(w) && source.module != *o) {
                // `http` and `metrics` speak of Prometheus' format; only the crate is meant.
                wrong.push(format!("{}:{n}: {word} belongs to {owner}", source.path.display()));
            }
        }
    }
    none("crates outside their module", &wrong);
}

#[test]
fn the_core_has_no_clock_no_io_no_async_no_randomness() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.module == "election") {
        for (n, line) in code_lines(source) {
            for word in NOT_IN_THE_CORE.iter().filter(|w| line.contains(**w)) {
                wrong.push(format!("{}:{n}: {word}", source.path.display()));
            }
            if line.contains("Result<") {
                wrong.push(format!("{}:{n}: the core returns no errors: it asserts", source.path.display()));
            }
        }
    }
    none("not in the core", &wrong);
}

#[test]
fn nothing_unfinished_is_left() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (n, line) in source.code.lines().enumerate() {
            for word in NOWHERE.iter().filter(|w| line.contains(**w)) {
                wrong.push(format!("{}:{}: {word}", source.path.display(), n + 1));
            }
        }
    }
    let mut tests = Vec::new();
    files(&root().join("tests"), &mut tests);
    for path in tests.iter().filter(|p| !p.ends_with("tidy.rs")) {
        let text = fs::read_to_string(path).expect("text");
        if text.contains("#[ignore") {
            wrong.push(format!("{}: a test that does not run", path.display()));
        }
    }
    none("unfinished", &wrong);
}

#[test]
fn files_and_functions_stay_within_a_screenful_or_two() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<_> = source.code.lines().collect();
        if lines.len() > FILE_LINES {
            wrong.push(format!("{}: {} lines", source.path.display(), lines.len()));
        }
        let mut begun: Option<(usize, usize)> = None;
        for (n, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "];
            let word = line.trim_start().replace("pub(super) ", "").replace("pub(crate) ", "");
            if begun.is_none() && starts.iter().any(|s| word.starts_with(s)) {
                begun = Some((n, indent));
            }
            if let Some((first, at)) = begun
                && indent == at
                && (line.trim() == "}"
                    || line.trim_end().ends_with('}') && n == first
                    || line.trim_end().ends_with(';'))
            {
                let length = n - first + 1;
                let table = lines[first.saturating_sub(3)..first].iter().any(|l| l.contains("too_many_lines"));
                if length > FUNCTION_LINES && !table {
                    wrong.push(format!("{}:{}: a function of {length} lines", source.path.display(), first + 1));
                }
                begun = None;
            }
        }
    }
    none("too long", &wrong);
}

#[test]
fn documents_name_what_there_is() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (map, changes) = (read("docs/architecture.md"), read("CHANGELOG.md"));
    let mut wrong = Vec::new();
    for (module, _) in MAY_USE {
        if !map.contains(&format!("`{module}")) {
            wrong.push(format!("docs/architecture.md does not name {module}"));
        }
    }
    if !changes.contains("## Unreleased") {
        wrong.push("CHANGELOG.md has no place for the next change".to_owned());
    }
    none("documents", &wrong);
}
