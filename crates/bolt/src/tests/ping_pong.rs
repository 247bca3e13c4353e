//! One file handed back and forth between this engine and Go's bbolt: both keep all of the other's content, and
//! `bbolt check` finds nothing wrong after any turn.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk::Disk;
use disk::os::OsDisk;

use crate::tests::support::{Changes, check, dump, small};
use crate::{Db, Options, SyncMode, View};

/// Says why nothing was compared; under CI that is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}; CI does not pass without it");
    eprintln!("SKIPPED: {why}; files are not exchanged with Go's bbolt");
}

/// Builds the program that writes with the bbolt of this module file.
fn writer(modfile: &str, out: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/bbolt");
    let program = out.join(modfile);
    let built = Command::new("go")
        .args(["build", "-buildvcs=false", "-modfile", modfile, "-o"])
        .arg(&program)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .current_dir(source)
        .output()
        .ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

fn run(program: &Path, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {arguments:?} on {}: {out}{err}", program.display(), file.display());
    out.into_owned()
}

/// The line that the Go program prints for the same content.
fn digest(view: &View) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    let mut count = 0;
    for (name, entries) in dump(view) {
        add(&name);
        for (key, value) in entries {
            add(&key);
            add(&value);
            count += 1;
        }
    }
    format!("{hash:016x} {count}")
}

fn game(seed: u64, options: &Options, writer: &Path, checker: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let name = path.to_str().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let mut changes = Changes::new(seed);
    for round in 0..4 {
        let mut db = Db::open(&disk, &path, options.clone()).unwrap();
        check(&db, "Go's file");
        let view = db.reader().view();
        changes.adopt(dump(&view));
        drop(view);
        for _ in 0..10 {
            db.commit(&changes.next()).unwrap();
        }
        if round == 2 {
            while !db.defragment_step().unwrap().done {}
        }
        check(&db, "our file");
        assert!(dump(&db.reader().view()) == changes.model);
        let ours = digest(&db.reader().view());
        db.close().unwrap();
        assert_eq!(run(checker, &["check", name], &path).trim(), "OK");

        let seed = (seed * 100 + round).to_string();
        let mut arguments = vec![name, &seed, "10"];
        if round % 2 == 1 {
            arguments.push("synced");
        }
        let said = run(writer, &arguments, &path);
        let (found, left) = said.trim().split_once('\n').unwrap();
        assert_eq!(found, ours, "seed {seed}: what Go finds");
        assert_eq!(run(checker, &["check", name], &path).trim(), "OK");
        let db = Db::open(&disk, &path, options.clone()).unwrap();
        assert_eq!(digest(&db.reader().view()), left, "seed {seed}: what Go left");
    }
}

#[test]
fn a_file_goes_back_and_forth_between_us_and_go() {
    let programs = tempfile::tempdir().unwrap();
    for (release, modfile) in [("3.6.16", "bbolt-1.4.3.mod"), ("3.7.3", "go.mod")] {
        let Some(checker) = harness::go_release(release).and_then(|release| release.bbolt) else {
            return skip(&format!("the bbolt tool of Go etcd {release} is missing"));
        };
        let Some(writer) = writer(modfile, programs.path()) else {
            return skip("there is no Go to build a writer with");
        };
        for (seed, leaf_pages, sync) in
            [(1, 1, SyncMode::Full), (2, 4, SyncMode::Lazy), (3, 12, SyncMode::Full)]
        {
            let options = Options { leaf_pages, sync, ..small() };
            game(seed, &options, &writer, &checker);
        }
    }
}
