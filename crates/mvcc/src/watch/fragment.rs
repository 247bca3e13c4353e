//! Cutting a response that is too large for one message.

use std::ops::Range;

use bytes::Bytes;

/// Cuts the events of one response into the parts it is sent in.
///
/// A response stays whole if it has one event or encodes to less than `limit` bytes. Otherwise parts are cut
/// between events so that each stays below the limit, where a single event does not already reach it; all but
/// the last are marked as fragments. `rest_len` is what the response encodes to without events and without that
/// mark. Only for watchers that asked for fragments: this is the one case in which a revision's events come in
/// several responses.
pub fn fragments(events: &[Bytes], rest_len: usize, limit: usize) -> Vec<Range<usize>> {
    /// A response's field 7, `fragment`, set.
    const MARK_LEN: usize = 2;
    let whole = rest_len + events.iter().map(field_len).sum::<usize>();
    if whole < limit || events.len() < 2 {
        return std::iter::once(0..events.len()).collect();
    }
    let mut parts = Vec::new();
    let mut start = 0;
    let mut len = rest_len + MARK_LEN;
    for (index, event) in events.iter().enumerate() {
        if index > start && len + field_len(event) >= limit {
            parts.push(start..index);
            start = index;
            len = rest_len + MARK_LEN;
        }
        len += field_len(event);
    }
    parts.push(start..events.len());
    parts
}

/// Bytes of an event as a field of a response: `events` is number 11, one byte of tag.
fn field_len(event: &Bytes) -> usize {
    1 + crate::kv::varint_len(event.len() as u64) + event.len()
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{ResponseHeader, WatchResponse};
    use api::mvccpb;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn event(len: usize) -> mvccpb::Event {
        let kv = mvccpb::KeyValue { value: vec![b'v'; len].into(), mod_revision: 7, ..Default::default() };
        mvccpb::Event { kv: Some(kv), ..Default::default() }
    }

    fn encoded(events: &[mvccpb::Event]) -> Vec<Bytes> {
        events.iter().map(|event| event.encode_to_vec().into()).collect()
    }

    #[test]
    fn five_of_700_kilobytes_come_as_two_two_one() {
        let events = encoded(&vec![event(700_000); 5]);
        assert_eq!(fragments(&events, 30, 2 << 20), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn one_event_is_never_cut() {
        let events = encoded(&[event(700_000)]);
        assert_eq!(fragments(&events, 30, 1000).len(), 1);
    }

    proptest! {
        /// The rule spelled out on whole messages: a part takes events until one more would reach the limit.
        #[test]
        fn parts_are_as_large_as_they_may_be(lens in prop::collection::vec(0_usize..300, 0..12), limit in 1_usize..900) {
            let header = ResponseHeader { cluster_id: 77, revision: 5, ..Default::default() };
            let whole = WatchResponse { header: Some(header), watch_id: 3, ..Default::default() };
            let events: Vec<mvccpb::Event> = lens.into_iter().map(event).collect();
            let parts = fragments(&encoded(&events), whole.encoded_len(), limit);
            prop_assert_eq!(parts.iter().map(Range::len).sum::<usize>(), events.len());
            let sized = |range: Range<usize>, fragment| {
                WatchResponse { events: events[range].to_vec(), fragment, ..whole.clone() }.encoded_len()
            };
            if events.len() < 2 || sized(0..events.len(), false) < limit {
                prop_assert_eq!(parts.len(), 1);
                return Ok(());
            }
            let mut start = 0;
            for part in parts {
                prop_assert!(part.start == start && part.end > start);
                prop_assert!(part.len() == 1 || sized(part.clone(), true) < limit);
                prop_assert!(part.end == events.len() || sized(start..part.end + 1, true) >= limit);
                start = part.end;
            }
        }
    }
}
