//! `cargo xtask dist`: the tarball of a release, laid out as etcd's own.
//!
//! ```text
//! etcd-v3.7.3-linux-amd64/
//!   etcd  etcdctl  etcdutl
//!   README.md  COMPAT.md  LICENSE
//!   Documentation/...
//! ```

use std::path::Path;

use crate::shell::{Cmd, Doing, Failure, Result, root, target_dir};

const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

pub(crate) fn run() -> Result<()> {
    Cmd::cargo(["build", "--profile", "dist", "--bins"])
        .args(PROGRAMS.iter().flat_map(|p| ["--package", p]))
        .run()?;
    let built = target_dir().join("dist");
    let name = name()?;
    let folder = built.join(&name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).doing(folder.display())?;
    }
    std::fs::create_dir_all(&folder).doing(folder.display())?;
    for program in PROGRAMS {
        copy(&built.join(program), &folder.join(program))?;
    }
    for document in ["README.md", "COMPAT.md", "LICENSE"] {
        copy(&root().join(document), &folder.join(document))?;
    }
    copy_tree(&root().join("docs"), &folder.join("Documentation"))?;

    // The same commit gives the same bytes: sorted, owned by nobody in particular, dated by the commit.
    let date = Cmd::new("git").args(["log", "-1", "--format=%ct"]).output()?;
    let tarball = format!("{name}.tar.gz");
    Cmd::new("tar")
        .dir(&built)
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            &format!("--mtime=@{}", date.trim()),
        ])
        .args(["--use-compress-program=gzip -n9", "-cf", &tarball, &name])
        .run()?;
    println!("{}", built.join(tarball).display());
    Ok(())
}

/// As etcd names its releases, with Go's words for system and processor.
fn name() -> Result<String> {
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(Failure::new(format!("etcd has no releases for {other}"))),
    };
    Ok(format!("etcd-v{}-{}-{processor}", env!("CARGO_PKG_VERSION"), std::env::consts::OS))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).doing(from.display()).map(drop)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).doing(to.display())?;
    for entry in std::fs::read_dir(from).doing(from.display())? {
        let entry = entry.doing(from.display())?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}
