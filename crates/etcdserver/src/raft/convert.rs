//! Between etcd's raft messages and those of the raft crate. Nothing of the crate's types leaves this module's
//! directory.
//!
//! The two schemas agree on everything that is sent, with these exceptions:
//!
//! - etcd numbers conf-change types AddNode 0, RemoveNode 1, UpdateNode 2, AddLearnerNode 3; the crate takes 2 for
//!   AddLearnerNode and drops 3. So etcd's bytes never reach the crate as `data` of a conf-change entry: going in
//!   they move to `context`, which the crate does not look at, and coming out they move back.
//! - `context` of entries, `request_snapshot`, `priority` and `commit_term` mean nothing to etcd, or something
//!   else: they are not set going out, and ignored coming in.
//! - The crate panics on numbers it does not know, on a read request or proposal without entry, and counts an
//!   answer that claims to come from this member. Such messages are dropped before they get there.

use std::fmt;

use api::raftpb;
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use raft::eraftpb;

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A type that the crate does not know, or that never travels between members.
    Type(i32),
    /// An entry of a type that etcd never proposes.
    EntryType(i32),
    /// It claims to come from this member or from nobody.
    From(u64),
    /// It is meant for another member.
    To(u64),
    /// A message that needs a term has none.
    NoTerm,
    /// Entries are missing, out of order or not one after the other.
    Entries,
    /// A snapshot message without a snapshot.
    NoSnapshot,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dropped::Type(n) => write!(f, "message type {n} is not one that members send"),
            Dropped::EntryType(n) => write!(f, "entry type {n} is not used"),
            Dropped::From(id) => write!(f, "sender {id:x} is not a peer"),
            Dropped::To(id) => write!(f, "it is meant for member {id:x}"),
            Dropped::NoTerm => f.write_str("it has no term"),
            Dropped::Entries => f.write_str("its entries do not follow one another"),
            Dropped::NoSnapshot => f.write_str("it carries no snapshot"),
        }
    }
}

