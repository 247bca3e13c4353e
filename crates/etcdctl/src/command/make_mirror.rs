//! `make-mirror`: copies keys at one revision, then follows their changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, request_op,
};
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use client::{Client, Config, Context, Error, TlsSettings, Watch, WatchOptions};
use etcdutl::cli::{Command, Exit, Flag, Invocation, Kind, Outcome, out};

use crate::global::{Session, block_on, connect, credentials, file};

pub(super) static COMMAND: Command = Command {
    name: "make-mirror",
    usage: "[options] <destination>",
    short: "Copies keys to another cluster and keeps the copy up to date",
    group: super::UTILITY,
    flags: &[
        Flag::text("dest-cacert", "", "file of the certificates that the destination's is checked against"),
        Flag::text("dest-cert", "", "file of the client's certificate for the destination"),
        Flag::new(Kind::Bool, "dest-insecure-transport", "true", "connect to the destination without TLS"),
        Flag::text("dest-key", "", "file of the key to that certificate"),
        Flag::text("dest-password", "", "password at the destination (then --dest-user is the name alone)"),
        Flag::text("dest-prefix", "", "prefix at the destination in place of --prefix"),
        Flag::text("dest-user", "", "name[:password] at the destination"),
        Flag::new(Kind::Uint, "max-txn-ops", "128", "most changes in one transaction at the destination"),
        Flag::switch("no-dest-prefix", "take the prefix off at the destination"),
        Flag::text("prefix", "", "prefix of the keys to copy"),
        Flag::int("rev", "revision to begin with"),
    ],
    run: Some(run),
    ..Command::EMPTY
};

/// Keys read at once.
const PAGE: i64 = 1000;
/// How often the number of copied keys is printed.
const REPORT: Duration = Duration::from_secs(30);

struct Mirror {
    source: Client,
    destination: Client,
    prefix: Vec<u8>,
    new_prefix: Vec<u8>,
    ops_max: usize,
    copied: Arc<AtomicU64>,
}

fn run(invocation: &Invocation) -> Outcome {
    let [destination] = &invocation.arguments[..] else {
        return Err(Exit::arguments("make-mirror takes one destination argument"));
    };
    let (new_prefix, no_prefix) = (invocation.text("dest-prefix"), invocation.switch("no-dest-prefix"));
    if no_prefix && !new_prefix.is_empty() {
        let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
        return Err(Exit::arguments(text));
    }
    let prefix = invocation.text("prefix").as_bytes().to_vec();
    let new_prefix = match (no_prefix, new_prefix) {
        (true, _) => Vec::new(),
        (false, "") => prefix.clone(),
        (false, new) => new.as_bytes().to_vec(),
    };
    let ops_max = usize::try_from(invocation.uint("max-txn-ops")).unwrap_or(usize::MAX).max(1);
    let session = Session::open(invocation)?;
    let config = destination_config(invocation, &session, String::from_utf8_lossy(destination).into_owned())?;
    block_on(async {
        let copied = Arc::new(AtomicU64::new(0));
        let mirror = Mirror {
            source: session.client().await?,
            destination: connect(config).await?,
            prefix,
            new_prefix,
            ops_max,
            copied: Arc::clone(&copied),
        };
        tokio::select! {
            result = mirror.run(invocation.int("rev")) => result.map_err(Exit::error),
            outcome = report(&copied) => outcome,
        }
    })
}

async fn report(copied: &AtomicU64) -> Outcome {
    loop {
        tokio::time::sleep(REPORT).await;
        out(format!("{}\n", copied.load(Ordering::Relaxed)))?;
    }
}

fn destination_config(invocation: &Invocation, session: &Session, endpoint: String) -> Result<Config, Exit> {
    let settings = TlsSettings {
        ca: file(invocation, "dest-cacert")?,
        cert: file(invocation, "dest-cert")?,
        key: file(invocation, "dest-key")?,
        ..TlsSettings::default()
    };
    let has_files = settings.ca.is_some() || settings.cert.is_some() || settings.key.is_some();
    let wanted = has_files || !invocation.switch("dest-insecure-transport");
    Ok(Config {
        endpoints: vec![endpoint],
        tls: wanted.then_some(settings),
        credentials: credentials(invocation, "dest-user", "dest-password", "", "Destination Password: ")?,
        ..session.config.clone()
    })
}

impl Mirror {
    fn renamed(&self, key: &[u8]) -> Vec<u8> {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        [&self.new_prefix[..], rest].concat()
    }

    /// Goes on until something fails.
    async fn run(&self, revision: i64) -> Result<(), Error> {
        let from = if revision > 0 { revision } else { self.copy_all().await? + 1 };
        let (key, range_end) = client::prefix_range(&self.prefix);
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: from,
            ..Default::default()
        };
        let mut watch = Watch::new(&self.source, WatchOptions { create });
        while let Some(answer) = watch.next().await? {
            if answer.canceled {
                return Err(Error::of_canceled(&answer));
            }
            self.follow(answer.events).await?;
        }
        Ok(())
    }

    /// Copies everything as it is at one revision; gives that revision.
    async fn copy_all(&self) -> Result<i64, Error> {
        let (mut key, range_end) = client::prefix_range(&self.prefix);
        let mut revision = 0;
        loop {
            let request = RangeRequest {
                key: key.clone().into(),
                range_end: range_end.clone().into(),
                limit: PAGE,
                revision,
                sort_order: SortOrder::None as i32,
                sort_target: SortTarget::Key as i32,
                ..Default::default()
            };
            let answer = self.source.call(request, Context::none()).await?;
            if revision == 0 {
                revision = answer.header.map_or(0, |header| header.revision);
            }
            for kv in &answer.kvs {
                let key = self.renamed(&kv.key).into();
                let put = PutRequest { key, value: kv.value.clone(), ..Default::default() };
                self.destination.call(put, Context::none()).await?;
                self.copied.fetch_add(1, Ordering::Relaxed);
            }
            match answer.kvs.last() {
                Some(last) if answer.more => key = [&last.key[..], &[0]].concat(),
                _ => return Ok(revision),
            }
        }
    }

    /// Repeats changes; those of one revision stay in one transaction as far as its limit allows.
    async fn follow(&self, events: Vec<Event>) -> Result<(), Error> {
        let mut ops: Vec<RequestOp> = Vec::new();
        let mut revision = 0;
        for event in events {
            let kv = event.kv.unwrap_or_default();
            if !ops.is_empty() && (kv.mod_revision != revision || ops.len() >= self.ops_max) {
                self.send(std::mem::take(&mut ops)).await?;
            }
            revision = kv.mod_revision;
            let key = self.renamed(&kv.key).into();
            let request = if event.r#type == EventType::Delete as i32 {
                request_op::Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
            } else {
                let put = PutRequest { key, value: kv.value, ..Default::default() };
                request_op::Request::RequestPut(put)
            };
            ops.push(RequestOp { request: Some(request) });
        }
        if ops.is_empty() { Ok(()) } else { self.send(ops).await }
    }

    async fn send(&self, success: Vec<RequestOp>) -> Result<(), Error> {
        let count = success.len() as u64;
        let request = TxnRequest { success, ..Default::default() };
        self.destination.call(request, Context::none()).await?;
        self.copied.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}
