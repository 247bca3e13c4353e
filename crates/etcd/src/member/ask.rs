//! Questions of tasks to the member thread: the answer comes to a oneshot channel instead of a network thread's mail.
//!
//! What asks so is rare and long (membership, downgrades, health, peers' requests), so that a channel and a table
//! entry for each are no loss.

use std::sync::Arc;
use std::time::Duration;

use api::Status;
use api::error::ErrorCode;
use api::raftpb;
use bytes::Bytes;
use etcdserver::apply::reply::Reply;
use etcdserver::effect::{Proposal, ReplyTo};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::member::handle::{MemberInput, Shared};

/// The "network thread" of tasks that wait.
pub(crate) const TASK_THREAD: u16 = u16::MAX - 1;
/// Tasks that may wait at once; beyond it "too many requests".
const WAITING_MAX: usize = 4096;
/// How much longer than the member thread a task waits before it gives up: the member answers in its own time.
const GRACE: Duration = Duration::from_secs(2);

type Answer = Result<Reply, Status>;

/// Tasks that wait for the member thread.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Answer>, FixedState>,
}

/// A place in the table; given back when the task goes away.
struct Place<'a> {
    tasks: &'a Tasks,
    to: ReplyTo,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.tasks.0.lock().waiting.remove(&self.to.connection);
    }
}

impl Tasks {
    fn open(&self) -> Result<(Place<'_>, oneshot::Receiver<Answer>), Status> {
        let mut table = self.0.lock();
        if table.waiting.len() >= WAITING_MAX {
            return Err(ErrorCode::TooManyRequests.into());
        }
        table.next = table.next.wrapping_add(1);
        let (number, (tell, wait)) = (table.next, oneshot::channel());
        table.waiting.insert(number, tell);
        let to = ReplyTo { thread: TASK_THREAD, connection: number, stream: 0 };
        Ok((Place { tasks: self, to }, wait))
    }

    /// Answers a task, if it still waits.
    pub(crate) fn tell(&self, to: ReplyTo, answer: Answer) {
        let waiting = self.0.lock().waiting.remove(&to.connection);
        if let Some(waiting) = waiting {
            // Whoever has gone needs no answer.
            let _gone = waiting.send(answer);
        }
    }
}

impl Shared {
    /// How long a request may take before the member thread gives it up.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_nanos(self.core.request_timeout_ns())
    }

    async fn ask(&self, input: impl FnOnce(ReplyTo) -> MemberInput) -> Answer {
        let (place, wait) = self.tasks.open()?;
        self.member.push(input(place.to));
        match tokio::time::timeout(self.request_timeout() + GRACE, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ErrorCode::Stopped.into()),
            Err(_) => Err(ErrorCode::Timeout.into()),
        }
    }

    /// Waits until everything that was committed when this was called is published here.
    pub(crate) async fn read_index(&self) -> Result<(), Status> {
        if self.published.load().edge.reads_are_local {
            return Ok(());
        }
        self.ask(|to| MemberInput::Read(vec![to])).await.map(drop)
    }

    /// Proposes a request and waits for what applying it gave.
    pub(crate) async fn propose(&self, field: u32, body: Bytes) -> Answer {
        self.ask(|to| {
            let proposal = Proposal { reply_to: Some(to), identity: None, field, body };
            MemberInput::Propose(vec![proposal], std::time::Instant::now())
        })
        .await
    }

    /// Proposes a change of the members and waits until it is applied and raft follows it.
    pub(crate) async fn change_members(&self, change: raftpb::ConfChange) -> Answer {
        self.ask(|reply_to| MemberInput::ConfChange { reply_to: Some(reply_to), change }).await
    }

    /// Whether a learner has caught up; `None` when this member does not lead, or does not know it.
    pub(crate) async fn learner_is_ready(self: &Arc<Shared>, id: u64) -> Option<bool> {
        let (answer, wait) = oneshot::channel();
        self.member.push(MemberInput::LearnerIsReady { id, answer });
        wait.await.ok().flatten()
    }
}
