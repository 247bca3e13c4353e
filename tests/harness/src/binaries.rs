//! Where the programs of a release are.

use std::path::{Path, PathBuf};

/// The programs of one release.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// What to call it in messages: `ours`, `3.7.3`.
    pub label: String,
    /// The server.
    pub etcd: PathBuf,
    /// The client tool.
    pub etcdctl: PathBuf,
    /// The file tool; missing before 3.5.
    pub etcdutl: Option<PathBuf>,
    /// bbolt's own tool, where it was built with the release.
    pub bbolt: Option<PathBuf>,
}

/// Our programs, built by `cargo xtask test` before the tests that need them.
///
/// Panics when they are not built: such a test can say nothing.
pub fn ours() -> Binaries {
    let dir = match std::env::var_os("MAINSTAY_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => built_dir(),
    };
    let program = |name: &str| {
        let path = dir.join(name);
        assert!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
        path
    };
    Binaries {
        label: "ours".into(),
        etcd: program("etcd"),
        etcdctl: program("etcdctl"),
        etcdutl: Some(program("etcdutl")),
        bbolt: None,
    }
}

/// The folder of the profile that the running test was built with.
fn built_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let deps = test.parent().expect("a test lies in a folder");
    let dir = if deps.ends_with("deps") { deps.parent().expect("deps lies in the profile's folder") } else { deps };
    dir.to_path_buf()
}

/// The programs of a Go release (`3.7.3`, `3.6.16`, `3.5.35`, `3.4.23`), where `cargo xtask peers` put them.
///
/// `None`, said loudly, where they are missing; under CI (`CI=true`) that is a failure.
pub fn go_release(version: &str) -> Option<Binaries> {
    let found = if version == "3.4.23" { debian() } else { cached(version) };
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "Go etcd {version} is missing: run `cargo xtask peers`; CI does not pass without it"
        );
        eprintln!("SKIPPED: Go etcd {version} is not installed; run `cargo xtask peers` to compare with it");
    }
    found
}

fn cached(version: &str) -> Option<Binaries> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    let dir = cache.join("etcd-peers").join(version);
    let program = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    Some(Binaries {
        label: version.into(),
        etcd: program("etcd")?,
        etcdctl: program("etcdctl")?,
        etcdutl: program("etcdutl"),
        bbolt: program("bbolt"),
    })
}

fn debian() -> Option<Binaries> {
    let program = |name: &str| Some(Path::new("/usr/bin").join(name)).filter(|path| path.exists());
    Some(Binaries {
        label: "3.4.23".into(),
        etcd: program("etcd")?,
        etcdctl: program("etcdctl")?,
        etcdutl: None,
        bbolt: None,
    })
}
