//! One `defrag` gives the space back, as in etcd: the file is small when the command returns.
//!
//! Readers hold views of the file, and a page that a view reaches cannot be moved over. The first version moved pages
//! without asking readers to let go, so a first defragmentation freed nothing and only a second one did.

use harness::{Binaries, Member, Options, go_release, ours};
use parity::Ctl;

/// Size of the database file before and after, in bytes.
fn shrink(binaries: &Binaries) -> (u64, u64) {
    let scratch = tempfile::tempdir().expect("scratch");
    let member = Member::start(binaries, &scratch.path().join("d"), Options::default());
    let ctl = Ctl::new(&binaries.etcdctl, &member);
    let value = "x".repeat(100_000);
    for i in 0..200 {
        ctl.ok_with(&format!("put k{}", i % 4), &value);
    }
    let file = member.data_dir().join("member/snap/db");
    let size = || std::fs::metadata(&file).expect("the database is there").len();
    assert!(ctl.ok("compaction 201 --physical").contains("compacted revision 201"));
    let before = size();
    assert!(ctl.ok("defrag").contains("Finished defragmenting etcd member"));
    let after = size();
    assert_eq!(ctl.ok("get k --prefix --keys-only").split_whitespace().count(), 4);
    drop(member);
    if let Some(bbolt) = go_release("3.7.3").and_then(|go| go.bbolt) {
        let path = file.to_str().expect("scratch paths are text");
        harness::run(&bbolt, &["check", path]).ok();
    }
    (before, after)
}

#[test]
fn one_defragmentation_gives_the_space_back() {
    for binaries in go_release("3.7.3").into_iter().chain([ours()]) {
        let (before, after) = shrink(&binaries);
        // Ours keeps some megabytes in reserve, for the deletes of a full disk.
        assert!(before > 18_000_000 && after < before / 2, "{}: {before} to {after}", binaries.label);
    }
}
