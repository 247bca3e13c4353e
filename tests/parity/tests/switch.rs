//! One data directory, several servers after each other: Go, ours, Go again. Each leg writes, deletes, compacts and
//! grants leases, and ends with `kill -9`; the next must find every key, every lease and the same hash.

use std::path::Path;

use harness::{Binaries, Member, Options, go_release, ours, run};
use parity::Ctl;

/// What one leg does, with keys of its own.
fn work(ctl: &Ctl<'_>, leg: usize) {
    for i in 0..40 {
        ctl.ok(&format!("put /leg{leg}/{i:02} value-{leg}-{i}"));
    }
    ctl.ok(&format!("del /leg{leg}/0 --prefix"));
    ctl.ok_with("txn", &format!("version(\"/leg{leg}/10\") = \"1\"\n\nput /txn/{leg} yes\ndel /leg{leg}/11\n\nput /txn/{leg} no\n\n"));
    let granted = ctl.ok("lease grant 3600");
    let lease = granted.split(' ').nth(1).expect("etcdctl prints the id second").to_string();
    ctl.ok(&format!("put /leased/{leg} x --lease={lease}"));
    let revision: i64 = ctl.hash().split(", ").nth(1).and_then(|r| r.parse().ok()).unwrap_or(0);
    if revision > 20 {
        ctl.ok(&format!("compaction {}", revision - 10));
    }
    for i in 20..30 {
        ctl.ok(&format!("put /leg{leg}/{i} again"));
    }
}

/// What the next server must find unchanged. 3.5's etcdctl prints no hash revision, so only the hash is compared.
fn state(ctl: &Ctl<'_>) -> (String, String, Vec<String>) {
    let mut leases: Vec<String> = ctl.ok("lease list").lines().map(str::to_string).collect();
    leases.sort();
    let hash = ctl.hash().split(',').next().unwrap_or_default().to_string();
    (ctl.everything(), hash, leases)
}

fn switch(go: &Binaries, flags: &[&str]) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let dir = scratch.path().join("member");
    let ours = ours();
    let our_options = || Options { flags: flags.iter().map(ToString::to_string).collect(), ..Options::default() };
    let mut member = Member::start(go, &dir, Options::default());
    let mut before = None;
    for leg in 0..4 {
        let ctl = Ctl::new(&go.etcdctl, &member);
        if let Some(before) = before.take() {
            assert_eq!(state(&ctl), before, "leg {leg}, after {}", member.binaries().label);
        }
        work(&ctl, leg);
        before = Some(state(&ctl));
        member.kill();
        check_file(&dir);
        if leg % 2 == 0 {
            member.swap(&ours, our_options());
        } else {
            member.swap(go, Options::default());
        }
        member.start_again();
    }
    assert_eq!(Some(state(&Ctl::new(&go.etcdctl, &member))), before);
}

/// bbolt's own check of the file, by the newest tool there is.
fn check_file(dir: &Path) {
    let Some(Binaries { bbolt: Some(bbolt), .. }) = go_release("3.7.3") else { return };
    let db = dir.join("member/snap/db");
    let output = run(&bbolt, &["check", &db.display().to_string()]);
    assert_eq!((output.code, output.stdout.trim()), (0, "OK"), "{}", output.stderr);
}

#[test]
fn a_directory_goes_from_3_7_to_ours_and_back() {
    let Some(go) = go_release("3.7.3") else { return };
    switch(&go, &[]);
}

#[test]
fn a_directory_goes_from_3_6_to_ours_and_back() {
    let Some(go) = go_release("3.6.16") else { return };
    switch(&go, &["--emulated-version=3.6"]);
}

#[test]
fn a_directory_goes_from_3_5_to_ours_and_back() {
    let Some(go) = go_release("3.5.35") else { return };
    switch(&go, &["--emulated-version=3.5"]);
}

#[test]
fn a_directory_of_3_4_opens_and_goes_forward() {
    let (Some(old), Some(new)) = (go_release("3.4.23"), go_release("3.7.3")) else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let dir = scratch.path().join("member");
    let environment = vec![("ETCDCTL_API".to_string(), "3".to_string())];
    let mut member = Member::start(&old, &dir, Options { environment, ..Options::default() });
    let ctl = Ctl::new(&new.etcdctl, &member);
    for i in 0..20 {
        ctl.ok(&format!("put /old/{i:02} {i}"));
    }
    let before = ctl.everything();
    member.kill();
    member.swap(&ours(), Options::default());
    member.start_again();
    let ctl = Ctl::new(&new.etcdctl, &member);
    assert_eq!(ctl.everything(), before);
    ctl.ok("put /new 1");
    assert!(ctl.ok("endpoint status").contains(", 3.7.3, "));
}
