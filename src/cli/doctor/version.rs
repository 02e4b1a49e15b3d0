//! Versions of etcd, and what is known to be wrong with leases in them.

/// `major.minor.patch`; what follows a dash is left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

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

    /// etcd issue 15247: a deposed etcd leader may revoke a lease that was renewed just now. No client can prevent it.
    pub fn revokes_renewed_leases(self) -> bool {
        self.lacks(&[Self(3, 4, 31), Self(3, 5, 13)])
    }

    /// A renewal may be answered though the lease is being revoked, and a watch may lose or repeat events.
    pub fn renews_revoked_leases(self) -> bool {
        self.lacks(&[Self(3, 4, 38), Self(3, 5, 23), Self(3, 6, 5)])
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
    fn known_bugs_are_told_by_the_patch_of_each_series() {
        let v = |text| Version::parse(text).expect(text);
        for (text, revokes, renews, better) in [
            ("3.4.23", true, true, Some("3.5.33")),
            ("3.4.31", false, true, Some("3.5.33")),
            ("3.4.45", false, false, Some("3.5.33")),
            ("3.5.1", true, true, Some("3.5.33")),
            ("3.5.13", false, true, Some("3.5.33")),
            ("3.5.23", false, false, Some("3.5.33")),
            ("3.5.33", false, false, None),
            ("3.6.4", false, true, Some("3.6.14")),
            ("3.6.14", false, false, None),
            ("3.7.0", false, false, Some("3.7.1")),
            ("3.8.0-alpha.0", false, false, None),
            ("3.3.27", true, true, Some("3.5.33")),
        ] {
            assert_eq!(v(text).revokes_renewed_leases(), revokes, "{text}");
            assert_eq!(v(text).renews_revoked_leases(), renews, "{text}");
            assert_eq!(v(text).better().map(|b| b.to_string()).as_deref(), better, "{text}");
        }
        assert!(v("3.3.27").is_ancient() && !v("3.4.0").is_ancient());
        for bad in ["", "3.5", "3.5.x", "3.5.1.2", "not_decided"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
