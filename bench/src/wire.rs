//! Reading replies in place, where their size or rate makes decoding them into owned messages the load generator's
//! largest cost.

use api::wire::{Fields, Malformed, Value};

/// Calls `f` with each field of the message.
pub(crate) fn fields<'a>(message: &'a [u8], mut f: impl FnMut(u32, Value<'a>)) -> Result<(), Malformed> {
    for field in Fields::new(message) {
        let field = field?;
        f(field.number, field.value);
    }
    Ok(())
}

fn int(value: Value<'_>) -> u64 {
    value.varint().unwrap_or(0)
}

fn bytes(value: Value<'_>) -> &[u8] {
    value.bytes().unwrap_or(&[])
}

/// What loadgen wants to know of a RangeResponse.
#[derive(Default, Debug)]
pub(crate) struct RangeView<'a> {
    pub(crate) revision: i64,
    pub(crate) kvs: u64,
    pub(crate) more: bool,
    pub(crate) count: i64,
    pub(crate) last_kv: &'a [u8],
}

pub(crate) fn range_response(b: &[u8]) -> Result<RangeView<'_>, Malformed> {
    let mut r = RangeView::default();
    let mut header = &[][..];
    fields(b, |n, v| match n {
        1 => header = bytes(v),
        2 => {
            r.kvs += 1;
            r.last_kv = bytes(v);
        }
        3 => r.more = int(v) != 0,
        4 => r.count = int(v) as i64,
        _ => {}
    })?;
    fields(header, |n, v| {
        if n == 3 {
            r.revision = int(v) as i64;
        }
    })?;
    Ok(r)
}

/// `(key, mod_revision)` of a KeyValue.
pub(crate) fn kv_key_rev(b: &[u8]) -> Result<(&[u8], i64), Malformed> {
    let (mut key, mut rev) = (&[][..], 0);
    fields(b, |n, v| match n {
        1 => key = bytes(v),
        3 => rev = int(v) as i64,
        _ => {}
    })?;
    Ok((key, rev))
}

#[derive(Default, Debug)]
pub(crate) struct WatchView {
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) events: u64,
}

/// Calls `value` with the value of every event in a WatchResponse.
pub(crate) fn watch_response(b: &[u8], mut value: impl FnMut(&[u8])) -> Result<WatchView, Malformed> {
    let mut w = WatchView::default();
    let mut bad = Ok(());
    fields(b, |n, v| match n {
        3 => w.created = int(v) != 0,
        4 => w.canceled = int(v) != 0,
        11 => {
            w.events += 1;
            let r = fields(bytes(v), |n, v| {
                if n == 2 {
                    let _ = fields(bytes(v), |n, v| {
                        if n == 5 {
                            value(bytes(v));
                        }
                    });
                }
            });
            bad = bad.and(r);
        }
        _ => {}
    })?;
    bad.map(|()| w)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb as pb;
    use api::mvccpb::{Event, KeyValue};
    use prost::Message;

    #[test]
    fn range_view_agrees_with_prost() {
        let kv = |k: &str, rev| KeyValue {
            key: k.to_string().into(),
            mod_revision: rev,
            value: vec![7; 300].into(),
            ..Default::default()
        };
        let r = pb::RangeResponse {
            header: Some(pb::ResponseHeader { revision: 77, ..Default::default() }),
            kvs: vec![kv("a", 5), kv("bb", 1 << 40)],
            more: true,
            count: 9,
        };
        let raw = r.encode_to_vec();
        let v = range_response(&raw).unwrap();
        assert_eq!((v.revision, v.kvs, v.more, v.count), (77, 2, true, 9));
        assert_eq!(kv_key_rev(v.last_kv).unwrap(), (&b"bb"[..], 1 << 40));
        assert!(range_response(&raw[..raw.len() - 1]).is_err());
    }

    #[test]
    fn watch_view_agrees_with_prost() {
        let e = |v: &'static [u8]| Event {
            kv: Some(KeyValue { key: "k".into(), value: v.into(), ..Default::default() }),
            ..Default::default()
        };
        let raw = pb::WatchResponse { watch_id: 3, events: vec![e(b"one"), e(b"two")], ..Default::default() }
            .encode_to_vec();
        let mut got = Vec::new();
        let w = watch_response(&raw, |v| got.push(v.to_vec())).unwrap();
        assert_eq!(w.events, 2);
        assert_eq!(got, [b"one".to_vec(), b"two".to_vec()]);
    }
}
