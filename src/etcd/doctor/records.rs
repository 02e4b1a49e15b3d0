//! Records over which nobody can be elected, and why.

use super::super::keys::Keys;
use super::super::{Error, Etcd, codec};
use crate::election::ids::{ElectionIndex, Generation};
use crate::election::record::{Cell, View};

/// A record that keeps an election without a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The whole key.
    pub key: String,
    /// What is the matter.
    pub flaw: Flaw,
}

/// What is the matter with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No generation record: why it counts for nothing.
    NoGeneration(String),
    /// The last generation that counts: there is none above it.
    Largest,
    /// A term, below which no candidate may lead; ours are 0.
    Term(u64),
    /// No control record.
    NoControl,
    /// A control record that pauses the election.
    Paused,
}

impl Etcd {
    /// All of an election, and what in its records keeps it without a leader.
    ///
    /// # Errors
    /// No member answered, or the etcd user may not read it.
    pub async fn examined(&self, election: ElectionIndex) -> Result<(View, Vec<Obstacle>), Error> {
        let view = self.read(election).await?;
        let obstacles = obstacles(self.edge.keys(election), &view);
        Ok((view, obstacles))
    }
}

fn obstacles(keys: &Keys, view: &View) -> Vec<Obstacle> {
    let generation = match &view.generation {
        Cell::Corrupt { modified } => {
            let why = keys.value_at(*modified).map(|value| codec::why_no_generation(&value));
            Some(Flaw::NoGeneration(why.unwrap_or_else(|| "it is not written as Tenure writes one".to_owned())))
        }
        Cell::Valid { value, .. } if value.generation == Generation::MAX => Some(Flaw::Largest),
        Cell::Valid { value, .. } if value.term > 0 => Some(Flaw::Term(value.term)),
        Cell::Valid { .. } | Cell::Absent => None,
    };
    let control = match &view.control {
        Cell::Corrupt { .. } => Some(Flaw::NoControl),
        Cell::Valid { value, .. } if value.paused => Some(Flaw::Paused),
        Cell::Valid { .. } | Cell::Absent => None,
    };
    let found = [(&keys.generation, generation), (&keys.control, control)];
    found.into_iter().filter_map(|(key, flaw)| Some(Obstacle { key: key.clone(), flaw: flaw? })).collect()
}
