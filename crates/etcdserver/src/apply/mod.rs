//! The apply lane: what a committed entry does.
//!
//! Invariants:
//! - What an entry does to state follows from the entry and the state before it, and from nothing else: no time,
//!   no chance, no file size, no progress of background work.
//! - Entries are applied in the order of their indexes without a gap; one at or below the consistent index has
//!   been applied before and does nothing.
//! - Every entry moves the consistent index, also one that fails or means nothing, in the same batch as its effects.
//! - A refused request has changed nothing.
//!
//! Reading order: `policy.rs` (a row per request), `request.rs` (requests in place), this file, `kv.rs`, `txn.rs`,
//! `lease.rs`, `alarm.rs`, `auth.rs`, `cluster.rs`, `v2.rs`, `quota.rs`; `reply.rs` (answers); `validate.rs` (what
//! the edge checks before it proposes).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use api::error::ErrorCode;
use api::raftpb::{self, EntryType};
use api::wire::{self, Malformed};
use bytes::Bytes;
use mvcc::schema::Bucket;
use mvcc::{Store, WriteTxn};

use self::alarm::Alarms;
use self::policy::field;
use self::quota::Quota;
use self::reply::{HeaderIds, Reply};
use self::request::Envelope;
use crate::auth::{AuthStore, Caller, Need};
use crate::effect::{Committed, LeaseChange, Outcome};
use crate::lease::{LeaseInfo, Lessor, min_ttl};
use crate::membership::{self, Cluster};
use crate::mutant::Mutant;
use crate::read::Published;
use crate::side::SideChange;
use crate::{Config, Now};

pub mod alarm;
mod auth;
pub mod cluster;
mod kv;
mod lease;
pub mod policy;
pub mod quota;
pub mod reply;
pub mod request;
pub mod txn;
mod v2;
pub mod validate;

/// What apply needs to know of the member's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Shortest time to live of a lease, in seconds.
    pub min_lease_ttl: i64,
    /// Learners that a cluster may have.
    pub max_learners: usize,
    /// Space quota.
    pub quota: Quota,
    /// For passwords that stand in old entries in the clear.
    pub bcrypt_cost: u32,
    /// Whether checkpoints of leases are stored below cluster version 3.6 too.
    pub store_checkpoints: bool,
    /// Whether ranges without values show leases, as before 3.7.
    pub keys_only_lease: bool,
}

impl Settings {
    /// As configured.
    pub fn new(config: &Config) -> Settings {
        Settings {
            min_lease_ttl: min_ttl(config.election_ticks() as u64, config.heartbeat_ms),
            max_learners: config.max_learners,
            quota: Quota::new(config.quota_bytes),
            bcrypt_cost: config.bcrypt_cost,
            store_checkpoints: config.lease_checkpoint_persist,
            keys_only_lease: (config.version.major, config.version.minor) < (3, 7),
        }
    }
}

/// Why apply cannot go on. The process must end: to pass over an entry would make this member differ.
#[derive(Debug)]
pub enum Error {
    /// The store failed.
    Store(mvcc::Error),
    /// An entry means nothing that this version knows.
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record beside the keys cannot be read.
    Record {
        /// Where and why.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Store(error) => error.fmt(f),
            Error::Entry { index, reason } => {
                write!(
                    f,
                    "log entry {index} {reason}; it was written by a newer release, or the log is damaged"
                )
            }
            Error::Record { reason } => {
                write!(
                    f,
                    "the database holds a record that cannot be read: {reason}; restore it from a snapshot, or remove \
                     this member and add it anew"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Store(error) => Some(error),
            Error::Entry { .. } | Error::Record { .. } => None,
        }
    }
}

/// Why one request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// It was refused; nothing has changed.
    Refused(ErrorCode),
    /// The member cannot go on.
    Fatal(Error),
}

impl Failure {
    pub(crate) fn malformed_record(record: &[u8]) -> Failure {
        let head: String = record.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Failure::Fatal(Error::Record { reason: format!("a key's record that begins with {head}") })
    }
}

impl From<ErrorCode> for Failure {
    fn from(error: ErrorCode) -> Failure {
        Failure::Refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Fatal(error)
    }
}