/// A peer's message for the crate, or why it must not get there. `local` is this member.
pub(crate) fn message_in(local: u64, m: raftpb::Message) -> Result<eraftpb::Message, Dropped> {
    let msg_type = message_type_in(m.r#type.unwrap_or(0))?;
    if m.from() == 0 || m.from() == local {
        return Err(Dropped::From(m.from()));
    }
    if m.to() != 0 && m.to() != local {
        return Err(Dropped::To(m.to()));
    }
    check_shape(&m, msg_type)?;
    let mut out = eraftpb::Message {
        msg_type,
        to: m.to(),
        from: m.from(),
        term: m.term(),
        log_term: m.log_term(),
        index: m.index(),
        commit: m.commit(),
        reject: m.reject(),
        reject_hint: m.reject_hint(),
        ..eraftpb::Message::default()
    };
    if let Some(snapshot) = m.snapshot.filter(|_| msg_type == eraftpb::MessageType::MsgSnapshot) {
        out.set_snapshot(snapshot_in(snapshot));
    }
    let entries: Result<Vec<_>, Dropped> = m.entries.into_iter().map(entry_in).collect();
    out.set_entries(entries?.into());
    out.context = m.context.unwrap_or_default();
    Ok(out)
}

fn message_type_in(number: i32) -> Result<eraftpb::MessageType, Dropped> {
    use eraftpb::MessageType::*;
    Ok(match number {
        2 => MsgPropose,
        3 => MsgAppend,
        4 => MsgAppendResponse,
        5 => MsgRequestVote,
        6 => MsgRequestVoteResponse,
        7 => MsgSnapshot,
        8 => MsgHeartbeat,
        9 => MsgHeartbeatResponse,
        13 => MsgTransferLeader,
        14 => MsgTimeoutNow,
        15 => MsgReadIndex,
        16 => MsgReadIndexResp,
        17 => MsgRequestPreVote,
        18 => MsgRequestPreVoteResponse,
        // 0, 1, 10, 11, 12 are local to a member, 19 to 23 unknown to the crate, the rest to everybody.
        other => return Err(Dropped::Type(other)),
    })
}

fn check_shape(m: &raftpb::Message, msg_type: eraftpb::MessageType) -> Result<(), Dropped> {
    use eraftpb::MessageType::*;
    match msg_type {
        MsgPropose => return if m.entries.is_empty() { Err(Dropped::Entries) } else { Ok(()) },
        MsgReadIndex => return if m.entries.len() == 1 { Ok(()) } else { Err(Dropped::Entries) },
        _ => {}
    }
    // Without a term the crate would take the message for one of this member's own.
    if m.term() == 0 {
        return Err(Dropped::NoTerm);
    }
    match msg_type {
        MsgReadIndexResp if m.entries.len() != 1 => Err(Dropped::Entries),
        MsgSnapshot => {
            let metadata = m.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
            if metadata.is_none_or(|metadata| metadata.index() == 0) {
                Err(Dropped::NoSnapshot)
            } else {
                Ok(())
            }
        }
        MsgAppend => {
            let mut before = (m.index(), m.log_term());
            for entry in &m.entries {
                if entry.index() != before.0 + 1 || entry.term() < before.1 || entry.term() > m.term() {
                    return Err(Dropped::Entries);
                }
                before = (entry.index(), entry.term());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The crate's message as members send it.
pub(crate) fn message_out(mut m: eraftpb::Message) -> raftpb::Message {
    use eraftpb::MessageType::*;
    // The crate also fills `commit` where etcd does not look at it; kept out so that ours are as small as Go's.
    let commit = if matches!(m.msg_type, MsgAppend | MsgHeartbeat) { m.commit } else { 0 };
    raftpb::Message {
        r#type: Some(m.msg_type as i32),
        to: set(m.to),
        from: set(m.from),
        term: set(m.term),
        log_term: set(m.log_term),
        index: set(m.index),
        entries: m.take_entries().into_iter().map(entry_out).collect(),
        commit: set(commit),
        vote: None,
        snapshot: m.snapshot.take().map(snapshot_out),
        reject: m.reject.then_some(true),
        reject_hint: set(m.reject_hint),
        context: Some(m.context).filter(|context| !context.is_empty()),
        responses: Vec::new(),
    }
}

fn set(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// An entry for the crate: bytes of a membership change go where the crate does not look.
pub(crate) fn entry_in(entry: raftpb::Entry) -> Result<eraftpb::Entry, Dropped> {
    let mut out = eraftpb::Entry { term: entry.term(), index: entry.index(), ..eraftpb::Entry::default() };
    let data = entry.data.unwrap_or_default();
    match entry.r#type.unwrap_or(0) {
        0 => out.data = data,
        1 => {
            out.entry_type = eraftpb::EntryType::EntryConfChange;
            out.context = data;
        }
        // Every etcd panics on type 2 when it applies it, so nobody proposes it.
        other => return Err(Dropped::EntryType(other)),
    }
    Ok(out)
}

/// An entry for disk, peers and apply.
pub(crate) fn entry_out(entry: eraftpb::Entry) -> raftpb::Entry {
    let (r#type, data) = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => (None, entry.data),
        eraftpb::EntryType::EntryConfChange => (Some(1), entry.context),
        eraftpb::EntryType::EntryConfChangeV2 => {
            panic!("raft made a joint membership change, entry {}", entry.index)
        }
    };
    raftpb::Entry {
        term: set(entry.term),
        index: set(entry.index),
        r#type,
        data: Some(data).filter(|data| !data.is_empty()),
    }
}

/// The record of an entry in the log, in the form of 3.7: type left out when normal, data left out when empty.
pub(crate) fn encode_entry(entry: &eraftpb::Entry, out: &mut BytesMut) -> Bytes {
    let data = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => &entry.data,
        _ => &entry.context,
    };
    let len = 8 + 2 * 10 + 10 + data.len();
    out.reserve(len);
    if entry.entry_type != eraftpb::EntryType::EntryNormal {
        out.put_slice(&[0x08, 0x01]);
    }
    out.put_u8(0x10);
    encode_varint(entry.term, out);
    out.put_u8(0x18);
    encode_varint(entry.index, out);
    if !data.is_empty() {
        out.put_u8(0x22);
        encode_varint(data.len() as u64, out);
        out.put_slice(data);
    }
    out.split().freeze()
}

/// A snapshot for the crate.
pub(crate) fn snapshot_in(snapshot: raftpb::Snapshot) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot::default();
    let from = snapshot.metadata.unwrap_or_default();
    let metadata = out.mut_metadata();
    metadata.index = from.index();
    metadata.term = from.term();
    metadata.set_conf_state(conf_state_in(&from.conf_state.unwrap_or_default()));
    out.data = snapshot.data.unwrap_or_default();
    out
}

/// A snapshot for disk, peers and apply. All of the metadata is set, even zeros: 3.7 looks at what is there.
pub(crate) fn snapshot_out(mut snapshot: eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.take_metadata();
    raftpb::Snapshot {
        data: Some(snapshot.data).filter(|data| !data.is_empty()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_out(metadata.get_conf_state())),
            index: Some(metadata.index),
            term: Some(metadata.term),
        }),
    }
}

/// A conf state for the crate.
pub(crate) fn conf_state_in(state: &raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave(),
        ..eraftpb::ConfState::default()
    }
}

