//! Answers as plain data, and their encoding: exactly the bytes of Go's response messages.
//!
//! Header rules: the outer header carries all four fields; an operation inside a transaction carries only the
//! revision; the header of a nested transaction is there and empty; answers about members have no revision.
//! Stored bytes are spliced in as they are: a record is already an encoded `mvccpb.KeyValue`.

use std::sync::Arc;

use api::authpb::Permission;
use api::etcdserverpb as pb;
use api::wire::{put_varint, varint_len};
use bytes::Bytes;
use prost::Message;

/// Identity that goes into every header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderIds {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that answers.
    pub member_id: u64,
    /// Term of the last entry that this member applied.
    pub raft_term: u64,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `PutResponse`.
    Put {
        /// Revision of the put.
        revision: i64,
        /// The record before, when asked for and there.
        prev: Option<Bytes>,
    },
    /// `RangeResponse`; a range that went through the log.
    Range {
        /// Revision of the store.
        revision: i64,
        /// Everything behind the header, encoded.
        body: Bytes,
    },
    /// `DeleteRangeResponse`.
    DeleteRange {
        /// Revision after the deletion.
        revision: i64,
        /// How many keys went.
        deleted: i64,
        /// Their records, when asked for.
        prev: Vec<Bytes>,
    },
    /// `TxnResponse`.
    Txn {
        /// Revision after the transaction.
        revision: i64,
        /// Whether its own comparisons held.
        succeeded: bool,
        /// The answers of the operations: fields `responses`, encoded one behind the other.
        responses: Bytes,
    },
    /// `CompactionResponse`.
    Compaction {
        /// Current revision.
        revision: i64,
    },
    /// `LeaseGrantResponse`.
    LeaseGrant {
        /// Current revision.
        revision: i64,
        /// The lease.
        id: i64,
        /// Effective time to live.
        ttl: i64,
    },
    /// `LeaseRevokeResponse`.
    LeaseRevoke {
        /// Revision after the deletion of its keys.
        revision: i64,
    },
    /// `LeaseCheckpointResponse`.
    LeaseCheckpoint {
        /// Current revision.
        revision: i64,
    },
    /// `AlarmResponse`.
    Alarm {
        /// Current revision.
        revision: i64,
        /// Member and type of each alarm.
        alarms: Vec<pb::AlarmMember>,
    },
    /// Answers of the auth service that are a header and nothing else.
    AuthDone {
        /// Current revision.
        revision: i64,
    },
    /// `AuthStatusResponse`.
    AuthStatus {
        /// Current revision.
        revision: i64,
        /// Whether auth is on.
        enabled: bool,
        /// The auth revision.
        auth_revision: u64,
    },
    /// `AuthenticateResponse`.
    Authenticate {
        /// Current revision.
        revision: i64,
        /// The user.
        user: String,
        /// The auth revision at which the user was identified: goes into a token made at the edge.
        auth_revision: u64,
        /// The simple token; empty where the edge makes the token.
        token: String,
    },
    /// `AuthUserGetResponse`, and `AuthUserListResponse` and `AuthRoleListResponse`, which look alike.
    AuthNames {
        /// Current revision.
        revision: i64,
        /// Roles of the user, all users, or all roles.
        names: Vec<String>,
    },
    /// `AuthRoleGetResponse`.
    AuthRoleGet {
        /// Current revision.
        revision: i64,
        /// What the role permits.
        permissions: Vec<Permission>,
    },
    /// Answers of the cluster service to a change: `MemberAddResponse` has the new member in front.
    Members {
        /// The member that was added.
        added: Option<pb::Member>,
        /// All members by id.
        members: Arc<Vec<pb::Member>>,
    },
    /// Entries that members write for themselves: versions, attributes. Nobody is shown this.
    Nothing,
}

/// Length of a header's fields.
fn header_len(ids: &HeaderIds, revision: i64) -> usize {
    [ids.cluster_id, ids.member_id, revision.cast_unsigned(), ids.raft_term]
        .into_iter()
        .filter(|value| *value != 0)
        .map(|value| 1 + varint_len(value))
        .sum()
}

