//! `elect`: take part in an election.

use api::etcdserverpb::RangeRequest;
use client::{Context, Election, Error, Session as LeaseSession, observe};
use etcdutl::cli::{Command, Exit, Flag, Invocation, Outcome};

use super::lock::Signals;
use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "elect",
    usage: "<election-name> [proposal]",
    short: "Takes part in the election of a leader, or watches it",
    group: super::CONCURRENCY,
    flags: &[Flag::switch("listen", "watch only").letter('l')],
    run: Some(run),
    ..Command::EMPTY
};

/// Seconds after which a dead candidate is out.
const TTL: i64 = 60;

fn run(invocation: &Invocation) -> Outcome {
    let arguments = &invocation.arguments;
    if arguments.is_empty() || arguments.len() > 2 {
        return Err(Exit::arguments("elect takes one election name argument and an optional proposal argument"));
    }
    let listen = invocation.switch("listen");
    let proposal = match (arguments.get(1), listen) {
        (None, false) => return Err(Exit::arguments("no proposal argument but -l not set")),
        (Some(_), true) => return Err(Exit::arguments("proposal given but -l is set")),
        (proposal, _) => proposal.cloned().unwrap_or_default(),
    };
    let name = &arguments[0];
    let session = Session::open(invocation)?;
    block_on(async {
        let mut signals = Signals::new()?;
        let client = session.client().await?;
        if listen {
            let mut printed = Ok(());
            let observed = observe(&client, name, |answer| {
                printed = session.printer.get(&answer);
                // An output that fails ends it; the reason is told below.
                if printed.is_ok() { Ok(()) } else { Err(Error::NotLeader) }
            });
            let observed = tokio::select! {
                observed = observed => observed,
                () = signals.any() => Ok(()),
            };
            printed?;
            return observed.map_err(Exit::error);
        }
        let lease = LeaseSession::start(&client, TTL).await.map_err(Exit::error)?;
        let mut election = Election::new(name);
        tokio::select! {
            elected = election.campaign(&lease, &proposal) => elected.map_err(Exit::error)?,
            () = signals.any() => {
                lease.close().await.map_err(Exit::error)?;
                return Err(Exit::error("context canceled"));
            }
        }
        let request = RangeRequest { key: election.key().to_vec().into(), ..Default::default() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.get(&answer)?;
        tokio::select! {
            () = signals.any() => {
                election.resign(&lease).await.map_err(Exit::error)?;
                lease.close().await.map_err(Exit::error)
            }
            () = lease.expired() => Err(Exit::error("elect: session expired")),
        }
    })
}
