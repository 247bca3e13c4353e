//! `compaction`.

use api::etcdserverpb::CompactionRequest;
use client::Context;
use etcdutl::cli::{Command, Exit, Flag, Invocation, Outcome, out, parse_int};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "compaction",
    usage: "[options] <revision>",
    short: "Forgets the history of keys up to a revision",
    group: super::KEYS,
    flags: &[Flag::switch("physical", "wait until the old revisions are gone from the database")],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let [revision] = &invocation.arguments[..] else {
        return Err(Exit::arguments("compaction command needs 1 argument"));
    };
    let revision = parse_int(&String::from_utf8_lossy(revision), 10).map_err(Exit::error)?;
    let physical = invocation.switch("physical");
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        // Waiting for the deed takes as long as it takes.
        let context = if physical { Context::none() } else { session.context() };
        client.call(CompactionRequest { revision, physical }, context).await.map_err(Exit::error)?;
        out(format!("compacted revision {revision}\n"))
    })
}
