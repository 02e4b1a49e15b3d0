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

/// The longest candidate id, in characters: that of a host name.
pub const ID_LENGTH: usize = 253;

/// What keeps a text from being a candidate's id; none where it is one. People compare ids by eye, so nothing in one may be
/// invisible, or look like the quotation marks of a shell or a template that went wrong.
///
/// The one definition: for the configuration, the environment, and what others have written in etcd.
#[must_use]
pub fn id_flaw(text: &str) -> Option<IdFlaw> {
    if text.is_empty() {
        return Some(IdFlaw::Empty);
    }
    if text.chars().count() > ID_LENGTH {
        return Some(IdFlaw::Long);
    }
    text.chars().find_map(|c| match c {
        '"' | '\'' | '`' | '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}' => {
            Some(IdFlaw::Quote)
        }
        c if c.is_whitespace() => Some(IdFlaw::Space),
        c if is_invisible(c) => Some(IdFlaw::Invisible(c)),
        _ => None,
    })
}

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFlaw {
    /// Nothing at all.
    Empty,
    /// More than [`ID_LENGTH`] characters.
    Long,
    /// White space, a line break included.
    Space,
    /// A quotation mark, straight or typographic.
    Quote,
    /// A character that shows nothing, or nothing that is the same everywhere.
    Invisible(char),
}

impl fmt::Display for IdFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Long => write!(f, "it has more than {ID_LENGTH} characters"),
            Self::Space => f.write_str("it holds white space"),
            Self::Quote => f.write_str("it holds a quotation mark"),
            Self::Invisible(c) => write!(f, "it holds the invisible character U+{:04X}", u32::from(*c)),
        }
    }
}

/// Control and format characters (Unicode's Cc and Cf), fillers, variation selectors, private use and non-characters.
fn is_invisible(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || code & 0xfffe == 0xfffe
        || matches!(code,
            0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x115f..=0x1160
            | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164
            | 0xe000..=0xf8ff | 0xfdd0..=0xfdef | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffd | 0x1_10bd | 0x1_10cd
            | 0x1_3430..=0x1_345f | 0x1_bca0..=0x1_bca3 | 0x1_d173..=0x1_d17a | 0xe_0000..=0x10_ffff)
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

/// The id of an etcd cluster, as response headers carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// Reads it as etcd's own tools print it with `--hex`, or with `0x` before.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|id| hex && *id != 0).map(Self)
    }
}

impl fmt::Display for ClusterId {
    /// Lower-case hex without padding, as etcd logs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The fencing token: +1 or more at every change of leadership of an election, never reused, never lower; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The largest that counts, and that is minted. Whatever claims more, in etcd or on disk, is no generation: taken for a floor
    /// it would leave no room above it, and end its election for good.
    pub const MAX: Self = Self((1 << 62) - 1);

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

    #[test]
    fn an_id_shows_all_of_itself_and_is_counted_in_characters() {
        for good in ["pod-0", "a", "orders@eu/1", "größe", "候補-1", "πρώτος", "🦀", &"é".repeat(ID_LENGTH), "a.b:c_d"]
        {
            assert_eq!(id_flaw(good), None, "{good}");
        }
        assert_eq!(id_flaw(""), Some(IdFlaw::Empty));
        assert_eq!(id_flaw(&"x".repeat(ID_LENGTH + 1)), Some(IdFlaw::Long));
        for space in [" ", "a b", "a\n", "\ta", "a\u{a0}", "a\u{3000}b", "a\u{2028}"] {
            assert_eq!(id_flaw(space), Some(IdFlaw::Space), "{space:?}");
        }
        for quote in ["\"pod-0\"", "'pod-0", "pod`0", "\u{201c}pod", "\u{ab}pod", "pod\u{2019}s"] {
            assert_eq!(id_flaw(quote), Some(IdFlaw::Quote), "{quote}");
        }
        let invisible = "\0\u{1b}\u{7f}\u{80}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{200e}\u{202e}\u{2060}\u{2066}\
                         \u{2800}\u{3164}\u{e000}\u{fdd0}\u{fe0f}\u{feff}\u{fffd}\u{ffff}\u{1d173}\u{1fffe}\u{e0041}\u{e0100}\u{f0000}\u{10ffff}";
        for c in invisible.chars() {
            assert_eq!(id_flaw(&format!("pod{c}0")), Some(IdFlaw::Invisible(c)), "U+{:04X}", u32::from(c));
        }
    }
}
