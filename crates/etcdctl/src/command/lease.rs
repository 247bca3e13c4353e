//! `lease`: grant, revoke, renew and list leases.

use api::etcdserverpb::{LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use client::{Context, KeepAlive};
use etcdutl::cli::{BAD_CONNECTION, Command, Exit, Flag, Invocation, Outcome, out, parse_int};

use crate::global::{Session, block_on};
use crate::print::Format;

pub(super) static COMMAND: Command = Command {
    name: "lease",
    short: "Grants and handles leases. See `etcdctl lease --help`",
    long: "Grants and handles leases.",
    group: super::KEYS,
    children: &[&GRANT, &KEEP_ALIVE, &LIST, &REVOKE, &TIME_TO_LIVE],
    ..Command::EMPTY
};

static GRANT: Command = Command {
    name: "grant",
    usage: "<ttl>",
    short: "Grants a lease",
    run: Some(grant),
    ..Command::EMPTY
};

static KEEP_ALIVE: Command = Command {
    name: "keep-alive",
    usage: "[options] <leaseID>",
    short: "Renews a lease again and again",
    flags: &[Flag::switch("once", "renew it once and leave")],
    run: Some(keep_alive),
    ..Command::EMPTY
};

static LIST: Command =
    Command { name: "list", short: "Lists the leases that live", run: Some(list), ..Command::EMPTY };

static REVOKE: Command = Command {
    name: "revoke",
    usage: "<leaseID>",
    short: "Ends a lease and deletes its keys",
    run: Some(revoke),
    ..Command::EMPTY
};

static TIME_TO_LIVE: Command = Command {
    name: "timetolive",
    usage: "<leaseID> [options]",
    short: "Shows what is left of a lease",
    flags: &[Flag::switch("keys", "show the keys attached to it")],
    run: Some(time_to_live),
    ..Command::EMPTY
};

/// The one argument, a lease in hex.
fn lease_argument(invocation: &Invocation, usage: &str) -> Result<i64, Exit> {
    let [id] = &invocation.arguments[..] else { return Err(Exit::arguments(usage)) };
    parse_int(&String::from_utf8_lossy(id), 16)
        .map_err(|why| Exit::arguments(format!("bad lease ID arg ({why}), expecting ID in Hex")))
}

fn grant(invocation: &Invocation) -> Outcome {
    let [ttl] = &invocation.arguments[..] else {
        return Err(Exit::arguments("lease grant command needs TTL argument"));
    };
    let ttl = parse_int(&String::from_utf8_lossy(ttl), 10)
        .map_err(|why| Exit::arguments(format!("bad TTL ({why})")))?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client
            .call(LeaseGrantRequest { ttl, id: 0 }, session.context())
            .await
            .map_err(|error| Exit::error(format!("failed to grant lease ({error})")))?;
        session.printer.lease_grant(&answer)
    })
}

fn revoke(invocation: &Invocation) -> Outcome {
    let id = lease_argument(invocation, "lease revoke command needs 1 argument")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client
            .call(LeaseRevokeRequest { id }, session.context())
            .await
            .map_err(|error| Exit::error(format!("failed to revoke lease ({error})")))?;
        session.printer.lease_revoke(id, &answer)
    })
}

fn time_to_live(invocation: &Invocation) -> Outcome {
    let id = lease_argument(invocation, "lease timetolive command needs lease ID as argument")?;
    let keys = invocation.switch("keys");
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client
            .call(LeaseTimeToLiveRequest { id, keys }, Context::none())
            .await
            .map_err(|error| Exit::new(BAD_CONNECTION, error))?;
        session.printer.time_to_live(&answer, keys)
    })
}

fn list(invocation: &Invocation) -> Outcome {
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client
            .call(LeaseLeasesRequest {}, Context::none())
            .await
            .map_err(|error| Exit::new(BAD_CONNECTION, error))?;
        session.printer.leases(&answer)
    })
}

fn keep_alive(invocation: &Invocation) -> Outcome {
    let id = lease_argument(invocation, "lease keep-alive command needs lease ID as argument")?;
    let session = Session::open(invocation)?;
    let failed = |error| Exit::new(BAD_CONNECTION, error);
    block_on(async {
        let client = session.client().await?;
        if invocation.switch("once") {
            let answer = client.keep_alive_once(id).await.map_err(failed)?;
            return session.printer.keep_alive(&answer);
        }
        let mut renewals = KeepAlive::new(&client, id);
        while let Some(answer) = renewals.next().await.map_err(failed)? {
            session.printer.keep_alive(&answer)?;
        }
        match session.printer.format {
            Format::Simple => out(format!("lease {id:016x} expired or revoked.\n")),
            _ => Ok(()),
        }
    })
}
