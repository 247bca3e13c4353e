//! What comes back to a network thread: answers of the member thread, events, and the end.

use api::Status;
use api::error::{Code, ErrorCode};
use etcdserver::apply::reply::Reply;
use etcdserver::effect::ReplyTo;
use grpc::Replies;

use super::{Clients, Desk, Waiting, stats};
use crate::member::handle::Mail;
use crate::net::client::Client;

impl Desk {
    /// One piece of mail.
    pub(crate) fn deliver(&mut self, mail: Mail, clients: &mut Clients) {
        match mail {
            Mail::Replies(replies) => {
                for (to, result) in replies {
                    self.deliver_reply(to, result, clients);
                }
            }
            Mail::ReadReady(waiting) => {
                for to in waiting {
                    self.deliver_read(to, clients);
                }
            }
            Mail::Renewed(renewed) => self.deliver_renewed(renewed, clients),
            Mail::LeaseTimes(answers) => {
                for (question, times) in answers {
                    self.deliver_lease_times(question, times, clients);
                }
            }
            Mail::Refused(refused) => {
                for (to, status) in refused {
                    self.with_call(to, clients, |_, _, replies, call| {
                        replies.reply_status(call, status.code, &status.message);
                    });
                }
            }
            Mail::Events(batches) => self.deliver_events(&batches, clients),
            Mail::NoLeader => self.end_without_leader(clients),
            Mail::Replaced => self.store_replaced(clients),
            Mail::CompactionFinished(revision) => self.deliver_compaction(revision, clients),
            Mail::Done(to, done) => self.deliver_done(to, done, clients),
            Mail::Slow(calls) => {
                for (to, stats) in calls {
                    if let Some(client) = clients.get(&to.connection) {
                        stats::line(&self.shared, &client.remote(), stats);
                    }
                }
            }
            Mail::Plain(to, answer) => self.with_call(to, clients, |_, _, replies, call| {
                let headers: Vec<(&str, &str)> =
                    answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                replies.plain_reply(call, answer.status, &headers, answer.body);
            }),
            Mail::Stop => {}
        }
    }

    /// Takes a waiting call out of its table and lets `act` answer it. A call that is over is passed over.
    pub(super) fn with_call(
        &mut self,
        to: ReplyTo,
        clients: &mut Clients,
        act: impl FnOnce(&mut Desk, Option<Waiting>, &mut Replies, u32),
    ) {
        let Some(client) = clients.get_mut(&to.connection) else { return };
        let waiting = client.calls.remove(&to.stream);
        act(self, waiting, client.connection.replies(), to.stream);
        self.touch(to.connection, client);
    }

    /// Notes that a connection has something to write.
    pub(super) fn touch(&mut self, connection: u32, client: &mut Client) {
        if !client.is_dirty {
            client.is_dirty = true;
            self.turn.dirty.push(connection);
        }
    }

    fn deliver_reply(&mut self, to: ReplyTo, result: Result<Reply, Status>, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&to.connection) else { return };
        let waiting = client.calls.remove(&to.stream);
        let result = match (result, waiting) {
            (Ok(reply), Some(Waiting::PhysicalCompaction(revision)))
                if self.shared.compaction_finished.load(std::sync::atomic::Ordering::Acquire) < revision =>
            {
                client.calls.insert(to.stream, Waiting::Compaction(Ok(reply), revision));
                return;
            }
            (Err(status), Some(Waiting::PhysicalCompaction(_))) if status == ErrorCode::Compacted.into() => {
                // Somebody else's compaction may still be at work: this caller wants to hear when it is over.
                let state = self.shared.published.load();
                if state.edge.compacting {
                    let revision = state.edge.view.compact_revision();
                    client.calls.insert(to.stream, Waiting::Compaction(Err(status), revision));
                    return;
                }
                Err(status)
            }
            (result, _) => result,
        };
        self.answer(to.stream, result, client);
        self.touch(to.connection, client);
    }

    /// Ends a unary call.
    pub(super) fn answer(&self, call: u32, result: Result<Reply, Status>, client: &mut Client) {
        let replies = client.connection.replies();
        match result {
            Ok(reply) => {
                let ids = self.shared.published.load().edge.ids;
                replies.reply(call, |out| reply.encode(&ids, out));
            }
            Err(status) => {
                replies.reply_status(call, status.code, &status.message);
            }
        }
    }

    pub(super) fn deliver_read(&mut self, to: ReplyTo, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&to.connection) else { return };
        let Some(Waiting::Read(method, request, since)) = client.calls.remove(&to.stream) else { return };
        if self.has_no_room(method, &request) {
            client.calls.insert(to.stream, Waiting::Read(method, request, since));
            return self.put_off(to);
        }
        let state = self.shared.published.load_full();
        let Client { connection, calls, .. } = &mut **client;
        let replies = connection.replies();
        self.reading = to.connection;
        if let Err(status) = self.serve_read(&state, (method, since), &request, replies, to.stream, calls) {
            replies.reply_status(to.stream, status.code, &status.message);
        }
        self.touch(to.connection, client);
    }

    pub(super) fn deliver_compaction(&mut self, revision: i64, clients: &mut Clients) {
        for (number, client) in clients.iter_mut() {
            let done: Vec<u32> = client
                .calls
                .iter()
                .filter(|(_, waiting)| matches!(waiting, Waiting::Compaction(_, at) if *at <= revision))
                .map(|(call, _)| *call)
                .collect();
            for call in done {
                let Some(Waiting::Compaction(result, _)) = client.calls.remove(&call) else { continue };
                self.answer(call, result, client);
                self.touch(*number, client);
            }
        }
    }

    /// Ends the streams that asked to hear when there is no leader.
    fn end_without_leader(&mut self, clients: &mut Clients) {
        let status = Status::from(ErrorCode::NoLeader);
        for (number, client) in clients.iter_mut() {
            let wants = |waiting: &Waiting| {
                matches!(waiting, Waiting::Watch { with_leader: true } | Waiting::KeepAlive { with_leader: true, .. })
            };
            let calls: Vec<u32> =
                client.calls.iter().filter(|(_, waiting)| wants(waiting)).map(|(call, _)| *call).collect();
            for call in calls {
                if let Some(Waiting::Watch { .. }) = client.calls.remove(&call) {
                    self.watch.drop_call(*number, call);
                }
                client.connection.replies().finish(call, status.code, &status.message);
                self.touch(*number, client);
            }
        }
    }

    /// Ends all streams: the process stops.
    pub(crate) fn end_streams(&mut self, clients: &mut Clients) {
        let status = Status::new(Code::Unavailable, "transport is closing");
        for (number, client) in clients.iter_mut() {
            let calls: Vec<u32> = client.calls.keys().copied().collect();
            for call in calls {
                if let Some(Waiting::Watch { .. }) = client.calls.remove(&call) {
                    self.watch.drop_call(*number, call);
                }
                client.connection.replies().finish(call, status.code, &status.message);
            }
        }
    }
}
