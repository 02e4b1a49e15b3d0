//! What is wrong with a configuration, and where: all of it in one [`Report`].

use std::fmt;
use std::sync::Arc;

/// The most problems that a report lists one by one; a file of noise must not flood a terminal.
const LISTED: usize = 200;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A position in the file; both counted from 1, columns in characters.
    At {
        /// The file as it was named.
        file: Arc<str>,
        /// Which line.
        line: usize,
        /// Which column.
        column: usize,
    },
    /// The file as a whole.
    File(Arc<str>),
    /// No file was given.
    NoFile,
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File(file) => f.write_str(file),
            Self::NoFile => f.write_str("no file"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The dotted key; empty where it is about the file as a whole.
    pub key: String,
    /// What is wrong, and what would be accepted.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.what),
            key => write!(f, "{}: {key}: {}", self.place, self.what),
        }
    }
}

/// Accepted, but worth a second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that is wrong with a configuration, in the order of the file; then environment, then flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// In the order of their places.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }

    /// The problems, at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Report {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(LISTED) {
            writeln!(f, "{problem}")?;
        }
        let rest = self.problems.len().saturating_sub(LISTED);
        if rest > 0 {
            writeln!(f, "… and {rest} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
