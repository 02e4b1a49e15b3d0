//! The means of the schema walk: typed reads from the tree that collect problems instead of stopping at the first.

use super::keys;
use super::node::{Key, Kind, Node, Scalar, Value, printable};
use super::report::{Place, Problem, Warning};
use super::values::Parsed;

/// Collects.
#[derive(Debug)]
pub(super) struct Walk {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Warning>,
}

/// A mapping that is read from.
#[derive(Clone, Debug)]
pub(super) struct Section<'n> {
    /// Dotted, with indices; empty for the root.
    path: String,
    place: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Section<'n> {
    /// The dotted name of a key in here.
    pub fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn node(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Whether the key has a value. A broken one counts: its problem is reported already.
    pub fn has(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| !is_absent(&node.value))
    }

    /// Where the value of this key is; where it is left out, the place of the section.
    pub fn place(&self, name: &str) -> Place {
        self.node(name).map_or_else(|| self.place.clone(), |node| node.place.clone())
    }
}

impl Walk {
    pub fn new() -> Self {
        Self { problems: Vec::new(), warnings: Vec::new() }
    }

    pub fn complain(&mut self, place: Place, key: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { place, key: key.into(), what: what.into() });
    }

    pub fn warn(&mut self, place: Place, key: impl Into<String>, what: impl Into<String>) {
        self.warnings.push(Warning(Problem { place, key: key.into(), what: what.into() }));
    }

    /// Whether nothing below `prefix` was found wrong: relations between values are judged only when each is right.
    pub fn clean(&self, prefix: &str) -> bool {
        !self.problems.iter().any(|p| p.key.starts_with(prefix))
    }

    /// Opens the mapping `node`, and reports its unknown keys. `schema` is its path without indices.
    pub fn open<'n>(&mut self, node: Option<&'n Node>, path: String, schema: &str, outer: &Place) -> Section<'n> {
        let place = node.map_or_else(|| outer.clone(), |n| n.place.clone());
        let entries: &[(Key, Node)] = match node.map(|n| &n.value) {
            // A section whose keys are all commented out is an empty section.
            None | Some(Value::Null | Value::Broken) => &[],
            Some(Value::Map(entries)) => entries,
            Some(other) => {
                let accepted = keys::below(schema).join(", ");
                self.complain(
                    place.clone(),
                    path.clone(),
                    format!("{} where a section belongs; accepted: the keys {accepted}", noun(other)),
                );
                &[]
            }
        };
        let section = Section { path, place, entries };
        let known = keys::below(schema);
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            self.complain(key.place.clone(), section.key(&printable(&key.name)), keys::unknown(schema, &key.name));
        }
        section
    }

    /// Opens a section inside `outer`.
    pub fn section<'n>(&mut self, outer: &Section<'n>, name: &str) -> Section<'n> {
        let path = outer.key(name);
        self.open(outer.node(name), path.clone(), &path, &outer.place)
    }

    /// A value that has a default.
    pub fn value<T>(&mut self, section: &Section, name: &str, default: T, parse: impl Fn(&Scalar) -> Parsed<T>) -> T {
        let Some(node) = section.node(name) else { return default };
        if matches!(node.value, Value::Null) {
            let what = "nothing (null) where a value belongs; accepted: a value, or leave the key out for the default";
            self.complain(node.place.clone(), section.key(name), what);
            return default;
        }
        self.scalar(node, &section.key(name), parse).unwrap_or(default)
    }

    /// A value that may be absent: the key left out, null, or a variable that is empty.
    pub fn optional<T>(&mut self, section: &Section, name: &str, parse: impl Fn(&Scalar) -> Parsed<T>) -> Option<T> {
        let node = section.node(name)?;
        if is_absent(&node.value) { None } else { self.scalar(node, &section.key(name), parse) }
    }

    /// A value that is a scalar.
    pub fn scalar<T>(&mut self, node: &Node, key: &str, parse: impl Fn(&Scalar) -> Parsed<T>) -> Option<T> {
        let what = match &node.value {
            Value::Broken => return None,
            Value::Scalar(scalar) => match parse(scalar) {
                Ok(value) => return Some(value),
                Err(what) => what,
            },
            other => format!("{} where a single value belongs", noun(other)),
        };
        self.complain(node.place.clone(), key, what);
        None
    }

    /// The nodes of a list. Commas separate them in a flag or a variable; `single` also takes one value for a list of one.
    /// `None` where there is none, or none that can be read.
    pub fn items(&mut self, section: &Section, name: &str, single: bool) -> Option<Vec<Node>> {
        let node = section.node(name)?;
        let what = match &node.value {
            Value::Broken => return None,
            Value::List(items) if items.is_empty() => {
                "an empty list; accepted: at least one entry, or leave the key out".to_owned()
            }
            Value::List(items) => return Some(items.clone()),
            Value::Scalar(s) if s.kind == Kind::Override => return Some(split(s, &node.place)),
            Value::Scalar(_) if single => return Some(vec![node.clone()]),
            other => format!("{} where a list belongs; accepted: [one, another]", noun(other)),
        };
        self.complain(node.place.clone(), section.key(name), what);
        None
    }
}

/// An empty variable leaves an optional setting out: `password_file: ${PASSWORD_FILE:-}`.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Scalar(s) => s.text.is_empty() && matches!(s.kind, Kind::Replaced | Kind::Override),
        Value::Broken | Value::List(_) | Value::Map(_) => false,
    }
}

fn split(scalar: &Scalar, place: &Place) -> Vec<Node> {
    let part =
        |text: &str| Scalar { text: text.trim().to_owned(), shown: text.trim().to_owned(), kind: Kind::Override };
    scalar.text.split(',').map(|text| Node { place: place.clone(), value: Value::Scalar(part(text)) }).collect()
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Broken | Value::Null => "nothing (null)",
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}