/// Appends field 1 of a response: the header, present even when it is empty.
pub fn put_header(out: &mut Vec<u8>, ids: &HeaderIds, revision: i64) {
    out.push(0x0a);
    put_varint(header_len(ids, revision) as u64, out);
    for (tag, value) in [
        (0x08, ids.cluster_id),
        (0x10, ids.member_id),
        (0x18, revision.cast_unsigned()),
        (0x20, ids.raft_term),
    ] {
        if value != 0 {
            out.push(tag);
            put_varint(value, out);
        }
    }
}

/// Bytes of a header with its tag and length.
pub fn header_field_len(ids: &HeaderIds, revision: i64) -> usize {
    let len = header_len(ids, revision);
    1 + varint_len(len as u64) + len
}

/// Appends a field of bytes with a one-byte tag, also when it is empty.
pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a number with a one-byte tag, unless it is zero.
pub(crate) fn put_number(out: &mut Vec<u8>, tag: u8, value: u64) {
    if value != 0 {
        out.push(tag);
        put_varint(value, out);
    }
}

/// Appends an embedded message with a one-byte tag.
fn put_message(out: &mut Vec<u8>, tag: u8, message: &impl Message) {
    out.push(tag);
    put_varint(message.encoded_len() as u64, out);
    message.encode(out).expect("a vector grows");
}

impl Reply {
    /// The revision that stands in the header; 0 where there is none.
    pub fn revision(&self) -> i64 {
        match self {
            Reply::Put { revision, .. }
            | Reply::Range { revision, .. }
            | Reply::DeleteRange { revision, .. }
            | Reply::Txn { revision, .. }
            | Reply::Compaction { revision }
            | Reply::LeaseGrant { revision, .. }
            | Reply::LeaseRevoke { revision }
            | Reply::LeaseCheckpoint { revision }
            | Reply::Alarm { revision, .. }
            | Reply::AuthDone { revision }
            | Reply::AuthStatus { revision, .. }
            | Reply::Authenticate { revision, .. }
            | Reply::AuthNames { revision, .. }
            | Reply::AuthRoleGet { revision, .. } => *revision,
            Reply::Members { .. } | Reply::Nothing => 0,
        }
    }

    /// Appends the response message. Allocates nothing beyond what `out` needs to grow.
    pub fn encode(&self, ids: &HeaderIds, out: &mut Vec<u8>) {
        put_header(out, ids, self.revision());
        self.encode_body(out);
    }

    /// Everything behind the header.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Put { prev, .. } => {
                if let Some(prev) = prev {
                    put_bytes(out, 0x12, prev);
                }
            }
            Reply::Range { body, .. } => out.extend_from_slice(body),
            Reply::DeleteRange { deleted, prev, .. } => {
                put_number(out, 0x10, deleted.cast_unsigned());
                for record in prev {
                    put_bytes(out, 0x1a, record);
                }
            }
            Reply::Txn { succeeded, responses, .. } => {
                put_number(out, 0x10, u64::from(*succeeded));
                out.extend_from_slice(responses);
            }
            Reply::LeaseGrant { id, ttl, .. } => {
                put_number(out, 0x10, id.cast_unsigned());
                put_number(out, 0x18, ttl.cast_unsigned());
            }
            Reply::Alarm { alarms, .. } => alarms.iter().for_each(|alarm| put_message(out, 0x12, alarm)),
            Reply::AuthStatus { enabled, auth_revision, .. } => {
                put_number(out, 0x10, u64::from(*enabled));
                put_number(out, 0x18, *auth_revision);
            }
            Reply::Authenticate { token, .. } => {
                if !token.is_empty() {
                    put_bytes(out, 0x12, token.as_bytes());
                }
            }
            Reply::AuthNames { names, .. } => {
                names.iter().for_each(|name| put_bytes(out, 0x12, name.as_bytes()));
            }
            Reply::AuthRoleGet { permissions, .. } => {
                permissions.iter().for_each(|permission| put_message(out, 0x12, permission));
            }
            Reply::Members { added, members } => {
                let list = if let Some(added) = added {
                    put_message(out, 0x12, added);
                    0x1a
                } else {
                    0x12
                };
                members.iter().for_each(|member| put_message(out, list, member));
            }
            Reply::Compaction { .. }
            | Reply::LeaseRevoke { .. }
            | Reply::LeaseCheckpoint { .. }
            | Reply::AuthDone { .. }
            | Reply::Nothing => {}
        }
    }
}

#[cfg(test)]
#[path = "reply/tests.rs"]
mod tests;
