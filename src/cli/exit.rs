//! How a command ends.

use std::process::ExitCode;

/// Exit codes; public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed for a reason that no other code names.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong.
    Config,
    /// Not leader, or whatever else was asked is not so.
    NotSo,
    /// The daemon or etcd does not answer. Nothing was changed.
    Unavailable,
    /// Whether it was done cannot be known.
    OutcomeUnknown,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::NotSo => 4,
            Self::Unavailable => 5,
            Self::OutcomeUnknown => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// For people; empty where nothing needs to be said.
    pub message: String,
    /// For programs, where they asked for more than text: what the daemon answered.
    pub document: Option<serde_json::Value>,
}

impl Failure {
    /// Ends with `exit`, and says why.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), document: None }
    }

    /// The same, with what the daemon answered.
    #[must_use]
    pub fn with(self, document: serde_json::Value) -> Self {
        Self { document: Some(document), ..self }
    }

    /// [`Exit::Failed`].
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}
