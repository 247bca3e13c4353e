//! `move-leader`.

use api::etcdserverpb::{MoveLeaderRequest, StatusRequest};
use etcdutl::cli::{Command, Exit, Invocation, Outcome, parse_uint};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "move-leader",
    usage: "<transferee-member-id>",
    short: "Hands leadership to another member",
    group: super::MAINTENANCE,
    run: Some(run),
    ..Command::EMPTY
};

/// Only the leader can hand over, so it must be among the endpoints.
fn run(invocation: &Invocation) -> Outcome {
    let [target] = &invocation.arguments[..] else {
        return Err(Exit::arguments("move-leader command needs 1 argument"));
    };
    let target_id = parse_uint(&String::from_utf8_lossy(target), 16).map_err(Exit::arguments)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        for endpoint in &session.config.endpoints {
            let one = client.only(endpoint).map_err(Exit::error)?;
            let status = one.call(StatusRequest {}, session.context()).await.map_err(Exit::error)?;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                let request = MoveLeaderRequest { target_id };
                let answer = one.call(request, session.context()).await.map_err(Exit::error)?;
                return session.printer.move_leader(status.leader, target_id, &answer);
            }
        }
        let endpoints = session.config.endpoints.join(" ");
        Err(Exit::arguments(format!("no leader endpoint given at [{endpoints}]")))
    })
}
