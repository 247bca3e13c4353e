//! Alarms: short forms of their requests and answers.

use api::etcdserverpb::AlarmRequest;
use api::etcdserverpb::alarm_request::AlarmAction;

use super::answer::{Difference, Outcome, same};
use super::target::Target;

/// No kind; as a filter, every kind.
pub const NONE: i32 = 0;
/// The database is full.
pub const NOSPACE: i32 = 1;
/// Members disagree.
pub const CORRUPT: i32 = 2;

impl Target {
    /// An alarm request; the alarms of its answer as (member, kind).
    ///
    /// # Errors
    /// When it is refused.
    pub async fn alarm(&self, action: AlarmAction, member: u64, kind: i32) -> Result<Vec<(u64, i32)>, Difference> {
        let answer = self.ok(AlarmRequest { action: action as i32, member_id: member, alarm: kind }).await?;
        Ok(answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect())
    }

    /// Raises an alarm, which the answer must show.
    ///
    /// # Errors
    /// When it does not.
    pub async fn raise(&self, member: u64, kind: i32) -> Outcome {
        same("raised", self.alarm(AlarmAction::Activate, member, kind).await?, vec![(member, kind)])
    }

    /// Lowers an alarm, which the answer must show.
    ///
    /// # Errors
    /// When it does not.
    pub async fn lower(&self, member: u64, kind: i32) -> Outcome {
        same("lowered", self.alarm(AlarmAction::Deactivate, member, kind).await?, vec![(member, kind)])
    }

    /// The alarms of a kind, in the order of the answer.
    ///
    /// # Errors
    /// When the request is refused.
    pub async fn alarms(&self, kind: i32) -> Result<Vec<(u64, i32)>, Difference> {
        self.alarm(AlarmAction::Get, 0, kind).await
    }
}
