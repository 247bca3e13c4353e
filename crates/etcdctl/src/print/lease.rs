//! Answers about leases. In JSON the header's fields stand beside the others.

use std::fmt::Write;

use api::etcdserverpb::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
    ResponseHeader,
};
use etcdutl::cli::Outcome;
use etcdutl::json::{Writer, base64};
use etcdutl::text::quote;
use prost::Message;

use super::{Format, Printer, header_into};

fn flat(header: Option<&ResponseHeader>) -> Writer {
    let mut object = Writer::object();
    if let Some(header) = header {
        header_into(&mut object, header);
    }
    object
}

/// Go's tool encodes the header alone.
fn header_bytes(header: Option<&ResponseHeader>) -> Vec<u8> {
    header.map_or_else(Vec::new, Message::encode_to_vec)
}

impl Printer {
    fn lease_fields(&self, header: Option<&ResponseHeader>, id: i64, ttl: i64) -> String {
        let mut text = self.header_fields(header);
        let _ = writeln!(text, "\"ID\" : {}", self.lease(id));
        let _ = writeln!(text, "\"TTL\" : {ttl}");
        text
    }

    pub(crate) fn lease_grant(&self, answer: &LeaseGrantResponse) -> Outcome {
        let header = answer.header.as_ref();
        self.show(
            || Some(format!("lease {:016x} granted with TTL({}s)\n", answer.id, answer.ttl).into_bytes()),
            || {
                let mut object = flat(header);
                object.field("ID", answer.id).field("TTL", answer.ttl);
                object.field("Error", etcdutl::json::quoted(&answer.error));
                Some(object.end())
            },
            || Some(self.lease_fields(header, answer.id, answer.ttl)),
            || Some(header_bytes(header)),
        )
    }

    pub(crate) fn lease_revoke(&self, id: i64, answer: &LeaseRevokeResponse) -> Outcome {
        if self.format == Format::Protobuf {
            return self.unsupported();
        }
        self.show_line(format!("lease {id:016x} revoked"), answer.header.as_ref(), answer, true)
    }

    pub(crate) fn keep_alive(&self, answer: &LeaseKeepAliveResponse) -> Outcome {
        let header = answer.header.as_ref();
        self.show(
            || Some(format!("lease {:016x} keepalived with TTL({})\n", answer.id, answer.ttl).into_bytes()),
            || Some(flat(header).field("ID", answer.id).field("TTL", answer.ttl).end()),
            || Some(self.lease_fields(header, answer.id, answer.ttl)),
            || Some(header_bytes(header)),
        )
    }

    pub(crate) fn time_to_live(&self, answer: &LeaseTimeToLiveResponse, keys: bool) -> Outcome {
        let header = answer.header.as_ref();
        self.show(
            || Some(time_to_live_simple(answer, keys)),
            || {
                let mut object = flat(header);
                object.field("id", answer.id).field("ttl", answer.ttl).field("granted-ttl", answer.granted_ttl);
                if answer.keys.is_empty() {
                    object.field("keys", "null");
                } else {
                    object.items("keys", answer.keys.iter().map(|key| base64(key)));
                }
                Some(object.end())
            },
            || {
                let mut text = self.lease_fields(header, answer.id, answer.ttl);
                let _ = writeln!(text, "\"GrantedTTL\" : {}", answer.granted_ttl);
                for key in &answer.keys {
                    let _ = writeln!(text, "\"Key\" : {}", quote(key));
                }
                Some(text)
            },
            || Some(header_bytes(header)),
        )
    }

    pub(crate) fn leases(&self, answer: &LeaseLeasesResponse) -> Outcome {
        let header = answer.header.as_ref();
        self.show(
            || {
                let mut text = format!("found {} leases\n", answer.leases.len());
                for lease in &answer.leases {
                    let _ = writeln!(text, "{:016x}", lease.id);
                }
                Some(text.into_bytes())
            },
            || {
                let mut list = Writer::list();
                for lease in &answer.leases {
                    list.item(Writer::object().field("id", lease.id).end());
                }
                Some(flat(header).field("leases", list.end()).end())
            },
            || {
                let mut text = self.header_fields(header);
                for lease in &answer.leases {
                    let _ = writeln!(text, "\"ID\" : {}", self.lease(lease.id));
                }
                Some(text)
            },
            || Some(header_bytes(header)),
        )
    }
}

fn time_to_live_simple(answer: &LeaseTimeToLiveResponse, keys: bool) -> Vec<u8> {
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return format!("lease {:016x} already expired\n", answer.id).into_bytes();
    }
    let mut text =
        format!("lease {:016x} granted with TTL({}s), remaining({}s)", answer.id, answer.granted_ttl, answer.ttl)
            .into_bytes();
    if keys {
        text.extend_from_slice(b", attached keys([");
        text.extend(answer.keys.join(&b' '));
        text.extend_from_slice(b"])");
    }
    text.push(b'\n');
    text
}
