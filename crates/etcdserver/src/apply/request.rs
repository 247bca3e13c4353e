//! Requests as they stand in entries and in received messages: parsed in place, nothing copied.
//!
//! Reading rules are protobuf's as Go follows them: of a repeated scalar the last one counts, messages given twice
//! are merged, a known field with a wire type it cannot have is an unknown one, and unknown fields are passed over.

use api::etcdserverpb as pb;
use api::schema;
use api::wire::{self, Fields, Malformed, Value};

use super::policy::field;
use crate::auth::Caller;

/// Transactions inside transactions beyond this are refused: the walk below is recursive. Requests of clients are
/// limited to far less by the number of operations.
pub const NESTING_MAX: usize = 1_000;

/// What a log entry says, still encoded: who, which request, its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Id of the request; who waits knows it.
    pub id: u64,
    /// Who asked, by name and auth revision.
    pub caller: Caller<'a>,
    /// Field of `InternalRaftRequest`; 0 when there was none.
    pub field: u32,
    /// The request.
    pub body: &'a [u8],
    /// Whether the entry is itself a v2 request, without `InternalRaftRequest` around it.
    pub bare_v2: bool,
}

impl<'a> Envelope<'a> {
    /// Reads the data of a normal entry that is not empty.
    ///
    /// Entries up to 3.5 may be bare v2 requests. Their field 2 is a method in words, which never reads as the
    /// message that field 2 of an `InternalRaftRequest` is.
    pub fn parse(data: &'a [u8]) -> Result<Envelope<'a>, Malformed> {
        let mut envelope = Envelope::default();
        let mut id = 0;
        for entry_field in Fields::new(data) {
            let entry_field = entry_field?;
            match (entry_field.number, entry_field.value) {
                (field::ID, Value::Varint(value)) => id = value,
                (field::HEADER, Value::Bytes(header)) => envelope.parse_header(header)?,
                (field::V2, Value::Bytes(body)) if !is_v2_message(body) => {
                    return Ok(Envelope {
                        id,
                        field: field::V2,
                        body: data,
                        bare_v2: true,
                        ..Envelope::default()
                    });
                }
                (number, Value::Bytes(body)) => {
                    envelope.field = number;
                    envelope.body = body;
                }
                _ => {}
            }
        }
        if id != 0 {
            envelope.id = id;
        }
        Ok(envelope)
    }

    fn parse_header(&mut self, header: &'a [u8]) -> Result<(), Malformed> {
        for header_field in Fields::new(header) {
            let header_field = header_field?;
            match (header_field.number, header_field.value) {
                (1, Value::Varint(id)) => self.id = id,
                (2, Value::Bytes(name)) => {
                    self.caller.name = std::str::from_utf8(name).map_err(|_| Malformed::Utf8)?;
                }
                (3, Value::Varint(revision)) => self.caller.revision = revision,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether field 2 holds a v2 request. A method does not read as one, strictly taken: `POST` would, were a field of
/// the wrong wire type passed over.
fn is_v2_message(body: &[u8]) -> bool {
    wire::check(schema::of::<pb::Request>(), body).is_ok_and(|checked| !checked.odd)
}

/// `RangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range<'a> {
    /// The key, or the first one.
    pub key: &'a [u8],
    /// Empty for one key, one zero byte for no end.
    pub end: &'a [u8],
    /// Most keys to return; 0 and less for all.
    pub limit: i64,
    /// At which revision; 0 for the latest.
    pub revision: i64,
    /// Number of the sort order.
    pub order: i32,
    /// Number of the sort target.
    pub target: i32,
    /// Whether the local state will do.
    pub serializable: bool,
    /// Without values.
    pub keys_only: bool,
    /// Without keys.
    pub count_only: bool,
    /// Filters; 0 for none.
    pub min_mod: i64,
    /// See `min_mod`.
    pub max_mod: i64,
    /// See `min_mod`.
    pub min_create: i64,
    /// See `min_mod`.
    pub max_create: i64,
}

impl<'a> Range<'a> {
    /// Reads an encoded request.
    pub fn parse(bytes: &'a [u8]) -> Result<Range<'a>, Malformed> {
        let mut range = Range::default();
        range.merge(bytes)?;
        Ok(range)
    }

    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        for f in Fields::new(bytes) {
            let f = f?;
            match (f.number, f.value) {
                (1, Value::Bytes(key)) => self.key = key,
                (2, Value::Bytes(end)) => self.end = end,
                (3, Value::Varint(v)) => self.limit = v.cast_signed(),
                (4, Value::Varint(v)) => self.revision = v.cast_signed(),
                (5, Value::Varint(v)) => self.order = enum_number(v),
                (6, Value::Varint(v)) => self.target = enum_number(v),
                (7, Value::Varint(v)) => self.serializable = v != 0,
                (8, Value::Varint(v)) => self.keys_only = v != 0,
                (9, Value::Varint(v)) => self.count_only = v != 0,
                (10, Value::Varint(v)) => self.min_mod = v.cast_signed(),
                (11, Value::Varint(v)) => self.max_mod = v.cast_signed(),
                (12, Value::Varint(v)) => self.min_create = v.cast_signed(),
                (13, Value::Varint(v)) => self.max_create = v.cast_signed(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether one of the four filters is set.
    pub fn is_filtered(&self) -> bool {
        self.min_mod != 0 || self.max_mod != 0 || self.min_create != 0 || self.max_create != 0
    }

    /// Whether the order asked for is that of the keys.
    pub fn is_in_key_order(&self) -> bool {
        self.order == 0 || (self.target == 0 && self.order == 1)
    }
}

/// An enum's number is the low half of what was sent, as in every protobuf reader.
fn enum_number(value: u64) -> i32 {
    (value as u32).cast_signed()
}

/// `PutRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease, 0 for none.
    pub lease: i64,
    /// Return the record before.
    pub prev_kv: bool,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
}

impl<'a> Put<'a> {
    /// Reads an encoded request.
    pub fn parse(bytes: &'a [u8]) -> Result<Put<'a>, Malformed> {
        let mut put = Put::default();
        put.merge(bytes)?;
        Ok(put)
    }

    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        for f in Fields::new(bytes) {
            let f = f?;
            match (f.number, f.value) {
                (1, Value::Bytes(key)) => self.key = key,
                (2, Value::Bytes(value)) => self.value = value,
                (3, Value::Varint(v)) => self.lease = v.cast_signed(),
                (4, Value::Varint(v)) => self.prev_kv = v != 0,
                (5, Value::Varint(v)) => self.ignore_value = v != 0,
                (6, Value::Varint(v)) => self.ignore_lease = v != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the put needs the record before.
    pub fn needs_previous(&self) -> bool {
        self.ignore_value || self.ignore_lease
    }
}

/// `DeleteRangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteRange<'a> {
    /// The key, or the first one.
    pub key: &'a [u8],
    /// Empty for one key, one zero byte for no end.
    pub end: &'a [u8],
    /// Return the records before.
    pub prev_kv: bool,
}

impl<'a> DeleteRange<'a> {
    /// Reads an encoded request.
    pub fn parse(bytes: &'a [u8]) -> Result<DeleteRange<'a>, Malformed> {
        let mut delete = DeleteRange::default();
        delete.merge(bytes)?;
        Ok(delete)
    }

    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        for f in Fields::new(bytes) {
            let f = f?;
            match (f.number, f.value) {
                (1, Value::Bytes(key)) => self.key = key,
                (2, Value::Bytes(end)) => self.end = end,
                (3, Value::Varint(v)) => self.prev_kv = v != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a comparison compares with: the arm that was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operand<'a> {
    /// None: counts as 0, or as no bytes.
    #[default]
    Unset,
    /// `version`.
    Version(i64),
    /// `create_revision`.
    Create(i64),
    /// `mod_revision`.
    Mod(i64),
    /// `value`.
    Value(&'a [u8]),
    /// `lease`.
    Lease(i64),
}

/// `Compare`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compare<'a> {
    /// Number of the relation: equal, greater, less, not equal.
    pub result: i32,
    /// Number of what is compared: version, create, mod, value, lease.
    pub target: i32,
    /// The key, or the first one.
    pub key: &'a [u8],
    /// Empty for one key, one zero byte for no end.
    pub end: &'a [u8],
    /// The other side.
    pub operand: Operand<'a>,
}

impl<'a> Compare<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Compare<'a>, Malformed> {
        let mut compare = Compare::default();
        for f in Fields::new(bytes) {
            let f = f?;
            match (f.number, f.value) {
                (1, Value::Varint(v)) => compare.result = enum_number(v),
                (2, Value::Varint(v)) => compare.target = enum_number(v),
                (3, Value::Bytes(key)) => compare.key = key,
                (4, Value::Varint(v)) => compare.operand = Operand::Version(v.cast_signed()),
                (5, Value::Varint(v)) => compare.operand = Operand::Create(v.cast_signed()),
                (6, Value::Varint(v)) => compare.operand = Operand::Mod(v.cast_signed()),
                (7, Value::Bytes(v)) => compare.operand = Operand::Value(v),
                (8, Value::Varint(v)) => compare.operand = Operand::Lease(v.cast_signed()),
                (64, Value::Bytes(end)) => compare.end = end,
                _ => {}
            }
        }
        Ok(compare)
    }
}

/// `RequestOp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Op<'a> {
    /// No arm set.
    #[default]
    Empty,
    /// `request_range`.
    Range(Range<'a>),
    /// `request_put`.
    Put(Put<'a>),
    /// `request_delete_range`.
    DeleteRange(DeleteRange<'a>),
    /// `request_txn`.
    Txn(Txn<'a>),
}

impl<'a> Op<'a> {
    fn parse(bytes: &'a [u8], depth: usize) -> Result<Op<'a>, Malformed> {
        let mut op = Op::Empty;
        for f in Fields::new(bytes) {
            let f = f?;
            // The same arm twice is merged, another one replaces it.
            match (f.number, f.value, &mut op) {
                (1, Value::Bytes(body), Op::Range(range)) => range.merge(body)?,
                (2, Value::Bytes(body), Op::Put(put)) => put.merge(body)?,
                (3, Value::Bytes(body), Op::DeleteRange(delete)) => delete.merge(body)?,
                (4, Value::Bytes(body), Op::Txn(txn)) => txn.merge(body, depth)?,
                (1, Value::Bytes(body), _) => op = Op::Range(Range::parse(body)?),
                (2, Value::Bytes(body), _) => op = Op::Put(Put::parse(body)?),
                (3, Value::Bytes(body), _) => op = Op::DeleteRange(DeleteRange::parse(body)?),
                (4, Value::Bytes(body), _) => {
                    let mut txn = Txn::default();
                    txn.merge(body, depth)?;
                    op = Op::Txn(txn);
                }
                _ => {}
            }
        }
        Ok(op)
    }
}

/// `TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn<'a> {
    /// All must hold for `success`.
    pub compares: Vec<Compare<'a>>,
    /// Operations when all comparisons hold.
    pub success: Vec<Op<'a>>,
    /// Operations otherwise.
    pub failure: Vec<Op<'a>>,
}

impl<'a> Txn<'a> {
    /// Reads an encoded request.
    pub fn parse(bytes: &'a [u8]) -> Result<Txn<'a>, Malformed> {
        let mut txn = Txn::default();
        txn.merge(bytes, NESTING_MAX)?;
        Ok(txn)
    }

    fn merge(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Wire)?;
        for f in Fields::new(bytes) {
            let f = f?;
            match (f.number, f.value) {
                (1, Value::Bytes(body)) => self.compares.push(Compare::parse(body)?),
                (2, Value::Bytes(body)) => self.success.push(Op::parse(body, depth)?),
                (3, Value::Bytes(body)) => self.failure.push(Op::parse(body, depth)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// The operations of the branch that the comparisons chose.
    pub fn branch(&self, succeeded: bool) -> &[Op<'a>] {
        if succeeded { &self.success } else { &self.failure }
    }

    /// Whether both top branches hold ranges and nothing else. A nested transaction makes it a write.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether the local state will do: read-only, and every range says so. True without operations.
    pub fn is_serializable(&self) -> bool {
        self.success
            .iter()
            .chain(&self.failure)
            .all(|op| matches!(op, Op::Range(range) if range.serializable))
    }
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
