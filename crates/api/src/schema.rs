//! The messages as a table, for code that works on encoded bytes: checking a request in place, finding out which
//! release could read a log entry, converting between JSON and bytes. Made from the same files as the structs.

use crate::version::Minor;

#[allow(clippy::all, clippy::pedantic, reason = "generated")]
#[rustfmt::skip]
#[path = "gen/schema.rs"]
mod table;

/// A message type.
#[derive(Debug)]
pub struct Message {
    /// Full name, `package.Message`.
    pub name: &'static str,
    /// First release with it, where etcd says so.
    pub since: Option<Minor>,
    /// Its fields by ascending number.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Number on the wire.
    pub number: u32,
    /// Name in the .proto file.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Whether it may occur any number of times. A map is a repeated message of key (1) and value (2).
    pub repeated: bool,
    /// Whether we write repeated numbers packed. Both forms are read.
    pub packed: bool,
    /// Whether being absent differs from being zero.
    pub presence: bool,
    /// The group of fields of which at most one is set.
    pub oneof: Option<&'static str>,
    /// First release with it, where that is later than the message's.
    pub since: Option<Minor>,
}

/// Type of a field. The numbers lead into the tables behind [`enums`] and [`messages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// An enum.
    Enum(usize),
    /// `bytes`
    Bytes,
    /// `string`; must be UTF-8.
    String,
    /// `string` of a proto2 file, where Go does not insist on UTF-8.
    LooseString,
    /// A message.
    Message(usize),
}

/// An enum type.
#[derive(Debug)]
pub struct Enum {
    /// Full name.
    pub name: &'static str,
    /// First release with it, where etcd says so.
    pub since: Option<Minor>,
    /// Its values by ascending number.
    pub values: &'static [EnumValue],
}

/// A value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// Name in the .proto file.
    pub name: &'static str,
    /// Number on the wire.
    pub number: i32,
    /// First release with it, where that is later than the enum's.
    pub since: Option<Minor>,
}

/// All messages by ascending name.
#[must_use]
pub fn messages() -> &'static [Message] {
    table::MESSAGES
}

/// All enums by ascending name.
#[must_use]
pub fn enums() -> &'static [Enum] {
    table::ENUMS
}

/// The message with this full name.
#[must_use]
pub fn message(name: &str) -> Option<&'static Message> {
    table::MESSAGES.binary_search_by(|m| m.name.cmp(name)).ok().map(|at| &table::MESSAGES[at])
}

/// The row of one of our structs, found while compiling.
#[must_use]
pub fn of<M: prost::Name>() -> &'static Message {
    struct Place<M>(std::marker::PhantomData<M>);
    impl<M: prost::Name> Place<M> {
        const AT: usize = place(M::PACKAGE, M::NAME);
    }
    &table::MESSAGES[Place::<M>::AT]
}

const fn place(package: &str, name: &str) -> usize {
    let mut at = 0;
    while at < table::MESSAGES.len() {
        if is(table::MESSAGES[at].name.as_bytes(), package.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("a generated struct has no row in the generated table")
}

const fn is(full: &[u8], package: &[u8], name: &[u8]) -> bool {
    if full.len() != package.len() + 1 + name.len() {
        return false;
    }
    let mut at = 0;
    while at < full.len() {
        let expected = if at < package.len() {
            package[at]
        } else if at == package.len() {
            b'.'
        } else {
            name[at - package.len() - 1]
        };
        if full[at] != expected {
            return false;
        }
        at += 1;
    }
    true
}

impl Message {
    /// The field with this number.
    #[must_use]
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        // Numbers mostly run from 1 without gaps, so the field is nearly always at its own place.
        match self.fields.get((number as usize).wrapping_sub(1)) {
            Some(field) if field.number == number => Some(field),
            _ => self.fields.binary_search_by_key(&number, |f| f.number).ok().map(|at| &self.fields[at]),
        }
    }
}

impl Kind {
    /// The message behind a field of message type.
    #[must_use]
    pub fn message(self) -> Option<&'static Message> {
        match self {
            Kind::Message(at) => Some(&table::MESSAGES[at]),
            _ => None,
        }
    }

    /// The enum behind a field of enum type.
    #[must_use]
    pub fn enumeration(self) -> Option<&'static Enum> {
        match self {
            Kind::Enum(at) => Some(&table::ENUMS[at]),
            _ => None,
        }
    }

    /// The wire type of a single value.
    #[must_use]
    pub fn wire_type(self) -> u32 {
        match self {
            Kind::Bool | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => 0,
            Kind::Bytes | Kind::String | Kind::LooseString | Kind::Message(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_structs_find_their_rows() {
        assert!(messages().is_sorted_by(|a, b| a.name < b.name));
        assert!(enums().is_sorted_by(|a, b| a.name < b.name));
        for m in messages() {
            assert!(m.fields.is_sorted_by(|a, b| a.number < b.number), "{}", m.name);
            for f in m.fields {
                assert!(std::ptr::eq(m.field(f.number).unwrap(), f));
            }
            assert!(m.field(0).is_none() && m.field(u32::MAX).is_none());
            assert!(std::ptr::eq(message(m.name).unwrap(), m));
        }
        assert!(message("etcdserverpb.Nothing").is_none());
        assert_eq!(of::<crate::etcdserverpb::HashKvRequest>().name, "etcdserverpb.HashKVRequest");
        assert_eq!(of::<crate::snappb::Snapshot>().name, "snappb.snapshot");
        assert_eq!(of::<crate::health::HealthCheckRequest>().name, "grpc.health.v1.HealthCheckRequest");
    }
}
