//! Two members fed the same entries, with their own rhythm of freezing, committing, compacting and restarting, must
//! end alike: same answers, same hash, same small buckets.

use proptest::prelude::*;

use super::model::request;
use super::*;

/// What a member does between two entries.
fn chores() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..8, 60)
}

/// Small buckets without what a member writes for itself: the index moves with commits.
fn buckets(lane: &Lane) -> Vec<(Bucket, Bytes, Bytes)> {
    Bucket::ALL[1..]
        .iter()
        .filter(|bucket| **bucket != Bucket::Meta)
        .flat_map(|bucket| {
            lane.applier.store().side_iter(*bucket).map(move |(k, v)| (*bucket, k.clone(), v.clone()))
        })
        .collect()
}

fn run(requests: &[pb::InternalRaftRequest], chores: &[u8]) -> (Lane, Vec<Answer>) {
    let mut lane = Lane::new();
    let mut answers = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        answers.push(lane.ask(request.clone()));
        match chores[at % chores.len()] {
            0 => lane.freeze(),
            1 => lane.commit(),
            2 => {
                lane.applier.store_mut().compaction_step(2).unwrap();
            }
            3 => lane.finish_compaction(),
            4 => lane = lane.restart(),
            5 => lane.flush(),
            _ => {}
        }
    }
    lane.finish_compaction();
    (lane, answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn members_with_another_rhythm_end_alike(
        requests in prop::collection::vec(request(), 1..60),
        one in chores(),
        other in chores(),
    ) {
        let (first, answers) = run(&requests, &one);
        let (second, other_answers) = run(&requests, &other);
        prop_assert_eq!(answers, other_answers);
        prop_assert_eq!(first.revision(), second.revision());
        prop_assert_eq!(first.hash(), second.hash());
        prop_assert_eq!(buckets(&first), buckets(&second));
        prop_assert_eq!(first.applier.leases(), second.applier.leases());
        for lease in first.applier.leases() {
            let LeaseChange::Granted { id, .. } = lease else { continue };
            prop_assert_eq!(first.keys_of(id), second.keys_of(id));
        }
    }
}
