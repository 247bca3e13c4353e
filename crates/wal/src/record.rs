//! Records: what stands in a frame, and what stands in a record.
//!
//! Written by hand rather than by the generated types: Go writes some zeros that those would leave out, the log is
//! compared byte for byte, and an entry's bytes are never copied just to be wrapped.

use api::raftpb::{ConfState, HardState};
use api::walpb;
use api::wire::{self, Fields, Malformed, Value};

/// Type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ids of member and cluster (`etcdserverpb.Metadata`).
    Metadata,
    /// A log entry (`raftpb.Entry`).
    Entry,
    /// Term, vote and commit (`raftpb.HardState`).
    State,
    /// Start of a segment: the checksum so far.
    Crc,
    /// A snapshot was taken or received (`walpb.Snapshot`).
    Snapshot,
}

impl Kind {
    /// The number on disk.
    pub const fn number(self) -> u8 {
        match self {
            Kind::Metadata => 1,
            Kind::Entry => 2,
            Kind::State => 3,
            Kind::Crc => 4,
            Kind::Snapshot => 5,
        }
    }

    /// The kind with this number.
    pub const fn of(number: i64) -> Option<Kind> {
        match number {
            1 => Some(Kind::Metadata),
            2 => Some(Kind::Entry),
            3 => Some(Kind::State),
            4 => Some(Kind::Crc),
            5 => Some(Kind::Snapshot),
            _ => None,
        }
    }
}

/// A record as it stands in a frame: nothing checked but its form. A record left out of the file reads as zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Number of its kind.
    pub kind: i64,
    /// Checksum it carries.
    pub crc: u32,
    /// Content.
    pub data: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Reads the content of a frame.
    ///
    /// # Errors
    /// It is no `walpb.Record`.
    pub fn parse(bytes: &'a [u8]) -> Result<RawRecord<'a>, Malformed> {
        let mut record = RawRecord::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Varint(kind)) => record.kind = kind.cast_signed(),
                (2, Value::Varint(crc)) => record.crc = crc as u32,
                (3, Value::Bytes(data)) => record.data = data,
                (1..=3, _) => return Err(Malformed::Wire),
                _ => {}
            }
        }
        Ok(record)
    }
}

/// A record whose checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The running checksum after it.
    pub crc: u32,
    /// Content.
    pub data: &'a [u8],
}

/// Term, vote and commit as Go writes them: zeros included.
pub(crate) fn put_hard_state(state: &HardState, out: &mut Vec<u8>) {
    put_always(1, state.term.unwrap_or(0), out);
    put_always(2, state.vote.unwrap_or(0), out);
    put_always(3, state.commit.unwrap_or(0), out);
}

/// A snapshot record: index and term in any case, the configuration where there is one.
pub(crate) fn put_snapshot(snapshot: &walpb::Snapshot, out: &mut Vec<u8>) {
    put_always(1, snapshot.index.unwrap_or(0), out);
    put_always(2, snapshot.term.unwrap_or(0), out);
    if let Some(conf_state) = &snapshot.conf_state {
        let mut inner = Vec::new();
        put_conf_state(conf_state, &mut inner);
        wire::put_message(3, &inner, out);
    }
}

/// A configuration: lists unpacked, the flag where it is set or cleared. (Go up to 3.6 always writes it, 3.7 leaves it
/// out of what `snapshot restore` makes.)
pub(crate) fn put_conf_state(state: &ConfState, out: &mut Vec<u8>) {
    let lists = [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next];
    for (number, list) in (1..).zip(lists) {
        for &id in list {
            put_always(number, id, out);
        }
    }
    if let Some(flag) = state.auto_leave {
        put_always(5, u64::from(flag), out);
    }
}

/// A number field, zero or not.
pub(crate) fn put_always(number: u32, value: u64, out: &mut Vec<u8>) {
    wire::put_varint(u64::from(number) << 3, out);
    wire::put_varint(value, out);
}

/// Whether nothing was decided yet: such a state is not written.
pub(crate) fn is_empty(state: &HardState) -> bool {
    [state.term, state.vote, state.commit].iter().all(|field| field.unwrap_or(0) == 0)
}

/// Whether two states differ in what must never be forgotten.
pub(crate) fn differs_in_promise(one: &HardState, other: &HardState) -> bool {
    one.term.unwrap_or(0) != other.term.unwrap_or(0) || one.vote.unwrap_or(0) != other.vote.unwrap_or(0)
}
