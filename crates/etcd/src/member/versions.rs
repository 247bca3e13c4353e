//! The versions of all servers, as the leader must know them: the cluster version follows the lowest.

use std::sync::Arc;
use std::time::Duration;

use api::membershippb as mpb;
use api::version::Version;
use etcdserver::apply::policy::field;
use etcdserver::limits::VERSION_CHECK_NS;
use prost::Message;
use tokio::task::JoinSet;

use crate::config::value;
use crate::logging::Logger;
use crate::member::handle::{MemberInput, Shared};
use crate::rafthttp::call;

/// Time for the answer of one member.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// The server version of every member, by id; `None` for one that does not say it. To be called on a `LocalSet`.
async fn of_all(shared: &Arc<Shared>) -> Vec<(u64, Option<Version>)> {
    let cluster = shared.published.load().edge.cluster.clone();
    let mut asked = JoinSet::new();
    for member in cluster.members().cloned() {
        let shared = shared.clone();
        asked.spawn_local(async move {
            if member.id == shared.member_id {
                return (member.id, Some(shared.core.version));
            }
            for url in &member.peer_urls {
                match call::get_version(shared.transport.dialer(), url, ANSWER_WAIT).await {
                    Ok(versions) => return (member.id, versions.server.parse().ok()),
                    Err(why) => say_unreachable(&shared.logger, member.id, url, why),
                }
            }
            (member.id, None)
        });
    }
    let mut versions = Vec::new();
    while let Some(version) = asked.join_next().await {
        versions.extend(version);
    }
    versions
}

fn say_unreachable(logger: &Logger, id: u64, url: &str, why: String) {
    logger.warn(
        "failed to reach the peer URL",
        &[
            ("address", format!("{url}/version").into()),
            ("remote-member-id", api::ids::hex(id).to_string().into()),
            ("error", why.into()),
        ],
    );
}

fn lowest(versions: &[(u64, Option<Version>)]) -> Option<Version> {
    versions.iter().map(|(_, version)| *version).min().flatten()
}

/// While this member leads it learns the versions of all, at once when that begins, and then every few seconds.
pub(crate) async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(VERSION_CHECK_NS)) => {}
            () = shared.versions_wanted.notified() => {}
        }
        let state = shared.published.load_full();
        if !state.role.is_leader || state.edge.cluster.members().len() <= 1 {
            continue;
        }
        let versions = of_all(&shared).await;
        shared.member.push(MemberInput::LowestServer(lowest(&versions)));
    }
}

/// A downgrade ends by itself when all servers have come to its target.
pub(crate) async fn end_downgrade(shared: Arc<Shared>) {
    let interval = value::parse_duration(shared.config.raw.text("downgrade-check-time")).unwrap_or_default();
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        let state = shared.published.load_full();
        let Some(target) = state.edge.cluster.downgrade().target_minor().filter(|_| state.role.is_leader) else {
            continue;
        };
        let versions = of_all(&shared).await;
        if !versions.iter().all(|(_, version)| version.is_some_and(|version| version.minor() == target)) {
            continue;
        }
        let body = mpb::DowngradeInfoSetRequest { enabled: false, ver: String::new() }.encode_to_vec();
        match shared.propose(field::DOWNGRADE_INFO_SET, body.into()).await {
            Ok(_) => shared.logger.info("the cluster has been downgraded", &[("cluster-version", target.to_string().into())]),
            Err(status) => {
                let error = status.message.into_owned();
                shared.logger.warn("failed to cancel downgrade", &[("error", error.into())]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_version_makes_the_lowest_unknown() {
        let version = |text: &str| text.parse::<Version>().ok();
        assert_eq!(lowest(&[(1, version("3.7.3")), (2, version("3.6.16"))]), version("3.6.16"));
        assert_eq!(lowest(&[(1, version("3.7.3")), (2, None)]), None);
    }
}
