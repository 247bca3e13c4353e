//! Locks and elections as recipes over keys and leases: the owner of a name is the oldest key under its prefix.
//!
//! Invariants:
//! - A session's keys live on its lease; when the lease goes, so does what was held.
//! - Owner is whose key has the lowest create revision; one waits only for the key just before one's own.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, request_op, response_op,
};
use api::mvccpb::event::EventType;
use bytes::Bytes;
use tokio::sync::watch;

use crate::call::Context;
use crate::client::Client;
use crate::error::Error;
use crate::lease::KeepAlive;
use crate::watch::{Watch, WatchOptions, cancel_error};

/// A session's time to live when none is given.
const TTL_SECONDS: i64 = 60;

/// A lease that is kept alive as long as this lives.
pub struct Session {
    client: Client,
    lease: i64,
    gone: watch::Receiver<bool>,
    renewals: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Grants a lease and keeps it alive.
    ///
    /// # Errors
    /// The grant failed.
    pub async fn start(client: &Client, ttl_seconds: i64) -> Result<Session, Error> {
        let ttl_seconds = if ttl_seconds > 0 {
            ttl_seconds
        } else {
            let message = "WithTTL(): TTL should be > 0, preserving current TTL";
            client.log("warn", line!(), message, Vec::new());
            TTL_SECONDS
        };
        let granted = client.call(LeaseGrantRequest { ttl: ttl_seconds, id: 0 }, Context::none()).await?;
        let (report, gone) = watch::channel(false);
        let mut keepalive = KeepAlive::new(client, granted.id);
        let renewals = tokio::spawn(async move {
            while let Ok(Some(_)) = keepalive.next().await {}
            report.send_replace(true);
        });
        Ok(Session { client: client.clone(), lease: granted.id, gone, renewals })
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Waits until the lease is gone.
    pub async fn expired(&self) {
        let mut gone = self.gone.clone();
        // The sender goes only with its task, which is stopped only by whoever owns this.
        let waited = gone.wait_for(|gone| *gone).await;
        if waited.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Revokes the lease.
    ///
    /// # Errors
    /// The call failed; the lease then goes when its time is over.
    pub async fn close(self) -> Result<(), Error> {
        self.renewals.abort();
        self.client.call(LeaseRevokeRequest { id: self.lease }, Context::none()).await.map(|_| ())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

/// A lock by name.
#[derive(Debug)]
pub struct Mutex {
    prefix: Vec<u8>,
    key: Vec<u8>,
    revision: i64,
    header: Option<ResponseHeader>,
}

impl Mutex {
    /// A lock; nothing is taken yet.
    #[must_use]
    pub fn new(name: &[u8]) -> Mutex {
        let prefix = [name, b"/"].concat();
        Mutex { prefix, key: Vec::new(), revision: -1, header: None }
    }

    /// Takes the lock, waiting for those that came before.
    ///
    /// # Errors
    /// A call failed, or the session's lease is gone.
    pub async fn lock(&mut self, session: &Session) -> Result<(), Error> {
        self.key = own_key(&self.prefix, session);
        let answer = enter(&session.client, &self.prefix, &self.key, b"", session.lease).await?;
        self.revision = answer.revision;
        self.header = answer.header;
        if answer.is_owner {
            return Ok(());
        }
        wait_deletes(&session.client, &self.prefix, self.revision - 1).await?;
        // The lease may have gone while waiting, and the key with it.
        let own = range_one(&session.client, &self.key).await?;
        if own.kvs.is_empty() {
            return Err(Error::SessionExpired);
        }
        self.header = own.header;
        Ok(())
    }

    /// The owner's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Revision of the answer that made us the owner.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// The call failed.
    pub async fn unlock(&self, session: &Session) -> Result<(), Error> {
        delete(&session.client, &self.key).await
    }
}

/// A candidate for a name.
#[derive(Debug)]
pub struct Election {
    prefix: Vec<u8>,
    key: Vec<u8>,
    revision: i64,
}

impl Election {
    /// A candidate; nothing is proposed yet.
    #[must_use]
    pub fn new(name: &[u8]) -> Election {
        Election { prefix: [name, b"/"].concat(), key: Vec::new(), revision: 0 }
    }

    /// Proposes a value and waits until it is elected.
    ///
    /// # Errors
    /// A call failed.
    pub async fn campaign(&mut self, session: &Session, value: &[u8]) -> Result<(), Error> {
        self.key = own_key(&self.prefix, session);
        let answer = enter(&session.client, &self.prefix, &self.key, value, session.lease).await?;
        self.revision = answer.revision;
        if answer.is_owner {
            return Ok(());
        }
        wait_deletes(&session.client, &self.prefix, self.revision - 1).await
    }

    /// The candidate's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Steps back, if the key is still the one that was elected.
    ///
    /// # Errors
    /// The call failed.
    pub async fn resign(&self, session: &Session) -> Result<(), Error> {
        let same = compare_create(&self.key, self.revision);
        let delete = DeleteRangeRequest { key: Bytes::copy_from_slice(&self.key), ..Default::default() };
        let delete = RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) };
        let txn = TxnRequest { compare: vec![same], success: vec![delete], failure: Vec::new() };
        session.client.call(txn, Context::none()).await.map(|_| ())
    }
}

/// Follows the leaders of an election; each is given to `seen` as the answer of a read. Goes on until a call fails.
///
/// # Errors
/// What ended it.
pub async fn observe(
    client: &Client,
    name: &[u8],
    mut seen: impl FnMut(RangeResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    let prefix = [name, b"/"].concat();
    loop {
        let current = client.call(oldest(&prefix), Context::none()).await?;
        let from = current.header.as_ref().map_or(0, |header| header.revision);
        let (key, from) = match current.kvs.first() {
            Some(kv) => {
                let key = kv.key.clone();
                let from = kv.mod_revision.max(from);
                seen(RangeResponse { header: current.header, kvs: current.kvs, more: false, count: 0 })?;
                (key, from)
            }
            None => {
                let Some(kv) = first_put(client, &prefix, from).await? else { continue };
                continue_with(&mut seen, &kv)?;
                (kv.1.key, kv.1.mod_revision)
            }
        };
        follow(client, &key, from, &mut seen).await?;
    }
}

type Put = (Option<ResponseHeader>, api::mvccpb::KeyValue);

fn continue_with(seen: &mut impl FnMut(RangeResponse) -> Result<(), Error>, put: &Put) -> Result<(), Error> {
    seen(RangeResponse { header: put.0, kvs: vec![put.1.clone()], more: false, count: 0 })
}

/// Waits for a key under the prefix.
async fn first_put(client: &Client, prefix: &[u8], from: i64) -> Result<Option<Put>, Error> {
    let (key, range_end) = crate::prefix_range(prefix);
    let mut watch = watch_from(client, &key, &range_end, from + 1);
    while let Some(answer) = watch.next().await? {
        if answer.canceled {
            return Err(cancel_error(&answer));
        }
        let put = answer.events.into_iter().find(|event| event.r#type == EventType::Put as i32);
        if let Some(kv) = put.and_then(|event| event.kv) {
            return Ok(Some((answer.header, kv)));
        }
    }
    Ok(None)
}

/// Reports a leader's new values until its key is deleted.
async fn follow(
    client: &Client,
    key: &[u8],
    from: i64,
    seen: &mut impl FnMut(RangeResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut watch = watch_from(client, key, b"", from + 1);
    while let Some(answer) = watch.next().await? {
        if answer.canceled {
            return Err(cancel_error(&answer));
        }
        for event in answer.events {
            if event.r#type == EventType::Delete as i32 {
                return Ok(());
            }
            if let Some(kv) = event.kv {
                continue_with(seen, &(answer.header, kv))?;
            }
        }
    }
    Ok(())
}

fn watch_from(client: &Client, key: &[u8], range_end: &[u8], start_revision: i64) -> Watch {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::copy_from_slice(range_end),
        start_revision,
        ..Default::default()
    };
    Watch::new(client, WatchOptions { create })
}

fn own_key(prefix: &[u8], session: &Session) -> Vec<u8> {
    [prefix, format!("{:x}", session.lease).as_bytes()].concat()
}

struct Entered {
    revision: i64,
    is_owner: bool,
    header: Option<ResponseHeader>,
}

/// Puts our key if it is not there yet, and looks who is the oldest.
async fn enter(client: &Client, prefix: &[u8], key: &[u8], value: &[u8], lease: i64) -> Result<Entered, Error> {
    let put = PutRequest {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        lease,
        ..Default::default()
    };
    let own = RangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let owner = op(request_op::Request::RequestRange(oldest(prefix)));
    let txn = TxnRequest {
        compare: vec![compare_create(key, 0)],
        success: vec![op(request_op::Request::RequestPut(put)), owner.clone()],
        failure: vec![op(request_op::Request::RequestRange(own)), owner],
    };
    let answer = client.call(txn, Context::none()).await?;
    let header = answer.header;
    let revision = if answer.succeeded {
        header.as_ref().map_or(0, |header| header.revision)
    } else {
        ranged(&answer, 0).and_then(|range| range.kvs.first()).map_or(0, |kv| kv.create_revision)
    };
    let oldest = ranged(&answer, 1).and_then(|range| range.kvs.first());
    let is_owner = oldest.is_none_or(|kv| kv.create_revision == revision);
    Ok(Entered { revision, is_owner, header })
}

fn ranged(answer: &TxnResponse, at: usize) -> Option<&RangeResponse> {
    match answer.responses.get(at)?.response.as_ref()? {
        response_op::Response::ResponseRange(range) => Some(range),
        _ => None,
    }
}

fn compare_create(key: &[u8], revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// Reads the key with the lowest create revision under a prefix.
fn oldest(prefix: &[u8]) -> RangeRequest {
    let (key, range_end) = crate::prefix_range(prefix);
    RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..Default::default()
    }
}

async fn range_one(client: &Client, key: &[u8]) -> Result<RangeResponse, Error> {
    client.call(RangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() }, Context::none()).await
}

async fn delete(client: &Client, key: &[u8]) -> Result<(), Error> {
    let request = DeleteRangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() };
    client.call(request, Context::none()).await.map(|_| ())
}

/// Waits until every key under the prefix that was created up to `up_to` is gone.
async fn wait_deletes(client: &Client, prefix: &[u8], up_to: i64) -> Result<(), Error> {
    let (key, range_end) = crate::prefix_range(prefix);
    loop {
        let request = RangeRequest {
            key: key.clone().into(),
            range_end: range_end.clone().into(),
            limit: 1,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: up_to,
            ..Default::default()
        };
        let answer = client.call(request, Context::none()).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let Some(before) = answer.kvs.first() else { return Ok(()) };
        let mut watch = watch_from(client, &before.key, b"", revision + 1);
        'watching: loop {
            let Some(answer) = watch.next().await? else { break };
            if answer.canceled {
                return Err(cancel_error(&answer));
            }
            for event in answer.events {
                if event.r#type == EventType::Delete as i32 {
                    break 'watching;
                }
            }
        }
    }
}
