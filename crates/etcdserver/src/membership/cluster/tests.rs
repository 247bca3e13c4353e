//! Membership: what changes do to members, removed ids and records, and which changes are refused.

use super::*;

fn member(id: u64, url: &str) -> Member {
    Member { id, peer_urls: vec![url.to_owned()], ..Member::default() }
}

fn change(kind: ConfChangeType, context: Option<ConfContext>, id: u64) -> ConfChange {
    ConfChange {
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(|c| c.to_json()),
        id: Some(99),
    }
}

fn add(member: Member) -> ConfChange {
    let kind = if member.is_learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    let id = member.id;
    change(kind, Some(ConfContext { member, is_promote: false }), id)
}

fn promote(id: u64) -> ConfChange {
    let member = Member { id, ..Member::default() };
    change(ConfChangeType::ConfChangeAddNode, Some(ConfContext { member, is_promote: true }), id)
}

fn update(id: u64, url: &str) -> ConfChange {
    let context = ConfContext { member: member(id, url), is_promote: false };
    change(ConfChangeType::ConfChangeUpdateNode, Some(context), id)
}

fn remove(id: u64) -> ConfChange {
    change(ConfChangeType::ConfChangeRemoveNode, None, id)
}

/// Buckets as plain maps, kept by the returned changes alone.
#[derive(Default)]
struct Buckets(BTreeMap<(Bucket, Bytes), Bytes>);

impl Buckets {
    fn write(&mut self, changes: Vec<SideChange>) {
        for SideChange { bucket, key, value } in changes {
            match value {
                Some(value) => self.0.insert((bucket, key), value),
                None => self.0.remove(&(bucket, key)),
            };
        }
    }

    fn read(&self) -> Cluster {
        Cluster::from_buckets(1, 2, |bucket| {
            let of = self.0.iter().filter(|((b, _), _)| *b == bucket);
            of.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        })
        .unwrap()
    }
}

