//! What commands print: data to standard output, words for people to standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::exit::{Exit, Failure};
use crate::config::Env;

/// How data looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people and shell scripts.
    #[default]
    Text,
    /// One JSON document a line.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Prints one piece of data: `text` for people, or `value`.
    ///
    /// # Errors
    /// A reader that has gone ends the command quietly: `tenure history | head -1` is no failure.
    pub fn print(self, text: &str, value: &Value) -> Result<(), Failure> {
        match self {
            Self::Text => line(text),
            Self::Json => line(&value.to_string()),
            Self::Yaml => {
                let yaml = serde_yaml::to_string(value).map_err(|e| Failure::failed(e.to_string()))?;
                line(&format!("---\n{}", yaml.trim_end()))
            }
        }
    }
}

/// One line, or several, of data.
///
/// # Errors
/// As [`Format::print`].
pub fn line(text: &str) -> Result<(), Failure> {
    raw(&format!("{text}\n"))
}

/// Data as it is.
///
/// # Errors
/// As [`Format::print`].
pub fn raw(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
        _ => Failure::failed(format!("standard output: {e}")),
    })
}

/// Words for people. Where nobody reads them, they are lost: `eprintln!` would panic there.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The same, in red where a person reads it.
pub fn warn(text: &str) {
    let plain = Env::of_process().filled("NO_COLOR").is_some();
    if io::stderr().is_terminal() && !plain { say(&format!("\x1b[31m{text}\x1b[0m")) } else { say(text) }
}

/// Whether standard output is a terminal.
#[must_use]
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns as wide as their widest cell. The first row is the head.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(wide).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out.trim_end().to_owned()
}

/// A member of a document as a cell: texts bare, what is absent as `-`, and nothing that would move the cursor.
#[must_use]
pub fn cell(document: &Value, pointer: &str) -> String {
    match document.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        // It may come from etcd, where others write too.
        Some(Value::String(text)) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["A", "B"]), row(["long", "x"]), row(["ü", ""])]), "A     B\nlong  x\nü");
    }

    #[test]
    fn a_cell_cannot_send_commands_to_the_terminal() {
        let document = json!({"leader": {"id": "a\u{1b}[2J"}, "n": 5, "none": null});
        assert_eq!(cell(&document, "/leader/id"), "a?[2J");
        assert_eq!((cell(&document, "/n"), cell(&document, "/none")), ("5".to_owned(), "-".to_owned()));
    }
}
