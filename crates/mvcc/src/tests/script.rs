//! What a Go 3.7.3 member answered to a series of writes, compactions and hash requests, replayed here line by line.
//!
//! `testdata/hashkv-3.7.3.txt`, one request a line: `put KEY VALUE` (the value may be empty), `del KEY [END]`,
//! `txn` with such operations between semicolons, `compact REVISION` carried out or refused, and
//! `hashkv REVISION` with hash, compact revision and covered revision, or the reason there is none.

use super::Member;
use crate::{Error, RangeEnd, WriteTxn};
use bytes::Bytes;

const SCRIPT: &str = include_str!("../../testdata/hashkv-3.7.3.txt");

fn change(txn: &mut WriteTxn<'_>, operation: &str) {
    let mut words = operation.splitn(3, ' ');
    let (verb, key) = (words.next().unwrap(), words.next().unwrap().as_bytes());
    let rest = words.next().unwrap_or("");
    match verb {
        "put" => drop(txn.put(key, rest.as_bytes(), 0, false).unwrap()),
        "del" => {
            let end = RangeEnd::from_wire(Bytes::copy_from_slice(rest.as_bytes()));
            txn.delete_range(key, &end, false).unwrap();
        }
        _ => panic!("{operation}"),
    }
}

fn hash(member: &Member, revision: i64) -> String {
    match member.store.view().hash_kv(revision) {
        Ok(hash) => format!("{} {} {}", hash.hash, hash.compact_revision, hash.revision),
        Err(Error::Compacted) => "compacted".into(),
        Err(Error::FutureRevision) => "future".into(),
        Err(error) => panic!("{error}"),
    }
}

/// Runs the script; `between` decides what reaches the file after each line.
fn run(between: &mut dyn FnMut(&mut Member, usize)) {
    let mut member = Member::fresh();
    for (at, line) in SCRIPT.lines().enumerate() {
        let (verb, rest) = line.split_once(' ').unwrap();
        let (number, answer) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "txn" => {
                member.transaction(|txn| rest.split("; ").for_each(|operation| change(txn, operation)));
            }
            "compact" => {
                let outcome = member.store.schedule_compaction(number.parse().unwrap());
                assert_eq!(if outcome.is_ok() { "ok" } else { "refused" }, answer, "line {}: {line}", at + 1);
                member.finish_compaction();
            }
            "hashkv" => assert_eq!(hash(&member, number.parse().unwrap()), answer, "line {}: {line}", at + 1),
            _ => {
                member.transaction(|txn| change(txn, line));
            }
        }
        between(&mut member, at);
    }
}

#[test]
fn every_hash_is_the_one_that_go_gave() {
    assert!(SCRIPT.lines().filter(|line| line.starts_with("hashkv")).count() > 100);
    run(&mut |_, _| ());
    run(&mut |member, _| member.flush());
    run(&mut |member, at| match at % 7 {
        2 => drop(member.freeze()),
        5 => drop(member.commit()),
        _ => (),
    });
}
