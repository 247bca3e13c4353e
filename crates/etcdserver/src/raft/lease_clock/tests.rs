//! The lease clock: deadlines, renewals, expiry and what an election does to them.

use proptest::prelude::*;

use super::*;
use crate::effect::ReplyTo;
use crate::now::MILLISECOND;

const RETRY: u64 = 7 * SECOND;

fn clock() -> LeaseClock {
    LeaseClock::new(false, RETRY)
}

fn granted(id: i64, ttl: i64) -> LeaseChange {
    LeaseChange::Granted { id, ttl, remaining: 0 }
}

fn renewal(lease: i64) -> Renewal {
    Renewal { reply_to: ReplyTo { thread: 0, connection: 0, stream: 1 }, lease }
}

#[test]
fn leases_last_for_ever_without_leadership_and_get_extra_time_with_it() {
    let mut c = clock();
    c.change(0, granted(1, 10));
    assert!(c.due(u64::MAX - 1, 10).is_empty());
    c.promote(100 * SECOND, SECOND);
    assert_eq!(c.times(100 * SECOND, 1), Some((10, 11)));
    assert!(c.due(111 * SECOND - 1, 10).is_empty());
    assert_eq!(c.due(111 * SECOND, 10), [1]);
    c.demote();
    assert!(c.due(999 * SECOND, 10).is_empty());
}

#[test]
fn a_due_lease_comes_again_until_its_revoke_is_applied() {
    let mut c = clock();
    c.promote(0, 0);
    c.change(0, granted(1, 2));
    assert_eq!(c.due(2 * SECOND, 10), [1]);
    assert!(c.due(2 * SECOND + RETRY - 1, 10).is_empty());
    assert_eq!(c.due(2 * SECOND + RETRY, 10), [1]);
    c.change(0, LeaseChange::Revoked { id: 1 });
    assert!(c.due(99 * SECOND, 10).is_empty());
    assert_eq!(c.times(0, 1), None);
}

#[test]
fn le_024_a_renewed_lease_does_not_end() {
    let mut c = clock();
    c.promote(0, 0);
    c.change(0, granted(1, 2));
    for half in 1..20 {
        let now = half * 500 * MILLISECOND;
        assert!(c.due(now, 10).is_empty());
        assert_eq!(c.renew(now, 1), Renewed::For { ttl: 2, clear: false });
    }
    assert!(c.due(11_499 * MILLISECOND, 10).is_empty());
    assert_eq!(c.due(11_500 * MILLISECOND, 10), [1]);
}

#[test]
fn an_ended_lease_cannot_be_renewed_and_its_keepalives_wait() {
    let mut c = clock();
    c.promote(0, 0);
    c.change(0, granted(1, 2));
    assert_eq!(c.renew(2 * SECOND, 1), Renewed::Expired);
    assert_eq!(c.renew(0, 2), Renewed::Unknown);
    c.block(renewal(1));
    c.block(renewal(1));
    assert_eq!(c.blocked_count(), 2);
    assert_eq!(c.change(0, LeaseChange::Revoked { id: 1 }).len(), 2);
    c.change(0, granted(1, 2));
    c.block(renewal(1));
    assert_eq!(c.demote(), [renewal(1)]);
    assert_eq!(c.blocked_count(), 0);
}

#[test]
fn an_id_granted_again_has_its_new_time_only() {
    let mut c = clock();
    c.promote(0, 0);
    c.change(0, granted(1, 2));
    c.change(0, LeaseChange::Revoked { id: 1 });
    c.change(SECOND, granted(1, 60));
    assert!(c.due(60 * SECOND, 10).is_empty());
    assert_eq!(c.due(61 * SECOND, 10), [1]);
}

#[test]
fn a_renewal_after_a_change_of_leader_takes_the_extra_time_back() {
    let mut c = clock();
    c.change(0, granted(1, 10));
    c.promote(0, 50 * SECOND);
    assert_eq!(c.renew(SECOND, 1), Renewed::For { ttl: 10, clear: false });
    assert_eq!(c.due(11 * SECOND, 10), [1]);
}

#[test]
fn le_013_the_list_is_ordered_by_time_left_and_le_025_seconds_are_cut() {
    let mut c = clock();
    c.promote(0, 0);
    for (id, ttl) in [(5, 100), (6, 2), (7, 9_000_000_000)] {
        c.change(0, granted(id, ttl));
    }
    assert_eq!(c.all(), [6, 5, 7]);
    assert_eq!(c.times(1_200 * MILLISECOND, 5), Some((100, 98)));
    assert_eq!(c.times(3_500 * MILLISECOND, 6), Some((2, -1)));
}

