//! Results in the formats of `--write-out`, byte for byte as Go's etcdctl prints them.
//!
//! Reading order: this file (formats, headers, key-values), then one file per family of answers.

mod auth;
mod cluster;
mod endpoint;
mod kv;
mod lease;
mod watch;

pub(crate) use cluster::alarm_name;
pub(crate) use endpoint::{Hash, Health, Status};

use std::fmt::Write;

use api::etcdserverpb::ResponseHeader;
use api::mvccpb::KeyValue;
use etcdutl::cli::{BAD_FEATURE, Exit, Outcome, out};
use etcdutl::json::Writer;
use etcdutl::text::quote;
use prost::Message;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Protobuf,
    Table,
}

impl Format {
    pub(crate) fn of_name(name: &str) -> Option<Format> {
        match name {
            "simple" => Some(Format::Simple),
            "json" => Some(Format::Json),
            "fields" => Some(Format::Fields),
            "protobuf" => Some(Format::Protobuf),
            "table" => Some(Format::Table),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Simple => "simple",
            Format::Json => "json",
            Format::Fields => "fields",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) hex: bool,
    pub(crate) value_only: bool,
}

impl Printer {
    /// The error of a format that a command does not have. It comes after the deed, as in Go's tool.
    pub(crate) fn unsupported(&self) -> Outcome {
        Err(Exit::new(BAD_FEATURE, format!("{} not supported as output format", self.format.name())))
    }

    /// Prints an answer whose forms were made ready; forms that the command does not have are `None`.
    fn show(
        &self,
        simple: impl FnOnce() -> Option<Vec<u8>>,
        json: impl FnOnce() -> Option<String>,
        fields: impl FnOnce() -> Option<String>,
        protobuf: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Outcome {
        let text = match self.format {
            Format::Simple => simple(),
            Format::Json => json().map(|text| (text + "\n").into_bytes()),
            Format::Fields => fields().map(String::into_bytes),
            Format::Protobuf => protobuf(),
            Format::Table => None,
        };
        match text {
            Some(text) => out(text),
            None => self.unsupported(),
        }
    }

    /// Prints a line in the simple format, and the answer itself in the others.
    fn show_line(
        &self,
        line: String,
        header: Option<&ResponseHeader>,
        answer: &impl Message,
        has_fields: bool,
    ) -> Outcome {
        self.show(
            || Some((line + "\n").into_bytes()),
            || Some(with_header(header).end()),
            || has_fields.then(|| self.header_fields(header)),
            || Some(answer.encode_to_vec()),
        )
    }

    /// An id: decimal, or hex where that was asked for.
    fn id(&self, id: u64) -> String {
        if self.hex { format!("{id:x}") } else { id.to_string() }
    }

    /// A lease: decimal, or 16 digits of hex where that was asked for.
    fn lease(&self, id: i64) -> String {
        if self.hex { format!("{id:016x}") } else { id.to_string() }
    }

    fn header_fields(&self, header: Option<&ResponseHeader>) -> String {
        let header = header.copied().unwrap_or_default();
        let mut text = String::new();
        let _ = writeln!(text, "\"ClusterID\" : {}", self.id(header.cluster_id));
        let _ = writeln!(text, "\"MemberID\" : {}", self.id(header.member_id));
        // A revision of 0 says that the answer is not about the store.
        if header.revision > 0 {
            let _ = writeln!(text, "\"Revision\" : {}", header.revision);
        }
        let _ = writeln!(text, "\"RaftTerm\" : {}", header.raft_term);
        text
    }

    fn kv_fields(&self, text: &mut String, prefix: &str, kv: &KeyValue) {
        let _ = writeln!(text, "\"{prefix}Key\" : {}", quote(&kv.key));
        let _ = writeln!(text, "\"{prefix}CreateRevision\" : {}", kv.create_revision);
        let _ = writeln!(text, "\"{prefix}ModRevision\" : {}", kv.mod_revision);
        let _ = writeln!(text, "\"{prefix}Version\" : {}", kv.version);
        let _ = writeln!(text, "\"{prefix}Value\" : {}", quote(&kv.value));
        let _ = writeln!(text, "\"{prefix}Lease\" : {}", self.lease(kv.lease));
    }

    /// Key and value, a line each.
    fn kv_simple(&self, text: &mut Vec<u8>, value_only: bool, kv: &KeyValue) {
        let parts = if value_only { &[&kv.value][..] } else { &[&kv.key, &kv.value] };
        for part in parts {
            if self.hex {
                for byte in part.iter() {
                    text.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                }
            } else {
                text.extend_from_slice(part);
            }
            text.push(b'\n');
        }
    }
}

/// The fields of a header, into the object they belong to.
fn header_into(object: &mut Writer, header: &ResponseHeader) {
    object.number("cluster_id", header.cluster_id).number("member_id", header.member_id);
    object.number("revision", header.revision).number("raft_term", header.raft_term);
}

fn header_json(header: &ResponseHeader) -> String {
    let mut object = Writer::object();
    header_into(&mut object, header);
    object.end()
}

/// An object that begins with a header, where there is one.
fn with_header(header: Option<&ResponseHeader>) -> Writer {
    let mut object = Writer::object();
    if let Some(header) = header {
        object.field("header", header_json(header));
    }
    object
}

fn kv_json(kv: &KeyValue) -> String {
    let mut object = Writer::object();
    object.bytes("key", &kv.key).number("create_revision", kv.create_revision);
    object.number("mod_revision", kv.mod_revision).number("version", kv.version);
    object.bytes("value", &kv.value).number("lease", kv.lease);
    object.end()
}

#[cfg(test)]
mod tests;
