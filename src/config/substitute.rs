//! `${VAR}`, `${VAR:-default}` and `$$` in values.
//!
//! Runs on the parsed tree: whatever a variable holds stays one scalar, and can never become a key, a list or a comment.

use super::env::Env;
use super::node::{Kind, Node, Scalar, Value, printable};
use super::report::Problem;

/// Replaces in every scalar below `node`; what cannot be replaced is reported, and marked so that it is reported once.
pub(super) fn replace(node: &mut Node, key: &str, env: &Env, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                replace(item, &format!("{key}[{i}]"), env, problems);
            }
        }
        Value::Map(entries) => {
            for (name, value) in entries {
                let key = if key.is_empty() { name.name.clone() } else { format!("{key}.{}", name.name) };
                replace(value, &key, env, problems);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains('$') => match expand(&scalar.text, env) {
            Ok(text) => *scalar = Scalar { text, shown: std::mem::take(&mut scalar.shown), kind: Kind::Replaced },
            Err(what) => {
                problems.push(Problem { place: node.place.clone(), key: printable(key), what });
                node.value = Value::Broken;
            }
        },
        Value::Broken | Value::Null | Value::Scalar(_) => {}
    }
}

fn expand(text: &str, env: &Env) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (inner, after) = after
                .split_once('}')
                .ok_or("`${` without its `}`; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign")?;
            out.push_str(&lookup(inner, env)?);
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(inner: &str, env: &Env) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word) {
        return Err(
            "no variable's name between `${` and `}`; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign"
                .to_owned(),
        );
    }
    match (env.get(name), default) {
        // As in a shell, `:-` also stands in for a variable that is set and empty.
        (Some(value), None) => Ok(value.to_owned()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.to_owned()),
        (_, Some(default)) if default.contains("${") => Err("a default cannot hold another `${…}`".to_owned()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the variable {name} is not set; accepted: ${{{name}:-default}}, or set it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_escapes_are_replaced_as_in_a_shell() {
        let env = Env::from_iter([("A", "one"), ("EMPTY", "")]);
        let ok = |t: &str| expand(t, &env).ok();
        assert_eq!(ok("x-${A}-y"), Some("x-one-y".to_owned()));
        assert_eq!(ok("${NO:-two}${EMPTY:-three}[${EMPTY}]"), Some("twothree[]".to_owned()));
        assert_eq!(ok("$${A} $5 $"), Some("${A} $5 $".to_owned()));
        assert_eq!(ok("${NO:-}"), Some(String::new()));
        for bad in ["${NO}", "${A", "${}", "${1A}", "${A B}", "${NO:-${A}}"] {
            assert!(ok(bad).is_none(), "{bad}");
        }
    }
}
