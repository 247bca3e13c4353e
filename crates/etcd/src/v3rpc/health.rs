//! `grpc.health.v1.Health`: one service, named by the empty string.

use api::Status;
use api::error::Code;
use api::health as pb;
use api::methods::Method;
use bytes::Bytes;
use grpc::Replies;
use prost::Message;

use super::{Handler, Waiting};

impl Handler<'_> {
    pub(super) fn health(
        &mut self,
        replies: &mut Replies,
        call: u32,
        method: Method,
        message: &[u8],
    ) -> Result<(), Status> {
        let serving = pb::health_check_response::ServingStatus::Serving as i32;
        let answer = pb::HealthCheckResponse { status: serving };
        if method == Method::HealthList {
            let list = pb::HealthListResponse { statuses: [(String::new(), answer)].into_iter().collect() };
            replies.reply_bytes(call, list.encode_to_vec().into());
            return Ok(());
        }
        let request: pb::HealthCheckRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let is_known = request.service.is_empty();
        if method == Method::HealthCheck {
            if !is_known {
                return Err(Status::new(Code::NotFound, "unknown service"));
            }
            replies.reply_bytes(call, answer.encode_to_vec().into());
            return Ok(());
        }
        // A watch of an unknown service is told so and stays open: it may come to be known.
        let unknown = pb::health_check_response::ServingStatus::ServiceUnknown as i32;
        let answer = if is_known { answer } else { pb::HealthCheckResponse { status: unknown } };
        replies.send_bytes(call, answer.encode_to_vec().into());
        self.calls.insert(call, Waiting::Health);
        Ok(())
    }
}
