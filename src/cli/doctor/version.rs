//! Versions of etcd, and what is known to be wrong in them that a leader election meets.

/// `major.minor.patch`; what follows a dash is left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// A fault, the patches that ended it, and what it means.
#[derive(Debug)]
pub struct Fault {
    /// The first version that has it.
    since: Version,
    /// The first patch of each series without it; a series newer than all of them never had it.
    fixed: &'static [Version],
    /// It matters only where there are users.
    with_auth: bool,
    /// It may end a lease that its holder renews.
    pub ends_leases: bool,
    /// What it does, after "etcd 3.5.1".
    pub what: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        since: Version(3, 5, 0),
        fixed: &[Version(3, 5, 3)],
        with_auth: false,
        ends_leases: false,
        what: "may lose or corrupt data when it crashes under load (etcd issue 13766)",
    },
    Fault {
        since: Version(3, 0, 0),
        fixed: &[Version(3, 4, 31), Version(3, 5, 13)],
        with_auth: false,
        ends_leases: true,
        what: "may revoke a lease that was renewed just now (etcd issue 15247)",
    },
    Fault {
        since: Version(3, 0, 0),
        fixed: &[Version(3, 4, 36), Version(3, 5, 18)],
        with_auth: false,
        ends_leases: false,
        what: "may keep a deletion from a watch that begins where history was compacted (etcd issue 18089)",
    },
    Fault {
        since: Version(3, 0, 0),
        fixed: &[Version(3, 4, 38), Version(3, 5, 23), Version(3, 6, 5)],
        with_auth: false,
        ends_leases: false,
        what: "may renew a lease that is being revoked, and lose events of a watch",
    },
    Fault {
        since: Version(3, 0, 0),
        fixed: &[Version(3, 4, 42), Version(3, 5, 28), Version(3, 6, 9)],
        with_auth: true,
        ends_leases: true,
        what: "lets anyone revoke leases without logging in (CVE-2026-33413)",
    },
    Fault {
        since: Version(3, 0, 0),
        fixed: &[Version(3, 4, 44), Version(3, 5, 30), Version(3, 6, 11)],
        with_auth: true,
        ends_leases: false,
        what: "lets a user past its rights by nested transactions (CVE-2026-33343)",
    },
];

impl Fault {
    /// The patches that ended it.
    #[must_use]
    pub fn fixed_in(&self) -> String {
        self.fixed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Version {
    /// Reads `3.5.33` and `3.6.0-rc.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_start_matches('v').split(['-', '+']).next()?.split('.').map(|p| p.parse().ok());
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// Whether it lacks what came with the patch of `fixed` that belongs to its own series. A series newer than all of them
    /// has it, one older than all has not.
    fn lacks(self, fixed: &[Self]) -> bool {
        match fixed.iter().find(|f| (f.0, f.1) == (self.0, self.1)) {
            Some(fix) => self < *fix,
            None => fixed.first().is_some_and(|oldest| self < *oldest),
        }
    }

    /// Older than what Tenure is made for.
    pub fn is_ancient(self) -> bool {
        self < Self(3, 4, 0)
    }

    /// What is known to be wrong with it; with users, what only matters then as well.
    pub fn faults(self, with_auth: bool) -> impl Iterator<Item = &'static Fault> {
        let has =
            move |fault: &&Fault| self >= fault.since && self.lacks(fault.fixed) && (with_auth || !fault.with_auth);
        FAULTS.iter().filter(has)
    }

    /// Older than what we recommend; the recommendation for its series.
    pub fn better(self) -> Option<Self> {
        let recommended = [Self(3, 5, 33), Self(3, 6, 14), Self(3, 7, 1)];
        let own = recommended.iter().find(|r| (r.0, r.1) == (self.0, self.1)).copied();
        self.lacks(&recommended).then(|| own.unwrap_or(recommended[0]))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_faults_are_told_by_the_patch_of_each_series() {
        let v = |text| Version::parse(text).expect(text);
        for (text, faults, with_auth, better) in [
            ("3.4.23", "15247 18089 renew", 5, Some("3.5.33")),
            ("3.4.31", "18089 renew", 4, Some("3.5.33")),
            ("3.4.45", "", 0, Some("3.5.33")),
            ("3.5.1", "13766 15247 18089 renew", 6, Some("3.5.33")),
            ("3.5.13", "18089 renew", 4, Some("3.5.33")),
            ("3.5.23", "", 2, Some("3.5.33")),
            ("3.5.33", "", 0, None),
            ("3.6.4", "renew", 3, Some("3.6.14")),
            ("3.6.9", "", 1, Some("3.6.14")),
            ("3.6.14", "", 0, None),
            ("3.7.0", "", 0, Some("3.7.1")),
            ("3.8.0-alpha.0", "", 0, None),
            ("3.3.27", "15247 18089 renew", 5, Some("3.5.33")),
        ] {
            let found: Vec<_> = v(text).faults(false).collect();
            assert_eq!(found.len(), faults.split_whitespace().count(), "{text}: {found:?}");
            for word in faults.split_whitespace() {
                assert!(found.iter().any(|f| f.what.contains(word)), "{text} lacks {word}");
            }
            assert_eq!(v(text).faults(true).count(), with_auth, "{text}");
            assert_eq!(v(text).better().map(|b| b.to_string()).as_deref(), better, "{text}");
        }
        assert!(v("3.3.27").is_ancient() && !v("3.4.0").is_ancient());
        for bad in ["", "3.5", "3.5.x", "3.5.1.2", "not_decided"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
