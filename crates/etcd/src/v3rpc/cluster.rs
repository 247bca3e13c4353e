//! `etcdserverpb.Cluster`: the members as the published state has them, and changes of them by tasks of their own.

use std::future::Future;

use api::Status;
use api::etcdserverpb as pb;
use api::methods::Method;
use bytes::Bytes;
use etcdserver::apply::reply::{Reply, put_header};
use etcdserver::read::Published;
use grpc::Replies;
use prost::Message;

use super::{Done, Handler, Waiting};
use crate::member::change;
use crate::member::handle::{Mail, Shared};

impl Handler<'_> {
    pub(super) fn member_list(
        &mut self,
        replies: &mut Replies,
        call: u32,
        message: &[u8],
    ) -> Result<(), Status> {
        let request: pb::MemberListRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        self.read(replies, call, Method::MemberList, message, !request.linearizable)
    }

    pub(super) fn member_add(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::MemberAddRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let urls = change::checked_urls(&request.peer_ur_ls)?;
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let reply = change::add(&shared, urls, request.is_learner).await?;
            Ok(encode(&shared, &reply))
        });
        Ok(())
    }

    pub(super) fn member_remove(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::MemberRemoveRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let reply = change::remove(&shared, request.id).await?;
            Ok(encode(&shared, &reply))
        });
        Ok(())
    }

    pub(super) fn member_update(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::MemberUpdateRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        // Go stores whatever is given; a URL that is none costs its cluster the quorum later.
        let urls = change::checked_urls(&request.peer_ur_ls)?;
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let reply = change::update(&shared, request.id, urls).await?;
            Ok(encode(&shared, &reply))
        });
        Ok(())
    }

    pub(super) fn member_promote(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::MemberPromoteRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let shared = self.desk.shared.clone();
        self.task(call, async move {
            let members = change::promote(&shared, request.id).await?;
            let members = members.iter().map(etcdserver::apply::cluster::shown).collect::<Vec<_>>();
            Ok(encode(&shared, &Reply::Members { added: None, members: members.into() }))
        });
        Ok(())
    }

    /// Answers a call with what a task of its own comes to.
    pub(super) fn task(
        &mut self,
        call: u32,
        work: impl Future<Output = Result<Bytes, Status>> + 'static,
    ) {
        let (shared, to) = (self.desk.shared.clone(), self.reply_to(call));
        self.calls.insert(call, Waiting::Worker);
        tokio::task::spawn_local(async move {
            let answer = work.await;
            shared.networks[usize::from(to.thread)].push(Mail::Done(to, Done::Answer(answer)));
        });
    }
}

fn encode(shared: &Shared, reply: &Reply) -> Bytes {
    let mut out = Vec::new();
    reply.encode(&shared.published.load().edge.ids, &mut out);
    out.into()
}

/// `MemberListResponse`; answers about members have no revision in their header.
pub(super) fn encode_members(published: &Published, out: &mut Vec<u8>) {
    put_header(out, &published.ids, 0);
    for member in &etcdserver::apply::cluster::shown_members(&published.cluster) {
        api::wire::put_message(2, &member.encode_to_vec(), out);
    }
}
