//! Which version a cluster agrees on.

use api::version::{MIN_CLUSTER, Version};

use crate::effect::ClusterVersions;

/// The cluster version that a leader should propose now, if it should.
///
/// - Unset: the lowest server version, `x.y.0`; while one of them is unknown, the oldest cluster version there is.
/// - A downgrade under way: its target, if that lies exactly one minor below the cluster version and below all
///   servers.
/// - Else it only rises, to the lowest server version.
pub fn next_cluster_version(versions: &ClusterVersions) -> Option<Version> {
    let lowest = versions.lowest_server.map(|version| version.minor());
    let Some(current) = versions.cluster else {
        return Some(lowest.map_or(MIN_CLUSTER, |minor| minor.cluster()));
    };
    let lowest = lowest?;
    if let Some(target) = versions.downgrade {
        let fits = current.minor().one_down() == Some(target) && lowest.one_down() == Some(target);
        return (current.minor() != target && fits).then(|| target.cluster());
    }
    (lowest > current.minor()).then(|| lowest.cluster())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::version::Minor;

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
        assert_eq!(of(Some(7), Some(6), Some(6)), None, "a server is there already, so the job began elsewhere");
        assert_eq!(of(Some(6), Some(7), None).as_deref(), Some("3.7.0"), "cancelled: up again");
    }
}
