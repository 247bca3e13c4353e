//! `etcdserverpb.Cluster`: the members as the published state has them.

use api::Status;
use api::etcdserverpb as pb;
use api::methods::Method;
use bytes::Bytes;
use etcdserver::apply::reply::put_header;
use etcdserver::read::Published;
use grpc::Replies;
use prost::Message;

use super::Handler;

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
}

/// `MemberListResponse`; answers about members have no revision in their header.
pub(super) fn encode_members(published: &Published, out: &mut Vec<u8>) {
    put_header(out, &published.ids, 0);
    for member in &etcdserver::apply::cluster::shown_members(&published.cluster) {
        api::wire::put_message(2, &member.encode_to_vec(), out);
    }
}