impl From<mvcc::Error> for Failure {
    fn from(error: mvcc::Error) -> Failure {
        match error {
            mvcc::Error::Compacted => Failure::Refused(ErrorCode::Compacted),
            mvcc::Error::FutureRevision => Failure::Refused(ErrorCode::FutureRev),
            error => Failure::Fatal(Error::Store(error)),
        }
    }
}

/// Where the slices of a parsed request come from.
#[derive(Clone, Copy, Debug)]
pub enum Shared<'a> {
    /// From these bytes, which can be shared.
    From(&'a Bytes),
    /// From somewhere else: they are copied.
    Copied,
}

impl Shared<'_> {
    /// The slice as bytes that live on.
    pub fn bytes(self, slice: &[u8]) -> Bytes {
        match self {
            _ if slice.is_empty() => Bytes::new(),
            Shared::From(owner) => owner.slice_ref(slice),
            Shared::Copied => Bytes::copy_from_slice(slice),
        }
    }
}

/// A request of the log that has just been applied, for whoever measures and warns.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// Index of its entry.
    pub index: u64,
    /// What it said.
    pub envelope: Envelope<'a>,
    /// Whether this member proposed it.
    pub is_own: bool,
    /// What came of it.
    pub result: Result<&'a Reply, ErrorCode>,
}

/// One entry on its way through apply.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Index of the entry.
    pub(crate) index: u64,
    /// Its bytes.
    pub(crate) data: &'a Bytes,
    /// What it says.
    pub(crate) envelope: Envelope<'a>,
    /// Whether somebody here may wait for the answer.
    pub(crate) wanted: bool,
}

impl<'a> Context<'a> {
    fn body(self) -> &'a [u8] {
        self.envelope.body
    }

    fn caller(self) -> Caller<'a> {
        self.envelope.caller
    }

    fn source(self) -> Shared<'a> {
        Shared::From(self.data)
    }

    fn malformed(self, error: Malformed) -> Failure {
        let reason = format!("cannot be read (request {}): {error}", self.envelope.field);
        Failure::Fatal(Error::Entry { index: self.index, reason })
    }

    fn unknown(self) -> Failure {
        let reason = format!("holds a request of an unknown kind ({})", self.envelope.field);
        Failure::Fatal(Error::Entry { index: self.index, reason })
    }
}

/// Decodes the request of an entry.
fn decode<M: prost::Message + prost::Name + Default>(at: Context<'_>) -> Result<M, Failure> {
    wire::decode(at.source().bytes(at.body())).map_err(|error| at.malformed(error))
}

/// Keys of a lease that are deleted between two pulses.
const PULSE_KEYS: usize = 1_024;

/// What applying an entry may reach beside the state: what it leaves behind, and the caller's pulse.
pub(crate) struct Turn<'a> {
    out: &'a mut Outcome,
    pulse: &'a mut dyn FnMut(),
}

impl Deref for Turn<'_> {
    type Target = Outcome;

    fn deref(&self) -> &Outcome {
        self.out
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Outcome {
        self.out
    }
}

/// The lane: owner of all replicated state.
#[derive(Debug)]
pub struct Applier {
    settings: Settings,
    store: Store,
    lessor: Lessor,
    auth: AuthStore,
    alarms: Arc<Alarms>,
    cluster: Arc<Cluster>,
    applied: u64,
    term: u64,
    reads_are_local: bool,
}

impl Applier {
    /// Puts the lane together from a restored store. `attachments` are the keys with a lease that the store found,
    /// `cluster` the membership that bootstrap made sure of.
    pub fn new(
        settings: Settings,
        mut store: Store,
        attachments: Vec<(i64, Bytes)>,
        cluster: Cluster,
    ) -> Result<Applier, Error> {
        let mut lessor = Lessor::new(settings.min_lease_ttl);
        for (key, value) in store.side_iter(Bucket::Lease) {
            lessor.restore(value).map_err(|error| unreadable(Bucket::Lease, key, &error.to_string()))?;
        }
        for (id, key) in attachments {
            lessor.attach(&key, id);
        }
        let alarms = Alarms::restore(store.side_iter(Bucket::Alarm).map(|(key, _)| key))
            .map_err(|key| unreadable(Bucket::Alarm, &key, "no alarm"))?;
        let pairs: Vec<_> = [Bucket::Auth, Bucket::AuthUsers, Bucket::AuthRoles]
            .into_iter()
            .flat_map(|bucket| store.side_iter(bucket).map(move |(k, v)| (bucket, k.clone(), v.clone())))
            .collect();
        let (auth, first) = AuthStore::restore(pairs, settings.bcrypt_cost)
            .map_err(|at| unreadable(at.bucket, &at.key, "not what belongs there"))?;
        if let Some(SideChange { bucket, key, value }) = first {
            store.set_side(bucket, key, value);
        }
        let (applied, term) = store.consistent_index();
        Ok(Applier {
            settings,
            store,
            lessor,
            auth,
            alarms: Arc::new(alarms),
            cluster: Arc::new(cluster),
            applied,
            term,
            reads_are_local: false,
        })
    }

