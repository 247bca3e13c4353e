//! `endpoint`.

use std::sync::Arc;
use std::time::Instant;

use api::ErrorCode;
use api::etcdserverpb::{HashKvRequest, MemberListRequest, RangeRequest, StatusRequest};
use client::Config;
use etcdutl::cli::{Command, ERROR, Exit, Flag, Invocation, Outcome, err};
use tokio::sync::mpsc;

use super::alarm;
use crate::global::{Session, block_on, connect};
use crate::print::{Hash, Health, Status};

pub(super) static COMMAND: Command = Command {
    name: "endpoint",
    short: "Looks at single endpoints. See `etcdctl endpoint --help`",
    long: "Looks at single endpoints.",
    group: super::MAINTENANCE,
    persistent: &[Flag::switch("cluster", "take the endpoints of all members from the member list")],
    children: &[&HASH_KV, &HEALTH, &STATUS],
    ..Command::EMPTY
};

static HASH_KV: Command = Command {
    name: "hashkv",
    short: "Prints each endpoint's hash over the history of keys",
    flags: &[Flag::int("rev", "newest revision in the hash (default: the present one)")],
    run: Some(hash_kv),
    ..Command::EMPTY
};

static HEALTH: Command = Command {
    name: "health",
    short: "Tells whether each endpoint answers",
    run: Some(health),
    ..Command::EMPTY
};

static STATUS: Command = Command {
    name: "status",
    short: "Prints what each endpoint says of itself",
    long: "Prints what each endpoint says of itself. In the format \"simple\" these are, with commas in between:
endpoint, ID, version, storage version, db size, in use, percentage not in use, quota, is leader, is learner,
raft term, raft index, raft applied index, errors, downgrade target version, downgrade enabled.",
    run: Some(status),
    ..Command::EMPTY
};

/// The endpoints to ask: those given, or those of all members.
pub(super) async fn endpoints(session: &Session) -> Result<Vec<String>, Exit> {
    if !session.invocation.switch("cluster") {
        return Ok(session.config.endpoints.clone());
    }
    let client = session.client().await?;
    let answer =
        client.call(MemberListRequest { linearizable: true }, session.context()).await.map_err(|error| {
            let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
            Exit::error(text)
        })?;
    Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Endpoints are asked side by side, and shown in the order of their answers.
fn health(invocation: &Invocation) -> Outcome {
    let session = Arc::new(Session::open(invocation)?);
    block_on(async {
        let endpoints = endpoints(&session).await?;
        let (report, mut reports) = mpsc::channel(endpoints.len().max(1));
        for endpoint in endpoints {
            let (report, session) = (report.clone(), Arc::clone(&session));
            tokio::spawn(async move {
                let one = one_health(&session, endpoint).await;
                // The receiver lives until all have reported.
                let sent = report.send(one).await;
                debug_assert!(sent.is_ok());
            });
        }
        drop(report);
        let mut list = Vec::new();
        while let Some(one) = reports.recv().await {
            list.push(one);
        }
        session.printer.health(&list)?;
        if list.iter().all(|one| one.healthy) { Ok(()) } else { Err(Exit::error("unhealthy cluster")) }
    })
}

async fn one_health(session: &Session, endpoint: String) -> Health {
    let started = Instant::now();
    let config =
        Config { endpoints: vec![endpoint.clone()], logger: "client".into(), ..session.config.clone() };
    let mut one = Health { endpoint, healthy: false, took: started.elapsed(), error: String::new() };
    let client = match connect(config).await {
        Ok(client) => client,
        Err(exit) => {
            one.error = exit.message.unwrap_or_default();
            return one;
        }
    };
    let context = session.context();
    // Any key does: a linearizable read needs a working cluster. Being refused it needs one too.
    let request = RangeRequest { key: "health".into(), ..Default::default() };
    let read = client.call(request, context).await;
    one.took = started.elapsed();
    match read {
        Err(error) if !error.is(ErrorCode::PermissionDenied) => {
            one.error = error.to_string();
            return one;
        }
        _ => {}
    }
    match alarm::get(&client, context).await {
        Ok(answer) if answer.alarms.is_empty() => one.healthy = true,
        Ok(answer) => {
            one.error = "Active Alarm(s): ".into();
            for alarm in answer.alarms {
                one.error.push_str(&crate::print::alarm_name(alarm.alarm));
                one.error.push(' ');
            }
        }
        Err(_) => one.error = "Unable to fetch the alarm list".into(),
    }
    one
}

fn status(invocation: &Invocation) -> Outcome {
    let session = Session::open(invocation)?;
    block_on(async {
        let endpoints = endpoints(&session).await?;
        let client = session.client().await?;
        let mut list = Vec::new();
        let mut failures = 0;
        for endpoint in endpoints {
            let one = client.only(&endpoint).map_err(Exit::error)?;
            match one.call(StatusRequest {}, session.context()).await {
                Ok(answer) => list.push(Status { endpoint, answer }),
                Err(error) => {
                    failures += 1;
                    err(&format!("Failed to get the status of endpoint {endpoint} ({error})\n"));
                }
            }
        }
        session.printer.status(&list)?;
        if failures == 0 { Ok(()) } else { Err(Exit::silent(ERROR)) }
    })
}

fn hash_kv(invocation: &Invocation) -> Outcome {
    let session = Session::open(invocation)?;
    let request = HashKvRequest { revision: invocation.int("rev") };
    block_on(async {
        let endpoints = endpoints(&session).await?;
        let client = session.client().await?;
        let mut list = Vec::new();
        let mut failure = None;
        for endpoint in endpoints {
            let one = client.only(&endpoint).map_err(Exit::error)?;
            match one.call(request, session.context()).await {
                Ok(answer) => list.push(Hash { endpoint, answer }),
                Err(error) => {
                    err(&format!("Failed to get the hash of endpoint {endpoint} ({error})\n"));
                    failure = Some(error);
                }
            }
        }
        session.printer.hash_kv(&list)?;
        failure.map_or(Ok(()), |error| Err(Exit::error(error)))
    })
}
