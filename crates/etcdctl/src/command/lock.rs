//! `lock`: hold a lock.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use api::etcdserverpb::RangeRequest;
use client::{Context, Mutex, Session as LeaseSession};
use etcdutl::cli::{Command, ERROR, Exit, Flag, Invocation, Kind, Outcome, err};
use etcdutl::text::quote;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "lock",
    usage: "<lockname> [exec-command arg1 arg2 ...]",
    short: "Takes a lock by name",
    long: "Takes a lock by name and prints its key, or runs a command while it is held.

The command finds the key in ETCD_LOCK_KEY and the revision in ETCD_LOCK_REV. Write -- before a command with flags.",
    group: super::CONCURRENCY,
    flags: &[Flag::new(Kind::Int, "ttl", "10", "seconds after which the lock of a dead process is free")],
    run: Some(run),
    ..Command::EMPTY
};

/// SIGINT and SIGTERM, which give back what is held.
pub(super) struct Signals(Signal, Signal);

impl Signals {
    pub(super) fn new() -> Result<Signals, Exit> {
        let listen = |kind| signal(kind).map_err(|error| Exit::error(format!("listen for signals: {error}")));
        Ok(Signals(listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))
    }

    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// How a process ended, in Go's words.
pub(super) fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => format!("signal: {number}"),
        (None, None) => status.to_string(),
    }
}

/// Why a process does not start, in Go's words.
pub(super) fn start_text(program: &[u8], error: &std::io::Error) -> String {
    let program = quote(program);
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("exec: {program}: executable file not found in $PATH"),
        _ => format!("exec: {program}: {error}"),
    }
}

fn run(invocation: &Invocation) -> Outcome {
    let Some((name, command)) = invocation.arguments.split_first() else {
        return Err(Exit::arguments("lock takes a lock name argument and an optional command to execute"));
    };
    let session = Session::open(invocation)?;
    block_on(async {
        let mut signals = Signals::new()?;
        let client = session.client().await?;
        let lease = LeaseSession::start(&client, invocation.int("ttl")).await.map_err(Exit::error)?;
        let mut mutex = Mutex::new(name);
        tokio::select! {
            locked = mutex.lock(&lease) => locked.map_err(Exit::error)?,
            () = signals.any() => {
                // Given up while waiting: the key goes with the lease.
                lease.close().await.map_err(Exit::error)?;
                return Err(Exit::error("context canceled"));
            }
        }
        if command.is_empty() {
            let request = RangeRequest { key: mutex.key().to_vec().into(), ..Default::default() };
            let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
            if answer.kvs.is_empty() {
                return Err(Exit::error("lock lost on init"));
            }
            session.printer.get(&answer)?;
            tokio::select! {
                () = signals.any() => {
                    mutex.unlock(&lease).await.map_err(Exit::error)?;
                    return lease.close().await.map_err(Exit::error);
                }
                () = lease.expired() => return Err(Exit::error("session expired")),
            }
        }
        let outcome = execute(command, &mutex).await;
        mutex.unlock(&lease).await.map_err(Exit::error)?;
        lease.close().await.map_err(Exit::error)?;
        outcome
    })
}

/// Runs the command; its exit code becomes ours.
async fn execute(command: &[Vec<u8>], mutex: &Mutex) -> Outcome {
    let status = tokio::process::Command::new(OsStr::from_bytes(&command[0]))
        .args(command[1..].iter().map(|argument| OsStr::from_bytes(argument)))
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(mutex.key()))
        .env("ETCD_LOCK_REV", mutex.revision().to_string())
        .status()
        .await
        .map_err(|error| Exit::error(start_text(&command[0], &error)))?;
    if status.success() {
        return Ok(());
    }
    err(&format!("Error: {}\n", status_text(status)));
    Err(Exit::silent(status.code().unwrap_or(ERROR)))
}
