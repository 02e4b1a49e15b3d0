//! The words of the protocol as types.

use std::fmt;

/// The name of an election: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElectionName(String);

impl ElectionName {
    /// Accepts a well-formed name. Its alphabet holds no `/`: names must not nest, since the election `a/b` would put its
    /// candidates into the range of the election `a`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ElectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.len() <= 128 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(ok)
}

/// Which of the daemon's configured elections, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElectionIndex(pub usize);

/// The id of an etcd lease; always positive, as the ones we choose are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    /// Lower-case hex without padding: how etcd's own election recipe names a candidate's key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A revision of the etcd store; 0 where a key does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A term of etcd's own raft leadership, as response headers carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftTerm(pub u64);

/// The id of an etcd member, as response headers carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// The fencing token: +1 or more at every change of leadership of an election, never reused, never lower; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The largest generation we accept from etcd: one that still has successors and fits every signed 64-bit column.
    pub const MAX: Self = Self(i64::MAX as u64 - 1);

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One incarnation of a candidate's key: the part of the key after `P/elections/NAME/`, and the revision that created it.
///
/// A key deleted and put again is another incarnation, which is what every compare on it relies on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateKey {
    /// `LEASEHEX` of a Tenure candidate; anything at all of a foreign one.
    pub suffix: String,
    /// Its `create_revision`: the place in the queue.
    pub created: Revision,
}

impl CandidateKey {
    /// The key that a candidate with this lease has.
    #[must_use]
    pub fn of(lease: LeaseId, created: Revision) -> Self {
        Self { suffix: lease.to_string(), created }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_alphabet_of_the_protocol() {
        for good in ["orders", "shard-7", "a", "A.b_c-9", &"x".repeat(128)] {
            assert!(ElectionName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(ElectionName::parse(bad).is_none(), "{bad}");
        }
    }
}