#[test]
fn le_030_no_more_than_the_sweep_allows() {
    let mut c = clock();
    c.promote(0, 0);
    for id in 0..1500 {
        c.change(0, granted(id, 2));
    }
    assert_eq!(c.due(3 * SECOND, 500).len(), 500);
    assert_eq!(c.due(3 * SECOND, 500).len(), 500);
    assert_eq!(c.due(3 * SECOND, 500).len(), 500);
    assert_eq!(c.due(3 * SECOND, 500).len(), 0);
}

#[test]
fn many_leases_are_spread_when_a_leader_starts() {
    let mut c = clock();
    for id in 0..5_000 {
        c.change(0, granted(id, 2));
    }
    c.promote(0, SECOND);
    let mut deadlines: Vec<u64> = c.leases.values().map(|lease| lease.deadline_ns).collect();
    deadlines.sort_unstable();
    assert_eq!(deadlines[0], 3 * SECOND, "nobody gets less than its time");
    for (i, deadline) in deadlines.iter().enumerate() {
        let in_second = deadlines[i..].iter().take_while(|d| **d < deadline + SECOND).count();
        assert!(in_second <= LEASE_SPREAD_PER_SECOND, "{in_second} leases end within one second");
    }
    let mut ended = 0;
    for half_second in 0..30 {
        for id in c.due(3 * SECOND + half_second * SECOND / 2, 500) {
            c.change(0, LeaseChange::Revoked { id });
            ended += 1;
        }
    }
    assert_eq!(ended, 5_000, "all of them do end");
}

#[test]
fn le_044_checkpoints_keep_the_time_left_over_a_change_of_leader() {
    let mut c = LeaseClock::new(true, RETRY);
    c.promote(0, 0);
    c.change(0, granted(1, 3600));
    c.change(0, granted(2, 300));
    assert!(c.due_checkpoints(300 * SECOND - 1, 1000).is_empty());
    assert_eq!(
        c.due_checkpoints(300 * SECOND, 1000),
        [(1, 3300)],
        "a lease of five minutes is not worth one"
    );
    assert!(c.due_checkpoints(310 * SECOND, 1000).is_empty());
    c.change(301 * SECOND, LeaseChange::Checkpointed { id: 1, remaining: 3300 });
    assert_eq!(c.due_checkpoints(601 * SECOND, 1000), [(1, 2999)]);
    c.demote();
    c.promote(700 * SECOND, SECOND);
    assert_eq!(c.times(700 * SECOND, 1), Some((3600, 3301)));
    assert_eq!(c.renew(700 * SECOND, 1), Renewed::For { ttl: 3600, clear: true });
    assert_eq!(c.times(700 * SECOND, 1), Some((3600, 3600)));
}

#[test]
fn a_restored_set_replaces_all() {
    let mut c = clock();
    c.promote(0, 0);
    c.change(0, granted(1, 2));
    c.block(renewal(1));
    assert_eq!(c.change(0, LeaseChange::Reset), [renewal(1)]);
    c.change(0, LeaseChange::Granted { id: 8, ttl: 30, remaining: 10 });
    c.change(0, granted(9, 5));
    assert!(!c.is_primary());
    c.promote(0, 0);
    assert_eq!((c.times(0, 8), c.times(0, 9), c.times(0, 1)), (Some((30, 10)), Some((5, 5)), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// The queue against a table that is looked through from end to end.
    #[test]
    fn equals_a_plain_table(steps in prop::collection::vec((0u8..5, 1i64..12, 1i64..40, 0u64..6), 1..200)) {
        let mut c = clock();
        c.promote(0, 0);
        let mut model: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        let mut now = 0;
        for (kind, id, ttl, wait) in steps {
            now += wait * SECOND;
            match kind {
                0 => {
                    c.change(now, granted(id, ttl));
                    model.insert(id, (now + seconds(ttl), 0));
                }
                1 => {
                    c.change(now, LeaseChange::Revoked { id });
                    model.remove(&id);
                }
                2 => {
                    let renewed = c.renew(now, id);
                    match model.get_mut(&id) {
                        None => prop_assert_eq!(renewed, Renewed::Unknown),
                        Some((deadline, _)) if *deadline <= now => prop_assert_eq!(renewed, Renewed::Expired),
                        Some((deadline, _)) => {
                            let ttl = c.leases[&id].ttl;
                            prop_assert_eq!(renewed, Renewed::For { ttl, clear: false });
                            *deadline = now + seconds(ttl);
                        }
                    }
                }
                _ => {
                    let mut due = c.due(now, usize::MAX);
                    due.sort_unstable();
                    let expected: Vec<i64> = model
                        .iter_mut()
                        .filter(|(_, (deadline, retry))| *deadline <= now && *retry <= now)
                        .map(|(id, (_, retry))| {
                            *retry = now + RETRY;
                            *id
                        })
                        .collect();
                    prop_assert_eq!(due, expected);
                }
            }
        }
    }
}
