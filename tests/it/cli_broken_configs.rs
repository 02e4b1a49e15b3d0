//! Broken configurations, each with the report it must give, next to it in `tests/broken-configs`.

use std::fs;
use std::path::{Path, PathBuf};

use tenure::config::{self, Env, Overrides};

const DIR: &str = "tests/broken-configs";

fn overrides() -> Overrides {
    let env = Env::from_iter([("HOSTNAME", "pod-0"), ("SECRET", "hunter2"), ("INJECTED", "a]\nelections: [injected")]);
    Overrides { env, ..Overrides::default() }
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(DIR).expect("the directory of broken configurations");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

/// A new file gets its report written, and fails once: read it, and commit it if it is right.
#[test]
fn every_broken_config_gives_its_report() {
    let mut differing = Vec::new();
    for file in files() {
        let report = config::load(Some(&file), &overrides()).expect_err(&file.display().to_string()).to_string();
        let golden = file.with_extension("report");
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected.is_empty() {
            fs::write(&golden, &report).expect("the new report");
        }
        if report != expected {
            differing.push(format!("{}:\n{report}", file.display()));
        }
    }
    assert!(differing.is_empty(), "reports differ:\n{}", differing.join("\n"));
}

#[test]
fn a_report_names_file_line_and_column_of_each_of_at_least_twenty_errors() {
    let file = Path::new(DIR).join("everything.yaml");
    let report = config::load(Some(&file), &overrides()).expect_err("it is broken");
    let lines: Vec<String> = report.problems().iter().map(ToString::to_string).collect();
    assert!(lines.len() >= 20, "{}", lines.len());
    for line in lines {
        let mut parts = line.split(':');
        assert_eq!(parts.next(), Some("tests/broken-configs/everything.yaml"), "{line}");
        assert!(parts.next().is_some_and(|n| n.parse::<u32>().is_ok()), "{line}");
        assert!(parts.next().is_some_and(|n| n.parse::<u32>().is_ok()), "{line}");
    }
}

#[test]
fn no_report_shows_a_secret() {
    for file in files() {
        let report = config::load(Some(&file), &overrides()).expect_err("it is broken").to_string();
        assert!(!report.contains("hunter2"), "{}:\n{report}", file.display());
    }
}

#[test]
fn a_file_over_one_mebibyte_is_refused_unread() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("large.yaml");
    fs::write(&file, "[".repeat((1 << 20) + 1)).expect("the file");
    let report = config::load(Some(&file), &overrides()).expect_err("too large").to_string();
    assert!(report.contains("larger than 1 MiB"), "{report}");
}

#[test]
fn a_mebibyte_of_noise_is_refused_within_seconds() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("noise.yaml");
    let before = tenure::clock::now();
    for unit in ["[", "- ", "{a: ", "a: &a\n", "k: v\n", "? ", "\"", "!t ", "*a ", "x", "a,", "[a,", "#", "'", "|\n "] {
        fs::write(&file, unit.repeat((1 << 20) / unit.len())).expect("the file");
        assert!(config::load(Some(&file), &overrides()).is_err(), "{unit}");
    }
    let took = tenure::clock::now().since(before);
    assert!(took.as_secs() < 60, "{took:?}");
}
