//! Which version a cluster agrees on, and which one the database has.

use api::version::{MIN_CLUSTER, Minor, Version};
use mvcc::schema::{self, Bucket, Detected, StorageVersion};

use crate::effect::ClusterVersions;
use crate::side::SideChange;

/// The cluster version that a leader should propose now, if it should.
///
/// - Unset: the lowest server version, `x.y.0`; while one of them is unknown, the oldest cluster version there is.
/// - A downgrade under way: its target, if that lies exactly one minor below the cluster version and below all
///   servers.
/// - Else it only rises, to the lowest server version.
pub fn next_cluster_version(versions: &ClusterVersions) -> Option<Version> {
    let lowest = versions.lowest_server.map(Version::minor);
    let Some(current) = versions.cluster else {
        return Some(lowest.map_or(MIN_CLUSTER, Minor::cluster));
    };
    let lowest = lowest?;
    if let Some(target) = versions.downgrade {
        let fits = current.minor().one_down() == Some(target) && lowest.one_down() == Some(target);
        return (current.minor() != target && fits).then(|| target.cluster());
    }
    (lowest > current.minor()).then(|| lowest.cluster())
}

/// What brings the database to the version that the cluster has agreed on, if it is not there: it follows the
/// cluster up and down, so that it can always be opened by every release that may be a member.
///
/// `term` is that of the last applied entry: a database without one is too new, or too old, to be told apart.
/// `may_lower` says that no entry behind the last snapshot needs a newer release (`wal::minimal_version`).
pub fn storage_change(
    detected: &Detected,
    term: u64,
    cluster: Option<Version>,
    may_lower: bool,
) -> Option<SideChange> {
    let agreed = cluster.filter(|version| *version != MIN_CLUSTER)?;
    let target = StorageVersion::from_minor(agreed.major.into(), agreed.minor.into())?;
    let current = match detected {
        Detected::Known(version) => *version,
        Detected::Unknown if term > 0 => StorageVersion::V3_5,
        Detected::Unknown | Detected::Newer(_) => return None,
    };
    if current == target || (target < current && !may_lower) {
        return None;
    }
    // 3.5 and older know no key for it: between those two nothing has to be written.
    let value = schema::storage_version_value(target);
    if value.is_none() && current < StorageVersion::V3_6 {
        return None;
    }
    Some(SideChange { bucket: Bucket::Meta, key: schema::STORAGE_VERSION.into(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_follows_the_cluster() {
        let change = |detected, term, minor: Option<u32>, may_lower| {
            let cluster = minor.map(|minor| Minor::new(3, minor).cluster());
            storage_change(&detected, term, cluster, may_lower)
                .map(|change| change.value.map(|v| String::from_utf8(v.to_vec()).unwrap()))
        };
        let known = Detected::Known;
        let text = |t: &str| Some(Some(t.to_owned()));
        assert_eq!(change(Detected::Unknown, 2, Some(7), true), text("3.7.0"), "a fresh member, at once");
        assert_eq!(change(Detected::Unknown, 0, Some(7), true), None);
        assert_eq!(change(Detected::Unknown, 2, None, true), None);
        assert_eq!(change(Detected::Unknown, 2, Some(0), true), None, "3.0.0 stands for undecided");
        assert_eq!(change(known(StorageVersion::V3_5), 2, Some(5), true), None);
        assert_eq!(change(known(StorageVersion::V3_5), 2, Some(6), false), text("3.6.0"));
        assert_eq!(
            change(known(StorageVersion::V3_7), 2, Some(6), false),
            None,
            "entries of 3.7 stand in the log"
        );
        assert_eq!(change(known(StorageVersion::V3_7), 2, Some(6), true), text("3.6.0"));
        assert_eq!(
            change(known(StorageVersion::V3_6), 2, Some(5), true),
            Some(None),
            "3.5 knows no such key"
        );
        assert_eq!(change(Detected::Newer("3.8.0".to_owned()), 2, Some(7), true), None);
        assert_eq!(change(known(StorageVersion::V3_5), 2, Some(4), true), None);
    }

    fn of(cluster: Option<u32>, lowest: Option<u32>, downgrade: Option<u32>) -> Option<String> {
        let version = |minor| Minor::new(3, minor).cluster();
        next_cluster_version(&ClusterVersions {
            cluster: cluster.map(version),
            lowest_server: lowest.map(|minor| Version { patch: 2, ..version(minor) }),
            downgrade: downgrade.map(|minor| Minor::new(3, minor)),
        })
        .map(|version| version.to_string())
    }

    #[test]
    fn a_new_cluster_takes_the_lowest_server() {
        assert_eq!(of(None, Some(7), None).as_deref(), Some("3.7.0"));
        assert_eq!(of(None, Some(5), None).as_deref(), Some("3.5.0"));
        assert_eq!(of(None, None, None).as_deref(), Some("3.0.0"));
    }

    #[test]
    fn it_rises_any_number_of_minors_and_never_falls_by_itself() {
        assert_eq!(of(Some(5), Some(7), None).as_deref(), Some("3.7.0"));
        assert_eq!(of(Some(0), Some(7), None).as_deref(), Some("3.7.0"));
        assert_eq!(of(Some(7), Some(7), None), None);
        assert_eq!(of(Some(7), Some(6), None), None);
        assert_eq!(of(Some(6), None, None), None);
    }

    #[test]
    fn cm_027_a_downgrade_goes_one_minor_down_once() {
        assert_eq!(of(Some(7), Some(7), Some(6)).as_deref(), Some("3.6.0"));
        assert_eq!(of(Some(6), Some(7), Some(6)), None, "done");
        assert_eq!(of(Some(7), Some(7), Some(5)), None, "too far");
        assert_eq!(
            of(Some(7), Some(6), Some(6)),
            None,
            "a server is there already, so the job began elsewhere"
        );
        assert_eq!(of(Some(6), Some(7), None).as_deref(), Some("3.7.0"), "cancelled: up again");
    }
}
