//! The configuration: a file, the environment and the flags.
//!
//! The input is the file; behind a byte 0xff, which no UTF-8 holds, follow `NAME=value` for the environment and `--flag=value`.

use tenure::config::{Config, Env, Overrides, Place, Report, Warning, effective, effective_text, load_bytes};

/// The value of `${SECRET}`. It looks like the beginning of a duration, a size and a name, so that many messages get to see it.
const SECRET: (&str, &str) = ("SECRET", "7sesame");
const FILE: &str = "fuzz.yaml";

/// Whatever the file holds: a configuration, or errors that say where; what is accepted survives being written and read again.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let overrides = overrides(parts.filter_map(|part| std::str::from_utf8(part).ok()));
    match load_bytes(FILE, text, &overrides) {
        Ok((config, warnings)) => accepted(&config, &warnings),
        Err(report) => refused(text, data, &report),
    }
}

fn overrides<'a>(settings: impl Iterator<Item = &'a str>) -> Overrides {
    let mut overrides = Overrides::default();
    let mut env = vec![("HOSTNAME", "host"), SECRET];
    for (name, value) in settings.filter_map(|setting| setting.split_once('=')) {
        match name {
            "--id" => overrides.id = Some(value.to_owned()),
            "--election" => overrides.elections.push(value.to_owned()),
            "--etcd-endpoints" => overrides.etcd_endpoints.push(value.to_owned()),
            "--log-level" => overrides.log_level = Some(value.to_owned()),
            "--log-format" => overrides.log_format = Some(value.to_owned()),
            _ => env.push((name, value)),
        }
    }
    overrides.env = Env::from_iter(env);
    overrides
}

fn accepted(config: &Config, warnings: &[Warning]) {
    let text = effective_text(&effective(config)).expect("a tree of JSON values is YAML");
    let again = load_bytes(FILE, text.as_bytes(), &Overrides::default());
    let (again, _) = again.unwrap_or_else(|report| panic!("what was accepted is refused:\n{report}\n{text}"));
    assert_eq!(*config, again, "as {text}");
    for warning in warnings {
        one_line(&warning.to_string());
    }
}

fn refused(text: &[u8], data: &[u8], report: &Report) {
    assert!(!report.problems().is_empty(), "refused without a reason");
    // The parser sees the end of a text without a last line break on a line of its own.
    let lines = text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 2;
    for problem in report.problems() {
        one_line(&problem.to_string());
        assert!(!problem.what.is_empty(), "{problem:?}");
        match &problem.place {
            Place::At { file, line, column } => {
                assert!(&**file == FILE && (1..=lines).contains(line) && *column >= 1, "{problem:?} of {lines} lines");
            }
            Place::File(file) => assert_eq!(&**file, FILE),
            Place::NoFile => panic!("there is a file: {problem:?}"),
            Place::Variable(name) => assert!(!name.is_empty(), "{problem:?}"),
            Place::Flag(name) => assert!(name.starts_with("--") && !problem.key.is_empty(), "{problem:?}"),
        }
    }
    let (secret, shown) = (&SECRET.1[1..], report.to_string());
    let written = data.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(written || !shown.contains(secret), "a message quotes the environment: {shown}");
}

/// Whoever writes a configuration must not be able to forge lines of a log.
fn one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
