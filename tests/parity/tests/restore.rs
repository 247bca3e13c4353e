//! Backups: what one side saves, the other restores, and either server starts from it.

use std::path::Path;

use harness::{Binaries, Member, Options, go_release, ours, run};
use parity::Ctl;

/// Restores `backup` with one tool, starts one server on it, and returns all keys it has.
fn restored(tool: &Path, backup: &Path, server: &Binaries, ctl: &Path, scratch: &Path) -> String {
    let dir = scratch.join(format!("restored-by-{}", server.label));
    let (backup, data) = (backup.display().to_string(), format!("--data-dir={}", dir.display()));
    run(tool, &["snapshot", "restore", &backup, &data]).ok();
    let mut member = Member::start(server, &dir, Options::default());
    let keys = Ctl::new(ctl, &member).everything();
    member.kill();
    std::fs::remove_dir_all(&dir).expect("scratch can be removed");
    keys
}

#[test]
fn backups_go_both_ways() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let scratch = scratch.path();
    for (saver, tools) in [(&ours, &go), (&go, &ours)] {
        let mut member = Member::start(saver, &scratch.join(format!("saved-{}", saver.label)), Options::default());
        let ctl = Ctl::new(&saver.etcdctl, &member);
        for i in 0..30 {
            ctl.ok(&format!("put /k/{i:02} value-{i}"));
        }
        ctl.ok("del /k/0 --prefix");
        let backup = scratch.join(format!("{}.db", saver.label));
        ctl.ok(&format!("snapshot save {}", backup.display()));
        let keys = ctl.everything();
        member.kill();
        let tool = tools.etcdutl.as_ref().expect("both have etcdutl");
        for server in [&ours, &go] {
            assert_eq!(restored(tool, &backup, server, &go.etcdctl, scratch), keys, "saved by {}", saver.label);
        }
    }
}

#[test]
fn a_spoilt_backup_is_refused() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let backup = scratch.path().join("spoilt.db");
    std::fs::write(&backup, vec![7; 8192 + 32]).expect("scratch is writable");
    let data = format!("--data-dir={}", scratch.path().join("d").display());
    let output = run(&ours().etcdctl, &["snapshot", "restore", &backup.display().to_string(), &data]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("Error: expected sha256"), "{}", output.stderr);
}
