//! `Maintenance.Downgrade` and `MoveLeader`: what takes several steps, each answered by a task of its own.

use std::time::{Duration, Instant};

use api::Status;
use api::error::ErrorCode;
use api::etcdserverpb as pb;
use api::membershippb as mpb;
use api::version::Minor;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::apply::reply::put_header;
use grpc::Replies;
use pb::downgrade_request::DowngradeAction;
use prost::Message;

use super::Handler;
use crate::member::handle::{MemberInput, Shared};

/// Go waits as long as its client; one that sets no time would leave a task behind for ever.
const TRANSFER_MAX: Duration = Duration::from_secs(60);

impl Handler<'_> {
    pub(super) fn downgrade(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::DowngradeRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let action = DowngradeAction::try_from(request.action).map_err(|_| Status::from(ErrorCode::UnknownMethod))?;
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let version = match action {
                DowngradeAction::Validate => validate(&shared, &request.version).await?.0,
                DowngradeAction::Enable => enable(&shared, &request.version).await?,
                DowngradeAction::Cancel => cancel(&shared).await?,
            };
            let state = shared.published.load_full();
            let mut out = Vec::new();
            put_header(&mut out, &state.edge.ids, state.edge.view.revision());
            api::wire::put_bytes(2, version.to_string().as_bytes(), &mut out);
            Ok(out.into())
        });
        Ok(())
    }

    pub(super) fn move_leader(
        &mut self,
        replies: &mut Replies,
        call: u32,
        message: &[u8],
    ) -> Result<(), Status> {
        let request: pb::MoveLeaderRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let state = self.state();
        if !state.role.is_leader {
            return Err(ErrorCode::NotLeader.into());
        }
        let target = request.target_id;
        if state.edge.cluster.member(target).is_none_or(|member| member.is_learner) {
            return Err(ErrorCode::BadLeaderTransferee.into());
        }
        // No header in this answer, as in etcd.
        if target == self.desk.shared.member_id {
            replies.reply(call, |_| {});
            return Ok(());
        }
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let moved = shared.move_leader(target, TRANSFER_MAX).await;
            moved.then(Bytes::new).ok_or_else(|| ErrorCode::TimeoutLeaderTransfer.into())
        });
        Ok(())
    }
}

impl Shared {
    /// Hands leadership over and waits until it has arrived; says whether it has.
    pub(crate) async fn move_leader(&self, target: u64, limit: Duration) -> bool {
        let (start, from) = (Instant::now(), self.published.load().role.leader);
        let own = ("local-member-id", api::ids::hex(self.member_id).to_string().into());
        self.logger.info(
            "leadership transfer starting",
            &[
                own,
                ("current-leader-member-id", api::ids::hex(from).to_string().into()),
                ("transferee-member-id", api::ids::hex(target).to_string().into()),
            ],
        );
        self.member.push(MemberInput::TransferLeader(target));
        while self.published.load().role.leader != target {
            if start.elapsed() >= limit {
                return false;
            }
            tokio::time::sleep(self.config.heartbeat).await;
        }
        self.logger.info(
            "leadership transfer finished",
            &[
                ("local-member-id", api::ids::hex(self.member_id).to_string().into()),
                ("old-leader-member-id", api::ids::hex(from).to_string().into()),
                ("new-leader-member-id", api::ids::hex(target).to_string().into()),
                ("took", start.elapsed().into()),
            ],
        );
        true
    }
}

/// The cluster version, and where the downgrade would lead.
async fn validate(shared: &Shared, target: &str) -> Result<(Minor, Minor), Status> {
    let target = Minor::parse_target(target).map_err(|_| Status::from(ErrorCode::WrongDowngradeVersionFormat))?;
    if shared.published.load().edge.cluster.version().is_none() {
        return Err(ErrorCode::ClusterVersionUnavailable.into());
    }
    shared.read_index().await?;
    let cluster = shared.published.load().edge.cluster.clone();
    let Some(version) = cluster.version() else { return Err(ErrorCode::ClusterVersionUnavailable.into()) };
    if version.minor().one_down() != Some(target) {
        return Err(ErrorCode::InvalidDowngradeTargetVersion.into());
    }
    if cluster.downgrade().enabled {
        return Err(ErrorCode::DowngradeInProcess.into());
    }
    Ok((version.minor(), target))
}

async fn enable(shared: &Shared, target: &str) -> Result<Minor, Status> {
    let (version, target) = validate(shared, target).await?;
    set(shared, true, target.cluster().to_string()).await?;
    Ok(version)
}

async fn cancel(shared: &Shared) -> Result<Minor, Status> {
    shared.read_index().await?;
    let cluster = shared.published.load().edge.cluster.clone();
    let Some(version) = cluster.version() else { return Err(ErrorCode::ClusterVersionUnavailable.into()) };
    if !cluster.downgrade().enabled {
        shared.logger.warn("no inflight downgrade job to cancel", &[]);
    }
    set(shared, false, String::new()).await?;
    Ok(version.minor())
}

async fn set(shared: &Shared, enabled: bool, ver: String) -> Result<(), Status> {
    let body = mpb::DowngradeInfoSetRequest { enabled, ver }.encode_to_vec();
    shared.propose(field::DOWNGRADE_INFO_SET, body.into()).await.map(drop)
}
