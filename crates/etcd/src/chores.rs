//! Work that comes up now and then: removing old files, and automatic compaction.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use etcdserver::apply::policy::field;
use etcdserver::effect::Proposal;
use prost::Message;

use crate::config::AutoCompaction;
use crate::member::handle::{MemberInput, Shared};

/// Time between two looks for old files, as in etcd.
pub(crate) const PURGE_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two compactions by number of revisions, as in etcd.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Longest time between two compactions by age.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
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
            let wals = wal::purge(disk, &shared.core.wal_path(), keep(shared.config.max_wals));
            let snaps = wal::snap::purge(disk, &shared.core.snap_dir(), keep(shared.config.max_snapshots));
            for removed in [wals, snaps] {
                match removed {
                    Ok(names) => {
                        for name in names {
                            shared.logger.info("purged", &[("path", name.into())]);
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

/// Proposes compactions as `--auto-compaction-mode` and `--auto-compaction-retention` say.
pub(crate) async fn compact(shared: Arc<Shared>) {
    match shared.config.auto_compaction {
        // An error would have ended the start.
        Ok(AutoCompaction::Off) | Err(_) => {}
        Ok(AutoCompaction::Revision(keep)) => loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            propose(&shared, shared.published.load().edge.view.revision() - keep);
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
                propose(shared, oldest);
            }
        }
        tokio::time::sleep(tick).await;
    }
}

fn propose(shared: &Shared, revision: i64) {
    let state = shared.published.load();
    if !state.role.is_leader || revision <= state.edge.view.compact_revision().max(0) {
        return;
    }
    shared.logger.info("starting auto compaction", &[("revision", revision.into())]);
    let body = pb::CompactionRequest { revision, physical: false }.encode_to_vec().into();
    let proposal = Proposal { reply_to: None, identity: None, field: field::COMPACTION, body };
    shared.member.push(MemberInput::Propose(vec![proposal], std::time::Instant::now()));
}
