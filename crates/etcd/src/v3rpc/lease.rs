//! `etcdserverpb.Lease`: grants and revokes through the log, keepalives and times from the raft lane.

use api::Status;
use api::error::{Code, ErrorCode};
use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::apply::quota::LEASE_COST;
use etcdserver::apply::reply::put_header;
use etcdserver::effect::{LeaseQuestion, LeaseTimes, Renewal};
use prost::Message;

use super::{Clients, Desk, Handler, Waiting};

/// Keepalives of one stream that may be under way; a client that sends more is not waiting for answers.
const RENEWALS_MAX: usize = 4096;

impl Handler<'_> {
    pub(super) fn lease_grant(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let mut request: pb::LeaseGrantRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        self.check_room(LEASE_COST)?;
        let body = if request.id == 0 {
            request.id = self.desk.shared.request_ids.next_lease();
            Bytes::from(request.encode_to_vec())
        } else {
            Bytes::copy_from_slice(message)
        };
        self.propose_at_cost(LEASE_COST, call, field::LEASE_GRANT, body)
    }

    pub(super) fn lease_revoke(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::LeaseRevokeRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        self.propose(call, field::LEASE_REVOKE, Bytes::copy_from_slice(message))
    }

    pub(super) fn lease_time_to_live(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::LeaseTimeToLiveRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let reply_to = self.reply_to(call);
        self.desk.turn.questions.push(LeaseQuestion { reply_to, lease: Some(request.id) });
        self.calls.insert(call, Waiting::TimeToLive { id: request.id, keys: request.keys });
        Ok(())
    }

    pub(super) fn lease_leases(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::LeaseLeasesRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let reply_to = self.reply_to(call);
        self.desk.turn.questions.push(LeaseQuestion { reply_to, lease: None });
        self.calls.insert(call, Waiting::Leases);
        Ok(())
    }

    /// One keepalive on a stream.
    pub(super) fn keep_alive(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::LeaseKeepAliveRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let reply_to = self.reply_to(call);
        let Some(Waiting::KeepAlive { outstanding, .. }) = self.calls.get_mut(&call) else { return Ok(()) };
        if *outstanding >= RENEWALS_MAX {
            return Err(ErrorCode::TooManyRequests.into());
        }
        *outstanding += 1;
        self.desk.turn.renewals.push(Renewal { reply_to, lease: request.id });
        Ok(())
    }
}

impl Desk {
    pub(super) fn deliver_renewed(&mut self, renewed: Vec<(Renewal, i64)>, clients: &mut Clients) {
        let state = self.shared.published.load_full();
        let (ids, revision) = (state.edge.ids, state.edge.view.revision());
        for (renewal, ttl) in renewed {
            let to = renewal.reply_to;
            let Some(client) = clients.get_mut(&to.connection) else { continue };
            let Some(Waiting::KeepAlive { outstanding, half_closed, .. }) = client.calls.get_mut(&to.stream) else {
                continue;
            };
            *outstanding -= 1;
            let is_last = *half_closed && *outstanding == 0;
            let replies = client.connection.replies();
            replies.send(to.stream, |out| {
                put_header(out, &ids, revision);
                api::wire::put_int(2, renewal.lease, out);
                api::wire::put_int(3, ttl, out);
            });
            if is_last {
                replies.finish(to.stream, Code::Ok.number(), "");
                client.calls.remove(&to.stream);
            }
            self.touch(to.connection, client);
        }
    }

    pub(super) fn deliver_lease_times(
        &mut self,
        question: LeaseQuestion,
        times: LeaseTimes,
        clients: &mut Clients,
    ) {
        self.with_call(question.reply_to, clients, |desk, waiting, replies, call| {
            let state = desk.shared.published.load_full();
            let (ids, revision) = (state.edge.ids, state.edge.view.revision());
            match waiting {
                Some(Waiting::TimeToLive { id, keys }) => {
                    let (granted, left) = match times {
                        LeaseTimes::One { granted, left } => (granted, left),
                        // What Go answers for a lease that is gone: no error, -1.
                        LeaseTimes::None | LeaseTimes::All(_) => (0, -1),
                    };
                    let keys = if keys { state.edge.leases.keys(id) } else { Vec::new() };
                    replies.reply(call, |out| {
                        put_header(out, &ids, revision);
                        api::wire::put_int(2, id, out);
                        api::wire::put_int(3, left, out);
                        api::wire::put_int(4, granted, out);
                        keys.iter().for_each(|key| api::wire::put_bytes(5, key, out));
                    });
                }
                Some(Waiting::Leases) => {
                    let LeaseTimes::All(leases) = times else { return };
                    replies.reply(call, |out| {
                        put_header(out, &ids, revision);
                        let mut row = Vec::new();
                        for lease in leases {
                            row.clear();
                            api::wire::put_int(1, lease, &mut row);
                            api::wire::put_message(2, &row, out);
                        }
                    });
                }
                _ => {}
            }
        });
    }
}
