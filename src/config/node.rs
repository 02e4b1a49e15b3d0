//! YAML text → a tree in which every key and every value knows its place.
//!
//! Built from the parser's events rather than by its loader: duplicate keys must be seen, aliases bounded, and whether a
//! scalar was quoted must not be lost.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::report::{Place, Problem};

/// Deeper than any configuration; bounds the recursion here and in the schema walk.
const MAX_DEPTH: usize = 16;
/// More than any configuration, copies made by aliases included.
const MAX_NODES: usize = 20_000;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A problem was already reported here: nothing more to say.
    Broken,
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub name: String,
    pub place: Place,
}

/// A scalar, not yet given a type: the schema knows which one belongs there.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub text: String,
    /// What messages may quote: the text as written, so that no value of the environment shows up in a log.
    pub shown: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Written without quotes: `5` is a number, and `true` no text.
    Plain,
    /// Quoted or a block: a text, whatever it looks like.
    Quoted,
    /// Replaced from the environment: any type that its text allows.
    Replaced,
    /// A flag or a variable: likewise, and commas separate the items of a list.
    Override,
}

/// What a plain scalar is by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Bool,
    Number,
    Text,
}

impl Scalar {
    /// Whether messages may quote parts of the text, and not only all of what is shown.
    pub fn is_as_written(&self) -> bool {
        self.text == self.shown
    }

    /// Only plain scalars have a shape of their own; the others are what the schema wants them to be.
    pub fn shape(&self) -> Shape {
        let digits = self.text.trim_start_matches(['+', '-']);
        match self.text.as_str() {
            _ if self.kind != Kind::Plain => Shape::Text,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Shape::Bool,
            _ if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok() => {
                Shape::Number
            }
            _ if digits.starts_with("0x") || digits.starts_with("0o") => Shape::Number,
            _ => Shape::Text,
        }
    }
}

/// Parses one document. An error of YAML itself ends the parse, as what follows it cannot be trusted; the other problems
/// come with the tree.
pub(super) fn parse(text: &str, file: &Arc<str>) -> Result<(Node, Vec<Problem>), Vec<Problem>> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        file: Arc::clone(file),
        anchors: HashMap::new(),
        nodes: 0,
        path: Vec::new(),
        problems: Vec::new(),
    };
    match builder.document() {
        Ok(node) => Ok((node, builder.problems)),
        Err(problem) => {
            builder.problems.push(problem);
            Err(builder.problems)
        }
    }
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: Arc<str>,
    /// Anchors with the number of nodes below each.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    /// The keys above the present node, for messages.
    path: Vec<String>,
    /// Problems that do not end the parse.
    problems: Vec<Problem>,
}

impl<'t> Builder<'t> {
    fn place(&self, span: &Span) -> Place {
        let start = &span.start;
        Place::At { file: Arc::clone(&self.file), line: start.line().max(1), column: start.col() + 1 }
    }

    fn problem(place: Place, what: impl Into<String>) -> Problem {
        Problem { place, key: String::new(), what: what.into() }
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.place(&span))),
            Some(Err(e)) => {
                let at = Span::empty(*e.marker());
                let hint = if e.info().contains("tab") { "; accepted: spaces for indentation" } else { "" };
                Err(Self::problem(self.place(&at), format!("not YAML: {}{hint}", e.info())))
            }
            None => Err(Self::problem(Place::File(Arc::clone(&self.file)), "not YAML: it ends too early")),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let empty = |file: &Arc<str>| {
            Self::problem(
                Place::File(Arc::clone(file)),
                "the file holds no configuration; `tenure config example` prints one",
            )
        };
        let node = loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Err(empty(&self.file)),
                (Event::DocumentStart(_), _) => break self.node(0)?,
                _ => {}
            }
        };
        if matches!(node.value, Value::Null) {
            return Err(empty(&self.file));
        }
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(node),
                (Event::DocumentStart(_), place) => {
                    return Err(Self::problem(
                        place,
                        "a second document begins here; accepted: one document in a file",
                    ));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Problem> {
        let (event, place) = self.next()?;
        self.node_of(event, place, depth)
    }

    fn node_of(&mut self, event: Event<'t>, place: Place, depth: usize) -> Result<Node, Problem> {
        self.count(1, &place)?;
        if depth > MAX_DEPTH {
            return Err(Self::problem(place, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let before = self.nodes;
        let (value, anchor, tagged) = match event {
            Event::Alias(id) => return self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => (scalar(text.into_owned(), style), anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) => (self.list(depth)?, anchor, tag.is_some()),
            Event::MappingStart(anchor, tag) => (self.map(depth)?, anchor, tag.is_some()),
            other => return Err(Self::problem(place, format!("not YAML: {other:?} where a value belongs"))),
        };
        if tagged {
            self.problems
                .push(Self::problem(place.clone(), "a tag (`!…`) has no meaning here; accepted: the plain value"));
        }
        let node = Node { place, value: if tagged { Value::Broken } else { value } };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn count(&mut self, more: usize, place: &Place) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(Self::problem(
                place.clone(),
                format!("more than {MAX_NODES} values, copies by aliases included"),
            ));
        }
        Ok(())
    }

    /// Checked before anything is copied: nine levels of nine aliases each would otherwise fill the memory.
    fn alias(&mut self, id: usize, place: Place) -> Result<Node, Problem> {
        let size = self.anchors.get(&id).map(|(_, size)| *size);
        self.count(size.unwrap_or(0), &place)?;
        match self.anchors.get(&id) {
            Some((node, _)) => Ok(node.clone()),
            // The parser knows the anchor's name, but its value is not complete: it would hold itself.
            None => Err(Self::problem(place, "an alias inside its own anchor")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, place) => items.push(self.node_of(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, Place> = HashMap::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Map(entries)),
                (event, place) => self.node_of(event, place, depth + 1)?,
            };
            let place = key.place;
            let Value::Scalar(Scalar { text: name, .. }) = key.value else {
                self.problems.push(Self::problem(place, "a key must be a plain word"));
                self.node(depth + 1)?;
                continue;
            };
            self.path.push(name.clone());
            let value = self.node(depth + 1)?;
            let path = self.path.join(".");
            self.path.pop();
            if let Some(Place::At { line, .. }) = seen.get(&name) {
                let what = format!("it is here twice, first in line {line}; accepted: one of the two");
                self.problems.push(Problem { place, key: printable(&path), what });
                continue;
            }
            seen.insert(name.clone(), place.clone());
            entries.push((Key { name, place }, value));
        }
    }
}

/// Text of the file as a message may show it: no control characters, and of bounded length.
pub(super) fn printable(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    let kind = if plain { Kind::Plain } else { Kind::Quoted };
    Value::Scalar(Scalar { shown: text.clone(), text, kind })
}
