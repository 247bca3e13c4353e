//! Log lines about what the lanes did, in etcd's words.

use std::path::Path;
use std::time::Duration;

use etcdserver::effect::ConfApplied;
use etcdserver::membership::Cluster;
use etcdserver::raft::{Line, LineLevel};

use crate::logging::{Field, Level, Logger, human_bytes};
use crate::member::handle::Shared;

/// How grave a line of the raft library is.
pub(crate) fn raft_level(line: &Line) -> Level {
    match line.level {
        LineLevel::Info => Level::Info,
        LineLevel::Warn => Level::Warn,
        LineLevel::Error => Level::Error,
    }
}

/// Why the process ends, for its last line: the error names the file and what was tried. Room that had been reserved
/// and is not there after all is the one reason that the operator can do something about.
pub(crate) fn fields_of_end(error: &dyn std::fmt::Display, is_no_space: bool) -> Vec<Field<'static>> {
    let mut fields = vec![("error", error.to_string().into())];
    if is_no_space {
        let remedy = "free space on the file system of this file, or enlarge it, then start the member again: \
                      what it has acknowledged is safe";
        fields.push(("remedy", remedy.into()));
    }
    fields
}

/// Sizes of the database file, as lines about it have them.
pub(crate) fn size_fields(sizes: bolt::Sizes) -> [Field<'static>; 4] {
    [
        ("current-db-size-bytes", sizes.total.into()),
        ("current-db-size", human_bytes(sizes.total).into()),
        ("current-db-size-in-use-bytes", sizes.in_use.into()),
        ("current-db-size-in-use", human_bytes(sizes.in_use).into()),
    ]
}

/// A defragmentation begins.
pub(crate) fn say_defragmenting(logger: &Logger, path: &Path, sizes: bolt::Sizes) {
    let mut fields = vec![("path", path.display().to_string().into())];
    fields.extend(size_fields(sizes));
    logger.info("defragmenting", &fields);
}

/// A defragmentation has ended.
pub(crate) fn say_defragmented(logger: &Logger, path: &Path, before: bolt::Sizes, after: bolt::Sizes, took: Duration) {
    let difference = |after: u64, before: u64| after.cast_signed() - before.cast_signed();
    logger.info(
        "finished defragmenting directory",
        &[
            ("path", path.display().to_string().into()),
            ("current-db-size-bytes-diff", difference(after.total, before.total).into()),
            ("current-db-size-bytes", after.total.into()),
            ("current-db-size", human_bytes(after.total).into()),
            ("current-db-size-in-use-bytes-diff", difference(after.in_use, before.in_use).into()),
            ("current-db-size-in-use-bytes", after.in_use.into()),
            ("current-db-size-in-use", human_bytes(after.in_use).into()),
            ("took", took.into()),
        ],
    );
}

impl Shared {
    /// A line of the raft library.
    pub(crate) fn raft_line(&self, line: &Line) {
        self.logger.named("raft", raft_level(line), &line.text, &[]);
    }

    /// A membership change has been applied.
    pub(crate) fn conf_line(&self, conf: &ConfApplied, cluster: &Cluster) {
        let id = conf.change.node_id.unwrap_or(0);
        let Some(member) = cluster.member(id) else {
            self.logger.info(
                "added member",
                &[
                    ("cluster-id", api::ids::hex(self.cluster_id).to_string().into()),
                    ("local-member-id", api::ids::hex(self.member_id).to_string().into()),
                    ("added-peer-id", api::ids::hex(id).to_string().into()),
                ],
            );
            return;
        };
        self.logger.info(
            "added member",
            &[
                ("cluster-id", api::ids::hex(self.cluster_id).to_string().into()),
                ("local-member-id", api::ids::hex(self.member_id).to_string().into()),
                ("added-peer-id", api::ids::hex(id).to_string().into()),
                ("added-peer-peer-urls", member.peer_urls.clone().into()),
                ("added-peer-is-learner", member.is_learner.into()),
            ],
        );
    }

    /// The member has published itself: it may call itself ready.
    pub(crate) fn published_itself(&self) {
        let urls: Vec<String> = self.core.advertise_client_urls.clone();
        self.logger.info(
            "published local member to cluster through raft",
            &[
                ("local-member-id", api::ids::hex(self.member_id).to_string().into()),
                (
                    "local-member-attributes",
                    format!("{{Name:{} ClientURLs:[{}]}}", self.core.name, urls.join(" ")).into(),
                ),
                ("cluster-id", api::ids::hex(self.cluster_id).to_string().into()),
                ("publish-timeout", Duration::from_nanos(self.core.request_timeout_ns()).into()),
            ],
        );
        self.ready.notify_one();
    }

    /// The cluster version, when it changed.
    pub(crate) fn cluster_version_lines(&self, cluster: &Cluster, before: Option<api::version::Version>) {
        let Some(version) = cluster.version().filter(|version| Some(*version) != before) else { return };
        let text = version.minor().to_string();
        let ids = [
            ("cluster-id", api::ids::hex(self.cluster_id).to_string().into()),
            ("local-member-id", api::ids::hex(self.member_id).to_string().into()),
        ];
        let [cluster_id, member_id] = ids;
        match before {
            None => {
                self.logger.info(
                    "setting up initial cluster version using v3 API",
                    &[("cluster-version", (&text).into())],
                );
                self.logger.info(
                    "set initial cluster version",
                    &[cluster_id, member_id, ("cluster-version", (&text).into())],
                );
            }
            Some(from) => self.logger.info(
                "updated cluster version",
                &[cluster_id, member_id, ("from", from.minor().to_string().into()), ("to", (&text).into())],
            ),
        }
        self.logger.info("enabled capabilities for version", &[("cluster-version", (&text).into())]);
        if before.is_none() {
            self.logger.info("cluster version is updated", &[("cluster-version", text.into())]);
        }
    }
}