#[test]
fn every_change_validates_and_the_buckets_always_equal_the_memory() {
    let mut cluster = Cluster::new(1, 2);
    let mut buckets = Buckets::default();
    let learner = |id, url| Member { is_learner: true, ..member(id, url) };
    let steps: Vec<(ConfChange, Result<(), ErrorCode>)> = vec![
        (add(member(2, "http://a:1")), Ok(())),
        (add(member(2, "http://b:1")), Err(ErrorCode::MemberExist)),
        (add(member(3, "http://a:1")), Err(ErrorCode::PeerUrlExist)),
        (add(learner(3, "http://c:1")), Ok(())),
        (add(learner(4, "http://d:1")), Err(ErrorCode::TooManyLearners)),
        (add(member(4, "http://d:1")), Ok(())),
        (update(4, "http://c:1"), Err(ErrorCode::PeerUrlExist)),
        (update(4, "http://d:1"), Ok(())),
        (update(9, "http://e:1"), Err(ErrorCode::MemberNotFound)),
        (promote(4), Err(ErrorCode::MemberNotLearner)),
        (promote(9), Err(ErrorCode::MemberNotFound)),
        (promote(3), Ok(())),
        (promote(3), Err(ErrorCode::MemberNotLearner)),
        (remove(9), Err(ErrorCode::MemberNotFound)),
        (remove(4), Ok(())),
        (remove(4), Err(ErrorCode::MemberNotFound)),
        (add(member(4, "http://d:1")), Err(ErrorCode::MemberNotFound)),
        (change(ConfChangeType::ConfChangeAddNode, None, 7), Err(ErrorCode::MemberBadUrls)),
        (ConfChange { r#type: Some(9), ..remove(2) }, Err(ErrorCode::MemberNotFound)),
    ];
    for (step, (change, expected)) in steps.into_iter().enumerate() {
        let before = cluster.clone();
        match cluster.apply_conf_change(&change, 1) {
            Ok((_, changes)) => {
                assert_eq!(expected, Ok(()), "step {step}");
                buckets.write(changes);
            }
            Err(error) => {
                assert_eq!(expected, Err(error), "step {step}");
                assert_eq!(cluster, before, "a refused change leaves all as it was");
            }
        }
        assert_eq!(buckets.read(), cluster, "step {step}");
    }
    buckets.write(cluster.update_attributes(2, "a", &["http://a:2".to_owned()]).unwrap());
    assert_eq!(cluster.update_attributes(4, "gone", &[]), Ok(vec![]), "a removed member publishes in vain");
    assert_eq!(cluster.update_attributes(77, "who", &[]), Err(ErrorCode::MemberNotFound));
    let v37 = Minor::new(3, 7).cluster();
    assert!(!cluster.set_version(v37).1);
    let (changes, lowered) = cluster.set_version(Minor::new(3, 6).cluster());
    assert!(lowered);
    buckets.write(changes);
    buckets.write(cluster.set_downgrade(true, "3.6.0"));
    assert_eq!(buckets.read(), cluster);
    assert_eq!(cluster.downgrade().target_minor(), Some(Minor::new(3, 6)));
    buckets.write(cluster.set_downgrade(false, "3.6.0"));
    assert_eq!(
        &buckets.0[&(Bucket::Cluster, Bytes::from_static(schema::DOWNGRADE))][..],
        br#"{"target-version":"","enabled":false}"#
    );
    assert_eq!(buckets.read(), cluster);
    assert_eq!(cluster.conf_state().voters, [2, 3]);
}

#[test]
fn an_update_changes_peer_urls_only() {
    let mut cluster = Cluster::new(1, 2);
    cluster.apply_conf_change(&add(Member { is_learner: true, ..member(3, "http://c:1") }), 1).unwrap();
    cluster.update_attributes(3, "c", &["http://c:2".to_owned()]).unwrap();
    // Before 3.5.31 and 3.6.12 an update of a learner also promoted it.
    cluster.apply_conf_change(&update(3, "http://c:3"), 1).unwrap();
    let member = cluster.member(3).unwrap();
    assert!(member.is_learner);
    assert_eq!((member.name.as_str(), member.client_urls.len()), ("c", 1));
    assert_eq!(member.peer_urls, ["http://c:3"]);
}

#[test]
fn a_refused_change_is_nothing_to_raft() {
    let cluster = Cluster::new(1, 2);
    let applied = cluster.conf_applied(7, &remove(5), true);
    assert_eq!((applied.change.node_id(), applied.index), (0, 7));
    assert_eq!(cluster.conf_applied(7, &remove(5), false).change.node_id(), 5);
}

#[test]
fn strict_reconfiguration_counts_started_voters() {
    let mut cluster = Cluster::new(1, 1);
    let mut with = |id: u64, started: bool, learner: bool| {
        let name = if started { "n".to_owned() } else { String::new() };
        cluster.members.insert(id, Member { id, name, is_learner: learner, ..Member::default() });
        cluster.clone()
    };
    let one = with(1, true, false);
    assert!(one.may_add_voter() && !one.may_remove_voter(1) && one.may_promote());
    let two = with(2, false, false);
    assert!(!two.may_add_voter(), "one of two started is no quorum of three");
    assert!(two.may_remove_voter(2) && !two.may_remove_voter(1));
    let two = with(2, true, false);
    assert!(two.may_add_voter());
    let three = with(3, false, false);
    assert!(!three.may_add_voter(), "two of four is no quorum");
    assert!(three.may_promote());
    let with_learner = with(4, true, true);
    assert!(!with_learner.may_add_voter(), "learners do not count");
}

#[test]
fn broken_records_are_named() {
    let read = |bad: (Bucket, &'static str, &'static str)| {
        Cluster::from_buckets(1, 2, |bucket| {
            if bucket == bad.0 { vec![(Bytes::from(bad.1), Bytes::from(bad.2))] } else { vec![] }
        })
        .unwrap_err()
        .to_string()
    };
    assert!(read((Bucket::Members, "zz", "{}")).starts_with("bucket members, key \"zz\""));
    assert!(read((Bucket::Members, "a", "{")).contains("key \"a\""));
    assert!(read((Bucket::Members, "a", r#"{"id":11}"#)).contains("that of member b"));
    assert!(read((Bucket::MembersRemoved, "-", "removed")).contains("members_removed"));
    assert!(read((Bucket::Cluster, "clusterVersion", "x")).contains("not a version"));
    assert!(read((Bucket::Cluster, "downgrade", "x")).contains("downgrade"));
}

/// Found by random clusters: the last voter was removed while learners remained, and raft had no configuration left.
#[test]
fn the_last_voter_cannot_be_removed() {
    let mut cluster = Cluster::new(1, 2);
    cluster.apply_conf_change(&add(member(2, "http://a:1")), 1).unwrap();
    cluster.apply_conf_change(&add(Member { is_learner: true, ..member(3, "http://b:1") }), 1).unwrap();
    let before = cluster.clone();
    assert_eq!(cluster.apply_conf_change(&remove(2), 1), Err(ErrorCode::MemberNotEnoughStarted));
    assert_eq!(cluster, before);
    assert!(cluster.apply_conf_change(&remove(3), 1).is_ok(), "a learner may go");
    assert_eq!(cluster.apply_conf_change(&remove(2), 1), Err(ErrorCode::MemberNotEnoughStarted));
}