/// A conf state for disk, peers and apply, ids ascending.
pub(crate) fn conf_state_out(state: &eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    }
}

/// A hard state for the crate.
pub(crate) fn hard_state_in(state: &raftpb::HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term(),
        vote: state.vote(),
        commit: state.commit(),
        ..eraftpb::HardState::default()
    }
}

/// A hard state for disk: all fields set, as every Go version writes it.
pub(crate) fn hard_state_out(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: Some(state.term), vote: Some(state.vote), commit: Some(state.commit) }
}

/// What raft itself does at a membership change; `None` for a change of URLs and for a refused change.
pub(crate) fn conf_change_in(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChange> {
    use raftpb::ConfChangeType::*;
    if change.node_id() == 0 {
        return None;
    }
    let change_type = match raftpb::ConfChangeType::try_from(change.r#type.unwrap_or(0)).ok()? {
        ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        ConfChangeUpdateNode => return None,
    };
    Some(eraftpb::ConfChange { change_type, node_id: change.node_id(), ..eraftpb::ConfChange::default() })
}

/// The data of a conf-change entry, as 3.6 and 3.7 write it: the type is always there, also when it is 0; an id of
/// 0 (founders) and an empty context are left out.
pub fn encode_conf_change(change: &raftpb::ConfChange) -> Bytes {
    let mut out = Vec::with_capacity(32 + change.context().len());
    if change.id() != 0 {
        out.put_u8(0x08);
        encode_varint(change.id(), &mut out);
    }
    out.put_u8(0x10);
    encode_varint(change.r#type.unwrap_or(0) as u64, &mut out);
    out.put_u8(0x18);
    encode_varint(change.node_id(), &mut out);
    if !change.context().is_empty() {
        out.put_u8(0x22);
        encode_varint(change.context().len() as u64, &mut out);
        out.put_slice(change.context());
    }
    Bytes::from(out)
}

/// The data of a normal entry: an `InternalRaftRequest` with one request, which is spliced in as it is, and a
/// header. Fields ascend, as Go's encoder writes them; the header has number 100.
pub(crate) fn encode_request(
    id: u64,
    identity: Option<&crate::effect::Identity>,
    field: u32,
    body: &[u8],
) -> Bytes {
    let mut header = Vec::with_capacity(24);
    header.put_u8(0x08);
    encode_varint(id, &mut header);
    if let Some(identity) = identity {
        if !identity.username.is_empty() {
            header.put_u8(0x12);
            encode_varint(identity.username.len() as u64, &mut header);
            header.put_slice(identity.username.as_bytes());
        }
        if identity.auth_revision != 0 {
            header.put_u8(0x18);
            encode_varint(identity.auth_revision, &mut header);
        }
    }
    let mut out = Vec::with_capacity(request_len(header.len(), field, body.len()));
    let put_field = |out: &mut Vec<u8>, number: u32, bytes: &[u8]| {
        encode_varint(u64::from(number) << 3 | 2, out);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    };
    if field < HEADER_FIELD {
        put_field(&mut out, field, body);
        put_field(&mut out, HEADER_FIELD, &header);
    } else {
        put_field(&mut out, HEADER_FIELD, &header);
        put_field(&mut out, field, body);
    }
    Bytes::from(out)
}

/// Number of the header in `InternalRaftRequest`.
const HEADER_FIELD: u32 = 100;

fn request_len(header: usize, field: u32, body: usize) -> usize {
    2 + encoded_len_varint(header as u64)
        + header
        + encoded_len_varint(u64::from(field) << 3 | 2)
        + encoded_len_varint(body as u64)
        + body
}

#[cfg(test)]
mod tests;
