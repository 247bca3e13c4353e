//! The messages as a table of plain constants, for code that works on encoded bytes (`api::schema`, `api::wire`).

use std::fmt::Write as _;

use anyhow::{Context, Result};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    Syntax,
};

/// Rust source of the table: enums, then messages, both sorted by full name.
pub(crate) fn table(pool: &DescriptorPool) -> Result<String> {
    let since = Since { pool };
    let mut enums: Vec<_> = pool.all_enums().filter(|e| ours(e.full_name())).collect();
    enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let mut messages: Vec<_> = pool.all_messages().filter(|m| ours(m.full_name())).collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));

    let mut out = String::from("use super::{Enum, EnumValue, Field, Kind::*, Message, Minor};\n\n");
    writeln!(out, "pub(super) static ENUMS: &[Enum] = &[")?;
    for e in &enums {
        writeln!(out, "    Enum {{ name: {:?}, since: {}, values: &[", e.full_name(), since.of_enum(e)?)?;
        for v in e.values() {
            let since = since.read(&v.options(), "versionpb.etcd_version_enum_value")?;
            writeln!(
                out,
                "        EnumValue {{ name: {:?}, number: {}, since: {since} }},",
                v.name(),
                v.number()
            )?;
        }
        writeln!(out, "    ] }},")?;
    }
    writeln!(out, "];\n\npub(super) static MESSAGES: &[Message] = &[")?;
    for m in &messages {
        let version = since.read(&m.options(), "versionpb.etcd_version_msg")?;
        writeln!(out, "    Message {{ name: {:?}, since: {version}, fields: &[", m.full_name())?;
        for f in m.fields() {
            writeln!(out, "        {},", field(&f, &since, &enums, &messages)?)?;
        }
        writeln!(out, "    ] }},")?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

/// Messages of protobuf itself are only there for the extensions of version.proto.
fn ours(name: &str) -> bool {
    !name.starts_with("google.protobuf.")
}

fn field(
    f: &FieldDescriptor,
    since: &Since<'_>,
    enums: &[EnumDescriptor],
    messages: &[MessageDescriptor],
) -> Result<String> {
    let kind = match f.kind() {
        Kind::Bool => "Bool".to_owned(),
        Kind::Int64 => "Int64".to_owned(),
        Kind::Uint32 => "Uint32".to_owned(),
        Kind::Uint64 => "Uint64".to_owned(),
        Kind::Bytes => "Bytes".to_owned(),
        Kind::String if f.parent_file().syntax() == Syntax::Proto2 => "LooseString".to_owned(),
        Kind::String => "String".to_owned(),
        Kind::Enum(e) => format!("Enum({})", enums.iter().position(|o| *o == e).context("enum")?),
        Kind::Message(m) => format!("Message({})", messages.iter().position(|o| *o == m).context("message")?),
        other => anyhow::bail!("{}: no etcd message has a field of type {other:?}", f.full_name()),
    };
    let oneof = f.containing_oneof().map(|o| o.name().to_owned());
    Ok(format!(
        "Field {{ number: {}, name: {:?}, kind: {kind}, repeated: {}, packed: {}, presence: {}, oneof: {oneof:?}, since: {} }}",
        f.number(),
        f.name(),
        f.cardinality() == Cardinality::Repeated,
        f.is_packed(),
        f.supports_presence(),
        since.read(&f.options(), "versionpb.etcd_version_field")?,
    ))
}

/// Reads the version annotations.
struct Since<'a> {
    pool: &'a DescriptorPool,
}

impl Since<'_> {
    fn of_enum(&self, e: &EnumDescriptor) -> Result<String> {
        self.read(&e.options(), "versionpb.etcd_version_enum")
    }

    fn read(&self, options: &DynamicMessage, extension: &str) -> Result<String> {
        let extension =
            self.pool.get_extension_by_name(extension).context("version.proto lacks an extension")?;
        if !options.has_extension(&extension) {
            return Ok("None".to_owned());
        }
        let value = options.get_extension(&extension);
        let (major, minor) =
            value.as_str().and_then(|v| v.split_once('.')).context("annotation is not X.Y")?;
        Ok(format!("Some(Minor::new({major}, {minor}))"))
    }
}
