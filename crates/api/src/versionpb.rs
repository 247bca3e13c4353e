//! Which release could read a message: etcd's messages, fields, enums and values say since when they exist.

use crate::schema::{Kind, Message};
use crate::version::Minor;
use crate::wire::{Fields, Malformed, Value, get_varint};

/// The oldest release that understands everything set in this encoded message; `None` if nothing in it says so.
///
/// Fields and enum numbers that nobody here knows are passed over. (Go 3.6 and 3.7 panic on such an enum number.)
///
/// # Errors
/// The bytes are not a message.
pub fn minimal_version(message: &Message, bytes: &[u8]) -> Result<Option<Minor>, Malformed> {
    let mut minimum = message.since;
    for field in Fields::new(bytes) {
        let field = field?;
        let Some(known) = message.field(field.number) else { continue };
        let inner = match (known.kind, field.value) {
            (Kind::Message(_), Value::Bytes(inner)) => {
                let inner_type = known.kind.message().expect("a field of message type");
                minimal_version(inner_type, inner)?
            }
            (Kind::Enum(_), Value::Varint(number)) if number != 0 || known.presence => {
                of_value(known.kind, number)
            }
            (Kind::Enum(_), Value::Bytes(mut packed)) if known.repeated => {
                let mut newest = None;
                while !packed.is_empty() {
                    newest = newest.max(of_value(known.kind, get_varint(&mut packed)?));
                }
                newest
            }
            // A zero that need not be there says nothing.
            (_, Value::Varint(0)) if !known.presence => continue,
            (_, Value::Bytes([])) if !known.presence => continue,
            (_, value) if value_type(value) != known.kind.wire_type() => continue,
            _ => None,
        };
        minimum = minimum.max(known.since).max(inner);
    }
    Ok(minimum)
}

fn of_value(kind: Kind, number: u64) -> Option<Minor> {
    let enumeration = kind.enumeration()?;
    // Enum numbers are 32 bits wide; decoders drop the rest.
    let value = enumeration.values.iter().find(|v| v.number == number as i32)?;
    enumeration.since.max(value.since)
}

fn value_type(value: Value<'_>) -> u32 {
    match value {
        Value::Varint(_) => 0,
        Value::Bytes(_) => 2,
        Value::Fixed64(_) | Value::Group(_) | Value::Fixed32(_) => u32::MAX,
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::etcdserverpb::{
        AlarmRequest, AlarmType, DowngradeVersionTestRequest, InternalRaftRequest, LeaseCheckpointRequest,
        PutRequest, WatchCreateRequest,
    };
    use crate::membershippb::ClusterVersionSetRequest;
    use crate::schema;

    fn of<M: prost::Message + prost::Name>(message: &M) -> Option<Minor> {
        minimal_version(schema::of::<M>(), &message.encode_to_vec()).unwrap()
    }

    #[test]
    fn the_newest_part_decides() {
        let put = |put| InternalRaftRequest { put: Some(put), ..Default::default() };
        assert_eq!(of(&put(PutRequest::default())), Some(Minor::new(3, 0)));
        assert_eq!(of(&put(PutRequest { prev_kv: true, ..Default::default() })), Some(Minor::new(3, 1)));
        assert_eq!(of(&put(PutRequest { ignore_lease: true, ..Default::default() })), Some(Minor::new(3, 2)));
        let checkpoint = InternalRaftRequest {
            lease_checkpoint: Some(LeaseCheckpointRequest::default()),
            ..Default::default()
        };
        assert_eq!(of(&checkpoint), Some(Minor::new(3, 4)));
        let version = InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest { ver: "3.7.0".to_owned() }),
            ..Default::default()
        };
        assert_eq!(of(&version), Some(Minor::new(3, 5)));
        let test = InternalRaftRequest {
            downgrade_version_test: Some(DowngradeVersionTestRequest::default()),
            ..Default::default()
        };
        assert_eq!(of(&test), Some(Minor::new(3, 6)));
        assert_eq!(of(&crate::mvccpb::KeyValue { version: 1, ..Default::default() }), None);
    }

    #[test]
    fn enum_values_count_and_unknown_ones_do_not() {
        let alarm = |alarm| AlarmRequest { alarm, ..Default::default() };
        assert_eq!(of(&alarm(AlarmType::Nospace as i32)), Some(Minor::new(3, 0)));
        assert_eq!(of(&alarm(AlarmType::Corrupt as i32)), Some(Minor::new(3, 3)));
        assert_eq!(of(&alarm(9)), Some(Minor::new(3, 0)));
        let filters = WatchCreateRequest { filters: vec![0, 1], ..Default::default() };
        assert_eq!(of(&filters), Some(Minor::new(3, 1)));
    }

    #[test]
    fn unknown_fields_are_passed_over_and_bad_bytes_refused() {
        let put = schema::of::<PutRequest>();
        assert_eq!(minimal_version(put, &[0xf8, 0x07, 1]), Ok(Some(Minor::new(3, 0))));
        // prev_kv as bytes is an unknown field, too.
        assert_eq!(minimal_version(put, &[0x22, 1, 1]), Ok(Some(Minor::new(3, 0))));
        assert_eq!(minimal_version(put, &[0xff]), Err(Malformed::Wire));
    }
}
