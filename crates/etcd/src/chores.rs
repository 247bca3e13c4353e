//! Work that comes up now and then: removing old files, automatic compaction, the first
//! ticks of a start, and clients that must know when there is no leader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use etcdserver::apply::policy::field;
use etcdserver::effect::Proposal;
use prost::Message;

use crate::config::{AutoCompaction, value};
use crate::logging::Field;
use crate::member::handle::{Mail, MemberInput, Shared};

/// Time between two looks for old files, as in etcd.
pub(crate) const PURGE_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two compactions by number of revisions, as in etcd.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Longest time between two compactions by age.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// Time between two looks at how many files are open, as in etcd.
const FILES_INTERVAL: Duration = Duration::from_secs(600);
/// How long a compaction may take to be agreed on, and how often that is looked at.
const COMPACTION_WAIT: Duration = Duration::from_secs(5);
const COMPACTION_POLL: Duration = Duration::from_millis(5);
/// Looks at the revision between two compactions by age.
const SAMPLES: u32 = 10;

/// Removes log segments and snapshots beyond the numbers to keep, for as long as the process runs.
pub(crate) async fn purge(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(PURGE_INTERVAL).await;
        let shared = shared.clone();
        let work = move || {
            let keep = |max: u64| usize::try_from(max).unwrap_or(usize::MAX);
            let disk = &*shared.disk;
            let (wal_dir, snap_dir) = (shared.core.wal_path(), shared.core.snap_dir());
            let wals = wal::purge(disk, &wal_dir, keep(shared.config.max_wals));
            let applied = shared.published.load().edge.applied;
            let snaps = wal::snap::purge(disk, &snap_dir, keep(shared.config.max_snapshots), applied);
            for (dir, removed) in [(&wal_dir, wals), (&snap_dir, snaps)] {
                match removed {
                    Ok(names) => {
                        for name in names {
                            let path = dir.join(name).display().to_string();
                            shared.logger.info("purged", &[("path", path.into())]);
                        }
                    }
                    Err(error) => {
                        let fields = [("error", error.to_string().into())];
                        shared.logger.warn("failed to purge files", &fields);
                    }
                }
            }
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            return;
        }
    }
}

/// Says so when most of the files that may be open are.
pub(crate) async fn watch_files(shared: Arc<Shared>) {
    loop {
        let (used, limit) = (crate::metrics::open_files(), crate::metrics::file_limit());
        if limit > 0 && used >= limit / 5 * 4 {
            shared.logger.warn("80% of file descriptors are used", &[("used", used.into()), ("limit", limit.into())]);
        }
        tokio::time::sleep(FILES_INTERVAL).await;
    }
}

/// Proposes compactions as `--auto-compaction-mode` and `--auto-compaction-retention` say.
pub(crate) async fn compact(shared: Arc<Shared>) {
    match shared.config.auto_compaction {
        // An error would have ended the start.
        Ok(AutoCompaction::Off) | Err(_) => {}
        Ok(AutoCompaction::Revision(keep)) => loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            let revision = shared.published.load().edge.view.revision() - keep;
            propose(&shared, "revision", revision, ("revision-compaction-retention", keep.into())).await;
        },
        Ok(AutoCompaction::Periodic(period)) => by_age(&shared, period).await,
    }
}

/// Revisions are sampled ten times per compaction interval; what is older than the period goes.
async fn by_age(shared: &Shared, period: Duration) {
    let tick = period.min(PERIOD_MAX) / SAMPLES;
    let kept = (period.as_nanos() / tick.as_nanos().max(1)) as usize;
    let mut samples = VecDeque::new();
    let mut since_last = 0;
    loop {
        samples.push_back(shared.published.load().edge.view.revision());
        if samples.len() > kept {
            let oldest = samples.pop_front().expect("one was just put in");
            since_last += 1;
            if since_last >= SAMPLES {
                since_last = 0;
                propose(shared, "periodic", oldest, ("compact-period", period.into())).await;
            }
        }
        tokio::time::sleep(tick).await;
    }
}

/// Asks for a compaction, and waits a moment to see it taken.
async fn propose(shared: &Shared, mode: &str, revision: i64, setting: Field<'_>) {
    let compacted = || shared.published.load().edge.view.compact_revision();
    if !shared.published.load().role.is_leader || revision <= compacted().max(0) {
        return;
    }
    let mut fields = vec![("revision", revision.into()), setting];
    shared.logger.info(&format!("starting auto {mode} compaction"), &fields);
    let start = Instant::now();
    let body = pb::CompactionRequest { revision, physical: false }.encode_to_vec().into();
    let proposal = Proposal { reply_to: None, identity: None, field: field::COMPACTION, body };
    shared.member.push(MemberInput::Propose(vec![proposal], start));
    while compacted() < revision && start.elapsed() < COMPACTION_WAIT {
        tokio::time::sleep(COMPACTION_POLL).await;
    }
    fields.push(("took", start.elapsed().into()));
    if compacted() < revision {
        shared.logger.warn(&format!("failed auto {mode} compaction"), &fields);
    } else {
        shared.logger.info(&format!("completed auto {mode} compaction"), &fields);
    }
}

/// How long a start looks for its peers before it lets the election timeout pass as it is, and how often it looks.
const PEERS_WAIT: Duration = Duration::from_secs(5);
const PEERS_POLL: Duration = Duration::from_millis(50);

/// A member that has connected to its peers lets most of its first election timeout pass at once: if there is a
/// leader it is heard from by then, and if there is none nobody need wait.
pub(crate) async fn advance_ticks(shared: Arc<Shared>) {
    let ticks = shared.core.election_ticks();
    if shared.published.load().edge.cluster.members().len().max(shared.core.initial_cluster.len()) <= 1 {
        return;
    }
    if !shared.config.election_tick_advance {
        return shared.logger.info("skipping initial election tick advance", &[("election-ticks", ticks.into())]);
    }
    shared.logger.info("starting initial election tick advance", &[("election-ticks", ticks.into())]);
    let start = Instant::now();
    while start.elapsed() < PEERS_WAIT {
        tokio::time::sleep(PEERS_POLL).await;
        let cluster = shared.published.load().edge.cluster.clone();
        let active = cluster.members().filter(|m| shared.transport.active_since(m.id).is_some()).count();
        if active > 1 {
            let forward = ticks.saturating_sub(2);
            let skipped = shared.config.heartbeat * u32::try_from(forward).unwrap_or(u32::MAX);
            shared.logger.info(
                "initialized peer connections; fast-forwarding election ticks",
                &[
                    ("local-member-id", api::ids::hex(shared.member_id).to_string().into()),
                    ("forward-ticks", forward.into()),
                    ("forward-duration", value::format_duration(skipped).into()),
                    ("election-ticks", ticks.into()),
                    ("election-timeout", value::format_duration(shared.config.election).into()),
                    ("active-remote-members", active.into()),
                ],
            );
            return shared.member.push(MemberInput::FastForward(forward));
        }
    }
}

/// Election timeouts without a leader after which streams that asked for one end, as in etcd: to open them again costs
/// much more than to refuse a request.
const LEADERLESS_MAX: u32 = 3;

/// Tells the network threads when there has been no leader for long.
pub(crate) async fn watch_leader(shared: Arc<Shared>) {
    let mut without = 0;
    loop {
        tokio::time::sleep(shared.config.election).await;
        without = if shared.published.load().role.leader == 0 { without + 1 } else { 0 };
        if without >= LEADERLESS_MAX {
            shared.tell_networks(|| Mail::NoLeader);
        }
    }
}
