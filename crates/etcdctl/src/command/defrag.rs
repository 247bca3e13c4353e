//! `defrag`: defragment members.

use std::time::Instant;

use api::etcdserverpb::DefragmentRequest;
use etcdutl::cli::{Command, ERROR, Exit, Flag, Invocation, Outcome, err, out};
use etcdutl::quantity;

use super::endpoint::endpoints;
use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "defrag",
    short: "Gives back the space that members do not use",
    group: super::MAINTENANCE,
    flags: &[Flag::switch("cluster", "take the endpoints of all members from the member list")],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let session = Session::open(invocation)?;
    block_on(async {
        let endpoints = endpoints(&session).await?;
        let client = session.client().await?;
        let mut failures = 0;
        for endpoint in endpoints {
            let started = Instant::now();
            let one = client.only(&endpoint).map_err(Exit::error)?;
            let result = one.call(DefragmentRequest {}, session.context()).await;
            let took = quantity::duration(started.elapsed());
            match result {
                Ok(_) => out(format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n"))?,
                Err(error) => {
                    failures += 1;
                    err(&format!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})\n"));
                }
            }
        }
        if failures == 0 { Ok(()) } else { Err(Exit::silent(ERROR)) }
    })
}
