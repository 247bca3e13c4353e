//! The read side over a lane: whole answers, errors that leave no bytes, streamed ranges.

use api::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message;

use super::*;
use crate::apply::tests::{Lane, b, get, list, refused};

const NOBODY: Caller<'static> = Caller { name: "", revision: 0 };

fn parsed(request: &pb::RangeRequest) -> Vec<u8> {
    request.encode_to_vec()
}

#[test]
fn an_answer_is_appended_whole_and_an_error_leaves_nothing() {
    let mut lane = Lane::new();
    lane.p("a", "1");
    let published = lane.applier.publish();
    let mut out = b"before".to_vec();
    let bytes = parsed(&get("a"));
    let served = range(&published, NOBODY, &Range::parse(&bytes).unwrap(), &mut out).unwrap();
    assert_eq!(served, Served { keys: 1, count: 1, more: false });
    let response = pb::RangeResponse::decode(&out[6..]).unwrap();
    assert_eq!(response.encode_to_vec(), out[6..], "the bytes are those of Go's encoder");
    let header = response.header.unwrap();
    assert_eq!((header.cluster_id, header.revision, header.raft_term), (published.ids.cluster_id, 2, 2));
    let before = out.clone();
    let bytes = parsed(&pb::RangeRequest { revision: 9, ..get("a") });
    assert!(range(&published, NOBODY, &Range::parse(&bytes).unwrap(), &mut out).is_err());
    assert_eq!(out, before);
}

#[test]
fn a_published_state_does_not_change() {
    let mut lane = Lane::new();
    lane.p("a", "1");
    let published = lane.applier.publish();
    lane.p("a", "2");
    lane.flush();
    let bytes = parsed(&get("a"));
    let mut out = Vec::new();
    range(&published, NOBODY, &Range::parse(&bytes).unwrap(), &mut out).unwrap();
    let response = pb::RangeResponse::decode(&out[..]).unwrap();
    assert_eq!((&response.kvs[0].value[..], response.header.unwrap().revision), (&b"1"[..], 2));
}

fn twenty_five() -> Lane {
    let mut lane = Lane::new();
    lane.p("before", "x");
    for at in 0..25 {
        lane.p(&format!("k{at:02}"), "v");
    }
    lane
}

/// All messages of a stream, with what happens before the second one is asked for.
fn stream(
    lane: &mut Lane,
    request: &pb::RangeRequest,
    between: impl FnOnce(&mut Lane),
) -> Result<Vec<pb::RangeResponse>, Status> {
    let bytes = parsed(request);
    let mut stream =
        RangeStream::new(&lane.applier.publish(), NOBODY, &Range::parse(&bytes).unwrap(), 1_572_864)?;
    let mut between = Some(between);
    let mut messages = Vec::new();
    loop {
        let mut out = Vec::new();
        if !stream.next(&lane.applier.publish(), &mut out)? {
            return Ok(messages);
        }
        let message = pb::RangeStreamResponse::decode(&out[..]).unwrap();
        assert_eq!(message.encode_to_vec(), out);
        messages.push(message.range_response.unwrap());
        if let Some(between) = between.take() {
            between(lane);
        }
    }
}

fn shape(messages: &[pb::RangeResponse]) -> (Vec<usize>, i64, bool) {
    let last = messages.last().unwrap();
    let (rest, headers) =
        (&messages[..messages.len() - 1], messages.iter().filter(|m| m.header.is_some()).count());
    assert!(rest.iter().all(|m| m.count == 0 && !m.more));
    assert!(headers == 1 && last.header.is_some(), "the header stands in the last message only");
    (messages.iter().map(|m| m.kvs.len()).collect(), last.count, last.more)
}

#[test]
fn kv_160_161_163_172_174_chunks() {
    let mut lane = twenty_five();
    let all = list("k", "l");
    let run = |lane: &mut Lane, request: &pb::RangeRequest| shape(&stream(lane, request, |_| ()).unwrap());
    assert_eq!(run(&mut lane, &all), (vec![10, 15], 25, false));
    let limited = |limit| pb::RangeRequest { limit, ..list("k", "l") };
    assert_eq!(run(&mut lane, &limited(12)), (vec![10, 2], 25, true));
    assert_eq!(run(&mut lane, &limited(5)), (vec![5], 25, true));
    assert_eq!(run(&mut lane, &limited(25)), (vec![10, 15], 25, false));
    assert_eq!(run(&mut lane, &limited(-1)), (vec![25], 25, false));
    assert_eq!(run(&mut lane, &list("none", "nope")), (vec![0], 0, false));
    assert_eq!(run(&mut lane, &get("k07")), (vec![1], 1, false));
    let counted = pb::RangeRequest { count_only: true, limit: 3, ..list("k", "l") };
    assert_eq!(run(&mut lane, &counted), (vec![0], 25, false));
    let old = stream(&mut lane, &pb::RangeRequest { revision: 10, ..list("k", "l") }, |_| ()).unwrap();
    assert_eq!(shape(&old), (vec![8], 8, false));
    assert_eq!(old[0].header.unwrap().revision, 27);
}

#[test]
fn a_stream_stays_at_the_revision_of_its_first_message() {
    let mut lane = twenty_five();
    let messages = stream(&mut lane, &list("k", "l"), |lane| {
        lane.p("k99", "late");
        lane.delete(crate::apply::tests::del("k20", "")).unwrap();
    })
    .unwrap();
    assert_eq!(shape(&messages), (vec![10, 15], 25, false));
    assert_eq!(messages[1].header.unwrap().revision, 27);
    let passed = stream(&mut lane, &list("k", "l"), |lane| {
        lane.p("more", "1");
        lane.compact(lane.revision()).unwrap();
    });
    assert_eq!(refused(passed), "mvcc: required revision has been compacted");
}

#[test]
fn kv_164_175_streams_are_refused_as_ranges_are() {
    let mut lane = twenty_five();
    let future = pb::RangeRequest { revision: 99, ..list("k", "l") };
    assert_eq!(refused(stream(&mut lane, &future, |_| ())), "mvcc: required revision is a future revision");
    lane.compact(20).unwrap();
    let old = pb::RangeRequest { revision: 3, ..list("k", "l") };
    assert_eq!(refused(stream(&mut lane, &old, |_| ())), "mvcc: required revision has been compacted");
}

#[test]
fn messages_grow_while_small_and_shrink_while_large() {
    let mut lane = Lane::new();
    for at in 0..60 {
        lane.put(pb::PutRequest {
            key: b(&format!("k{at:02}")),
            value: Bytes::from(vec![0; 900]),
            ..Default::default()
        })
        .unwrap();
    }
    let bytes = parsed(&list("k", "l"));
    let mut chunks = Vec::new();
    let mut stream =
        RangeStream::new(&lane.applier.publish(), NOBODY, &Range::parse(&bytes).unwrap(), 3_000).unwrap();
    let mut out = Vec::new();
    while stream.next(&lane.applier.publish(), &mut out).unwrap() {
        let message = pb::RangeStreamResponse::decode(&out[..]).unwrap();
        chunks.push(message.range_response.unwrap().kvs.len());
        out.clear();
    }
    assert_eq!(chunks[..4], [10, 5, 5, 5], "10 are more than twice of 3000 bytes, 5 are not");
    assert_eq!(chunks.iter().sum::<usize>(), 60);
}