    /// Applies committed entries in order. A snapshot among the work is not for here: the driver builds a new lane
    /// from it.
    ///
    /// The time is an argument like everywhere in the core; nothing replicated may follow from it, so nobody reads
    /// it here.
    pub fn apply(&mut self, now: Now, work: Committed, out: &mut Outcome) -> Result<(), Error> {
        self.apply_watched(now, work, out, &mut |_| (), &mut || ())
    }

    /// The same, and `watch` is told of every request right after it was applied. `pulse` is called before every entry
    /// and, every few milliseconds, in the midst of one that takes long, so that the caller can do what cannot wait for
    /// the end of it; what it sees of the state is that before the entry.
    pub fn apply_watched(
        &mut self,
        _now: Now,
        work: Committed,
        out: &mut Outcome,
        watch: &mut dyn FnMut(Applied<'_>),
        pulse: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        assert!(work.snapshot.is_none(), "a snapshot replaces the apply lane, it is not applied by it");
        let mut turn = Turn { out, pulse };
        for entry in work.entries {
            (turn.pulse)();
            self.apply_entry(entry, &mut turn, watch)?;
        }
        out.index = self.applied;
        Ok(())
    }

    fn apply_entry(
        &mut self,
        entry: raftpb::Entry,
        out: &mut Turn<'_>,
        watch: &mut dyn FnMut(Applied<'_>),
    ) -> Result<(), Error> {
        let (index, term) = (entry.index(), entry.term());
        if index <= self.applied {
            return Ok(());
        }
        assert!(index == self.applied + 1, "entry {index} does not follow {}", self.applied);
        self.store.set_consistent_index(index, term);
        match EntryType::try_from(entry.r#type.unwrap_or(0)) {
            Ok(EntryType::EntryNormal) => match entry.data {
                Some(data) if !data.is_empty() => self.normal_entry(index, &data, out, watch)?,
                // A new leader's first entry.
                _ => {}
            },
            Ok(EntryType::EntryConfChange) => {
                self.conf_change(index, entry.data.unwrap_or_default(), out)?;
            }
            _ => {
                let reason = format!("is of unknown type {:?}", entry.r#type);
                return Err(Error::Entry { index, reason });
            }
        }
        self.applied = index;
        self.term = term;
        Ok(())
    }

    fn normal_entry(
        &mut self,
        index: u64,
        data: &Bytes,
        out: &mut Turn<'_>,
        watch: &mut dyn FnMut(Applied<'_>),
    ) -> Result<(), Error> {
        let envelope = Envelope::parse(data)
            .map_err(|error| Error::Entry { index, reason: format!("cannot be read: {error}") })?;
        let wanted = self.is_own(envelope.id);
        let at = Context { index, data, envelope, wanted };
        let result = self.dispatch(at, out);
        match &result {
            Ok(reply) => watch(Applied { index, envelope, is_own: wanted, result: Ok(reply) }),
            Err(Failure::Refused(error)) => {
                watch(Applied { index, envelope, is_own: wanted, result: Err(*error) });
            }
            Err(Failure::Fatal(_)) => {}
        }
        match result {
            Ok(reply) if wanted => out.replies.push((envelope.id, Ok(reply))),
            Err(Failure::Refused(error)) if wanted => out.replies.push((envelope.id, Err(error.into()))),
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(Failure::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    /// Ids of requests carry the low half of their member's id on top, so answers that nobody here can wait for
    /// need not be made.
    fn is_own(&self, request: u64) -> bool {
        request >> 48 == self.cluster.local_id() & 0xffff
    }

    fn dispatch(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        match at.envelope.field {
            field::PUT => self.put(at, out),
            field::TXN => self.txn(at, out),
            field::DELETE_RANGE => self.delete_range(at, out),
            field::RANGE => self.range(at),
            field::COMPACTION => self.compaction(at, out),
            field::LEASE_GRANT => self.lease_grant(at, out),
            field::LEASE_REVOKE => self.lease_revoke(at, out),
            field::LEASE_CHECKPOINT => self.lease_checkpoint(at, out),
            field::ALARM => self.alarm(at, out),
            field::AUTH_ENABLE..=field::ROLE_REVOKE_PERMISSION => self.auth_request(at, out),
            field::CLUSTER_VERSION_SET..=field::DOWNGRADE_INFO_SET => self.cluster_request(at, out),
            field::DOWNGRADE_VERSION_TEST => Ok(Reply::Nothing),
            field::V2 => self.v2_request(at, out).map(|()| Reply::Nothing),
            _ => Err(at.unknown()),
        }
    }

    /// The third gate: all needs of a request are met.
    fn require<'a>(&self, at: Context<'_>, needs: impl IntoIterator<Item = Need<'a>>) -> Result<(), Failure> {
        let state = self.auth.state();
        if !state.enabled() || (at.wanted && Mutant::OwnTrusted.is_on()) {
            return Ok(());
        }
        for need in needs {
            state.check(at.caller(), need, self.lessor.view())?;
        }
        Ok(())
    }

    /// Ends a transaction; its events say which keys hang on which lease from now on.
    fn finish(txn: WriteTxn<'_>, lessor: &mut Lessor, out: &mut Outcome) {
        let Some(batch) = txn.end() else { return };
        for event in &batch.events {
            lessor.attach(&event.key, event.lease);
        }
        out.events.push(batch);
    }

    fn write_side(&mut self, changes: impl IntoIterator<Item = SideChange>) {
        for SideChange { bucket, key, value } in changes {
            self.store.set_side(bucket, key, value);
        }
    }

    /// What readers on all threads see from now on. Call it after [`Applier::apply`], before the answers leave.
    pub fn publish(&self) -> Arc<Published> {
        let mut voters = self.cluster.members().filter(|member| !member.is_learner);
        let sole_voter = voters.next().is_some_and(|member| member.id == self.cluster.local_id())
            && voters.next().is_none();
        Arc::new(Published {
            ids: HeaderIds {
                cluster_id: self.cluster.id(),
                member_id: self.cluster.local_id(),
                raft_term: self.term,
            },
            view: self.store.view(),
            applied: self.applied,
            alarms: Arc::clone(&self.alarms),
            cluster: Arc::clone(&self.cluster),
            auth: Arc::clone(self.auth.state()),
            leases: self.lessor.view().clone(),
            reads_are_local: self.reads_are_local && sole_voter,
            quota: self.settings.quota,
            compacting: self.store.is_compacting(),
            keys_only_lease: self.settings.keys_only_lease,
        })
    }

    /// Whether raft says that reads need no round. It counts from the next [`Applier::publish`] on, and not where an
    /// applied change has added a voter meanwhile.
    pub fn set_reads_are_local(&mut self, local: bool) {
        self.reads_are_local = local;
    }

    /// All leases, for a lease clock that starts.
    pub fn leases(&self) -> Vec<LeaseChange> {
        let granted = |(id, info): (i64, LeaseInfo)| LeaseChange::Granted {
            id,
            ttl: info.ttl,
            remaining: info.remaining,
        };
        self.lessor.view().list(None, usize::MAX).into_iter().map(granted).collect()
    }

    /// Index and term of the last applied entry.
    pub fn applied(&self) -> (u64, u64) {
        (self.applied, self.term)
    }

    /// The membership as applied.
    pub fn cluster(&self) -> &Arc<membership::Cluster> {
        &self.cluster
    }

    /// The store: for freezing, committing and compaction steps between two calls of [`Applier::apply`].
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// See [`Applier::store`].
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

fn unreadable(bucket: Bucket, key: &[u8], reason: &str) -> Error {
    let bucket = String::from_utf8_lossy(bucket.name()).into_owned();
    Error::Record { reason: format!("bucket {bucket}, key {:?}: {reason}", String::from_utf8_lossy(key)) }
}

#[cfg(test)]
pub(crate) mod tests;
