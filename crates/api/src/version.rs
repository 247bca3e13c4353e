//! Versions of servers, clusters and storage. Nearly everything compares `major.minor` only: that is [`Minor`].

use std::fmt;
use std::str::FromStr;

/// The release of etcd whose behaviour this is.
pub const TRACKED: &str = "3.7.3";
/// [`TRACKED`], parsed.
pub const SERVER: Version = Version { major: 3, minor: 7, patch: 3 };
/// The releases that a member can be taken for, newest first. Clients look at the patch too: kube-apiserver asks 3.5 for
/// progress of watches from 3.5.13 on.
pub const RELEASES: [Version; 3] =
    [SERVER, Version { major: 3, minor: 6, patch: 16 }, Version { major: 3, minor: 5, patch: 35 }];
/// The oldest cluster that a member may be part of, as peers announce it.
pub const MIN_CLUSTER: Version = Version { major: 3, minor: 0, patch: 0 };

/// `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Minor {
    /// `major.minor`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Minor {
        Minor { major, minor }
    }

    /// The version a downgrade from here may go to: one minor down. Below x.0 nothing is known.
    #[must_use]
    pub const fn one_down(self) -> Option<Minor> {
        match self.minor.checked_sub(1) {
            Some(minor) => Some(Minor { major: self.major, minor }),
            None => None,
        }
    }

    /// As cluster and storage versions are written: with a patch of 0.
    #[must_use]
    pub const fn cluster(self) -> Version {
        Version { major: self.major, minor: self.minor, patch: 0 }
    }

    /// Reads the target of a downgrade request: `3.6` or `3.6.0`, of which only the minor counts.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse_target(text: &str) -> Result<Minor, NotAVersion> {
        if let Ok(version) = text.parse::<Version>() {
            return Ok(version.minor());
        }
        format!("{text}.0").parse::<Version>().map(Version::minor).map_err(|_| NotAVersion(text.to_owned()))
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// `major.minor.patch`. A pre-release or build suffix is accepted when read and then forgotten: no decision in etcd
/// looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl Version {
    /// Without the patch.
    #[must_use]
    pub const fn minor(self) -> Minor {
        Minor { major: self.major, minor: self.minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        let number = |part: Option<&str>| -> Option<u32> {
            let part = part?;
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        let core = text.split_once('+').map_or(text, |(core, _)| core);
        let core = core.split_once('-').map_or(core, |(core, _)| core);
        let mut parts = core.split('.');
        let version = (number(parts.next()), number(parts.next()), number(parts.next()));
        match (version, parts.next()) {
            ((Some(major), Some(minor), Some(patch)), None) => Ok(Version { major, minor, patch }),
            _ => Err(NotAVersion(text.to_owned())),
        }
    }
}

/// The text is not `x.y.z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAVersion(pub String);

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a version of the form x.y.z", self.0)
    }
}

impl std::error::Error for NotAVersion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_writes_them() {
        let of = |text: &str| text.parse::<Version>().map(|v| v.to_string()).ok();
        assert_eq!(of(TRACKED), Some(SERVER.to_string()));
        assert_eq!(of("3.5.0"), Some("3.5.0".to_owned()));
        assert_eq!(of("3.6.0-alpha.0"), Some("3.6.0".to_owned()));
        assert_eq!(of("3.6.1+git-dirty"), Some("3.6.1".to_owned()));
        for bad in
            ["", "3", "3.5", "3.5.", "3.5.x", "3.5.0.0", "v3.5.0", "3.+5.0", "3.5.99999999999", "not_decided"]
        {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn downgrade_targets_may_leave_out_the_patch() {
        assert_eq!(Minor::parse_target("3.6"), Ok(Minor::new(3, 6)));
        assert_eq!(Minor::parse_target("3.6.0"), Ok(Minor::new(3, 6)));
        assert_eq!(Minor::parse_target("3.6.9"), Ok(Minor::new(3, 6)));
        for bad in ["3", "", "3.6.0.0", "a.b"] {
            assert!(Minor::parse_target(bad).is_err(), "{bad:?}");
        }
        assert_eq!(SERVER.minor().one_down(), Some(Minor::new(3, 6)));
        assert_eq!(Minor::new(4, 0).one_down(), None);
    }

    #[test]
    fn releases_are_one_of_each_minor_version() {
        for pair in RELEASES.windows(2) {
            assert_eq!(pair[0].minor().one_down(), Some(pair[1].minor()));
        }
    }

    #[test]
    fn minors_compare_as_numbers() {
        assert!(Minor::new(3, 10) > Minor::new(3, 9));
        assert!(Minor::new(4, 0) > Minor::new(3, 10));
        assert_eq!(Minor::new(3, 6).cluster().to_string(), "3.6.0");
        assert_eq!(Minor::new(3, 6).to_string(), "3.6");
    }
}
